// The node's BroadcastChannel shim, tried in two windows: a message, and a file chunk by chunk.
//
// This page is like any page of the application: it includes `broadcast.js` and uses a plain BroadcastChannel.

import { ApiError, get } from "./api.js";
import { byId, el, fieldError, setText, toast } from "./dom.js";
import { count, size } from "./format.js";
import { MAX_FILE_BYTES, assemble, cut } from "./try_chunks.js";

const ANSWER_MS = 10000;
const MAX_MESSAGES = 50;
const MAX_OFFERS = 50;
const own = `peer-${Array.from(crypto.getRandomValues(new Uint8Array(8)), (b) => b.toString(16).padStart(2, "0")).join("")}`;
const offered = new Map();
const serving = new Map();
const rows = new Map();
const pending = new Map();
let channel = null;
let node = "";

/** swarm-space's envelope; target "" = for all. */
function send(type, payload, target = "") {
  channel.postMessage({ type, payload, from: own, target: target || undefined, transport: "webtorrent" });
}

function ask(target, type, hash) {
  const requestId = crypto.randomUUID();
  return new Promise((resolve, reject) => {
    const late = setTimeout(() => pending.get(requestId)?.(null), ANSWER_MS);
    pending.set(requestId, (answer) => {
      clearTimeout(late);
      pending.delete(requestId);
      if (answer === null) reject(new Error("no answer within 10 s: is that window still open?"));
      else if (answer.error) reject(new Error(answer.error));
      else resolve(answer);
    });
    send("chunk", { type, requestId, hash }, target);
  });
}

// ── what is heard ──

function hear(message) {
  if (typeof message !== "object" || message === null || message.from === own) return;
  if (message.target && message.target !== own) return;
  const { type, payload, from } = message;
  if (typeof from !== "string" || typeof payload !== "object" || payload === null) return;
  if (type === "try-message") addMessage(from, String(payload.text).slice(0, 500));
  else if (type === "try-offer") addOffer(payload.manifest, from, `window ${from.slice(5, 11)}`);
  else if (type === "try-hello") for (const manifest of offered.values()) send("try-offer", { manifest }, from);
  else if (type === "chunk") hearChunk(payload, from);
}

function hearChunk(payload, from) {
  if (payload.type === "request_chunk") {
    const chunk = serving.get(payload.hash);
    const found = chunk ? { type: "chunk_data", chunk } : { type: "chunk_not_found", error: "Chunk not found" };
    send("chunk", { ...found, requestId: payload.requestId, hash: payload.hash }, from);
  } else pending.get(payload.requestId)?.(payload);
}

// ── what is shown ──

function addMessage(from, text) {
  const name = from === own ? "this window" : `window ${from.slice(5, 11)}`;
  byId("no-messages").hidden = true;
  byId("messages").prepend(
    el("li", {}, el("div", { class: "line" }, el("span", { class: "detail", text }), el("span", { class: "muted when", text: name }))),
  );
  while (byId("messages").children.length > MAX_MESSAGES) byId("messages").lastChild.remove();
}

function addOffer(manifest, from, place) {
  if (!Array.isArray(manifest?.chunks) || rows.has(manifest.fileId) || rows.size >= MAX_OFFERS) return;
  rows.set(manifest.fileId, from);
  byId("no-offers").hidden = true;
  const bar = el("progress", { attrs: { "aria-label": "Fetched" }, props: { max: 1, value: 0, hidden: true } });
  const actions = el("span", { class: "actions" });
  const facts = `${size(manifest.size)} · ${count(manifest.chunks.length, "chunk")} · ${place}`;
  const name = el("span", { class: "name", text: manifest.originalName });
  byId("offers").append(
    el("li", {}, el("div", { class: "line" }, name), el("div", { class: "line" }, el("span", { class: "muted detail", text: facts }), actions), bar),
  );
  if (from === own) return;
  const button = el("button", { class: "quiet", text: "Fetch", attrs: { type: "button", "aria-label": `Fetch: ${manifest.originalName}` } });
  button.addEventListener("click", () => fetchFile(manifest, from, button, bar, actions));
  actions.append(button);
}

