// The server's API: the token, requests, uploads, images and the stream of events.

import { byId } from "./elements.js";

const TOKEN = "sd-generate.token";
let token = storedToken();
let asking = null;

/** An answer that says what was wrong, in the server's words. */
export class ApiError extends Error {
  constructor(status, error) {
    super(error?.message ?? `The server answered with status ${status}.`);
    this.status = status;
    this.code = error?.code;
    this.field = error?.field;
    this.hint = error?.hint;
    this.smallestBudget = error?.smallest_budget;
  }
}

// The token

function storedToken() {
  try {
    return sessionStorage.getItem(TOKEN);
  } catch {
    return null;
  }
}

function keepToken(value) {
  token = value;
  try {
    sessionStorage.setItem(TOKEN, value);
  } catch {
    // Then it is asked for again after a reload.
  }
}

/** Opens the dialog and resolves once a token was entered. Requests that fail together share one dialog. */
function askForToken(refused) {
  const dialog = byId("token-dialog");
  const input = byId("token");
  byId("token-error").hidden = !refused;
  input.value = "";
  dialog.oncancel = (event) => event.preventDefault(); // without a token there is nothing behind the dialog
  if (!dialog.open) dialog.showModal();
  return new Promise((resolve) => {
    byId("token-form").onsubmit = (event) => {
      event.preventDefault();
      keepToken(input.value.trim());
      dialog.close();
      resolve();
    };
  });
}

async function authorised(path, options = {}) {
  for (;;) {
    const used = token;
    const headers = { ...options.headers };
    if (used) headers.Authorization = `Bearer ${used}`;
    const response = await fetch(path, { ...options, headers });
    if (response.status !== 401) return response;
    if (token === used) {
      asking ??= askForToken(used !== null).finally(() => (asking = null));
      await asking;
    }
  }
}

// Requests

async function checked(path, options) {
  let response;
  try {
    response = await authorised(path, options);
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new ApiError(0, { code: "unreachable", message: "The server cannot be reached." });
  }
  if (response.ok) return response;
  const body = await response.json().catch(() => null);
  // The smallest budget is looked for in both places that it could stand in.
  throw new ApiError(response.status, { smallest_budget: body?.smallest_budget, ...body?.error });
}

export async function get(path, options) {
  return (await checked(path, options)).json();
}

export async function post(path, body, options) {
  const response = await checked(path, { method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify(body ?? {}), ...options });
  return response.json();
}

export async function postBytes(path, blob, options) {
  const headers = { "Content-Type": blob.type || "application/octet-stream" };
  const response = await checked(path, { method: "POST", headers, body: blob, ...options });
  return response.json();
}

export async function remove(path) {
  await checked(path, { method: "DELETE" });
}

// Images, which need the header too and are therefore shown by object URLs

const pictures = new Map();

export async function pictureBlob(path) {
  return (await checked(path)).blob();
}

export function pictureUrl(path) {
  if (!pictures.has(path)) {
    const loading = pictureBlob(path).then((blob) => URL.createObjectURL(blob));
    loading.catch(() => pictures.delete(path));
    pictures.set(path, loading);
  }
  return pictures.get(path);
}

export function forgetPicture(path) {
  pictures.get(path)?.then(URL.revokeObjectURL, () => {});
  pictures.delete(path);
}

// Events. EventSource cannot send the header, so that the stream is read by fetch.

const SILENCE = 45_000; // three comments of the server

/** Follows all events for as long as the page is open, and connects again after a pause that grows. */
export async function followEvents({ onOpen, onEvent, onLost }) {
  let failures = 0;
  for (;;) {
    const aborting = new AbortController();
    let silence;
    const heard = () => {
      clearTimeout(silence);
      silence = setTimeout(() => aborting.abort(), SILENCE);
    };
    try {
      heard();
      const response = await authorised("/api/events", { signal: aborting.signal, headers: { Accept: "text/event-stream" } });
      if (!response.ok) throw new Error(`status ${response.status}`);
      failures = 0;
      onOpen();
      await readEvents(response.body, heard, onEvent);
    } catch {
      // A connection that ends in whichever way is opened again below.
    }
    clearTimeout(silence);
    aborting.abort();
    const wait = Math.min(30, 2 ** failures) * 1000 * (0.75 + Math.random() / 2);
    failures += 1;
    onLost(wait);
    await pauseOrOnline(wait);
  }
}

async function readEvents(body, heard, onEvent) {
  const reader = body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  let name = "message";
  let data = [];
  for (;;) {
    const { value, done } = await reader.read();
    if (done) return;
    heard();
    const lines = (rest + value).split(/\r\n|\n|\r(?!$)/);
    rest = lines.pop();
    for (const line of lines) {
      if (line === "") {
        if (data.length) onEvent(name, JSON.parse(data.join("\n")));
        name = "message";
        data = [];
      } else if (line.startsWith("event:")) name = line.slice(6).trim();
      else if (line.startsWith("data:")) data.push(line.slice(line[5] === " " ? 6 : 5));
    }
  }
}

function pauseOrOnline(milliseconds) {
  return new Promise((resolve) => {
    const finish = () => {
      clearTimeout(timer);
      removeEventListener("online", finish);
      resolve();
    };
    const timer = setTimeout(finish, milliseconds);
    addEventListener("online", finish);
  });
}
