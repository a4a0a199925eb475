/** One job: its state, place in the queue, stages and what went wrong. */

import { announce, byId, make } from "./dom.js";
import { isFinal } from "./service.js";

const WORDS = { queued: "Waiting", running: "Drawing", succeeded: "Done", failed: "Failed", cancelled: "Cancelled" };

export const stateWord = (job) => WORDS[job.state];
export const pairs = (count) => (count === 1 ? "1 pair" : `${count} pairs`);

/** Show a JobStatus. */
export function showJob(job) {
  byId("job").hidden = false;
  document.title = `${stateWord(job)}: ${pairs(job.request.count)} – medgen3d`; // seen while another tab is open
  byId("job-title").textContent = `${pairs(job.request.count)} of ${job.pipeline}`;
  byId("job-state").textContent = stateWord(job);
  byId("job-state").className = `state ${job.state}`;
  byId("job-summary").textContent = summary(job);
  byId("job-problem").textContent = job.error;
  if (isFinal(job) && document.activeElement === byId("cancel")) byId("result").focus(); // its focus would be lost
  byId("cancel").hidden = isFinal(job);
  showStages(job.state === "running" || job.state === "queued" ? job.progress : []);
  byId("job-line").textContent = line(job);
  tell(job);
}

/** Say that the connection is lost; the next status takes it back. */
export function showLost() {
  byId("job-line").textContent = "The connection was lost. Trying again. The job goes on meanwhile.";
}

function summary({ id, request }) {
  const parts = [`seed ${request.seed}`];
  if (request.depth) parts.push(`${request.depth} slices`);
  if (request.style !== null) parts.push(`style ${request.style}`);
  if (request.mask_use) parts.push(request.mask_use === "full" ? "for a mask of your own" : "from a partial mask");
  return `${parts.join(" · ")} · job ${id}`;
}

function showStages(stages) {
  const list = byId("stages");
  const names = stages.map(({ stage }) => stage).join();
  if (list.dataset.names !== names) {
    list.dataset.names = names;
    list.replaceChildren(...stages.map(stageEntry));
  }
  stages.forEach(({ done, total }, place) => {
    const [bar, text] = [list.children[place].querySelector("progress"), list.children[place].querySelector(".number")];
    Object.assign(bar, { max: Math.max(total, 1), value: done });
    text.textContent = `${done} / ${total}`;
  });
}

function stageEntry({ stage }, place) {
  const words = stage.replaceAll("_", " ");
  const id = `stage-${place}`;
  const label = make("label", { for: id }, words[0].toUpperCase() + words.slice(1));
  return make("li", {}, label, make("progress", { id }), make("span", { className: "number quiet" }));
}

function line(job) {
  if (job.state === "queued") return queueLine(job.place) + etaText(job.eta_s);
  if (job.state === "running") return (job.attempts > 1 ? `Attempt ${job.attempts}.` : "") + etaText(job.eta_s);
  if (job.state === "succeeded" && job.started)
    return `Took ${duration((new Date(job.ended) - new Date(job.started)) / 1000)}.`;
  return "";
}

function queueLine(place) {
  if (place === null) return "Waiting for its turn.";
  if (place === 0) return "Next in the queue.";
  return place === 1 ? "1 job is before it." : `${place} jobs are before it.`;
}

const etaText = (eta_s) => (eta_s === null ? "" : ` About ${duration(eta_s)} left.`);

function duration(seconds) {
  if (seconds < 10) return `${Math.max(seconds, 0.1).toFixed(1)} s`;
  if (seconds < 90) return `${Math.round(seconds)} s`;
  if (seconds < 5400) return `${Math.round(seconds / 60)} min`;
  return `${(seconds / 3600).toFixed(1)} h`;
}

let told = "";

/** Screen readers hear of a new state and of each quarter of a stage, not of every step. */
function tell(job) {
  const active = job.progress.find(({ done, total }) => done < total);
  const quarter = active && Math.floor((4 * active.done) / Math.max(active.total, 1)) * 25;
  const stage = job.state === "running" && active ? `, ${active.stage.replaceAll("_", " ")} ${quarter} per cent` : "";
  const sentence = `${stateWord(job)}${stage}${job.state === "queued" ? `. ${queueLine(job.place)}` : ""}`;
  if (job.id + sentence === told) return;
  told = job.id + sentence;
  announce(sentence);
}
