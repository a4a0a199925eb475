/** The page: access, the order form, the newest jobs, and the job that is shown. */

import { announce, byId, make } from "./dom.js";
import { pairs as pairsText, showJob, showLost, stateWord } from "./job_view.js";
import { OrderForm } from "./order.js";
import { Pairs } from "./pairs.js";
import * as service from "./service.js";

const OTHERS_EVERY_MS = 5000;

const jobs = new Map();
let shown = null;
let following = new AbortController();

const order = new OrderForm({
  onJob(job) {
    keep(job);
    select(job.id);
    byId("result").focus();
  },
  onRefusal: (error) => refused(error, "order-problem"),
});
const pairs = new Pairs({
  onRefusal: (error) => refused(error, byId("viewer").hidden ? "job-problem" : "viewer-problem"),
});

/** Say what was refused where it was asked for. A token that is not taken leads back to the start. */
function refused(error, place) {
  if (error.status === 401) return askForToken(error.message);
  byId(place).textContent = error.message;
}

// Access

async function enter() {
  if (!service.token.get()) return askForToken("");
  try {
    const offered = await service.pipelines();
    byId("access").hidden = true;
    byId("desk").hidden = false;
    byId("forget").hidden = false;
    order.offer(offered);
    await refreshJobs();
    if (jobs.size) select(shown ?? [...jobs.keys()].at(-1));
  } catch (error) {
    askForToken(error.message);
  }
}

function askForToken(problem) {
  service.token.forget();
  jobs.clear();
  select(null);
  byId("desk").hidden = true;
  byId("forget").hidden = true;
  byId("access").hidden = false;
  byId("access-problem").textContent = problem;
  byId("token").value = "";
  byId("token").focus();
}

byId("access-form").addEventListener("submit", (event) => {
  event.preventDefault();
  service.token.set(byId("token").value.trim());
  enter();
});

byId("forget").addEventListener("click", () => {
  askForToken("");
});

// The newest jobs

async function refreshJobs() {
  for (const job of (await service.newestJobs()).reverse()) if (job.id !== shown || !jobs.has(job.id)) keep(job);
}

function keep(job) {
  jobs.set(job.id, job);
  showList();
}

function showList() {
  byId("empty").hidden = jobs.size > 0;
  byId("jobs").hidden = jobs.size < 2;
  const list = byId("job-list");
  for (const entry of [...list.children]) if (!jobs.has(entry.dataset.job)) entry.remove();
  for (const job of jobs.values()) {
    const entry = [...list.children].find(({ dataset }) => dataset.job === job.id) ?? newEntry(job);
    entry.querySelector(".quiet").textContent = stateWord(job);
    entry.querySelector("button").setAttribute("aria-current", String(job.id === shown));
  }
}

function newEntry(job) {
  const text = `${pairsText(job.request.count)}, seed ${job.request.seed} `;
  const button = make("button", { type: "button" }, text, make("span", { className: "quiet" }));
  button.addEventListener("click", () => select(job.id));
  const entry = make("li", {}, button);
  entry.dataset.job = job.id;
  byId("job-list").prepend(entry);
  return entry;
}

setInterval(() => {
  const others = [...jobs.values()].filter((job) => job.id !== shown && !service.isFinal(job));
  if (others.length) refreshJobs().catch(() => {}); // the job that is shown says when the service is away
}, OTHERS_EVERY_MS);

// The job that is shown

function select(id) {
  following.abort();
  following = new AbortController();
  shown = id;
  pairs.hide();
  byId("job").hidden = id === null;
  showList();
  if (id === null) return;
  showJob(jobs.get(id));
  if (service.isFinal(jobs.get(id))) ended(jobs.get(id));
  else watch(id, following.signal);
}

async function watch(id, signal) {
  const seen = (job) => {
    keep(job);
    showJob(job);
    if (service.isFinal(job)) ended(job);
  };
  try {
    await service.follow(id, seen, showLost, signal);
  } catch (error) {
    refused(error, "job-problem");
  }
}

function ended(job) {
  if (job.state === "succeeded") pairs.open(job);
}

byId("cancel").addEventListener("click", async () => {
  announce("Cancelling");
  await service.cancel(shown).catch((error) => refused(error, "job-problem"));
});

enter();
