import { defineConfig } from "vite";

export default defineConfig({
  base: "./", // the page may be in any folder of a host
  build: { target: "es2022", chunkSizeWarningLimit: 1500 },
  worker: { format: "es" },
});
