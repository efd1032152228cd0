// Numbers, times and the words of the closed vocabulary, as people read them.

const UNITS = ["B", "KiB", "MiB", "GiB", "TiB"];

export function size(bytes) {
  let value = bytes;
  for (const unit of UNITS) {
    if (value < 1024 || unit === "TiB") return `${unit === "B" ? value : value.toFixed(1)} ${unit}`;
    value /= 1024;
  }
  return "";
}

export function ago(atMs, now = Date.now()) {
  if (!atMs) return "never";
  const seconds = Math.max(0, Math.round((now - atMs) / 1000));
  if (seconds < 2) return "just now";
  if (seconds < 60) return `${seconds} s ago`;
  if (seconds < 3600) return `${Math.floor(seconds / 60)} min ago`;
  if (seconds < 86400) return `${Math.floor(seconds / 3600)} h ago`;
  return `${Math.floor(seconds / 86400)} d ago`;
}

export function duration(ms) {
  if (ms >= 1000) return `${(ms / 1000).toFixed(2)} s`;
  return ms >= 10 ? `${ms.toFixed(0)} ms` : `${ms.toFixed(1)} ms`;
}

export const words = (code) => code.replaceAll("_", " ");

export const count = (number, one, many = `${one}s`) => `${number} ${number === 1 ? one : many}`;

/** How a file or a transfer is called: by its name, else by what it is known by. */
export const fileName = (one) => one.name || (one.manifest ? `file ${one.manifest.slice(0, 12)}` : `transfer ${one.id.slice(0, 8)}`);

/** A name to save under that neither hides the file nor looks like an option. */
export const safeName = (one) => one.name.split(/[/\\]/).pop().replace(/^[.\- ]+/, "") || `${one.manifest.slice(0, 16)}.bin`;

// What to do about a transport that is degraded or down, by cause.
const ADVICE = {
  import_failed: "A package it needs is missing. Install swarmbridge[node] and restart the node.",
  signalling_unavailable: "No signalling server or tracker answers. Check the rendezvous document and that its servers run.",
  misconfigured: "The rendezvous document cannot be read, or what it names cannot be used. Mend it: it is reloaded.",
  id_taken: "Another process holds this node's PeerJS id. Stop the other one.",
  worker_lost: "No worker has been heard of for three seconds. It is being started again, or see the node's log.",
  ice_failed: "No network path to a peer could be found. Check webrtc.host, firewalls and ICE servers.",
  no_listener: "Nobody listens on the channel: no other node or page is there.",
  unauthenticated: "A peer could not prove its key. Check trust.members.",
  draining: "The worker is stopping; its links move to another.",
};

export const advice = (cause) => ADVICE[cause] ?? "See the node's log, and `swarmbridge trace` for what was tried.";
