// The mask of image-to-image: strokes of a brush over the initial image, kept as strokes so that each can be undone.

import { byId } from "./elements.js";
import { postBytes } from "./requests.js";

const PAINT = "#ff2f6d";
let picture = null; // the PictureInput whose image is masked
let changed = () => {};
let strokes = []; // { erase, size, points: [[x, y]…] } in pixels of the image
let erase = false;
let current = null;
let spot = [0, 0]; // where the keyboard's brush is
let uploading = null;
let thumbnail = null;

export const hasMask = () => strokes.some((stroke) => !stroke.erase);

export function clearMask() {
  strokes = [];
  finishChange();
}

/** What a request says for the mask: white where the image is drawn anew. */
export async function maskReference() {
  uploading ??= exportMask().then((blob) => postBytes("/api/uploads", blob)).catch((error) => {
    uploading = null;
    throw error;
  });
  return `upload:${(await uploading).upload}`;
}

export function forgetMaskUpload() {
  uploading = null;
}

export function startMask(input, onChange) {
  picture = input;
  changed = onChange;
  thumbnail = document.createElement("canvas");
  picture.frame.append(thumbnail);
  const canvas = byId("mask-canvas");
  byId("mask-open").onclick = open;
  byId("mask-remove").onclick = () => {
    clearMask();
    byId("mask-open").focus();
  };
  byId("mask-brush").onclick = () => chooseTool(false);
  byId("mask-erase").onclick = () => chooseTool(true);
  byId("mask-undo").onclick = undo;
  byId("mask-clear").onclick = () => {
    strokes = [];
    redraw();
  };
  byId("mask-done").onclick = () => byId("mask-dialog").close();
  byId("mask-size").oninput = () => showCursor();
  byId("mask-dialog").onclose = finishChange;
  addEventListener("resize", () => byId("mask-dialog").open && fit());

  canvas.onpointerdown = (event) => {
    if (event.button !== 0) return;
    canvas.setPointerCapture(event.pointerId);
    beginStroke(position(event));
  };
  canvas.onpointermove = (event) => {
    spot = position(event);
    showCursor();
    if (!current) return;
    const all = event.getCoalescedEvents?.() ?? [];
    for (const one of all.length ? all : [event]) current.points.push(position(one));
    redraw();
  };
  canvas.onpointerup = canvas.onpointercancel = () => (current = null);
  canvas.onpointerleave = () => (byId("mask-cursor").hidden = document.activeElement !== canvas);
  canvas.onfocus = showCursor;
  canvas.onblur = () => (byId("mask-cursor").hidden = true);
  canvas.onkeydown = paintByKeys;
  byId("mask-dialog").onkeydown = (event) => {
    if (event.key.toLowerCase() !== "z" || !(event.ctrlKey || event.metaKey)) return;
    event.preventDefault();
    undo();
  };
}

function open() {
  const image = byId("mask-image");
  const canvas = byId("mask-canvas");
  image.src = picture.image.src;
  canvas.width = picture.image.naturalWidth;
  canvas.height = picture.image.naturalHeight;
  spot = [canvas.width / 2, canvas.height / 2];
  byId("mask-dialog").showModal();
  fit();
  redraw();
  canvas.focus();
}

/** The largest size at which the whole image is seen. */
function fit() {
  const canvas = byId("mask-canvas");
  const stage = canvas.parentElement;
  const area = stage.parentElement;
  const style = getComputedStyle(area);
  const width = area.clientWidth - parseFloat(style.paddingLeft) * 2;
  const height = area.clientHeight - parseFloat(style.paddingTop) * 2;
  const scale = Math.min(width / canvas.width, height / canvas.height);
  stage.style.width = `${Math.floor(canvas.width * scale)}px`;
  stage.style.height = `${Math.floor(canvas.height * scale)}px`;
  showCursor();
}

function position(event) {
  const canvas = byId("mask-canvas");
  const box = canvas.getBoundingClientRect();
  return [((event.clientX - box.left) / box.width) * canvas.width, ((event.clientY - box.top) / box.height) * canvas.height];
}

/** The diameter of the brush in pixels of the image: a percentage of its shorter side. */
function brushSize() {
  const canvas = byId("mask-canvas");
  return Math.max(1, (Number(byId("mask-size").value) / 100) * Math.min(canvas.width, canvas.height));
}

function beginStroke(point) {
  spot = point;
  current = { erase, size: brushSize(), points: [point] };
  strokes.push(current);
  showCursor();
  redraw();
}

function chooseTool(erases) {
  erase = erases;
  byId("mask-brush").setAttribute("aria-pressed", !erases);
  byId("mask-erase").setAttribute("aria-pressed", erases);
}

function undo() {
  strokes.pop();
  current = null;
  redraw();
}

function paintByKeys(event) {
  const canvas = byId("mask-canvas");
  const step = brushSize() * (event.shiftKey ? 1 : 0.25);
  const moves = { ArrowLeft: [-step, 0], ArrowRight: [step, 0], ArrowUp: [0, -step], ArrowDown: [0, step] };
  if (moves[event.key]) {
    const [x, y] = moves[event.key];
    spot = [Math.min(canvas.width, Math.max(0, spot[0] + x)), Math.min(canvas.height, Math.max(0, spot[1] + y))];
    showCursor();
  } else if (event.key === " " || event.key === "Enter") {
    beginStroke(spot);
    current = null;
  } else return;
  event.preventDefault();
}

function showCursor() {
  const canvas = byId("mask-canvas");
  const cursor = byId("mask-cursor");
  const scale = canvas.clientWidth / canvas.width;
  cursor.hidden = false;
  cursor.style.left = `${spot[0] * scale}px`;
  cursor.style.top = `${spot[1] * scale}px`;
  cursor.style.width = cursor.style.height = `${brushSize() * scale}px`;
}

function redraw() {
  paint(byId("mask-canvas"), PAINT);
  byId("mask-undo").disabled = strokes.length === 0;
  byId("mask-clear").disabled = strokes.length === 0;
}

function paint(canvas, colour) {
  const context = canvas.getContext("2d");
  context.clearRect(0, 0, canvas.width, canvas.height);
  context.lineCap = context.lineJoin = "round";
  context.strokeStyle = colour;
  for (const { erase, size, points } of strokes) {
    context.globalCompositeOperation = erase ? "destination-out" : "source-over";
    context.lineWidth = size;
    context.beginPath();
    context.moveTo(points[0][0] + 0.01, points[0][1]); // a line of no length would draw no dot
    for (const point of points) context.lineTo(...point);
    context.stroke();
  }
  context.globalCompositeOperation = "source-over";
}

function exportMask() {
  const canvas = document.createElement("canvas");
  canvas.width = picture.image.naturalWidth;
  canvas.height = picture.image.naturalHeight;
  paint(canvas, "#fff");
  const context = canvas.getContext("2d");
  context.globalCompositeOperation = "destination-over"; // black behind the strokes
  context.fillRect(0, 0, canvas.width, canvas.height);
  return new Promise((resolve) => canvas.toBlob(resolve, "image/png"));
}

function finishChange() {
  current = null;
  uploading = null;
  thumbnail.width = picture.image.naturalWidth || 1;
  thumbnail.height = picture.image.naturalHeight || 1;
  paint(thumbnail, PAINT);
  byId("mask-remove").hidden = !hasMask();
  byId("mask-open").textContent = hasMask() ? "Change the mask…" : "Draw a mask…";
  changed();
}
