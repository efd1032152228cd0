// Files as swarm-space keeps them: chunks of 1 MiB under AES-256-GCM, each named by the hash of its cipher text.

export const MAX_FILE_BYTES = 16 * 2 ** 20;
const CHUNK_BYTES = 2 ** 20;
const IV_BYTES = 12;

/** Raw bytes as base64, in slices: a whole megabyte is too much for one call. */
function toBase64(bytes) {
  let text = "";
  for (let at = 0; at < bytes.length; at += 0x8000) text += String.fromCharCode(...bytes.subarray(at, at + 0x8000));
  return btoa(text);
}

const fromBase64 = (text) => Uint8Array.from(atob(text), (one) => one.charCodeAt(0));

/** What a chunk is asked for by: the hash of its cipher text, as base64, and its number. */
async function refOf(cipher, seq) {
  const digest = await crypto.subtle.digest("SHA-256", new TextEncoder().encode(`${cipher}${seq}`));
  return `chunk-${Array.from(new Uint8Array(digest), (byte) => byte.toString(16).padStart(2, "0")).join("")}`;
}

/** Cut and encrypt. Returns the manifest, and the chunks by their names. */
export async function cut(file) {
  const raw = crypto.getRandomValues(new Uint8Array(32));
  const key = await crypto.subtle.importKey("raw", raw, "AES-GCM", false, ["encrypt"]);
  const plain = new Uint8Array(await file.arrayBuffer());
  const total = Math.max(1, Math.ceil(plain.length / CHUNK_BYTES));
  const meta = { mime: file.type || "application/octet-stream", originalName: file.name };
  const chunks = new Map();
  for (let seq = 0; seq < total; seq++) {
    const part = plain.subarray(seq * CHUNK_BYTES, (seq + 1) * CHUNK_BYTES);
    const iv = crypto.getRandomValues(new Uint8Array(IV_BYTES));
    const cipher = toBase64(new Uint8Array(await crypto.subtle.encrypt({ name: "AES-GCM", iv }, key, part)));
    const ref = await refOf(cipher, seq);
    chunks.set(ref, { ref, seq, total, size: part.length, iv: toBase64(iv), cipher, meta });
  }
  const manifest = {
    ...{ fileId: crypto.randomUUID(), chunks: [...chunks.keys()], size: plain.length, fileKeyRaw: toBase64(raw) },
    ...{ mime: meta.mime, originalName: meta.originalName, createdAt: new Date().toISOString() },
  };
  return { manifest, chunks };
}

/** Put a file together. `ask(ref)` gives one chunk; what is no chunk of this file is an error, whoever sent it. */
export async function assemble(manifest, ask, onProgress) {
  const key = await crypto.subtle.importKey("raw", fromBase64(manifest.fileKeyRaw), "AES-GCM", false, ["decrypt"]);
  const parts = [];
  for (const [seq, ref] of manifest.chunks.entries()) {
    const chunk = await ask(ref);
    if ((await refOf(chunk.cipher, seq)) !== ref) throw new Error("a chunk is not what its hash says");
    const iv = fromBase64(chunk.iv);
    parts.push(await crypto.subtle.decrypt({ name: "AES-GCM", iv }, key, fromBase64(chunk.cipher)));
    onProgress((seq + 1) / manifest.chunks.length);
  }
  return new Blob(parts, { type: "application/octet-stream" });
}
