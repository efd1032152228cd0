// Peers with a live link, who is blocked, and the buttons that block a peer or lift its block.

import { get, put, remove } from "./api.js";
import { byId, el, keyed, setText, toast } from "./dom.js";
import { ago } from "./format.js";

const MAX_SHOWN = 50;
const MAX_NOTE_CHARS = 120;
const WAYS = { all: "both ways", inbound: "inbound", outbound: "outbound" };
const CHOICES = { all: "both ways", inbound: "inbound – what it asks of us", outbound: "outbound – what we ask of it" };
const peerRows = new Map();
const blockRows = new Map();
let peers = [];
let blocks = new Map();

export async function refreshPeers() {
  peers = await get("/api/peers");
  drawPeers();
}

export async function refreshBlocklist() {
  showBlocklist(await get("/api/blocklist"));
}

/** The whole list, as it is now. */
export function showBlocklist(list) {
  blocks = new Map(list.map((block) => [block.peer, block]));
  const shown = [...list].sort((a, b) => b.since - a.since).slice(0, MAX_SHOWN);
  byId("blocked").hidden = list.length === 0;
  byId("more-blocked").hidden = list.length <= MAX_SHOWN;
  setText(byId("more-blocked"), `${list.length - shown.length} more: see \`swarmbridge blocklist\`.`);
  keyed(byId("blocklist"), blockRows, shown, (block) => block.peer, makeBlockRow);
  tickPeers();
  drawPeers();
}

/** Relative times move on without news. */
export function tickPeers() {
  for (const [peer, row] of blockRows) row.tick(blocks.get(peer));
}

function drawPeers() {
  byId("no-peers").hidden = peers.length > 0;
  keyed(byId("peers"), peerRows, peers, (peer) => peer.peer, makePeerRow);
}

function makePeerRow({ peer: id }) {
  const role = el("span", { class: "muted" });
  const blocked = el("span", { class: "badge", data: { state: "failed" } });
  const pills = el("span", { class: "pills" });
  const button = el("button", { class: "quiet", attrs: { type: "button" }, on: { click: () => pressed() } });
  const form = makeForm(id, () => button.focus());
  const node = el("li", {}, el("span", { class: "mono", text: id }), role, blocked, el("span", { class: "via" }, pills, button), form.node);

  function pressed() {
    if (blocks.has(id)) unblock(id, button);
    else form.open();
  }

  function update(peer) {
    const block = blocks.get(id);
    setText(role, peer.role ?? "");
    blocked.hidden = !block;
    setText(blocked, block ? `blocked ${WAYS[block.direction]}` : "");
    pills.replaceChildren(...peer.transports.map((name) => el("span", { class: "pill", data: { transport: name }, text: name })));
    setText(button, block ? "Unblock" : "Block");
    button.setAttribute("aria-label", `${block ? "Unblock" : "Block"} ${id}`);
    if (block) form.close();
  }

  return { node, update };
}

/** What is asked before a peer is blocked: which way, and a note. `after` runs when nothing was done. */
function makeForm(id, after) {
  const direction = el("select", {}, ...Object.entries(CHOICES).map(([value, text]) => el("option", { text, attrs: { value } })));
  const note = el("input", { attrs: { type: "text", maxlength: MAX_NOTE_CHARS, autocomplete: "off" } });
  const submit = el("button", { text: "Block", attrs: { type: "submit" } });
  const cancel = el("button", { class: "quiet", text: "Cancel", attrs: { type: "button" }, on: { click: leave } });
  const node = el(
    "form",
    { class: "block-form", attrs: { "aria-label": `Block ${id}` }, props: { hidden: true }, on: { submit: send, keydown: escape } },
    el("label", {}, "Refuse", direction),
    el("label", {}, "Note, if you like", note),
    el("div", { class: "actions" }, submit, cancel),
  );

  function close() {
    node.hidden = true;
    node.reset();
  }

  function leave() {
    close();
    after();
  }

  function escape(event) {
    if (event.key === "Escape") leave();
  }

  async function send(event) {
    event.preventDefault();
    const wanted = { direction: direction.value, note: note.value };
    submit.disabled = true;
    try {
      const list = await put(`/api/blocklist/${encodeURIComponent(id)}`, wanted);
      close();
      showBlocklist(list);
      toast(`${id} is blocked ${WAYS[wanted.direction]}`);
      // Its row among the peers goes when its links are closed; this one stays.
      blockRows.get(id)?.focus();
    } catch (error) {
      toast(error.message, "error");
    } finally {
      submit.disabled = false;
    }
  }

  function open() {
    node.hidden = false;
    direction.focus();
  }

  return { node, open, close };
}

function makeBlockRow({ peer: id }) {
  const way = el("span", { class: "badge", data: { state: "failed" } });
  const since = el("span", { class: "muted when" });
  const note = el("p", { class: "muted note" });
  const button = el("button", { class: "quiet", text: "Unblock", attrs: { type: "button", "aria-label": `Unblock ${id}` } });
  button.addEventListener("click", () => unblock(id, button));
  const node = el("li", {}, el("span", { class: "mono", text: id }), way, since, button, note);

  function update(block) {
    setText(way, WAYS[block.direction]);
    setText(note, block.note);
    note.hidden = !block.note;
  }

  function tick(block) {
    if (block) setText(since, block.since ? ago(block.since) : "");
  }

  return { node, update, tick, focus: () => button.focus() };
}

async function unblock(id, button) {
  button.disabled = true;
  try {
    showBlocklist(await remove(`/api/blocklist/${encodeURIComponent(id)}`));
    toast(`${id} is not blocked any more`);
  } catch (error) {
    toast(error.message, "error");
  } finally {
    button.disabled = false;
    (button.isConnected ? button : byId("peers-title")).focus();
  }
}
