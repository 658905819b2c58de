// The form: its fields as the body of a request, and a request as its fields.

import { afterPause, byId, element, kept, several } from "./elements.js";
import { get } from "./requests.js";
import { PictureInput } from "./picture.js";
import { clearMask, forgetMaskUpload, hasMask, maskReference, startMask } from "./mask.js";

// Fields whose ids are the names of the request; one that is empty is left to the server.
const TEXTS = ["negative_prompt"];
const NUMBERS = ["steps", "cfg", "clip_skip", "guidance_rescale", "refiner_switch", "jpeg_quality"];
const CHOICES = ["model", "preset", "sampler", "scheduler", "upscaler", "style", "rng", "refiner", "format"];
const MORE = ["style", "clip_skip", "guidance_rescale", "rng", "refiner", "refiner_switch", "format", "jpeg_quality"];
const OTHERS = ["prompt", "n", "size", "seed", "upscale", "lora", "strength", "init_image", "mask", "control", "priority", "strict"];
const CONTROL_KINDS = [["canny", "Canny edges"], ["pose", "Pose"], ["depth", "Depth"], ["image", "As it is"]];

let changed = () => {};
let initImage;
let loras = []; // { name, encoder, scale, row }
let controls = []; // { picture, kind, controlnet, scale, row }
let controlNets = [];
let strengthChosen = false;

export const form = () => byId("settings");
export const initialImage = () => initImage;

export function startSettings(onChange) {
  const keep = afterPause(300, () => kept.set("settings", plainSettings()));
  changed = () => {
    for (const field of form().querySelectorAll("[aria-invalid]")) field.removeAttribute("aria-invalid");
    showNotes();
    keep();
    onChange();
  };
  initImage = new PictureInput(byId("init-image"), "Initial image", () => {
    clearMask();
    changed();
  });
  startMask(initImage, () => {
    // What a mask covers is usually meant to change in full.
    if (!strengthChosen) byId("strength").value = hasMask() ? 1 : 0.75;
    changed();
  });
  form().addEventListener("input", (event) => {
    if (event.target.id === "strength") strengthChosen = true;
    changed();
  });
  // A field in a closed section cannot show what is wrong with it.
  form().addEventListener("invalid", (event) => reveal(event.target), true);
  byId("seed-random").onclick = () => setField("seed", "");
  byId("lora-add").onchange = (event) => {
    addLora(event.target.value);
    event.target.value = "";
    changed();
  };
  byId("control-add").onclick = () => {
    addControl().row.querySelector("input").focus();
    changed();
  };
  byId("reset").onclick = () => {
    writeSettings({ prompt: "" });
    byId("prompt").focus();
  };
  writeSettings(kept.get("settings") ?? { prompt: "" });
}

export function setField(id, value) {
  byId(id).value = value;
  changed();
}

function reveal(field) {
  const section = field.closest("details");
  if (section) section.open = true;
}

// Choices that the server has

export async function loadChoices() {
  const lists = await get("/api/models");
  fill("model", lists.models.map(({ name }) => [name, name]));
  fill("refiner", lists.models.map(({ name }) => [name, name]));
  fill("preset", lists.presets.map(({ name, available }) => [name, available ? name : `${name} (not downloaded)`, !available]));
  fill("sampler", lists.samplers.map((name) => [name, name]));
  fill("scheduler", lists.schedulers.map((name) => [name, name]));
  fill("style", lists.styles.map((name) => [name, name]));
  fill("upscaler", lists.upscalers.map((name) => [name, name]));
  fill("lora-add", lists.loras.map((name) => [name, name]));
  const add = byId("lora-add");
  add.disabled = lists.loras.length === 0;
  add.options[0].textContent = lists.loras.length ? "Choose…" : "None on this server";
  controlNets = lists.controlnets;
  for (const control of controls) fillChoices(control.controlnet, controlNets.map((name) => [name, name]));
}

const fill = (id, choices) => fillChoices(byId(id), choices);

/** Replaces the choices after the first, and keeps what is chosen. */
function fillChoices(select, choices) {
  const chosen = select.value;
  const first = select.options[0];
  select.replaceChildren(first, ...choices.map(([value, text, disabled = false]) => element("option", { value, textContent: text, disabled })));
  choose(select, chosen);
}

