/** The pairs of a finished job: which one is shown, and saving them as files. */

import { announce, byId, make } from "./dom.js";
import { readNifti } from "./nifti.js";
import * as service from "./service.js";
import { Viewer } from "./viewer.js";

const MEGABYTE = 1e6;

export class Pairs {
  #viewer = new Viewer();
  #files = new Map(); // of the pair shown, as they came: path -> Blob

  /** onRefusal: Called with what the service refused. */
  constructor({ onRefusal }) {
    this.onRefusal = onRefusal;
    byId("pair").addEventListener("change", () => this.#guard(() => this.#show()));
    byId("previous-pair").addEventListener("click", () => this.#step(-1));
    byId("next-pair").addEventListener("click", () => this.#step(1));
    byId("save-image").addEventListener("click", () => this.#save("image"));
    byId("save-mask").addEventListener("click", () => this.#save("label"));
    byId("save-all").addEventListener("click", () => this.#saveAll());
  }

  hide() {
    this.job = null;
    byId("viewer").hidden = true;
  }

  /** Open the result of a job that has succeeded. */
  async open(job) {
    this.job = job;
    await this.#guard(async () => {
      const set = JSON.parse(await (await service.resultFile(job.id, "dataset.json")).text());
      if (this.job !== job) return;
      this.pairs = set.training.map(({ image, label }) => ({
        image: image.replace("./", ""),
        label: label.replace("./", ""),
      }));
      this.labels = new Map(Object.entries(set.labels).map(([name, id]) => [id, name]));
      this.unit = set.modality["0"] === "CT" ? "HU" : "";
      byId("pair").replaceChildren(
        ...this.pairs.map((_, place) => make("option", { value: place }, `${place + 1} of ${this.pairs.length}`)),
      );
      byId("save-all").textContent = `Save all (zip, ${(job.result_bytes / MEGABYTE).toFixed(1)} MB)`;
      byId("viewer").hidden = false;
      await this.#show();
    });
  }

  get #pair() {
    return this.pairs[Number(byId("pair").value)];
  }

  #step(by) {
    byId("pair").selectedIndex += by;
    this.#guard(() => this.#show());
  }

  async #show() {
    const [pair, job, place] = [this.#pair, this.job, byId("pair").selectedIndex];
    byId("previous-pair").disabled = place === 0;
    byId("next-pair").disabled = place === this.pairs.length - 1;
    const files = await Promise.all([pair.image, pair.label].map((path) => service.resultFile(job.id, path)));
    const volumes = await Promise.all(files.map(readNifti));
    if (this.job !== job || this.#pair !== pair) return; // another one was chosen meanwhile
    this.#files = new Map([
      [pair.image, files[0]],
      [pair.label, files[1]],
    ]);
    const sentence = this.#viewer.show(...volumes, this.labels, this.unit);
    announce(`Pair ${place + 1} of ${this.pairs.length} is shown: ${sentence}`);
  }

  #save(part) {
    const path = this.#pair[part];
    const prefix = part === "image" ? "image" : "mask";
    if (this.#files.has(path)) save(this.#files.get(path), `${prefix}_${path.split("/").at(-1)}`);
  }

  async #saveAll() {
    const { id } = this.job;
    byId("save-all").disabled = true;
    await this.#guard(async () => save(await service.wholeResult(id), `pairs_${id}.zip`));
    byId("save-all").disabled = false;
  }

  async #guard(action) {
    byId("viewer-problem").textContent = "";
    try {
      await action();
    } catch (error) {
      this.onRefusal(error);
    }
  }
}

/** Offer a file to the browser's downloads. The name is the page's; no address with a token is ever made. */
function save(file, name) {
  const address = URL.createObjectURL(file);
  make("a", { href: address, download: name }).click();
  setTimeout(() => URL.revokeObjectURL(address), 60_000);
}
