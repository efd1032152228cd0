// One card a transport: label, state, switch, peers, fallbacks, last error, and what to do when it is not well.

import { put } from "./api.js";
import { byId, el, keyed, setText, toast } from "./dom.js";
import { advice, ago, count, size, words } from "./format.js";

const FLAGS = { webrtc: "webrtcTransport", webtorrent: "webTorrentTransport", broadcast: "broadcastTransport" };
const cards = new Map();
let latest = null;

export function showStats(stats) {
  latest = stats;
  keyed(byId("transports"), cards, stats.transports, (row) => row.id, makeCard);
  tickStats();
}

/** Relative times move on without news. */
export function tickStats() {
  if (!latest) return;
  const total = latest.transportFallbacks;
  setText(
    byId("totals"),
    [
      total ? `${count(total, "fallback")}, the last ${ago(latest.lastTransportFallbackAt)}` : "no fallbacks",
      managerWords(latest.managers),
    ].join("; "),
  );
  for (const row of latest.transports) cards.get(row.id)?.tick(row);
}

function managerWords(managers) {
  if (!managers.count) return "no manager is heard of: nothing can be delivered";
  const refused = Object.entries(managers.refused).map(([cause, times]) => `${words(cause)} ${times}`);
  const notTaken = refused.length ? `, not taken: ${refused.join(", ")}` : "";
  return `${count(managers.count, "manager")}, ${managers.deliveries} under way${notTaken}`;
}

function makeCard(row) {
  const badge = el("span", { class: "badge" });
  const toggle = el("input", { attrs: { type: "checkbox", role: "switch", id: `switch-${row.id}` } });
  const toggleText = el("span", {});
  const fields = Object.fromEntries(
    ["peers", "fallbacks", "last", "error", "moved", "workers"].map((name) => [name, el("dd")]),
  );
  const causes = el("ul", { class: "chips", attrs: { "aria-label": "Why it was left" } });
  const warningTitle = el("strong");
  const warningText = el("span");
  const warning = el("p", { class: "warning", attrs: { role: "note" } }, warningTitle, warningText);
  const field = (label, name, wide = false) => el("div", wide ? { class: "wide" } : {}, el("dt", { text: label }), fields[name]);
  const node = el(
    "article",
    { class: "card", data: { transport: row.id }, attrs: { "aria-labelledby": `label-${row.id}` } },
    el("div", { class: "card-head" }, el("h3", { text: row.label, attrs: { id: `label-${row.id}` } }), badge),
    el(
      "div",
      { class: "card-sub" },
      el("span", { class: "mono muted", text: row.id }),
      el("label", { class: "switch", attrs: { for: `switch-${row.id}` } }, toggleText, toggle),
    ),
    el(
      "dl",
      { class: "facts" },
      field("Peers", "peers"),
      field("Workers", "workers"),
      field("Confirmed", "moved"),
      field("Fallbacks", "fallbacks"),
      field("Last fallback", "last"),
      field("Last error", "error"),
    ),
    causes,
    warning,
  );
  toggle.setAttribute("aria-label", `${row.label} enabled`);
  toggle.addEventListener("change", () => switchTransport(row, toggle));

  function update(now) {
    const state = now.enabled ? now.state : "off";
    badge.dataset.state = state;
    setText(badge, state);
    node.dataset.state = state;
    if (!toggle.disabled) toggle.checked = now.enabled;
    setText(toggleText, now.enabled ? "enabled" : "disabled");
    setText(fields.peers, String(now.connectedPeers));
    setText(fields.workers, now.draining ? `${now.workers} (${now.draining} draining)` : String(now.workers));
    setText(fields.moved, size(now.confirmedBytes ?? 0));
    setText(fields.fallbacks, String(now.fallbackCount));
    fields.fallbacks.classList.toggle("hot", now.fallbackCount > 0);
    setText(fields.error, now.lastError ? words(now.lastError) : "none");
    fields.error.classList.toggle("bad", Boolean(now.lastError));
    const found = Object.entries(now.fallbackCauses).sort((a, b) => b[1] - a[1]);
    causes.replaceChildren(
      ...found.map(([cause, times]) => el("li", {}, words(cause), el("b", { text: ` ${times}` }))),
    );
    causes.hidden = found.length === 0;
    const troubled = state === "degraded" || state === "error";
    warning.hidden = !troubled;
    if (troubled) {
      setText(warningTitle, `${state === "error" ? "Down" : "Degraded"}${now.lastError ? `: ${words(now.lastError)}. ` : ". "}`);
      setText(warningText, advice(now.lastError));
    }
  }

  return { node, update, tick: (now) => setText(fields.last, ago(now.lastFallbackAt)) };
}

async function switchTransport(row, toggle) {
  const wanted = toggle.checked;
  toggle.disabled = true;
  try {
    await put(`/api/flags/${FLAGS[row.id]}`, { enabled: wanted });
    toast(`${row.label} is ${wanted ? "on" : "off"}`);
  } catch (error) {
    toggle.checked = !wanted;
    toast(error.message, "error");
  } finally {
    toggle.disabled = false;
    toggle.focus();
  }
}