/** Chooses `value`, also one that is in no list: a name that a request or an older visit brought. */
function choose(select, value) {
  if (![...select.options].some((option) => option.value === value)) select.append(element("option", { value, textContent: value }));
  select.value = value;
}

// Rows of LoRAs

function addLora(reference) {
  // NAME, NAME:SCALE, or NAME:ENCODER:SCALE with a scale of its own for the text encoders.
  const [, name, first, second] = /^(.+?)(?::(-?[\d.]+))?(?::(-?[\d.]+))?$/.exec(reference) ?? [];
  if (!name || loras.some((lora) => lora.name === name)) return;
  const lora = { name, encoder: second === undefined ? null : first, scale: Number(second ?? first ?? 1) };
  const shown = lora.encoder === null ? name : `${name} (text encoders ${lora.encoder})`;
  const number = element("input", { type: "number", min: -5, max: 5, step: "any", value: lora.scale, "aria-label": `Scale of ${name}` });
  const range = element("input", { type: "range", min: -1, max: 2, step: 0.05, value: lora.scale, "aria-label": `Scale of ${name}` });
  number.oninput = () => (range.value = lora.scale = Number(number.value));
  range.oninput = () => (number.value = lora.scale = Number(range.value));
  lora.row = element("li", { className: "lora-row" }, element("span", { className: "name", textContent: shown, title: shown }),
    element("button", { type: "button", className: "quiet", textContent: "Remove", "aria-label": `Remove ${name}`, onclick: () => removeRow(loras, lora, "lora-add") }),
    element("div", { className: "scale" }, range, number));
  loras.push(lora);
  byId("lora-rows").append(lora.row);
}

function removeRow(rows, entry, focus) {
  rows.splice(rows.indexOf(entry), 1);
  entry.row.remove();
  byId(focus).focus();
  changed();
}

// Rows of ControlNets

function addControl({ kind = "canny", controlnet = "", scale = 1 } = {}) {
  const control = {
    kind: element("select", {}, ...CONTROL_KINDS.map(([value, textContent]) => element("option", { value, textContent }))),
    controlnet: element("select", {}, element("option", { value: "", textContent: "Auto" })),
    scale: element("input", { type: "number", min: 0, max: 2, step: "any", value: scale }),
  };
  fillChoices(control.controlnet, controlNets.map((name) => [name, name]));
  choose(control.kind, kind);
  choose(control.controlnet, controlnet ?? "");
  const well = element("div");
  control.picture = new PictureInput(well, "ControlNet image", () => changed());
  const labelled = (text, field, wide = "") => {
    field.id = `control-${text.toLowerCase()}-${Math.random().toString(36).slice(2)}`;
    return element("div", { className: `field ${wide}` }, element("label", { htmlFor: field.id, textContent: text }), field);
  };
  control.row = element("li", { className: "control-row" }, well,
    element("div", { className: "grid" }, labelled("Kind", control.kind), labelled("Scale", control.scale), labelled("ControlNet", control.controlnet, "wide")),
    element("button", { type: "button", className: "quiet", textContent: "Remove this ControlNet", onclick: () => removeRow(controls, control, "control-add") }));
  controls.push(control);
  byId("control-rows").append(control.row);
  return control;
}

// From the form

/** All settings but pictures. */
function plainSettings() {
  const value = (id) => byId(id).value;
  const settings = { prompt: value("prompt"), n: Number(value("n")) || 1 };
  for (const id of [...TEXTS, ...CHOICES]) if (value(id).trim()) settings[id] = value(id);
  for (const id of NUMBERS) if (value(id) !== "") settings[id] = Number(value(id));
  const size = value("size") === "custom" ? `${value("width")}x${value("height")}` : value("size");
  if (size) settings.size = size;
  const seeds = value("seed").split(",").map((seed) => seed.trim()).filter(Boolean).map(Number);
  settings.seed = seeds.length === 0 ? "random" : seeds.length === 1 ? seeds[0] : seeds;
  if (value("upscale")) settings.upscale = Number(value("upscale"));
  if (loras.length) settings.lora = loras.map(({ name, encoder, scale }) => [name, encoder, scale].filter((part) => part !== null).join(":"));
  return settings;
}