async function fetchFile(manifest, from, button, bar, actions) {
  button.disabled = true;
  bar.hidden = false;
  try {
    const askChunk = async (ref) => (await ask(from, "request_chunk", ref)).chunk;
    const blob = await assemble(manifest, askChunk, (share) => { bar.value = share; });
    const href = URL.createObjectURL(blob);
    actions.replaceChildren(el("a", { text: "Save", attrs: { href, download: manifest.originalName } }));
  } catch (error) {
    button.disabled = false;
    bar.hidden = true;
    toast(`${manifest.originalName}: ${error.message}`, "error");
  }
}

/** What the node has that any peer may read: its manifest comes by the channel as well. */
async function offerOfNode() {
  const files = await get("/api/files?limit=20").catch(() => []);
  for (const file of files) {
    if (file.contentClass !== "shared" || file.chunksStored !== file.chunksTotal) continue;
    const { manifest } = await ask(node, "request_manifest", file.manifest);
    addOffer({ ...manifest, fileId: file.manifest }, node, "this node");
  }
}

// ── the page ──

function notice(text) {
  byId("try").hidden = true;
  byId("notice").hidden = false;
  byId("notice").replaceChildren(...text);
}

function setLive(state) {
  byId("live").dataset.state = state;
  setText(byId("live"), state);
}

function watch() {
  window.addEventListener("swarmbridge:state", ({ detail }) => setLive(detail.state === "open" ? "live" : detail.state));
  window.addEventListener("swarmbridge:present", ({ detail }) => {
    const others = detail.pages - 1;
    setText(byId("present"), others ? `This window and ${count(others, "other")} are on the channel.` : "This window is alone on the channel.");
  });
  window.addEventListener("swarmbridge:error", ({ detail }) => {
    // Nobody there is said above; the node hears everything as well.
    if (detail.cause !== "no_listener") toast(detail.message, "error");
  });
}

async function start() {
  let pages, who;
  try {
    [pages, who] = await Promise.all([get("/api/pages"), get("/api/node")]);
  } catch (error) {
    setLive("logged out");
    const login = error instanceof ApiError && error.status === 401;
    return notice(login ? [el("a", { text: "Log in", attrs: { href: "/" } }), ", then come back: this page shows what the node stores."] : [error.message]);
  }
  if (!pages.url) {
    setLive("off");
    return notice([`No worker takes pages now. Set broadcast.origins to ${location.origin} and start the node again; swarmbridge up does it by itself.`]);
  }
  node = who.name;
  watch();
  const query = new URLSearchParams({ channel: pages.channel });
  if (pages.token) query.set("token", pages.token);
  await import(`${pages.url}/broadcast.js?${query}`);
  channel = new BroadcastChannel(pages.channel);
  channel.addEventListener("message", (event) => hear(event.data));
  byId("try").hidden = false;
  send("try-hello", {});
  await offerOfNode().catch((error) => toast(error.message, "error"));
}

byId("say-form").addEventListener("submit", (event) => {
  event.preventDefault();
  const text = byId("say").value.trim();
  if (!text) return;
  send("try-message", { text });
  addMessage(own, text);
  byId("say").value = "";
});

byId("offer-form").addEventListener("submit", async (event) => {
  event.preventDefault();
  const [file] = byId("file").files;
  if (file.size > MAX_FILE_BYTES) return fieldError(byId("file"), "larger than 16 MiB: put it into the node instead");
  fieldError(byId("file"), "");
  const { manifest, chunks } = await cut(file);
  offered.set(manifest.fileId, manifest);
  for (const [ref, chunk] of chunks) serving.set(ref, chunk);
  addOffer(manifest, own, "this window");
  send("try-offer", { manifest });
  event.target.reset();
});

start().catch((error) => notice([error.message]));
