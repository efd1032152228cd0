// Diagnostics, newest first; what repeats within one transfer is one row with its count.

import { byId, el, keyed, setText } from "./dom.js";
import { ago, words } from "./format.js";

const MAX_KEPT = 500;
const MAX_ROWS = 12;

let entries = [];
const rows = new Map();

/** All of it again, newest first. */
export function showDiagnostics(found) {
  entries = found.slice(0, MAX_KEPT);
  tickDiagnostics();
}

export function showDiagnostic(entry) {
  showDiagnostics([entry, ...entries]);
}

/** Draw again: relative times move on. */
export function tickDiagnostics() {
  const groups = [...grouped(entries).values()].slice(0, MAX_ROWS);
  byId("no-diagnostics").hidden = groups.length > 0;
  keyed(byId("diagnostics"), rows, groups, (group) => group.key, row);
}

/** Rows by what they say and the transfer they are about, in order of their newest. */
function grouped(all) {
  const groups = new Map();
  for (const entry of all) {
    const key = JSON.stringify([entry.code, entry.message, entry.context.transfer ?? ""]);
    const group = groups.get(key);
    if (group) group.count += 1;
    else groups.set(key, { key, newest: entry, count: 1 });
  }
  return groups;
}

function row(group) {
  const { level, code, message, context } = group.newest;
  const count = el("span", { class: "badge", data: { state: level } });
  const when = el("span", { class: "muted when" });
  const facts = Object.entries(context)
    .filter(([key]) => key !== "elapsedMs")
    .map(([key, value]) => el("li", {}, el("span", { class: "muted", text: `${words(key)} ` }), value));
  const node = el(
    "li",
    { class: "diagnostic" },
    el("div", { class: "line" }, count, el("span", { class: "mono", text: code }), el("span", { class: "message", text: message }), when),
    el("ul", { class: "chips" }, ...facts),
  );
  return {
    node,
    update(now) {
      setText(count, now.count > 1 ? `${level} × ${now.count}` : level);
      setText(when, ago(now.newest.timestamp));
    },
  };
}
