// The page of the server: starts its parts, and connects the form, the queue, the images and the stream of events.

import { announce, byId, duration, kept, notify } from "./elements.js";
import { followEvents, post, postBytes } from "./requests.js";
import { apply, applyProgress, drop, load } from "./jobs.js";
import { showPreview, startQueue } from "./queue.js";
import { newestSeed, startGallery } from "./gallery.js";
import { addMemory, loadMemory, startMemory } from "./memory.js";
import { carriesFiles, droppedFile, isPicture } from "./picture.js";
import { form, initialImage, loadChoices, readSettings, setField, startSettings, writeSettings } from "./settings.js";
import { refreshPlan, withUploads } from "./plan.js";

const narrow = matchMedia("(max-width: 900px)");
const still = matchMedia("(prefers-reduced-motion: reduce)");
const apple = /Mac|iPhone|iPad/.test(navigator.platform);

start();

function start() {
  byId("shortcut").textContent = apple ? "⌘ ↵" : "Ctrl ↵";
  byId("generate").setAttribute("aria-keyshortcuts", apple ? "Meta+Enter" : "Control+Enter");
  startQueue({ onUse: (job) => useSettings(job.request) });
  startGallery({ onUse: useSettings, onInitial: takeInitial });
  startMemory();
  startSettings(() => {
    byId("form-error").hidden = true;
    refreshPlan();
  });
  startGenerating();
  startRestoring();
  keepSections();
  followEvents({ onOpen: connected, onEvent: receive, onLost: disconnected });
}

// The stream of events

const receivers = {
  job: (job) => apply(job, true),
  progress: applyProgress,
  preview: showPreview,
  memory: addMemory,
  removed: ({ id }) => drop(id),
};

function receive(name, data) {
  receivers[name]?.(data);
}

async function connected() {
  showConnection("open", "Connected");
  // What happened while there was no connection came by no event.
  const loaded = await Promise.allSettled([load(), loadChoices(), loadMemory()]);
  for (const { reason } of loaded) if (reason) notify(reason.message, true);
  refreshPlan();
}

function disconnected(wait) {
  showConnection("lost", `Not connected. Trying again in ${duration(Math.ceil(wait / 1000))}.`);
}

function showConnection(state, text) {
  const shown = byId("connection");
  shown.dataset.state = state;
  shown.textContent = text;
}

// Generating

function startGenerating() {
  form().addEventListener("submit", (event) => {
    event.preventDefault();
    generate();
  });
  addEventListener("keydown", (event) => {
    if (event.key !== "Enter" || !(event.ctrlKey || event.metaKey) || document.querySelector("dialog[open]")) return;
    event.preventDefault();
    if (form().reportValidity()) generate();
  });
  byId("seed-reuse").onclick = () => newestSeed() !== undefined && setField("seed", newestSeed());
}

async function generate() {
  const button = byId("generate");
  if (button.disabled) return;
  button.disabled = true;
  byId("form-error").hidden = true;
  try {
    const job = await withUploads(async () => post("/api/jobs", await readSettings()));
    apply(job);
    // Beside the form the queue may be scrolled away; below it, it is out of sight.
    byId("queue-section").scrollIntoView({ behavior: still.matches ? "auto" : "smooth", block: narrow.matches ? "start" : "nearest" });
  } catch (error) {
    showError(error);
  }
  button.disabled = false;
}

/** Says what the server refused, beside the button and at the field that it is about. */
function showError(error) {
  const place = byId("form-error");
  place.textContent = [error.message, error.hint].filter(Boolean).join(" ");
  place.hidden = false;
  const field = error.field && byId(error.field);
  if (!field || !form().contains(field)) return;
  const section = field.closest("details");
  if (section) section.open = true;
  if (!("validity" in field)) return;
  field.setAttribute("aria-invalid", "true");
  field.focus();
}

// Settings from images

function useSettings(request, unmet = []) {
  const missing = [...writeSettings(request), ...unmet];
  if (missing.length) notify(`The settings are restored, except:\n${missing.map((what) => `– ${what}`).join("\n")}`);
  else announce("The settings are restored.");
  byId("prompt").focus();
  byId("prompt").scrollIntoView({ block: "center" });
}

async function takeInitial(blob) {
  byId("section-image").open = true;
  await initialImage().set(blob);
  byId("section-image").scrollIntoView({ block: "nearest" });
  byId("mask-open").focus();
}

async function restoreFrom(file) {
  if (!isPicture(file)) {
    notify("This is not a PNG, JPEG or WebP image.", true);
    return;
  }
  try {
    const { request, unmet } = await postBytes("/api/read-image", file);
    useSettings(request, unmet);
  } catch (error) {
    notify([error.message, error.hint].filter(Boolean).join(" "), true);
  }
}

function startRestoring() {
  const chooser = byId("restore-file");
  byId("restore").onclick = () => chooser.click();
  chooser.onchange = () => {
    if (chooser.files[0]) restoreFrom(chooser.files[0]);
    chooser.value = "";
  };
  // Anywhere on the page, apart from the places for pictures, which take theirs themselves.
  const hint = byId("drop-hint");
  addEventListener("dragover", (event) => {
    if (!carriesFiles(event)) return;
    event.preventDefault();
    hint.hidden = Boolean(document.querySelector("dialog[open]"));
  });
  addEventListener("dragleave", (event) => event.relatedTarget === null && (hint.hidden = true));
  addEventListener("drop", (event) => {
    if (!carriesFiles(event)) return;
    event.preventDefault();
    hint.hidden = true;
    if (!document.querySelector("dialog[open]")) restoreFrom(droppedFile(event));
  });
}

// Sections stay open or closed as they were left.

function keepSections() {
  const sections = document.querySelectorAll("main details[id]");
  const open = kept.get("sections") ?? {};
  for (const section of sections) {
    if (section.id in open && !section.open) section.open = open[section.id];
    else if (open[section.id] === false && section.id === "memory-section") section.open = false;
    section.addEventListener("toggle", () => kept.set("sections", { ...kept.get("sections"), [section.id]: section.open }));
  }
}
