// The mesh in three.js, with the photo as its texture.

import * as three from "three";
import { OrbitControls } from "three/examples/jsm/controls/OrbitControls.js";
import { GLTFExporter } from "three/examples/jsm/exporters/GLTFExporter.js";

import type { Chart } from "./atlas";
import type { Face } from "./face";
import { Painter } from "./painter";
import { smoothNormals } from "./raster";

const ROUGHNESS = 0.9; // as for skin in the command's GLB
const HELP = "the face in 3D; drag or arrow keys turn it, + and - change its size";
const KEY_TURN = 0.15; // radians
const KEY_ZOOM = 1.15;
// With this light, a surface facing the viewer has about the texture's own colors.
const [AMBIENT, DIRECT] = [0.6 * Math.PI, 0.5 * Math.PI];
const SWING = 0.5; // radians
const SWING_SECONDS = 6;
const MM = 0.001; // glTF is in meters

export class View {
  private renderer?: three.WebGLRenderer; // missing if the browser has no WebGL
  private readonly scene = new three.Scene();
  private readonly camera = new three.PerspectiveCamera(24, 1, 10, 5000);
  private controls?: OrbitControls;
  private readonly canvas = document.createElement("canvas");
  private readonly painter: Painter;
  private readonly texture: three.CanvasTexture;
  private readonly mesh: three.Mesh<three.BufferGeometry, three.MeshStandardMaterial>;
  private readonly pivot = new three.Group(); // at the face's center, the center of rotation
  private turning = !matchMedia("(prefers-reduced-motion: reduce)").matches;
  private readonly turned = new three.Euler(); // rotation by keys
  private shown = 0; // counts requests to show something
  private changed = true; // since the last drawing
  private inSight = false;
  private painted?: Promise<unknown>;

  constructor(
    private readonly home: HTMLElement,
    private readonly chart: Chart,
    maps: ArrayBuffer,
  ) {
    this.painter = new Painter(chart, maps);
    this.canvas.width = this.canvas.height = chart.texture.size;
    this.texture = new three.CanvasTexture(this.canvas);
    this.texture.colorSpace = three.SRGBColorSpace;
    const geometry = new three.BufferGeometry().setIndex(chart.triangles);
    geometry.setAttribute("uv", new three.BufferAttribute(Float32Array.from(chart.uv), 2));
    this.mesh = new three.Mesh(geometry, new three.MeshStandardMaterial({ map: this.texture, roughness: ROUGHNESS }));
    this.mesh.material.side = three.DoubleSide;
    this.mesh.visible = false;
    const lamp = new three.DirectionalLight(0xffffff, DIRECT);
    lamp.position.set(-0.4, 0.5, 1);
    this.scene.add(this.pivot.add(this.mesh), new three.AmbientLight(0xffffff, AMBIENT), lamp);
    if (document.createElement("canvas").getContext("webgl2")) this.open();
    else home.textContent = "This browser has no WebGL to show the face in 3D; the GLB file has it.";
  }

  private open(): void {
    this.renderer = new three.WebGLRenderer({ antialias: true, alpha: true });
    const screen = this.renderer.domElement;
    Object.assign(screen, { tabIndex: 0, role: "application", ariaLabel: HELP, title: HELP });
    screen.addEventListener("keydown", (event) => this.press(event));
    this.home.append(screen);
    this.controls = new OrbitControls(this.camera, screen);
    this.controls.addEventListener("start", () => (this.turning = false));
    this.controls.addEventListener("change", () => (this.changed = true));
    this.controls.enablePan = false;
    screen.addEventListener("webglcontextrestored", () => (this.changed = true));
    new ResizeObserver(() => this.resize()).observe(this.home);
    new IntersectionObserver((seen) => (this.inSight = seen.at(-1)!.isIntersecting)).observe(this.home);
    this.renderer.setAnimationLoop((ms) => this.draw(ms / 1000));
  }

