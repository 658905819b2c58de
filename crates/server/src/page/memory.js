// The memory in use against the budget: the bar at the top, and the curve over the last minutes.

import { byId, bytes } from "./elements.js";
import { get } from "./requests.js";
import { stageName } from "./queue.js";

const SPAN = 300; // seconds that the curve shows at most
const HEIGHT = 110;
const FOOT = 16; // for the names of the stages
let points = [];
let budget = 0;
let device = null;
let drawing = false;

export async function loadMemory() {
  const memory = await get("/api/memory");
  budget = memory.budget;
  device = memory.device;
  points = memory.timeline.map(({ at, process, device, stage }) => ({ at, used: device ?? process, stage }));
  showBar(device?.used ?? memory.process);
  const details = [`${bytes(memory.system_available)} of ${bytes(memory.system_total)} free on this machine`];
  if (memory.loaded) details.push(`${bytes(memory.loaded)} of models loaded`);
  if (device) details.push(device.name);
  byId("memory-note").textContent = details.join(" · ");
  requestDrawing();
}

export function addMemory({ at, process, device, budget: newBudget, stage }) {
  if (points.length && at < points.at(-1).at) points = []; // the server was started again
  budget = newBudget ?? budget;
  points.push({ at, used: device ?? process, stage });
  while (points[0].at < at - SPAN) points.shift();
  showBar(device ?? process);
  requestDrawing();
}

export function startMemory() {
  new ResizeObserver(requestDrawing).observe(byId("timeline"));
}

function showBar(used) {
  const share = budget ? used / budget : 0;
  const bar = byId("budget-bar");
  byId("budget-text").textContent = `${bytes(used)} of ${bytes(budget)}`;
  bar.dataset.over = share > 1;
  bar.firstElementChild.style.width = `${Math.min(100, share * 100)}%`;
  bar.setAttribute("aria-valuenow", Math.round(Math.min(100, share * 100)));
  bar.setAttribute("aria-valuetext", byId("budget-text").textContent);
}

// Events come faster than a screen shows them.
function requestDrawing() {
  if (drawing) return;
  drawing = true;
  requestAnimationFrame(() => {
    drawing = false;
    drawTimeline();
  });
}

function shape(tag, attributes, text) {
  const made = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  if (text !== undefined) made.textContent = text;
  return made;
}

function drawTimeline() {
  const box = byId("timeline");
  const width = box.clientWidth;
  if (!width) return;
  if (points.length < 2) {
    box.replaceChildren(shapeOfNothing(width));
    return;
  }
  const end = points.at(-1).at;
  const start = Math.min(points[0].at, end - 10);
  const peak = Math.max(...points.map((point) => point.used));
  // A budget far above the curve would press the curve flat: it is then named instead of drawn.
  const drawsBudget = peak > budget * 0.3;
  const top = drawsBudget ? Math.max(budget, peak) * 1.15 : peak * 1.35;
  const floor = HEIGHT - FOOT;
  const x = (at) => ((at - start) / (end - start)) * width;
  const y = (used) => floor - (used / top) * floor;
  const curve = points.map((point, index) => `${index ? "L" : "M"}${x(point.at).toFixed(1)} ${y(point.used).toFixed(1)}`).join("");

  const drawn = shape("svg", { viewBox: `0 0 ${width} ${HEIGHT}` });
  drawn.append(...stageMarks(x, floor, width));
  drawn.append(shape("path", { class: "area", d: `${curve}L${x(end)} ${floor}L${x(points[0].at).toFixed(1)} ${floor}Z` }));
  drawn.append(shape("path", { class: "curve", d: curve }));
  drawn.append(shape("path", { class: "ground", d: `M0 ${floor}H${width}` }));
  if (drawsBudget) {
    drawn.append(shape("path", { class: "limit", d: `M0 ${y(budget).toFixed(1)}H${width}` }));
  }
  const line = drawsBudget ? y(budget) - 4 : 10;
  drawn.append(shape("text", { class: drawsBudget ? "limit-text" : "", x: 0, y: line }, `Budget ${bytes(budget)}${drawsBudget ? "" : ", far above this curve"}`));
  drawn.append(shape("text", { x: width, y: line, "text-anchor": "end" }, `Peak ${bytes(peak)}`));
  box.replaceChildren(drawn);
  box.setAttribute("aria-label", `Memory over the last ${Math.round(end - start)} seconds: now ${bytes(points.at(-1).used)}, peak ${bytes(peak)}, budget ${bytes(budget)}`);
}

function shapeOfNothing(width) {
  const drawn = shape("svg", { viewBox: `0 0 ${width} ${HEIGHT}` });
  drawn.append(shape("path", { class: "ground", d: `M0 ${HEIGHT - FOOT}H${width}` }), shape("text", { x: 0, y: HEIGHT - FOOT - 8 }, "The curve starts with the first image."));
  return drawn;
}

/** A line where a stage begins, with its name where there is room for it. */
function stageMarks(x, floor, width) {
  const marks = [];
  const starts = points.flatMap((point, index) => (point.stage && point.stage !== points[index - 1]?.stage ? [index] : []));
  let free = 0;
  for (const index of starts) {
    const next = points.findIndex((point, other) => other > index && point.stage !== points[index].stage);
    const from = x(points[index].at);
    const until = next < 0 ? width : x(points[next].at);
    const name = stageName(points[index].stage);
    const needed = name.length * 6.2;
    if (until - from < 8) continue;
    marks.push(shape("path", { class: "stage", d: `M${from.toFixed(1)} 0V${floor}` }));
    if (until - from < needed || from < free || from + needed > width) continue;
    marks.push(shape("text", { x: from.toFixed(1), y: HEIGHT - 3 }, name));
    free = from + needed + 6;
  }
  return marks;
}
