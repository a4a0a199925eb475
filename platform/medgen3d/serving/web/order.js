/** The form in which pairs are ordered: what can be chosen, and the request that is made of it. */

import { cardElements } from "./card.js";
import { byId, make } from "./dom.js";
import * as service from "./service.js";

const number = (id) => (byId(id).value === "" ? null : byId(id).valueAsNumber);

export class OrderForm {
  #pipelines = new Map();
  #key = null;

  /** onJob: Called with the status of an accepted job. onRefusal: Called with what was refused, and must say so. */
  constructor({ onJob, onRefusal }) {
    Object.assign(this, { onJob, onRefusal });
    byId("pipeline").addEventListener("change", () => this.#choose());
    byId("new-seed").addEventListener("click", () => this.#rollSeed());
    byId("mask").addEventListener("change", () => this.#maskChanged());
    byId("no-mask").addEventListener("click", () => this.#removeMask());
    byId("known").addEventListener("input", () => byId("known").setCustomValidity(""));
    byId("order").addEventListener("change", () => {
      this.#key = null; // another order
      this.#showKnown();
    });
    byId("order").addEventListener("submit", (event) => {
      event.preventDefault();
      this.#submit();
    });
  }

  /** Offer pipelines (PipelineSummary). */
  offer(pipelines) {
    this.#pipelines = new Map(pipelines.map((pipeline) => [pipeline.name, pipeline]));
    byId("pipeline").replaceChildren(
      ...pipelines.map(({ name, version }) => make("option", { value: name }, `${name}, version ${version}`)),
    );
    byId("submit").disabled = !pipelines.length;
    byId("order-problem").textContent = pipelines.length ? "" : "This service offers no pipeline yet.";
    if (pipelines.length) this.#choose();
  }

  async #choose() {
    const pipeline = this.#pipelines.get(byId("pipeline").value);
    const { limits } = pipeline;
    byId("count").max = limits.max_count;
    byId("count-hint").textContent = `1 to ${limits.max_count}`;
    byId("depth").max = limits.max_depth;
    byId("depth-hint").textContent = `1 to ${limits.max_depth} slices`;
    pipeline.spacing_mm.forEach((length, axis) => (byId(`spacing-${"dhw"[axis]}`).placeholder = length));
    byId("facts").replaceChildren(...facts(pipeline));
    byId("card-box").hidden = true;
    const { card } = await service.pipeline(pipeline.name).catch(() => ({ card: "" }));
    if (byId("pipeline").value !== pipeline.name) return; // another one was chosen meanwhile
    byId("card").replaceChildren(...cardElements(card));
    byId("card-box").hidden = !card;
  }

  #rollSeed() {
    byId("seed").value = crypto.getRandomValues(new Uint32Array(1))[0] % 1_000_000; // short enough to be read out
    this.#key = null;
  }

  #removeMask() {
    byId("mask").value = "";
    this.#maskChanged();
    byId("mask").focus();
  }

  #maskChanged() {
    const isThere = byId("mask").files.length > 0;
    byId("mask-use").hidden = !isThere;
    byId("depth").disabled = isThere; // a mask has its own depth
    this.#key = null;
    this.#showKnown();
  }

  #showKnown() {
    byId("known-box").hidden = this.#maskUse() !== "partial";
  }

  #maskUse() {
    return byId("mask").files.length ? byId("order").elements["mask-use"].value : null;
  }

  #request() {
    const spacing_mm = ["d", "h", "w"].map((axis) => number(`spacing-${axis}`));
    const isPartial = this.#maskUse() === "partial";
    return {
      pipeline: byId("pipeline").value,
      count: number("count"),
      seed: number("seed"),
      depth: byId("depth").disabled ? null : number("depth"),
      style: number("style"),
      spacing_mm: spacing_mm.some((length) => length !== null) ? this.#wholeSpacing(spacing_mm) : null,
      mask_use: this.#maskUse(),
      known_slices: isPartial ? knownSlices(byId("known").value) : null,
    };
  }

  #wholeSpacing(spacing_mm) {
    const { spacing_mm: own } = this.#pipelines.get(byId("pipeline").value);
    return spacing_mm.map((length, axis) => length ?? own[axis]);
  }

  async #submit() {
    byId("order-problem").textContent = "";
    let request;
    try {
      request = this.#request();
    } catch (error) {
      byId("known").setCustomValidity(error.message);
      byId("known").reportValidity();
      return;
    }
    this.#key ??= [...crypto.getRandomValues(new Uint32Array(4))]
      .map((part) => part.toString(16).padStart(8, "0"))
      .join("");
    byId("submit").disabled = true;
    try {
      const job = await service.submit(request, byId("mask").files[0], this.#key);
      this.#key = null;
      this.onJob(job);
    } catch (error) {
      if (error.status) this.#key = null; // with no answer, the job may be there: the next try must not make another
      this.onRefusal(error);
    } finally {
      byId("submit").disabled = false;
    }
  }
}

/** "0-2, 9" -> [0, 1, 2, 9]; null if nothing is given. */
export function knownSlices(text) {
  if (!text.trim()) return null;
  return text.split(",").flatMap((part) => {
    const [, first, last = first] = /^\s*(\d+)(?:\s*-\s*(\d+))?\s*$/.exec(part) ?? [];
    const [from, to] = [Number(first), Number(last)];
    if (!(from <= to && to < 10_000)) throw new Error(`Known slices read like 0-4, 9; got "${part.trim()}".`);
    return Array.from({ length: to - from + 1 }, (_, step) => from + step);
  });
}

function facts({ modality, phantom, labels, spacing_mm, limits }) {
  const names = Object.entries(labels)
    .filter(([id]) => id !== "0")
    .map(([id, name]) => make("li", {}, `${name} `, make("span", { className: "quiet number" }, id)));
  const rows = {
    Makes: phantom ? `${modality} of phantoms, not of anatomy` : modality,
    Labels: make("ul", { className: "chips" }, ...names),
    "Voxel size": `${spacing_mm.join(" × ")} mm (slices, rows, columns)`,
    "At most": `${limits.max_count} pairs, ${limits.max_depth} slices of ${limits.plane.join("\u00a0×\u00a0")}`,
  };
  return Object.entries(rows).flatMap(([name, value]) => [make("dt", {}, name), make("dd", {}, value)]);
}