/** The body of a request; uploads the pictures that the server does not have yet. */
export async function readSettings() {
  const settings = plainSettings();
  // An upscaler says nothing without a factor, and a quality nothing without JPEG.
  if (!settings.upscale) delete settings.upscaler;
  if (settings.format !== "jpeg") delete settings.jpeg_quality;
  if (!settings.refiner) delete settings.refiner_switch;
  if (initImage.blob) {
    settings.init_image = await initImage.reference();
    settings.strength = Number(byId("strength").value);
    if (hasMask()) settings.mask = await maskReference();
  }
  const used = controls.filter((control) => control.picture.blob);
  if (used.length) {
    settings.control = await Promise.all(used.map(async ({ picture, kind, controlnet, scale }) => ({
      kind: kind.value, image: await picture.reference(), scale: Number(scale.value), ...(controlnet.value && { controlnet: controlnet.value }),
    })));
  }
  return settings;
}

/** Whether anything was uploaded; the uploads are then brought again with the next request. */
export function forgetUploads() {
  const pictures = [initImage, ...controls.map((control) => control.picture)];
  for (const picture of pictures) picture.forgetUpload();
  forgetMaskUpload();
  return pictures.some((picture) => picture.blob);
}

// Into the form

/** Writes a request into the form; returns in words what it could not restore. */
export function writeSettings(request) {
  const missing = [];
  byId("prompt").value = request.prompt ?? "";
  byId("n").value = request.n ?? 1;
  for (const id of [...TEXTS, ...NUMBERS]) byId(id).value = request[id] ?? "";
  for (const id of CHOICES) choose(byId(id), request[id] ?? "");
  byId("upscale").value = request.upscale ?? "";
  byId("seed").value = [request.seed ?? "random"].flat().filter((seed) => seed !== "random").join(", ");
  writeSize(request.size ?? "");
  for (const entry of [...loras, ...controls]) entry.row.remove();
  loras = [];
  for (const reference of [request.lora ?? []].flat()) addLora(reference);

  strengthChosen = request.strength !== undefined && request.strength !== null;
  byId("strength").value = request.strength ?? 0.75;
  // Pictures are no part of what is restored: one that is still here is kept if the request had one, too.
  if (!request.init_image && initImage.blob) initImage.set(null);
  if (request.init_image && !initImage.blob) missing.push("the initial image");
  if (request.mask && !hasMask()) missing.push("the mask");
  if (!request.mask && hasMask()) clearMask();
  const before = controls;
  controls = [];
  for (const [index, control] of (request.control ?? []).entries()) {
    const added = addControl(control);
    const blob = before[index]?.picture.blob;
    if (blob) added.picture.set(blob);
    else missing.push("a ControlNet image");
  }
  const known = new Set([...TEXTS, ...NUMBERS, ...CHOICES, ...OTHERS]);
  missing.push(...Object.keys(request).filter((name) => !known.has(name)).map((name) => name.replaceAll("_", " ")));

  for (const [section, open] of [["lora", loras.length], ["control", controls.length], ["image", initImage.blob || request.init_image], ["upscale", request.upscale]]) if (open) byId(`section-${section}`).open = true;
  changed();
  return missing;
}

function writeSize(size) {
  const pixels = /^(\d+)x(\d+)$/.exec(size);
  if (pixels) [, byId("width").value, byId("height").value] = pixels;
  choose(byId("size"), pixels ? "custom" : size);
}

/** Shows what each section holds, also when it is closed. */
function showNotes() {
  byId("pixels").hidden = byId("size").value !== "custom";
  for (const id of ["width", "height"]) byId(id).disabled = byId("size").value !== "custom";
  byId("init-options").hidden = !initImage.blob;
  byId("strength-value").textContent = Number(byId("strength").value).toFixed(2);
  byId("lora-note").textContent = loras.length ? `${loras.length} in use` : "";
  byId("image-note").textContent = initImage.blob ? `strength ${Number(byId("strength").value).toFixed(2)}${hasMask() ? ", with a mask" : ""}` : "";
  const used = controls.filter((control) => control.picture.blob).length;
  byId("control-note").textContent = used ? several(used, "image") : "";
  byId("upscale-note").textContent = byId("upscale").value ? `${byId("upscale").value}×` : "";
  const more = MORE.filter((id) => byId(id).value !== "").length;
  byId("more-note").textContent = more ? `${more} set` : "";
}
