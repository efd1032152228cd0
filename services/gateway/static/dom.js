// Elements from data. Text goes in as text and nowhere else: there is no way here to make HTML from a string.

/** Make an element. `options`: class, text, data, attrs, on, props; children are elements or strings. */
export function el(tag, options = {}, ...children) {
  const node = document.createElement(tag);
  if (options.class) node.className = options.class;
  if (options.text !== undefined) node.textContent = options.text;
  for (const [key, value] of Object.entries(options.data ?? {})) node.dataset[key] = value;
  for (const [key, value] of Object.entries(options.attrs ?? {})) node.setAttribute(key, value);
  for (const [key, value] of Object.entries(options.props ?? {})) node[key] = value;
  for (const [event, handler] of Object.entries(options.on ?? {})) node.addEventListener(event, handler);
  node.append(...children.filter((child) => child !== null && child !== undefined));
  return node;
}

export const byId = (id) => document.getElementById(id);

/** Set text only where it differs, so that selections and screen readers are left alone. */
export function setText(node, text) {
  if (node.textContent !== text) node.textContent = text;
}

/** Keep one child a key, in order; `make(item)` returns {node, update(item)}; what is gone is removed. */
export function keyed(parent, kept, items, keyOf, make) {
  const seen = new Set();
  let place = parent.firstElementChild;
  for (const item of items) {
    const key = keyOf(item);
    seen.add(key);
    let entry = kept.get(key);
    if (!entry) {
      entry = make(item);
      kept.set(key, entry);
    }
    entry.update(item);
    if (entry.node !== place) parent.insertBefore(entry.node, place);
    else place = place.nextElementSibling;
  }
  for (const [key, entry] of kept) {
    if (seen.has(key)) continue;
    entry.node.remove();
    kept.delete(key);
  }
}

/** Put a link where the reader can paste it from. */
export async function copy(link) {
  try {
    await navigator.clipboard.writeText(link);
    toast("Link copied");
  } catch {
    window.prompt("The link:", link);
  }
}

/** Say below a field what is wrong with what stands in it; "" takes it back. */
export function fieldError(field, text) {
  const note = byId(`${field.id}-error`);
  setText(note, text);
  if (text) {
    field.setAttribute("aria-invalid", "true");
    field.focus();
  } else {
    field.removeAttribute("aria-invalid");
  }
}

/** Short-lived words at the page's foot. */
export function toast(text, kind = "info") {
  const note = el("p", { class: `toast ${kind}`, text });
  byId("toasts").append(note);
  setTimeout(() => note.remove(), kind === "error" ? 9000 : 4000);
}
