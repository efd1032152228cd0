// Recent traces with a fallback, one drawn as a waterfall.

import { get } from "./api.js";
import { byId, el, toast } from "./dom.js";
import { ago, duration, words } from "./format.js";

const MAX_LISTED = 30;
let shownId = "";
let waiting = null;

export function startTraces() {
  byId("trace-choice").addEventListener("change", (event) => show(event.target.value));
}

/** Read the list again; the newest is shown unless another has been chosen. */
export async function refreshTraces() {
  const list = await get(`/api/traces?fallback=1&limit=${MAX_LISTED}`);
  const choice = byId("trace-choice");
  const chosen = choice.selectedIndex > 0 ? choice.value : "";
  choice.replaceChildren(
    ...list.map((trace) =>
      el("option", {
        text: `${trace.name} · ${duration(trace.durationMs)} · ${ago(trace.startedAt)}`,
        attrs: { value: trace.traceId },
      }),
    ),
  );
  const kept = list.some((trace) => trace.traceId === chosen) ? chosen : (list[0]?.traceId ?? "");
  choice.value = kept;
  choice.closest("label").hidden = list.length === 0;
  byId("no-trace").hidden = list.length > 0;
  byId("trace").hidden = list.length === 0;
  if (kept) await show(kept);
}

/** A new fallback: its other spans are still on their way, so wait for them. */
export function traceArrived() {
  clearTimeout(waiting);
  waiting = setTimeout(() => refreshTraces().catch(() => {}), 900);
}

async function show(id) {
  shownId = id;
  try {
    const found = await get(`/api/traces/${encodeURIComponent(id)}/waterfall`);
    if (shownId === id) draw(found);
  } catch (error) {
    toast(error.message, "error");
  }
}

function draw(found) {
  const whole = Math.max(found.durationMs, 0.001);
  const scale = el(
    "div",
    { class: "scale", attrs: { "aria-hidden": "true" } },
    ...[0, 0.25, 0.5, 0.75, 1].map((share) => el("span", { text: duration(whole * share) })),
  );
  const list = el("ol", { class: "waterfall" }, ...found.rows.map((row) => drawRow(row, whole)));
  const note = el("p", { class: "muted" });
  if (found.hidden) {
    const what = found.focused ? "The delivery that fell back" : "The first spans";
    note.textContent = `${what}; ${found.hidden} more spans of trace ${found.traceId.slice(0, 8)}… are not drawn.`;
  }
  byId("trace").replaceChildren(scale, list, note);
}

/** Every subject begins alike and every hop says so: what differs must not be what is cut off. */
function shortName(row) {
  const name = row.name.replace("sb.{node}.", "");
  return row.hop ? name.replace("transport.attempt", "hop") : name;
}

function drawRow(row, whole) {
  const bar = el("i", { data: { outcome: row.status === "error" ? "failed" : (row.outcome ?? ""), transport: row.transport ?? "" } });
  bar.style.marginLeft = `${Math.min(99.5, (row.offsetMs / whole) * 100)}%`;
  bar.style.width = `${Math.max(0.5, (row.durationMs / whole) * 100)}%`;
  const verdict = el("span", { class: "verdict", data: { outcome: row.outcome ?? "" } });
  const reason = row.fallbackReason ? `after ${words(row.fallbackReason)}` : "";
  verdict.textContent = [[row.outcome, row.cause && words(row.cause)].filter(Boolean).join(": "), reason].filter(Boolean).join(", ");
  verdict.title = verdict.textContent;
  const name = el("span", { class: row.hop ? "span-name hop" : "span-name" }, el("span", { text: shortName(row), attrs: { title: row.name } }), el("small", { class: "muted", text: row.service }));
  name.style.paddingInlineStart = `${Math.min(row.depth, 8) * 0.75}rem`;
  return el(
    "li",
    {},
    name,
    el("span", { class: "track" }, bar),
    el("span", { class: "time mono", text: duration(row.durationMs) }),
    verdict,
  );
}
