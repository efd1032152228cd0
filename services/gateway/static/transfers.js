// Transfers with progress, coloured by the transport that brought each byte; and the forms that start them.

import { get, post, privateContent, remove, upload } from "./api.js";
import { byId, copy, el, fieldError, keyed, setText, toast } from "./dom.js";
import { filesMayHaveChanged } from "./files.js";
import { ago, fileName, safeName, size, words } from "./format.js";

const MAX_SHOWN = 50;
const TRANSPORTS = ["webrtc", "webtorrent", "broadcast"];
const transfers = new Map();
const rows = new Map();
const speeds = new Map();
// Keys of private content that was asked for on this page: they stay in its memory.
const keys = new Map();

export function showTransfers(list) {
  transfers.clear();
  for (const transfer of list) transfers.set(transfer.id, transfer);
  draw();
}

export function showTransfer(transfer) {
  measure(transfer);
  if (transfer.state === "done") filesMayHaveChanged();
  transfers.set(transfer.id, transfer);
  draw();
}

export function tickTransfers() {
  for (const [id, row] of rows) row.tick(transfers.get(id));
}

export function startForms() {
  byId("legend").replaceChildren(...TRANSPORTS.map((name) => el("li", { data: { transport: name }, text: name })));
  byId("put-form").addEventListener("submit", putFile);
  byId("get-form").addEventListener("submit", fetchLink);
  for (const id of ["file", "link"]) byId(id).addEventListener("input", () => fieldError(byId(id), ""));
}

function draw() {
  const shown = [...transfers.values()].sort((a, b) => b.startedAt - a.startedAt).slice(0, MAX_SHOWN);
  byId("no-transfers").hidden = shown.length > 0;
  keyed(byId("transfers"), rows, shown, (transfer) => transfer.id, makeRow);
  tickTransfers();
}

function measure(transfer) {
  const now = performance.now();
  const before = speeds.get(transfer.id);
  if (transfer.state !== "running") {
    speeds.delete(transfer.id);
  } else if (!before) {
    speeds.set(transfer.id, { at: now, bytes: transfer.bytesDone, rate: 0 });
  } else if (now - before.at > 400) {
    const rate = ((transfer.bytesDone - before.bytes) * 1000) / (now - before.at);
    speeds.set(transfer.id, { at: now, bytes: transfer.bytesDone, rate: before.rate ? (before.rate + rate) / 2 : rate });
  }
}

function makeRow(first) {
  const name = el("span", { class: "name" });
  const state = el("span", { class: "badge" });
  const detail = el("span", { class: "muted detail" });
  const when = el("span", { class: "muted when" });
  const segments = Object.fromEntries(["other", ...TRANSPORTS].map((key) => [key, el("i", { data: { transport: key } })]));
  const bar = el("div", { class: "bar", attrs: { role: "progressbar", "aria-valuemin": "0", "aria-valuemax": "100" } });
  bar.append(...TRANSPORTS.map((key) => segments[key]), segments.other);
  const actions = el("span", { class: "actions" });
  const reason = el("p", { class: "muted", attrs: { "aria-live": "polite" }, props: { hidden: true } });
  const node = el(
    "li",
    { class: "transfer", data: { kind: first.kind } },
    el("div", { class: "line" }, el("span", { class: "kind", text: first.kind, data: { kind: first.kind } }), name, state),
    bar,
    el("div", { class: "line" }, detail, when, actions),
    reason,
  );
  let shownActions = "";

  function update(transfer) {
    setText(name, fileName(transfer));
    name.title = fileName(transfer);
    state.dataset.state = transfer.state;
    setText(state, transfer.state);
    const total = Math.max(transfer.bytesTotal, 1);
    const share = transfer.state === "done" ? 1 : Math.min(1, transfer.bytesDone / total);
    const whole = transfer.state === "done" ? Math.max(transfer.bytesDone, 1) : total;
    let coloured = 0;
    for (const key of TRANSPORTS) {
      const part = Math.min((transfer.byTransport[key] ?? 0) / whole, share - coloured);
      coloured += Math.max(0, part);
      segments[key].style.width = `${Math.max(0, part) * 100}%`;
    }
    segments.other.style.width = `${Math.max(0, share - coloured) * 100}%`;
    bar.setAttribute("aria-valuenow", String(Math.round(share * 100)));
    bar.setAttribute("aria-label", `${transfer.kind} ${fileName(transfer)}`);
    setText(detail, describe(transfer));
    detail.classList.toggle("bad", transfer.state === "failed");
    const wanted = `${transfer.state}${transfer.link}${transfer.manifest}`;
    if (wanted !== shownActions) {
      shownActions = wanted;
      actions.replaceChildren(...makeActions(transfer, reason));
    }
  }

  return { node, update, tick: (transfer) => setText(when, transfer ? ago(transfer.startedAt) : "") };
}

