// Finished images: the grid, newest first, and the large view with what each image was made from.

import { announce, arrange, byId, duration, element, notify } from "./elements.js";
import { forgetPicture, get, pictureBlob, pictureUrl, remove } from "./requests.js";
import { drop, hasEnded, hasOlder, loadOlder, newestFirst, onJobs } from "./jobs.js";

const tiles = new Map(); // the image's address → its list item
let entries = []; // { job, image, index } as shown, newest first
let opened = null; // the address of the image in the large view
let confirming; // the timer of "Really delete?"
let deleting = false; // whether the server removes what the large view shows
let actions = {};

/** The newest image's seed, for "Reuse". */
export const newestSeed = () => entries[0]?.image.seed;

// An image is fetched when it comes near the window.
const nearby = new IntersectionObserver((seen) => {
  for (const { target, isIntersecting } of seen) {
    if (!isIntersecting) continue;
    nearby.unobserve(target);
    showPicture(target);
  }
}, { rootMargin: "400px" });

export function startGallery({ onUse, onInitial }) {
  actions = { onUse, onInitial };
  onJobs(({ progress }) => progress || show());
  byId("older").onclick = async (event) => {
    event.target.disabled = true;
    await loadOlder().catch((error) => notify(error.message, true));
    event.target.disabled = false;
  };
  byId("viewer-close").onclick = () => byId("viewer").close();
  byId("viewer-newer").onclick = () => step(-1);
  byId("viewer-older").onclick = () => step(1);
  byId("viewer-use").onclick = useOpened;
  byId("viewer-initial").onclick = takeAsInitial;
  byId("viewer-delete").onclick = deleteOpened;
  byId("viewer-metadata").ontoggle = showMetadata;
  byId("viewer").onclose = closed;
  byId("viewer").addEventListener("click", (event) => event.target === byId("viewer") && byId("viewer").close()); // the backdrop
  byId("viewer").onkeydown = (event) => {
    if (event.target.closest("pre")) return;
    if (event.key === "ArrowLeft") step(-1);
    else if (event.key === "ArrowRight") step(1);
  };
}

// The grid

function show() {
  entries = newestFirst().flatMap((job) => job.images.map((image, index) => ({ job, image, index })).reverse());
  const current = new Set(entries.map(({ image }) => image.url));
  for (const url of tiles.keys()) {
    if (current.has(url)) continue;
    nearby.unobserve(tiles.get(url));
    tiles.delete(url);
    forgetPicture(url);
  }
  for (const entry of entries) if (!tiles.has(entry.image.url)) tiles.set(entry.image.url, makeTile(entry));
  arrange(byId("gallery"), entries.map(({ image }) => tiles.get(image.url)));
  byId("gallery-empty").hidden = entries.length > 0;
  byId("older").hidden = !hasOlder();
  byId("seed-reuse").disabled = entries.length === 0;
  if (opened && byId("viewer").open) {
    if (current.has(opened)) showPlace();
    else if (!deleting) byId("viewer").close();
  }
}

function makeTile({ job, image }) {
  const picture = element("img", { alt: job.request.prompt });
  const button = element("button", { type: "button", className: "tile", "aria-label": `Open: ${job.request.prompt}, seed ${image.seed}`, onclick: () => open(image.url) }, picture);
  const item = element("li", { dataset: { url: image.url } }, button);
  nearby.observe(item);
  return item;
}

async function showPicture(item) {
  const button = item.firstElementChild;
  const picture = button.firstElementChild;
  try {
    picture.src = await pictureUrl(item.dataset.url);
    await picture.decode();
    picture.classList.add("loaded");
  } catch {
    button.classList.add("broken");
    button.replaceChildren("Cannot be shown");
  }
}

// The large view

const openedEntry = () => entries.find(({ image }) => image.url === opened);

function step(by) {
  const next = entries[entries.indexOf(openedEntry()) + by];
  if (next) open(next.image.url);
}

async function open(url) {
  opened = url;
  stopConfirming();
  const { job, image } = openedEntry();
  const viewer = byId("viewer");
  byId("viewer-name").textContent = image.name;
  byId("viewer-prompt").textContent = job.request.prompt;
  byId("viewer-facts").replaceChildren(...facts(job, image).flatMap(([name, value]) => [element("dt", { textContent: name }), element("dd", { textContent: value })]));
  byId("viewer-warnings").textContent = job.warnings?.join("\n") ?? "";
  byId("viewer-warnings").hidden = !job.warnings?.length;
  byId("viewer-delete").disabled = !hasEnded(job);
  byId("viewer-json").textContent = "";
  if (!viewer.open) {
    byId("viewer-metadata").open = false;
    viewer.showModal();
  }
  showPlace();
  showMetadata();
  const picture = byId("viewer-image");
  const download = byId("viewer-download");
  picture.alt = job.request.prompt;
  try {
    const source = await pictureUrl(url);
    if (opened !== url) return;
    picture.src = download.href = source;
    download.download = image.name;
  } catch (error) {
    picture.removeAttribute("src");
    notify(error.message, true);
  }
}

