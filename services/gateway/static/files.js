// The files that the node holds, with their links, and how full its store is: what is left when transfers are forgotten.

import { get, remove } from "./api.js";
import { byId, copy, el, keyed, setText, toast } from "./dom.js";
import { ago, count, fileName, size } from "./format.js";

const MAX_SHOWN = 50;
const rows = new Map();
let files = [];
let waiting = null;

/** Read list and usage again. */
export async function refreshFiles() {
  const [list, usage] = await Promise.all([get(`/api/files?limit=${MAX_SHOWN}`), get("/api/usage")]);
  files = list;
  byId("no-files").hidden = files.length > 0;
  keyed(byId("files"), rows, files, (file) => file.manifest, makeRow);
  byId("more-files").hidden = usage.files <= files.length;
  setText(byId("more-files"), `${count(usage.files - files.length, "more file")}: see \`swarmbridge ls\`.`);
  showUsage(usage);
  tickFiles();
}

/** A transfer has ended: the list may have changed. Many at once are one look. */
export function filesMayHaveChanged() {
  clearTimeout(waiting);
  waiting = setTimeout(() => refreshFiles().catch(() => {}), 300);
}

export function tickFiles() {
  for (const file of files) rows.get(file.manifest)?.tick(file);
}

function showUsage(usage) {
  const bar = byId("usage-bar");
  bar.max = Math.max(usage.quotaBytes, 1);
  bar.value = usage.usedBytes;
  bar.hidden = false;
  const promised = usage.promisedBytes ? `, ${size(usage.promisedBytes)} more promised to running transfers` : "";
  setText(byId("usage"), `${size(usage.usedBytes)} of ${size(usage.quotaBytes)} used${promised}`);
}

function makeRow(first) {
  const name = el("span", { class: "name" });
  const detail = el("span", { class: "muted detail" });
  const when = el("span", { class: "muted when" });
  const actions = el("span", { class: "actions" });
  const node = el("li", {}, el("div", { class: "line" }, name), el("div", { class: "line" }, detail, when, actions));
  let shownLink = null;

  function update(file) {
    setText(name, fileName(file));
    name.title = fileName(file);
    const whole = file.chunksStored === file.chunksTotal;
    const part = whole ? size(file.size) : `${file.chunksStored} of ${count(file.chunksTotal, "chunk")}, ${size(file.size)}`;
    const link = file.link ? "" : " · its link is only where it was put";
    setText(detail, `${part} · ${file.contentClass}${link}`);
    if (file.link !== shownLink) {
      shownLink = file.link;
      actions.replaceChildren(...makeActions(file));
    }
  }

  return { node, update, tick: (file) => setText(when, ago(file.storedAt)) };
}

function makeActions(file) {
  const button = (text, action) =>
    el("button", {
      class: "quiet",
      text,
      attrs: { type: "button", "aria-label": `${text}: ${fileName(file)}` },
      on: { click: (event) => action(file, event.currentTarget) },
    });
  return [...(file.link ? [button("Copy link", (one) => copy(one.link))] : []), button("Remove", removeFile)];
}

async function removeFile(file, button) {
  if (!window.confirm(`Remove ${fileName(file)} from this node? Other nodes keep their copies.`)) return;
  button.disabled = true;
  try {
    const gone = await remove(`/api/files/${encodeURIComponent(file.manifest)}`);
    toast(`${fileName(file)} is removed, ${size(gone.freedBytes)} are free`);
    await refreshFiles();
    byId("files-title").focus();
  } catch (error) {
    button.disabled = false;
    toast(error.message, "error");
  }
}