function describe(transfer) {
  if (transfer.state === "failed") return `failed: ${transfer.reason || words(transfer.cause ?? "other")}`;
  const via = Object.entries(transfer.byTransport)
    .filter(([, bytes]) => bytes > 0)
    .map(([key, bytes]) => `${key} ${size(bytes)}`)
    .join(", ");
  if (transfer.state === "done") return [size(transfer.bytesTotal || transfer.bytesDone), via].filter(Boolean).join(" · ");
  const speed = speeds.get(transfer.id)?.rate ?? 0;
  const parts = [`${size(transfer.bytesDone)} of ${transfer.bytesTotal ? size(transfer.bytesTotal) : "…"}`];
  if (speed > 0) parts.push(`${size(Math.round(speed))}/s`);
  if (via) parts.push(via);
  if (transfer.waiting) parts.push(`waiting: ${transfer.reason || words(transfer.waiting)}`);
  return parts.join(" · ");
}

function makeActions(transfer, reason) {
  const button = (text, action, label) =>
    el("button", { class: "quiet", text, attrs: { type: "button", "aria-label": label }, on: { click: action } });
  const found = [];
  if (transfer.state === "running") found.push(button("Cancel", () => cancel(transfer), `Cancel ${fileName(transfer)}`));
  if (transfer.kind === "get") {
    found.push(button("Why", () => explain(transfer, reason), `Why ${fileName(transfer)} goes as it goes`));
  }
  if (transfer.link) found.push(button("Copy link", () => copy(transfer.link), `Copy the link of ${fileName(transfer)}`));
  if (transfer.state === "done" && transfer.manifest) {
    found.push(button("Save", () => save(transfer), `Save ${fileName(transfer)}`));
  }
  return found;
}

async function cancel(transfer) {
  try {
    await remove(`/api/transfers/${transfer.id}`);
  } catch (error) {
    toast(error.message, "error");
  }
}

/** Show the verdict's one sentence below the transfer; a second press asks again. */
async function explain(transfer, reason) {
  try {
    const found = await get(`/api/why/${transfer.id}?utcOffset=${-new Date().getTimezoneOffset()}`);
    setText(reason, found.headline);
    reason.hidden = false;
  } catch (error) {
    toast(error.message, "error");
  }
}

async function save(transfer) {
  const key = keys.get(transfer.manifest) ?? transfer.link.split("#")[1];
  const anchor = el("a", { props: { download: safeName(transfer) } });
  let url = `/api/files/${encodeURIComponent(transfer.manifest)}/content`;
  try {
    if (key) url = URL.createObjectURL(await privateContent(transfer.manifest, key));
    anchor.href = url;
    anchor.click();
  } catch (error) {
    toast(error.message, "error");
  } finally {
    if (url.startsWith("blob:")) setTimeout(() => URL.revokeObjectURL(url), 60000);
  }
}

async function putFile(event) {
  event.preventDefault();
  const form = event.currentTarget;
  const button = form.querySelector("button");
  const bar = byId("upload");
  const file = byId("file").files[0];
  if (!file) return;
  button.disabled = true;
  bar.hidden = false;
  try {
    await upload(file, byId("class").value, (share) => (bar.value = share));
    form.reset();
    toast(`${file.name} is being stored`);
  } catch (error) {
    fieldError(byId("file"), error.message);
  } finally {
    button.disabled = false;
    bar.hidden = true;
    bar.value = 0;
  }
}

async function fetchLink(event) {
  event.preventDefault();
  const form = event.currentTarget;
  const [link, key] = byId("link").value.trim().split("#");
  try {
    await post("/api/fetches", { link });
    const digest = /^swarmbridge:([0-9a-f]{64})/.exec(link)?.[1];
    if (key && digest) keys.set(digest, key);
    form.reset();
  } catch (error) {
    fieldError(byId("link"), error.message);
  }
}
