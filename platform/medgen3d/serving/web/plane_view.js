/** One plane on the page: a canvas to point at, and a slider with its slice, for keyboard and screen reader. */

import { make } from "./dom.js";
import { greyPixels, maskPixels, sizeOf, voxelAt } from "./planes.js";

const EDGE_PX = 20; // for the letters around
const EDGE_WORDS = { R: "right", L: "left", A: "front", P: "back", S: "head", I: "feet" };

export class PlaneView {
  /**
   * plane: One of PLANES. onVoxel: Called with the voxel that is pointed at. onSlice: Called with a new slice index.
   * onDrag: Called with the way [CSS pixels] of a drag that changes the grey values.
   */
  constructor(plane, { onVoxel, onSlice, onDrag }) {
    Object.assign(this, { plane, onVoxel, onSlice, onDrag });
    const [left, , top] = plane.edges.map((edge) => EDGE_WORDS[edge]);
    this.canvas = make("canvas", {
      role: "img",
      ariaLabel: `${plane.name} plane; the patient's ${left} is at the left, the ${top} at the top`,
    });
    const id = `slice-${plane.name.toLowerCase()}`;
    this.number = make("span", { className: "number" });
    this.slider = make("input", { type: "range", id, min: 0, step: 1 });
    const label = make(
      "label",
      { for: id },
      make("span", {}, `${plane.name} `, make("span", { className: "unseen" }, "slice")),
      this.number,
    );
    this.root = make("div", { className: "plane" }, this.canvas, label, this.slider);
    this.slider.addEventListener("input", () => this.onSlice(this.slider.valueAsNumber));
    this.canvas.addEventListener("contextmenu", (event) => event.preventDefault());
    this.canvas.addEventListener("pointerdown", (event) => this.#press(event));
    this.canvas.addEventListener("pointermove", (event) => this.#move(event));
    this.canvas.addEventListener("wheel", (event) => this.#wheel(event), { passive: false });
  }

  /** Draw what `scene` shows: { image, mask, voxel, grey, colours, opacity, under }. */
  draw(scene) {
    this.scene = scene;
    const index = scene.voxel[this.plane.across];
    const count = scene.image.shape[this.plane.across];
    this.slider.max = count - 1;
    this.slider.valueAsNumber = index;
    this.number.textContent = `${index + 1} / ${count}`;
    this.slider.setAttribute("aria-valuetext", `${index + 1} of ${count}; under the crosshair: ${scene.under}`);
    this.#place();
    const context = this.canvas.getContext("2d");
    context.fillStyle = "#000";
    context.fillRect(0, 0, this.canvas.width, this.canvas.height);
    const picture = (pixels) => this.#picture(pixels, ...sizeOf(this.plane, scene.image));
    context.imageSmoothingEnabled = true;
    context.drawImage(picture(greyPixels(this.plane, scene.image, index, scene.grey)), ...this.box);
    context.imageSmoothingEnabled = false; // a label has hard edges
    context.globalAlpha = scene.opacity;
    context.drawImage(picture(maskPixels(this.plane, scene.mask, index, scene.colours)), ...this.box);
    context.globalAlpha = 1;
    this.#cross(context, scene);
    this.#edges(context);
  }

  /** Fit the volume into the canvas at one scale for all planes. */
  #place() {
    const { image } = this.scene;
    const side = Math.max(1, Math.round(this.canvas.clientWidth * devicePixelRatio));
    if (this.canvas.width !== side) this.canvas.width = this.canvas.height = side;
    const length_mm = image.shape.map((length, axis) => length * image.spacing_mm[axis]);
    const room = Math.max(1, side - 2 * EDGE_PX * devicePixelRatio);
    const scale = room / Math.max(...length_mm);
    const [width, height] = [length_mm[this.plane.columns] * scale, length_mm[this.plane.rows] * scale];
    this.box = [(side - width) / 2, (side - height) / 2, width, height];
  }

  #picture(pixels, width, height) {
    const picture = new OffscreenCanvas(width, height);
    picture.getContext("2d").putImageData(new ImageData(pixels, width, height), 0, 0);
    return picture;
  }

  #cross(context, { image, voxel }) {
    const [left, top, width, height] = this.box;
    const [columns, rows] = sizeOf(this.plane, image);
    const x = left + ((columns - 0.5 - voxel[this.plane.columns]) * width) / columns;
    const y = top + ((rows - 0.5 - voxel[this.plane.rows]) * height) / rows;
    const gap = 8 * devicePixelRatio;
    context.strokeStyle = "rgb(255 255 255 / 0.55)";
    context.lineWidth = devicePixelRatio;
    context.beginPath();
    for (const [fromX, fromY, toX, toY] of [
      [left, y, x - gap, y],
      [x + gap, y, left + width, y],
      [x, top, x, y - gap],
      [x, y + gap, x, top + height],
    ]) {
      if (fromX > toX || fromY > toY) continue;
      context.moveTo(fromX, fromY);
      context.lineTo(toX, toY);
    }
    context.stroke();
  }

  #edges(context) {
    const side = this.canvas.width;
    const margin = (EDGE_PX / 2) * devicePixelRatio;
    const [left, right, top, bottom] = this.plane.edges;
    context.font = `600 ${12 * devicePixelRatio}px system-ui, sans-serif`;
    context.textAlign = "center";
    context.textBaseline = "middle";
    context.fillStyle = "#ccc";
    for (const [letter, x, y] of [
      [left, margin, side / 2],
      [right, side - margin, side / 2],
      [top, side / 2, margin],
      [bottom, side / 2, side - margin],
    ]) {
      context.fillText(letter, x, y);
    }
  }

  #press(event) {
    if (!this.scene) return;
    this.canvas.setPointerCapture(event.pointerId);
    this.#move(event);
  }

  #move(event) {
    if (!this.scene || !this.canvas.hasPointerCapture(event.pointerId) || !event.buttons) return;
    if (event.shiftKey || event.buttons === 2) {
      this.onDrag(event.movementX, event.movementY);
      return;
    }
    const [left, top, width, height] = this.box;
    const [columns, rows] = sizeOf(this.plane, this.scene.image);
    const column = ((event.offsetX * devicePixelRatio - left) * columns) / width;
    const row = ((event.offsetY * devicePixelRatio - top) * rows) / height;
    this.onVoxel(voxelAt(this.plane, this.scene.image, this.scene.voxel[this.plane.across], column, row));
  }

  #wheel(event) {
    if (!this.scene) return;
    event.preventDefault();
    const index = this.scene.voxel[this.plane.across] - Math.sign(event.deltaY);
    this.onSlice(Math.min(Math.max(index, 0), this.slider.max));
  }
}
