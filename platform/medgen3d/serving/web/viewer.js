/** A pair in three linked planes: crosshair, mask overlay, label legend, grey values. */

import { byId, make } from "./dom.js";
import { PlaneView } from "./plane_view.js";
import { PLANES, colour, greyRange, survey } from "./planes.js";

const short = (value) => new Intl.NumberFormat("en", { maximumSignificantDigits: 3, useGrouping: false }).format(value);

export class Viewer {
  #hidden = new Set(); // label ids that are switched off; kept from pair to pair
  #frame = 0;

  constructor() {
    this.planes = Object.values(PLANES).map(
      (plane) =>
        new PlaneView(plane, {
          onVoxel: (voxel) => this.#moveTo(voxel),
          onSlice: (index) => this.#moveTo(this.voxel.with(plane.across, index)),
          onDrag: (right, down) => this.#drag(right, down),
        }),
    );
    byId("planes").replaceChildren(...this.planes.map((plane) => plane.root));
    new ResizeObserver(() => this.#redraw()).observe(byId("planes"));
    for (const id of ["opacity", "window", "level"]) byId(id).addEventListener("input", () => this.#redraw());
    byId("reset-window").addEventListener("click", () => this.#resetWindow());
  }

  /**
   * Show a pair. labels: id -> name, in their order. unit: Of grey values, or an empty text.
   * Returns a sentence that says what is shown.
   */
  show(image, mask, labels, unit) {
    if (String(image.shape) !== String(mask.shape)) throw new Error("Image and mask of this pair differ in size.");
    Object.assign(this, { image, mask, labels });
    const { counts, middle } = survey(mask);
    this.voxel = middle;
    this.range = greyRange(image);
    byId("unit").textContent = unit && `in ${unit}`;
    const volumes = this.#legend(counts);
    this.#resetWindow();
    const [voxels, millimetres] = [image.shape.join(" by "), image.spacing_mm.map(short).join(" by ")];
    return `${voxels} voxels of ${millimetres} millimetres. ${volumes.join(", ")}.`;
  }

  #legend(counts) {
    const voxel_ml = this.image.spacing_mm.reduce((product, length) => product * length, 1) / 1000;
    const shown = [...this.labels].filter(([id]) => id !== 0);
    this.colours = new Map(shown.map(([id], place) => [id, colour(place)]));
    const entries = shown.map(([id, name]) => ({ id, name, volume: `${short((counts.get(id) ?? 0) * voxel_ml)} ml` }));
    byId("legend").replaceChildren(...entries.map((entry) => this.#legendEntry(entry)));
    return entries.map(({ name, volume }) => `${name} ${volume}`);
  }

  #legendEntry({ id, name, volume }) {
    const box = make("input", { type: "checkbox", checked: !this.#hidden.has(id) });
    box.addEventListener("change", () => {
      box.checked ? this.#hidden.delete(id) : this.#hidden.add(id);
      this.#redraw();
    });
    const swatch = make("span", { className: "swatch", ariaHidden: "true" });
    swatch.style.backgroundColor = `rgb(${this.colours.get(id).join(" ")})`;
    const label = make(
      "label",
      {},
      box,
      swatch,
      make("span", {}, name),
      " ",
      make("span", { className: "quiet number" }, `${id} · ${volume}`),
    );
    return make("li", {}, label);
  }

  #resetWindow() {
    const { least, largest, window, level } = this.range;
    const step = (largest - least) / 500;
    const set = (id, min, max, value) => Object.assign(byId(id), { min, max, step, value });
    set("window", step, largest - least, window);
    set("level", least, largest, level);
    this.#redraw();
  }

  #drag(right, down) {
    const step = (this.range.largest - this.range.least) / 500;
    byId("window").valueAsNumber += right * step;
    byId("level").valueAsNumber += down * step;
    this.#redraw();
  }

  #moveTo(voxel) {
    this.voxel = voxel;
    this.#redraw();
  }

  #redraw() {
    cancelAnimationFrame(this.#frame);
    this.#frame = requestAnimationFrame(() => this.#draw());
  }

  #draw() {
    if (!this.image) return;
    const grey = { window: byId("window").valueAsNumber, level: byId("level").valueAsNumber };
    const opacity = byId("opacity").valueAsNumber / 100;
    byId("opacity-value").textContent = `${Math.round(100 * opacity)} %`;
    byId("window-value").textContent = short(grey.window);
    byId("level-value").textContent = short(grey.level);
    const id = this.mask.at(this.voxel);
    const under = this.labels.get(id) ?? `label ${id}`;
    const colours = new Map([...this.colours].filter(([label]) => !this.#hidden.has(label)));
    const { image, mask, voxel } = this;
    for (const plane of this.planes) plane.draw({ image, mask, voxel, grey, colours, opacity, under });
    byId("readout").textContent = `Voxel ${voxel.join(", ")} · value ${short(image.at(voxel))} · ${under}`;
  }
}
