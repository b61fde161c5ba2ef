// The mesh in three.js, with the photo as its texture.

import * as three from "three";
import { OrbitControls } from "three/examples/jsm/controls/OrbitControls.js";
import { GLTFExporter } from "three/examples/jsm/exporters/GLTFExporter.js";

import type { Face } from "./face";
import { type Chart, Painter } from "./texture";

const TEXTURE = 512;
const LIVE_TEXTURE = 256; // a camera's next frame waits
const SWING = 0.5; // radians
const SWING_SECONDS = 6;
const MM = 0.001; // glTF is in meters

export class View {
  private readonly renderer = new three.WebGLRenderer({ antialias: true, alpha: true });
  private readonly scene = new three.Scene();
  private readonly camera = new three.PerspectiveCamera(24, 1, 10, 5000);
  private readonly controls: OrbitControls;
  private readonly canvas = document.createElement("canvas");
  private readonly painters: Record<"photo" | "live", Painter>;
  private readonly texture: three.CanvasTexture;
  private readonly mesh: three.Mesh<three.BufferGeometry, three.MeshBasicMaterial>;
  private readonly pivot = new three.Group(); // at the face's center, which it turns about
  private turning = true;

  constructor(
    private readonly home: HTMLElement,
    chart: Chart,
  ) {
    this.painters = { photo: new Painter(chart, TEXTURE), live: new Painter(chart, LIVE_TEXTURE) };
    this.texture = new three.CanvasTexture(this.canvas);
    this.texture.colorSpace = three.SRGBColorSpace;
    const geometry = new three.BufferGeometry().setIndex(chart.triangles);
    geometry.setAttribute("uv", new three.BufferAttribute(Float32Array.from(chart.uv), 2));
    this.mesh = new three.Mesh(geometry, new three.MeshBasicMaterial({ map: this.texture }));
    this.mesh.material.side = three.DoubleSide;
    this.mesh.visible = false;
    this.scene.add(this.pivot.add(this.mesh));
    home.append(this.renderer.domElement);
    this.controls = new OrbitControls(this.camera, this.renderer.domElement);
    this.controls.addEventListener("start", () => (this.turning = false));
    this.controls.enablePan = false;
    new ResizeObserver(() => this.resize()).observe(home);
    this.renderer.setAnimationLoop((ms) => this.draw(ms / 1000));
  }

  show(face: Face, photo: ImageData, isLive: boolean): void {
    const painter = this.painters[isLive ? "live" : "photo"];
    if (this.canvas.width !== painter.size) {
      this.texture.dispose(); // it is of another size
      this.canvas.width = this.canvas.height = painter.size;
    }
    const pixels = new ImageData(painter.paint(face.posed, photo), painter.size, painter.size);
    this.canvas.getContext("2d")!.putImageData(pixels, 0, 0);
    this.texture.needsUpdate = true;
    const geometry = this.mesh.geometry;
    geometry.setAttribute("position", new three.BufferAttribute(face.vertices.slice(), 3));
    geometry.computeBoundingSphere();
    if (!this.mesh.visible) this.aim(geometry.boundingSphere!);
    this.mesh.visible = true;
  }

  async glb(): Promise<ArrayBuffer> {
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

  private draw(seconds: number): void {
    const angle = this.turning ? SWING * Math.sin((2 * Math.PI * seconds) / SWING_SECONDS) : 0;
    this.pivot.rotation.y = angle;
    this.controls.update();
    this.renderer.render(this.scene, this.camera);
  }

  private resize(): void {
    const { clientWidth, clientHeight } = this.home;
    this.renderer.setPixelRatio(window.devicePixelRatio);
    this.renderer.setSize(clientWidth, clientHeight);
    this.camera.aspect = clientWidth / clientHeight;
    this.camera.updateProjectionMatrix();
  }
}
