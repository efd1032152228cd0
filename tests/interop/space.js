// A page written to the protocol of swarm-space's pages: it holds files, asks for others' and announces its own, in the
// manager dialect (`peerjs_manager`) or the mesh dialect (`peerjs_mesh`). The PeerJS client below it is `peerjs`, as it is.
"use strict";

const CHUNK_BYTES = 1024 * 1024;
const REQUEST_MS = 10_000; // a page's patience with one peer
const OPEN_MS = 3_000;
const MOVED_MS = 1_000;

const space = { dialect: "", id: "", files: {}, chunks: {}, announced: {}, waiting: {}, links: {}, all: new Set(), options: null, served: 0, refused: 0, answered: 0, overlaps: 0, bare: 0, moved: 0, silent: 0 };

const hex = (buffer) => Array.from(new Uint8Array(buffer), (byte) => byte.toString(16).padStart(2, "0")).join("");
const sha256 = async (bytes) => hex(await crypto.subtle.digest("SHA-256", bytes));
const utf8 = (text) => new TextEncoder().encode(text);
const fromBase64 = (text) => Uint8Array.from(atob(text), (character) => character.charCodeAt(0));
const toBase64 = (buffer) => {
  const bytes = new Uint8Array(buffer);
  let text = "";
  for (let at = 0; at < bytes.length; at += 0x8000) text += String.fromCharCode(...bytes.subarray(at, at + 0x8000));
  return btoa(text);
};
const canonical = (value) => {
  if (Array.isArray(value)) return `[${value.map(canonical).join(",")}]`;
  if (value === null || typeof value !== "object") return JSON.stringify(value);
  return `{${Object.keys(value).sort().map((key) => `${JSON.stringify(key)}:${canonical(value[key])}`).join(",")}}`;
};
const refOf = async (cipher, seq) => `chunk-${await sha256(utf8(cipher + seq))}`;

// ── the connection ──

const inMesh = () => space.dialect === "peerjs_mesh";

function say(connection, type, fields) {
  const message = inMesh()
    ? JSON.stringify({ type, ...fields, from: space.id })
    : { type, payload: fields, from: space.id, timestamp: Date.now() };
  connection.send(message);
}

function attach(connection) {
  if (space.links[connection.peer]?.open) space.overlaps += 1;
  space.links[connection.peer] = connection;
  space.all.add(connection);
  connection.on("data", (data) => hear(connection, data));
  connection.on("close", () => {
    space.all.delete(connection);
    if (space.links[connection.peer] !== connection) return;
    const other = [...space.all].find((each) => each.peer === connection.peer && each.open);
    space.links[connection.peer] = other;
    space.bare += other ? 0 : 1;
  });
  const greet = () => {
    if (inMesh()) {
      for (const type of ["content-inventory", "profile-exchange", "library-exchange", "neural-state-digest"]) say(connection, type, { ids: [] });
    } else {
      say(connection, "pex_request", {});
      say(connection, "ping", { sentAt: Date.now() });
    }
    announceTo(connection);
  };
  if (connection.open) greet();
  else connection.on("open", greet);
}

function announceTo(connection) {
  const ids = Object.keys(space.files);
  if (!inMesh()) say(connection, "announce", { userId: space.id, peerId: space.id, availableContent: ids, timestamp: Date.now() });
  else for (const manifestId of ids) say(connection, "seeding-available", { manifestId, peerId: space.id });
}

// Registers; a page that is dialled takes the newest connection of a peer.
function spaceJoin(id, dialect, options) {
  Object.assign(space, { id, dialect, options });
  return new Promise((resolve, reject) => {
    state.peer = new Peer(id, options);
    state.peer.on("connection", attach);
    state.peer.on("error", (error) => state.errors.push(error.type));
    state.peer.on("open", resolve);
    state.peer.on("disconnected", () => setTimeout(() => state.peer.reconnect(), 200));
  });
}