function showPlace() {
  const place = entries.indexOf(openedEntry());
  byId("viewer-newer").disabled = place <= 0;
  byId("viewer-older").disabled = place >= entries.length - 1;
}

function facts(job, image) {
  const { request } = job;
  const list = (value) => [value].flat().join(", ");
  const control = request.control?.map(({ kind, controlnet }) => (controlnet ? `${kind} (${controlnet})` : kind)).join(", ");
  return [
    ["Negative prompt", request.negative_prompt],
    ["Model", request.model],
    ["Preset", request.preset],
    ["Style", request.style],
    ["Seed", image.seed],
    ["Size", `${image.width} × ${image.height}`],
    ["Steps", request.steps],
    ["CFG scale", request.cfg],
    ["Guidance rescale", request.guidance_rescale || null],
    ["Sampler", request.sampler],
    ["Scheduler", request.scheduler],
    ["CLIP skip", request.clip_skip],
    ["LoRA", request.lora?.length ? list(request.lora) : null],
    ["Strength", request.init_image ? request.strength : null],
    ["Made from", request.init_image && (request.mask ? "an initial image with a mask" : "an initial image")],
    ["ControlNet", control],
    ["Refiner", request.refiner],
    ["Upscaled", request.upscale && `${request.upscale}×${request.upscaler ? ` with ${request.upscaler}` : ""}`],
    ["Time", job.seconds != null ? `${duration(job.seconds)}${job.images.length > 1 ? " for all images" : ""}` : null],
    ["Finished", job.finished && new Date(job.finished).toLocaleString([], { dateStyle: "medium", timeStyle: "short" })],
  ].filter(([, value]) => value !== undefined && value !== null && value !== "");
}

async function showMetadata() {
  const url = opened;
  if (!byId("viewer-metadata").open || byId("viewer-json").textContent) return;
  try {
    const metadata = await get(`${url}/metadata`);
    if (opened === url) byId("viewer-json").textContent = JSON.stringify(metadata, null, 2);
  } catch (error) {
    if (opened === url) byId("viewer-json").textContent = error.message;
  }
}

function closed() {
  const tile = tiles.get(opened) ?? byId("gallery").firstElementChild;
  opened = null;
  byId("viewer-image").removeAttribute("src");
  stopConfirming();
  // The browser gives the focus back to the tile that was opened first; unless an action took it elsewhere, the last one is meant.
  const focused = document.activeElement;
  if (focused === document.body || focused.classList.contains("tile")) (tile?.firstElementChild ?? byId("prompt")).focus();
}

function useOpened() {
  const { job, image } = openedEntry();
  byId("viewer").close();
  // One image of several is drawn again alone by its own seed.
  actions.onUse({ ...job.request, seed: image.seed, n: 1 });
}

async function takeAsInitial() {
  try {
    const blob = await pictureBlob(opened);
    byId("viewer").close();
    await actions.onInitial(blob);
  } catch (error) {
    notify(error.message, true);
  }
}

/** The first press asks, the second deletes: the server removes a job with all its images. */
async function deleteOpened() {
  const { job } = openedEntry();
  const button = byId("viewer-delete");
  if (!confirming) {
    button.textContent = job.images.length > 1 ? `Delete all ${job.images.length} of this run?` : "Really delete?";
    announce(button.textContent);
    confirming = setTimeout(stopConfirming, 5000);
    return;
  }
  stopConfirming();
  const place = entries.indexOf(openedEntry());
  const url = opened;
  deleting = true;
  try {
    await remove(`/api/jobs/${job.id}`);
    const next = entries.slice(place).find((entry) => entry.job.id !== job.id) ?? entries.findLast((entry) => entry.job.id !== job.id);
    // It may have been closed meanwhile.
    if (opened === url) {
      if (next) open(next.image.url);
      else byId("viewer").close();
    }
    drop(job.id);
    announce("Deleted");
  } catch (error) {
    notify(error.message, true);
    byId("viewer").close();
  } finally {
    deleting = false;
  }
}

function stopConfirming() {
  clearTimeout(confirming);
  confirming = undefined;
  byId("viewer-delete").textContent = "Delete";
}
