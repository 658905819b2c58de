// The jobs that the page knows, newest first, as the server's list and events tell them.

import { afterPause } from "./elements.js";
import { get } from "./requests.js";

const PAGE = 50;
const jobs = new Map(); // id → { job, order, listed }; a larger order is newer; listed: as part of a page of the list
const listeners = [];
let newest = 0;
let oldest = 0;
let more = null; // unknown before the first list

export const hasEnded = (job) => !["queued", "running"].includes(job.state);
export const onJobs = (listener) => listeners.push(listener);
export const hasOlder = () => more;
export const find = (id) => jobs.get(id)?.job;

export function newestFirst() {
  return [...jobs.values()].sort((a, b) => b.order - a.order).map((entry) => entry.job);
}

function tell(change = {}) {
  for (const listener of listeners) listener(change);
}

const stage = (job) => (hasEnded(job) ? 2 : job.state === "running" ? 1 : 0);

function place(job, order, listed = false, isEvent = false) {
  const known = jobs.get(job.id);
  // An answer to a question that was asked before an event can be older than the event.
  if (known && !isEvent && stage(job) < stage(known.job)) return;
  jobs.set(job.id, { job, order: known?.order ?? order(), listed: listed || known?.listed });
}

/** Loads the newest jobs, and drops those that the server no longer has. */
export async function load() {
  const { jobs: list } = await get(`/api/jobs?limit=${PAGE}`);
  const listed = new Set(list.map((job) => job.id));
  for (const job of [...list].reverse()) place(job, () => ++newest, true);
  const last = list.length === PAGE ? jobs.get(list[PAGE - 1].id).order : -Infinity;
  for (const [id, entry] of jobs) if (entry.order >= last && !listed.has(id)) jobs.delete(id);
  if (more === null || last === -Infinity) more = list.length === PAGE;
  // What waits or runs may be older than the newest page.
  if (list.length === PAGE) await loadQueue();
  tell();
}

export async function loadOlder() {
  const last = newestFirst().findLast((job) => jobs.get(job.id).listed);
  const { jobs: list } = await get(`/api/jobs?limit=${PAGE}&before=${encodeURIComponent(last.id)}`);
  for (const job of list) place(job, () => --oldest, true);
  more = list.length === PAGE;
  tell();
}

async function loadQueue() {
  const { jobs: list } = await get("/api/jobs?state=queued,running&limit=200");
  for (const job of list) place(job, () => --oldest);
}

// Positions move when a job ahead starts or ends, which is no event of the jobs behind it.
const refreshQueue = afterPause(150, () => loadQueue().then(() => tell(), () => {}));

/** Takes in a job of an answer or, `isEvent`, of an event, which is always the newest that is known. */
export function apply(job, isEvent = false) {
  const before = find(job.id);
  place(job, () => ++newest, false, isEvent);
  if (before?.state !== job.state && newestFirst().some((other) => other.state === "queued")) refreshQueue();
  tell({ job, before });
}

export function applyProgress(progress) {
  const job = find(progress.id);
  if (!job || hasEnded(job)) return;
  job.progress = progress;
  tell({ progress: job });
}

export function drop(id) {
  const job = find(id);
  if (!job) return;
  jobs.delete(id);
  tell({ removed: job });
}
