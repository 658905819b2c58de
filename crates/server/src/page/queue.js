// The jobs that wait, run or have failed: their progress, the live preview, cancelling.

import { announce, arrange, byId, duration, element, notify, several, sizeText } from "./elements.js";
import { post, remove } from "./requests.js";
import { apply, drop, newestFirst, onJobs } from "./jobs.js";

const cards = new Map();
const previews = new Map();
const told = new Map(); // id → what was last announced of its progress
let useSettings = () => {};

const STAGES = {
  load: "Loading the model",
  text_encoder: "Reading the prompt",
  text_encoder_2: "Reading the prompt",
  text_encoder_3: "Reading the prompt",
  conditions: "Preparing",
  encode: "Reading the initial image",
  denoise: "Drawing",
  decode: "Decoding",
  refine: "Refining",
  upscale: "Upscaling",
  save: "Saving",
};

export const stageName = (stage) => STAGES[stage] ?? stage.replaceAll("_", " ").replace(/^./, (first) => first.toUpperCase());

export function startQueue({ onUse }) {
  useSettings = onUse;
  onJobs(({ job, before, removed, progress }) => {
    if (job) announceChange(job, before);
    if (removed) previews.delete(removed.id);
    if (progress) {
      announceProgress(progress);
      if (cards.has(progress.id)) showState(cards.get(progress.id), progress);
    } else show();
  });
}

export function showPreview({ id, png }) {
  previews.set(id, `data:image/png;base64,${png}`);
  const card = cards.get(id);
  if (card) drawPreview(card, id);
}

function show() {
  const all = newestFirst();
  const running = all.filter((job) => job.state === "running");
  const queued = all.filter((job) => job.state === "queued").sort((a, b) => (a.position ?? 0) - (b.position ?? 0));
  const failed = all.filter((job) => job.state === "failed");
  const shown = [...failed, ...running, ...queued];
  for (const id of cards.keys()) {
    if (shown.some((job) => job.id === id)) continue;
    cards.delete(id);
    previews.delete(id);
    told.delete(id);
  }
  for (const job of shown) {
    if (!cards.has(job.id)) cards.set(job.id, makeCard(job));
    showState(cards.get(job.id), job);
  }
  arrange(byId("queue"), shown.map((job) => cards.get(job.id).root));
  byId("queue-section").hidden = shown.length === 0;
  document.title = running.length ? `${Math.round((running[0].progress?.fraction ?? 0) * 100)} % · sd-generate` : "sd-generate";
}

function makeCard(job) {
  const prompt = element("p", { className: "prompt", textContent: job.request.prompt });
  const facts = element("p", { className: "facts-line", textContent: describe(job) });
  const state = element("p", { className: "state" });
  const progress = element("progress", { max: 1, "aria-label": `Progress of “${job.request.prompt}”` });
  const buttons = element("div", { className: "buttons" });
  const preview = element("div", { className: "preview" });
  const root = element("li", { className: "job" }, preview,
    element("div", { className: "body" }, element("div", {}, prompt, facts), progress, element("div", { className: "foot" }, state, buttons)));
  const card = { root, preview, progress, state, buttons, shown: null };
  if (previews.has(job.id)) drawPreview(card, job.id);
  return card;
}

function drawPreview(card, id) {
  let image = card.preview.querySelector("img");
  if (!image) {
    image = element("img", { alt: "Live preview" });
    card.preview.append(image);
    card.preview.classList.add("drawn");
  }
  image.src = previews.get(id);
}

function describe({ request, user, plan }) {
  const seed = Array.isArray(request.seed) ? request.seed.join(", ") : request.seed;
  const facts = [request.model, request.size && sizeText(request.size), request.steps && several(request.steps, "step"), seed !== undefined && `seed ${seed}`];
  if (request.n > 1) facts.push(several(request.n, "image"));
  if (plan?.streams) facts.push("weights streamed from disk");
  if (user && user !== "local") facts.push(user);
  return facts.filter(Boolean).join(" · ");
}

function showState(card, job) {
  card.root.dataset.state = job.state;
  card.state.textContent = stateText(job);
  if (job.state === "running") {
    if (job.progress) card.progress.value = job.progress.fraction ?? 0;
    else card.progress.removeAttribute("value");
    document.title = `${Math.round((job.progress?.fraction ?? 0) * 100)} % · sd-generate`;
  }
  if (card.shown === job.state) return;
  card.shown = job.state;
  const name = `“${job.request.prompt}”`;
  const buttons = job.state === "failed"
    ? [element("button", { type: "button", textContent: "Use its settings", onclick: () => useSettings(job) }),
      element("button", { type: "button", className: "quiet", textContent: "Dismiss", "aria-label": `Dismiss ${name}`, onclick: (event) => dismiss(job, event.target) })]
    : [element("button", { type: "button", textContent: "Cancel", "aria-label": `Cancel ${name}`, onclick: (event) => cancel(job, event.target) })];
  const focused = card.buttons.contains(document.activeElement);
  card.buttons.replaceChildren(...buttons);
  if (focused) buttons[0].focus();
}

function stateText(job) {
  if (job.state === "failed") return [job.error?.message ?? "It failed.", job.error?.hint].filter(Boolean).join(" ");
  if (job.state === "queued") return job.position === 1 ? "Next in the queue" : `Position ${job.position ?? "?"} in the queue`;
  const progress = job.progress;
  if (!progress) return "Starting…";
  const words = [stageName(progress.stage)];
  if (progress.steps && progress.stage === "denoise") words.push(`step ${progress.step} of ${progress.steps}`);
  if (progress.images > 1) words.push(`image ${progress.image + 1} of ${progress.images}`);
  if (progress.seconds_left != null) words.push(`${duration(Math.ceil(progress.seconds_left))} left`);
  return words.join(" · ");
}

async function cancel(job, button) {
  button.disabled = true;
  try {
    apply(await post(`/api/jobs/${job.id}/cancel`));
  } catch (error) {
    button.disabled = false;
    if (error.status !== 409) notify(error.message, true); // 409: it has just ended, which its event says
  }
}

async function dismiss(job, button) {
  button.disabled = true;
  try {
    await remove(`/api/jobs/${job.id}`);
    drop(job.id);
  } catch (error) {
    button.disabled = false;
    notify(error.message, true);
  }
}

// What screen readers hear: each change of state, and progress by quarters.

function announceChange(job, before) {
  if (before?.state === job.state) return;
  const texts = {
    queued: `In the queue: ${job.request.prompt}`,
    running: `Started: ${job.request.prompt}`,
    done: `Finished: ${job.request.prompt}`,
    failed: `Failed: ${job.error?.message ?? job.request.prompt}`,
    cancelled: `Cancelled: ${job.request.prompt}`,
  };
  announce(texts[job.state] ?? "");
}

function announceProgress(job) {
  const quarter = Math.floor((job.progress.fraction ?? 0) * 4);
  if (quarter === 0 || told.get(job.id) === quarter) return;
  told.set(job.id, quarter);
  const left = job.progress.seconds_left;
  announce(`${quarter * 25} percent${left != null ? `, ${duration(Math.ceil(left))} left` : ""}`);
}