function linkTo(peer) {
  const open = space.links[peer];
  if (open?.open) return Promise.resolve(open);
  const metadata = inMesh() ? { nodeId: space.id, source: "mesh" } : { userId: space.id };
  const connection = state.peer.connect(peer, { reliable: true, metadata });
  attach(connection);
  return new Promise((resolve, reject) => {
    setTimeout(() => reject(new Error("no link")), OPEN_MS);
    connection.on("open", () => resolve(connection));
  });
}

// ── requests of ours ──

async function request(peer, kind, name) {
  const connection = await linkTo(peer);
  const requestId = crypto.randomUUID();
  return new Promise((resolve, reject) => {
    const end = (finish, what) => {
      clearTimeout(over);
      clearInterval(looking);
      delete space.waiting[requestId];
      finish(what);
    };
    const over = setTimeout(() => {
      space.silent += 1;
      connection.close();
      end(reject, new Error("silent"));
    }, REQUEST_MS);
    // The other end has opened a new connection: what the old one has not answered by then is asked there.
    const looking = setInterval(() => {
      const now = space.links[peer];
      if (now === connection || !now?.open) return;
      space.moved += 1;
      end(reject, new Error("moved"));
    }, MOVED_MS);
    connection.on("close", () => end(reject, new Error("closed")));
    space.waiting[requestId] = (content) => end(resolve, content);
    if (inMesh()) say(connection, `${kind}-request`, { [kind === "chunk" ? "chunkRef" : "manifestId"]: name, requestId });
    else say(connection, "chunk", { type: `request_${kind}`, requestId, hash: name });
  });
}

// What the work gave, and the milliseconds that it took.
async function timed(work) {
  const start = performance.now();
  return [await work(), performance.now() - start];
}

// Asks until there is an answer: a page whose link died opens another, or is dialled.
async function patiently(peer, kind, name) {
  for (let tries = 0; tries < 40; tries += 1) {
    try {
      return await request(peer, kind, name);
    } catch {
      await new Promise((after) => setTimeout(after, 250));
    }
  }
  throw new Error(`no answer for a ${kind}`);
}

async function fetchFile(peer, fileId) {
  const manifest = await patiently(peer, "manifest", fileId);
  if (!manifest) return null;
  const raw = fromBase64(manifest.fileKeyRaw);
  const key = await crypto.subtle.importKey("raw", raw, "AES-GCM", false, ["decrypt"]);
  const parts = [];
  for (const [seq, ref] of manifest.chunks.entries()) {
    const chunk = await patiently(peer, "chunk", ref);
    if (!chunk) return null;
    if ((await refOf(chunk.cipher, seq)) !== ref || chunk.ref !== ref) throw new Error("a chunk that is another");
    parts.push(await crypto.subtle.decrypt({ name: "AES-GCM", iv: fromBase64(chunk.iv) }, key, fromBase64(chunk.cipher)));
  }
  return { name: manifest.originalName, size: manifest.size, sha256: await sha256(await new Blob(parts).arrayBuffer()) };
}

// Asks for one chunk `count` times, one after another, and counts the right answers.
async function askAgain(peer, ref, seq, count) {
  for (space.answered = 0; space.answered < count; ) {
    const chunk = await patiently(peer, "chunk", ref);
    if (!chunk || (await refOf(chunk.cipher, seq)) !== ref) throw new Error("a wrong answer");
    space.answered += 1;
    await new Promise((after) => setTimeout(after, 30));
  }
  return space.answered;
}

// ── what is said to us ──

