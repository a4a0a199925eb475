/** The service's HTTP interface. The token lives in this tab: in sessionStorage and one header, never in a URL. */

const TOKEN = "medgen3d.token";
const FINAL = new Set(["succeeded", "failed", "cancelled"]);

export const token = {
  get: () => sessionStorage.getItem(TOKEN),
  set: (value) => sessionStorage.setItem(TOKEN, value),
  forget: () => sessionStorage.removeItem(TOKEN),
};

/** What the service would not do, in its own sentence. status: HTTP's; 0 if the service cannot be reached. */
export class Refusal extends Error {
  constructor(status, detail) {
    super(detail);
    this.status = status;
  }
}

export const isFinal = (job) => FINAL.has(job.state);

export const pipelines = () => answer("v1/pipelines");
export const pipeline = (name) => answer(`v1/pipelines/${name.split("/").map(encodeURIComponent).join("/")}`);
export const newestJobs = () => answer("v1/jobs?limit=20");
export const cancel = (id) => call(jobPath(id), { method: "DELETE" });
export const resultFile = async (id, file) =>
  (await call(`${jobPath(id)}/result?file=${encodeURIComponent(file)}`)).blob();
export const wholeResult = async (id) => (await call(`${jobPath(id)}/result`)).blob();

/** A new job. key: the same for each try of one order, so that no try makes a second job. */
export async function submit(request, mask, key) {
  const text = JSON.stringify(request);
  const headers = { "Idempotency-Key": key };
  let body = text;
  if (mask) {
    body = new FormData();
    body.append("request", text);
    body.append("mask", mask, mask.name);
  } else {
    headers["Content-Type"] = "application/json";
  }
  return (await call("v1/jobs", { method: "POST", body, headers })).json();
}

/** Hand every new status of a job to `seen` until it ends; a broken connection is taken up again. */
export async function follow(id, seen, lost, signal) {
  let pause_ms = 500;
  while (!signal.aborted) {
    try {
      const response = await call(`${jobPath(id)}/events`, { signal });
      for await (const data of eventData(response.body)) {
        pause_ms = 500;
        const status = JSON.parse(data);
        seen(status);
        if (isFinal(status)) return;
      }
    } catch (error) {
      if (signal.aborted) return;
      if (error.status >= 400 && error.status < 500 && error.status !== 429) throw error;
      lost();
    }
    await new Promise((resolve) => setTimeout(resolve, pause_ms));
    pause_ms = Math.min(2 * pause_ms, 8000);
  }
}

const jobPath = (id) => `v1/jobs/${encodeURIComponent(id)}`;
const answer = async (path) => (await call(path)).json();

async function call(path, options = {}) {
  const headers = { ...options.headers };
  if (token.get()) headers.Authorization = `Bearer ${token.get()}`;
  const fixed = { cache: "no-store", credentials: "omit", redirect: "error" };
  let response;
  try {
    response = await fetch(new URL(path, document.baseURI), { ...options, ...fixed, headers });
  } catch (error) {
    if (options.signal?.aborted) throw error;
    throw new Refusal(0, "The service does not answer. Check that it runs and that you are connected, then try again.");
  }
  if (!response.ok) throw await refusal(response);
  return response;
}

async function refusal(response) {
  const { detail } = await response.json().catch(() => ({}));
  const known = typeof detail === "string";
  const sentence = known ? detail : `The service answered with status ${response.status}.`;
  const wait_s = Number(response.headers.get("Retry-After"));
  // A proxy of Ray Serve that has just been started knows no address, and says 404 in words of its own.
  const status = response.status === 404 && !known ? 0 : response.status;
  return new Refusal(status, wait_s ? `${sentence} Try again in ${wait_s} s.` : sentence);
}

/** The data of server-sent events. EventSource would do this, but cannot send a token. */
async function* eventData(body) {
  const reader = body.pipeThrough(new TextDecoderStream()).getReader();
  let text = "";
  for (let part = await reader.read(); !part.done; part = await reader.read()) {
    const events = (text + part.value).replaceAll("\r\n", "\n").split("\n\n");
    text = events.pop();
    for (const event of events) {
      const lines = event.split("\n").filter((line) => line.startsWith("data:"));
      if (lines.length) yield lines.map((line) => line.slice(5)).join("\n");
    }
  }
}