  /** Show a photo's face after its texture is painted; return the ms that this took. */
  async show(face: Face, photo: ImageData): Promise<number> {
    const order = ++this.shown;
    const painted = (this.painted = this.painter.paint(photo, face.posed));
    const { pixels, ms } = await painted;
    if (order === this.shown) {
      this.wear(pixels);
      this.place(face.vertices);
    }
    return ms;
  }

  /** Show a face of a video at once; its texture follows as soon as it is painted. */
  async follow(face: Face, photo: ImageData): Promise<void> {
    if (this.mesh.visible) this.place(face.vertices);
    if (this.painter.isBusy) return;
    const order = ++this.shown;
    const painted = (this.painted = this.painter.paint(photo, face.posed));
    const { pixels } = await painted;
    if (order !== this.shown) return;
    this.wear(pixels);
    if (!this.mesh.visible) this.place(face.vertices);
  }

  private wear(pixels: Uint8ClampedArray<ArrayBuffer>): void {
    const { size } = this.chart.texture;
    this.canvas.getContext("2d")!.putImageData(new ImageData(pixels, size, size), 0, 0);
    this.texture.needsUpdate = true;
    this.changed = true;
  }

  private place(vertices: Float32Array): void {
    const geometry = this.mesh.geometry;
    const normals = smoothNormals(vertices, this.chart.triangles, this.chart.place);
    geometry.setAttribute("position", new three.BufferAttribute(vertices.slice(), 3));
    geometry.setAttribute("normal", new three.BufferAttribute(normals, 3));
    geometry.computeBoundingSphere();
    if (!this.mesh.visible) this.aim(geometry.boundingSphere!);
    this.mesh.visible = true;
    this.changed = true;
  }

  async glb(): Promise<ArrayBuffer> {
    await this.painted;
    const copy = this.mesh.clone();
    copy.position.set(0, 0, 0);
    copy.scale.setScalar(MM);
    return (await new GLTFExporter().parseAsync(copy, { binary: true })) as ArrayBuffer;
  }

  private aim({ center, radius }: three.Sphere): void {
    this.mesh.position.copy(center).negate();
    const distance = (1.05 * radius) / Math.sin((this.camera.fov * Math.PI) / 360);
    this.camera.position.set(0, 0, distance);
  }

  /** Show no face. */
  clear(): void {
    this.shown++;
    this.mesh.visible = false;
    this.changed = true;
  }

  private press(event: KeyboardEvent): void {
    const [x, y] = { ArrowLeft: [0, -1], ArrowRight: [0, 1], ArrowUp: [-1, 0], ArrowDown: [1, 0] }[event.key] ?? [0, 0];
    const zoom = { "+": 1 / KEY_ZOOM, "-": KEY_ZOOM }[event.key] ?? 1;
    if (!x && !y && zoom === 1) return;
    event.preventDefault();
    this.turning = false;
    this.turned.x += KEY_TURN * x;
    this.turned.y += KEY_TURN * y;
    this.camera.position.multiplyScalar(zoom);
    this.changed = true;
  }

  /** Draw only if something has changed or moves, to save a phone's power. */
  private draw(seconds: number): void {
    const moves = this.turning && this.mesh.visible;
    if (!this.inSight || !(moves || this.changed)) return;
    this.changed = false;
    const swing = this.turning ? SWING * Math.sin((2 * Math.PI * seconds) / SWING_SECONDS) : 0;
    this.pivot.rotation.set(this.turned.x, this.turned.y + swing, 0);
    this.controls!.update();
    this.renderer!.render(this.scene, this.camera);
  }

  private resize(): void {
    const { clientWidth, clientHeight } = this.home;
    if (!clientWidth) return; // it is hidden
    this.renderer!.setPixelRatio(window.devicePixelRatio);
    this.renderer!.setSize(clientWidth, clientHeight);
    this.camera.aspect = clientWidth / clientHeight;
    this.camera.updateProjectionMatrix();
    this.changed = true;
  }
}
