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
      ...chunkWords(latest.chunkTransfers),
    ].join("; "),
  );
  for (const row of latest.transports) cards.get(row.id)?.tick(row);
}

function managerWords(managers) {
  if (!managers.count) return "no manager is heard of: nothing can be delivered";
  const refused = Object.entries(managers.refused).map(([cause, times]) => `${words(cause)} ${times}`);
  const notTaken = refused.length ? `, not taken: ${refused.join(", ")}` : "";
  const shares = shared(managers.instances);
  const taken = shared(managers.taken);
  return `${count(managers.count, "manager")}, ${managers.deliveries} in flight${shares}${taken && `, taken${taken}`}${notTaken}`;
}

/** How the work is shared by instances, where there are several. */
function shared(instances) {
  const each = Object.values(instances);
  return each.length > 1 ? ` (${each.join(" + ")})` : "";
}

function chunkWords(transfers) {
  const shares = shared(transfers);
  return shares ? [`${Object.keys(transfers).length} chunk services, transfers${shares}`] : [];
}

function makeCard(row) {
  const badge = el("span", { class: "badge" });
  const toggle = el("input", { attrs: { type: "checkbox", role: "switch", id: `switch-${row.id}` } });
  const toggleText = el("span", {});
  const fields = Object.fromEntries(
    ["peers", "workers", "fallbacks", "fetched", "sent", "activity", "last", "error", "since"].map((name) => [name, el("dd")]),
  );
  const parts = makeParts();
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
      field("Fallbacks", "fallbacks"),
      field("Fetched", "fetched"),
      field("Sent", "sent"),
      field("Last activity", "activity"),
      field("Last fallback", "last"),
      field("Last error", "error"),
      field("Counted since", "since"),
    ),
    causes,
    warning,
    parts.node,
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
    setText(fields.fetched, size(now.confirmedBytes));
    setText(fields.sent, size(now.sentBytes));
    setText(fields.fallbacks, String(now.fallbackCount));
    fields.fallbacks.classList.toggle("hot", now.fallbackCount > 0);
    fields.error.classList.toggle("bad", Boolean(now.lastError));
    parts.update(now);
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

  function tick(now) {
    setText(fields.last, ago(now.lastFallbackAt));
    setText(fields.activity, ago(now.lastActivityAt));
    const at = now.lastErrorAt ? `, ${ago(now.lastErrorAt)}` : "";
    setText(fields.error, now.lastError ? `${words(now.lastError)}${at}` : "none");
    setText(fields.since, now.countedSince ? ago(now.countedSince) : "the oldest hop kept");
    parts.tick(now);
  }

  return { node, update, tick };
}

/** Each worker, and each member of the rendezvous document as it sees it; closed until somebody wants to know. */
function makeParts() {
  const summary = el("summary");
  const list = el("ul");
  const node = el("details", { class: "more" }, summary, list);
  let latest = null;

  function update(now) {
    latest = now;
    node.hidden = now.instances.length + now.places.length === 0;
    const poor = now.places.filter((place) => ["waiting", "unusable"].includes(place.state)).length;
    const places = now.places.length ? `, ${count(now.places.length, "rendezvous entry", "rendezvous entries")}` : "";
    setText(summary, `${count(now.instances.length, "worker")}${places}${poor ? `, ${poor} not usable now` : ""}`);
    if (node.open) draw();
  }

  function draw() {
    list.replaceChildren(...latest.instances.map(workerRow), ...latest.places.map(placeRow));
  }

  node.addEventListener("toggle", () => node.open && latest && draw());
  return { node, update, tick: () => node.open && latest && draw() };
}

const STATES = { open: "ready", connecting: "initializing", waiting: "degraded", unusable: "error" };
const LISTS = { peerServers: "PeerServer", webtorrentTrackers: "tracker", iceServers: "ICE server", dhtNodes: "DHT node" };

function workerRow(worker) {
  const moved = `${count(worker.peers, "peer")}, ${size(worker.receivedBytes)} in, ${size(worker.sentBytes)} out`;
  const error = worker.lastError ? `, ${words(worker.lastError)} ${worker.lastErrorAt ? ago(worker.lastErrorAt) : ""}` : "";
  const badge = el("span", { class: "badge", text: worker.draining ? "draining" : worker.state, data: { state: worker.state } });
  return el("li", {}, badge, el("span", { class: "mono", text: worker.id }), el("span", { class: "muted", text: moved + error }));
}

function placeRow(place) {
  const badge = el("span", { class: "badge", text: place.state, data: { state: STATES[place.state] ?? "" } });
  const name = `${LISTS[place.list] ?? words(place.list)} ${place.index + 1}`;
  const why = [place.cause && words(place.cause), place.since && `since ${ago(place.since)}`, place.retryAt && `next try ${when(place.retryAt)}`];
  return el("li", {}, badge, el("span", { text: name }), el("span", { class: "muted", text: why.filter(Boolean).join(", ") }));
}

const when = (atMs) => {
  const seconds = Math.round((atMs - Date.now()) / 1000);
  return seconds > 0 ? `in ${seconds} s` : "now";
};

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
