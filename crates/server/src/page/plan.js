// The plan before drawing: memory against the budget and the time, asked for a moment after a change.

import { afterPause, byId, bytes, duration } from "./elements.js";
import { ApiError, post } from "./requests.js";
import { forgetUploads, form, readSettings } from "./settings.js";

let asked = null; // the AbortController of the question that is on its way

export const refreshPlan = afterPause(450, async () => {
  asked?.abort();
  // The form itself shows what is wrong; a prompt may still be missing, which changes no plan.
  const wrong = [...form().elements].find((field) => field.id !== "prompt" && !field.validity.valid);
  if (wrong) return;
  const asking = (asked = new AbortController());
  const panel = byId("plan");
  panel.dataset.busy = true;
  try {
    const plan = await withUploads(async () => {
      const settings = await readSettings();
      return post("/api/plan", { ...settings, prompt: settings.prompt.trim() || "image" }, { signal: asking.signal });
    });
    if (asking === asked) showPlan(plan);
  } catch (error) {
    if (asking === asked && error.name !== "AbortError") showProblem(error);
  }
  if (asking === asked) panel.dataset.busy = false;
});

/** Runs `request`, and once more with fresh uploads if the server no longer has them. */
export async function withUploads(request) {
  try {
    return await request();
  } catch (error) {
    const aboutPicture = /^(init_image|mask|control)/.test(error.field ?? "") || error.status === 404 || error.status === 410;
    if (!(error instanceof ApiError) || !aboutPicture || !forgetUploads()) throw error;
    return request();
  }
}

function showPlan(plan) {
  const share = plan.predicted_peak / plan.budget;
  byId("plan").dataset.state = share > 1 ? "over" : "fits";
  byId("plan-memory").textContent = `Needs ${bytes(plan.predicted_peak)} of ${bytes(plan.budget)}`;
  byId("plan-time").textContent = plan.seconds == null ? "" : `about ${duration(plan.seconds)}`;
  byId("plan-fill").style.width = `${Math.min(100, share * 100)}%`;
  byId("plan-note").textContent = plan.streams ? `Weights are streamed from disk. With ${bytes(plan.resident_budget)} they stay in memory.` : "";
  showText(plan.text);
  // What the server takes for the fields that are left to it.
  byId("steps").placeholder = plan.steps ? `auto: ${plan.steps}` : "auto";
  byId("size").options[0].textContent = byId("size").value === "" && plan.size ? `Auto: ${plan.size.replace("x", "×")}` : "Auto";
  byId("model").options[0].textContent = byId("model").value === "" && plan.model ? `Auto: ${plan.model}` : "Auto";
}

function showProblem(error) {
  const over = error.code === "does_not_fit";
  byId("plan").dataset.state = over ? "over" : "problem";
  byId("plan-memory").textContent = over ? "Does not fit into the budget" : error.message;
  byId("plan-time").textContent = "";
  byId("plan-fill").style.width = over ? "100%" : "0";
  const smallest = over && error.smallestBudget ? `The smallest budget for it is ${bytes(error.smallestBudget)}.` : "";
  byId("plan-note").textContent = [over && error.message, smallest, error.hint].filter(Boolean).join(" ");
  showText("");
}

function showText(text) {
  byId("plan-text").textContent = text ?? "";
  byId("plan-details").hidden = !text;
}