function hear(connection, data) {
  if (inMesh() !== (typeof data === "string")) return; // the other dialect: not ours to answer
  const message = inMesh() ? JSON.parse(data) : data;
  const fields = inMesh() ? message : message.payload;
  const kind = inMesh() ? message.type : message.type === "chunk" ? fields.type : message.type;
  switch (kind) {
    case "announce":
      for (const id of fields.availableContent) space.announced[id] = fields.peerId;
      break;
    case "seeding-available":
      space.announced[fields.manifestId] = fields.peerId;
      break;
    case "ping":
      if (inMesh()) say(connection, "pong", { echoTs: fields.ts });
      else say(connection, "pong", { sentAt: fields.sentAt, receivedAt: Date.now() });
      break;
    case "heartbeat":
      say(connection, "heartbeat-ack", { ts: Date.now() });
      break;
    case "request_manifest": case "request_chunk": case "manifest-request": case "chunk-request":
      serve(connection, kind, fields);
      break;
    case "manifest_data": case "manifest-response":
      space.waiting[fields.requestId]?.(fields.manifest ?? null);
      break;
    case "chunk_data": case "chunk-response":
      space.waiting[fields.requestId]?.(fields.chunk ?? null);
      break;
    case "manifest_not_found": case "chunk_not_found":
      space.waiting[fields.requestId]?.(null);
      break;
  }
}

function serve(connection, kind, fields) {
  const chunk = kind.includes("chunk"), { requestId } = fields;
  const name = inMesh() ? fields[chunk ? "chunkRef" : "manifestId"] : fields.hash;
  const content = chunk ? space.chunks[name] : space.files[name];
  space.served += content ? 1 : 0;
  space.refused += content ? 0 : 1;
  const what = chunk ? "chunk" : "manifest";
  if (inMesh()) {
    const named = { [chunk ? "chunkRef" : "manifestId"]: name };
    say(connection, `${what}-response`, { requestId, ...named, found: Boolean(content), ...(content && { [what]: content }) });
  } else if (content) say(connection, "chunk", { type: `${what}_data`, requestId, hash: name, [what]: content });
  else say(connection, "chunk", { type: `${what}_not_found`, requestId, hash: name, error: "not found" });
}

// ── a file of ours ──

// Returns its manifest's digest (SHA-256 of its canonical JSON), its fileId and the SHA-256 of its bytes.
async function share(name, length, more) {
  const bytes = bytesOf(length);
  const raw = crypto.getRandomValues(new Uint8Array(32));
  const key = await crypto.subtle.importKey("raw", raw, "AES-GCM", false, ["encrypt"]);
  const total = Math.ceil(length / CHUNK_BYTES), refs = [];
  for (let seq = 0; seq < total; seq += 1) {
    const iv = crypto.getRandomValues(new Uint8Array(12));
    const plain = bytes.subarray(seq * CHUNK_BYTES, (seq + 1) * CHUNK_BYTES);
    const cipher = toBase64(await crypto.subtle.encrypt({ name: "AES-GCM", iv }, key, plain));
    const ref = await refOf(cipher, seq);
    refs.push(ref);
    space.chunks[ref] = { ref, seq, total, size: plain.length, iv: toBase64(iv), cipher, meta: { mime: "a/b", originalName: name } };
  }
  const fileId = `file-${Date.now()}-${Math.random().toString(36).slice(2, 8).padEnd(6, "0")}`;
  const signed = { fileId, chunks: refs, mime: "a/b", size: length, originalName: name, createdAt: new Date().toISOString(), owner: null, fileKey: toBase64(raw) };
  const pair = await crypto.subtle.generateKey("Ed25519", true, ["sign"]);
  const signature = await crypto.subtle.sign("Ed25519", pair.privateKey, utf8(canonical(signed)));
  const publicKey = await crypto.subtle.exportKey("raw", pair.publicKey);
  const manifest = { ...signed, fileKeyRaw: toBase64(raw), fileKeyWrapped: false, signature: toBase64(signature), signatureAlgorithm: "ed25519", signerPublicKey: toBase64(publicKey), signedAt: new Date().toISOString(), ...more };
  space.files[fileId] = manifest;
  for (const connection of space.all) if (connection.open) announceTo(connection);
  return { digest: await sha256(utf8(canonical(manifest))), fileId, sha256: await sha256(bytes) };
}
