// The `swarm-space` extension of a WebTorrent wire (BEP 10): chunks and manifests, asked for and served.
//
// One file, no build, no dependency: for Node and for browsers. It works with `webtorrent` as it is:
//
//   import WebTorrent from "webtorrent"
//   import { controlInfoHash, swarmSpace } from "./swarm-space.js"
//
//   const client = new WebTorrent()
//   const torrent = client.add({ infoHash: await controlInfoHash("public"), announce: ["wss://your.own.tracker/"] })
//   torrent.on("wire", (wire) => {
//     wire.use(swarmSpace({                          // at once: later is too late for the handshake
//       onOpen: async (peer) => {
//         const manifest = await peer.requestManifest("9f86d081…")          // null: it has none, or not for you
//         const chunk = await peer.requestChunk(manifest.chunks[0])         // {ref, seq, total, size, iv, …, cipher}
//       },
//       onAnnounce: (peer, manifests) => {},          // ids that the peer says it holds
//       chunk: async (ref) => null,                   // serve: the same object, or null
//       manifest: async (id) => null,                 // serve: the manifest as a JSON text, or null
//     }))
//   })
//
// Nothing here is checked for you: whether a chunk is what its ref says, and whether a manifest is signed by whom you
// trust. See ops/docs/webtorrent.md and ops/docs/swarm-space.md of swarmbridge.
//
// On the wire: ops/docs/native.md, without a seal. A node tells other nodes by `swarm-space-seal` in its handshake;
// this extension does not set it, so it is a guest. Over TCP, which others can read, a node serves a guest chunks by
// ref and nothing else; over WebRTC manifests and announcements too.

const NAME = "swarm-space"
const KIND = { request: 1, ack: 2, answer: 3, body: 4, failed: 5, cancel: 6, ping: 7, pong: 8, goodbye: 9, announce: 10 }
const ID_BYTES = 16
const BODY_HEADER_BYTES = 1 + ID_BYTES + 4

export const SLICE_BYTES = 16 * 1024 // of a body in one frame: what every browser's data channel takes in one piece
export const MAX_BODY_BYTES = 4 * 1024 * 1024
export const MAX_ANNOUNCED = 256
const MAX_ASKED = 64 // a node refuses more of one peer
const MAX_OPEN = 8 // requests of the peer that are worked on at a time
const MAX_FRAME_BYTES = 65519
const DEFAULT_TIMEOUT_MS = 30_000

const text = new TextEncoder()
const utf8 = new TextDecoder()

/** The info hash of the swarm in which nodes of a room meet, as 40 hexadecimal digits. */
export async function controlInfoHash (room = "public") {
  const digest = await crypto.subtle.digest("SHA-1", text.encode(`${NAME}:${room}`))
  return hex(new Uint8Array(digest))
}

/** What a peer's refusal is thrown as. cause: a word of ops/docs/delivering.md; retryAfterMs: 0 = not said. */
export class SwarmSpaceError extends Error {
  constructor (cause, retryAfterMs = 0) {
    super(`swarm-space: ${cause}`)
    this.cause = cause
    this.retryAfterMs = retryAfterMs
  }
}

/** The extension class for `wire.use()`. handlers: see the top of this file, all of them optional. */
export function swarmSpace (handlers = {}) {
  class Extension extends SwarmSpacePeer {
    constructor (wire) { super(wire, handlers) }
  }
  Extension.prototype.name = NAME // how bittorrent-protocol knows it
  return Extension
}

/** The extension of one wire; `wire["swarm-space"]`. Open once the peer has named the extension too. */
class SwarmSpacePeer {
  constructor (wire, handlers) {
    this.wire = wire
    this.open = false
    this.leaving = false // the peer drains: ask another
    this._handlers = handlers
    this._asked = new Map() // hex id -> {resolve, reject, timer, answer, body, offset}
    this._serving = new Set() // hex ids of the peer's requests
    wire.once("close", () => this._ended())
  }

  // ── ask ──

  /** A chunk by its ref. Resolves: {ref, seq, total, size, iv, mime, originalName, cipher}, bytes as Uint8Array; null. */
  async requestChunk (ref, timeoutMs = DEFAULT_TIMEOUT_MS) {
    const { answer, body } = await this._ask(["request_chunk", ref], timeoutMs)
    if (answer[0] !== "chunk_data") return null
    const [, answeredRef, seq, total, size, iv, mime, originalName] = answer
    if (answeredRef !== ref) throw new SwarmSpaceError("invalid")
    return { ref, seq, total, size, iv, mime, originalName, cipher: body }
  }

  /** A manifest by its digest or file id. Resolves: the object, or null. */
  async requestManifest (id, timeoutMs = DEFAULT_TIMEOUT_MS) {
    const { answer, body } = await this._ask(["request_manifest", id], timeoutMs)
    return answer[0] === "manifest_data" ? JSON.parse(utf8.decode(body)) : null
  }

  /** Tell the peer which manifests we hold, the first MAX_ANNOUNCED. */
  announce (manifests) {
    this._send(KIND.announce, pack([manifests.slice(0, MAX_ANNOUNCED)]))
  }

  _ask (request, timeoutMs) {
    if (!this.open) return Promise.reject(new SwarmSpaceError("closed"))
    if (this._asked.size >= MAX_ASKED) return Promise.reject(new SwarmSpaceError("busy"))
    const id = crypto.getRandomValues(new Uint8Array(ID_BYTES))
    return new Promise((resolve, reject) => {
      const timer = setTimeout(() => {
        if (this._take(hex(id))) this._send(KIND.cancel, id)
        reject(new SwarmSpaceError("timeout"))
      }, timeoutMs)
      this._asked.set(hex(id), { resolve, reject, timer, answer: null, body: null, offset: 0 })
      this._send(KIND.request, pack([id, request, timeoutMs, ""]))
    })
  }

  // ── what bittorrent-protocol calls ──

  onExtendedHandshake () {
    if (this.open) return
    this.open = true
    this._call("onOpen", this)
  }

  onMessage (frame) {
    try {
      this._receive(frame)
    } catch (error) {
      if (!(error instanceof SwarmSpaceError)) throw error
      this.wire.destroy() // a peer that breaks the protocol; nothing of it is believed
    }
  }

  _receive (frame) {
    if (frame.length === 0 || frame.length > MAX_FRAME_BYTES) throw new SwarmSpaceError("invalid")
    const rest = frame.subarray(1)
    switch (frame[0]) {
      case KIND.request: return this._onRequest(unpack(rest))
      case KIND.answer: return this._onAnswer(unpack(rest))
      case KIND.body: return this._onBody(frame)
      case KIND.failed: return this._onFailed(unpack(rest))
      case KIND.cancel: return void this._serving.delete(hex(rest))
      case KIND.ping: return this._send(KIND.pong, rest)
      case KIND.goodbye: return this._onGoodbye(utf8.decode(rest))
      case KIND.announce: return this._call("onAnnounce", this, unpack(rest)[0])
      default: // an ack, a pong, or a kind of a later version
    }
  }

  _onAnswer ([id, answer, bodyBytes]) {
    const asked = this._asked.get(hex(id))
    if (!asked) return // late
    if (asked.answer || !(bodyBytes >= 0 && bodyBytes <= MAX_BODY_BYTES)) throw new SwarmSpaceError("invalid")
    asked.answer = answer
    asked.body = new Uint8Array(bodyBytes)
    if (bodyBytes === 0) this._finish(hex(id), asked)
  }

  _onBody (frame) {
    if (frame.length <= BODY_HEADER_BYTES) throw new SwarmSpaceError("invalid")
    const id = hex(frame.subarray(1, 1 + ID_BYTES))
    const offset = view(frame).getUint32(1 + ID_BYTES)
    const data = frame.subarray(BODY_HEADER_BYTES)
    const asked = this._asked.get(id)
    if (!asked) return // what a cancel crossed on its way
    if (!asked.body || offset !== asked.offset || offset + data.length > asked.body.length) {
      throw new SwarmSpaceError("invalid")
    }
    asked.body.set(data, offset)
    asked.offset += data.length
    if (asked.offset === asked.body.length) this._finish(id, asked)
  }

  _finish (id, { resolve, answer, body }) {
    this._take(id)
    resolve({ answer, body })
  }

  _onFailed ([id, cause, retryAfterMs]) {
    this._take(hex(id))?.reject(new SwarmSpaceError(cause, retryAfterMs))
  }

  _onGoodbye (cause) {
    this.leaving = true
    this._call("onGoodbye", this, cause)
    if (cause) this.wire.destroy()
  }

  // ── serve ──

  async _onRequest ([id, request]) {
    const name = hex(id)
    if (this._serving.has(name)) return
    if (this._serving.size >= MAX_OPEN) return this._send(KIND.failed, pack([id, "busy", 1000]))
    this._serving.add(name)
    this._send(KIND.ack, id) // at once: it is what makes silence mean something
    try {
      const [answer, body] = await this._lookUp(request)
      if (!this._serving.has(name)) return // cancelled
      this._send(KIND.answer, pack([id, answer, body.length]))
      for (let offset = 0; offset < body.length; offset += SLICE_BYTES) {
        this._sendBody(id, offset, body.subarray(offset, offset + SLICE_BYTES))
      }
    } catch {
      if (this._serving.has(name)) this._send(KIND.failed, pack([id, "other", 0]))
    } finally {
      this._serving.delete(name)
    }
  }

  async _lookUp ([kind, name]) {
    const nothing = [["not_found", name], new Uint8Array(0)]
    if (kind === "request_chunk") {
      const chunk = await this._handlers.chunk?.(name)
      if (!chunk || chunk.cipher.length > MAX_BODY_BYTES) return nothing
      const { ref, seq, total, size, iv, mime = "", originalName = "" } = chunk
      return [["chunk_data", ref, seq, total, size, iv, mime, originalName], chunk.cipher]
    }
    if (kind !== "request_manifest") return nothing
    const manifest = await this._handlers.manifest?.(name)
    return manifest ? [["manifest_data", name], text.encode(manifest)] : nothing
  }

  // ── within ──

  _sendBody (id, offset, data) {
    const frame = new Uint8Array(BODY_HEADER_BYTES - 1 + data.length)
    frame.set(id)
    view(frame).setUint32(ID_BYTES, offset)
    frame.set(data, BODY_HEADER_BYTES - 1)
    this._send(KIND.body, frame)
  }

  _send (kind, rest) {
    if (!this.open || this.wire.destroyed) return
    const frame = new Uint8Array(1 + rest.length)
    frame[0] = kind
    frame.set(rest, 1)
    this.wire.extended(NAME, frame)
  }

  _take (id) {
    const asked = this._asked.get(id)
    this._asked.delete(id)
    clearTimeout(asked?.timer)
    return asked
  }

  _ended () {
    this.open = false
    for (const id of [...this._asked.keys()]) this._take(id).reject(new SwarmSpaceError("closed"))
    this._call("onClose", this)
  }

  _call (name, ...values) {
    // A handler's failure is its own, and no reason to break the wire.
    Promise.resolve().then(() => this._handlers[name]?.(...values)).catch((error) => console.error(error))
  }
}

// ── MessagePack, as far as frames need it: arrays, texts, bytes, whole numbers ──

export function pack (value) {
  const parts = []
  write(value, parts)
  const packed = new Uint8Array(parts.reduce((sum, part) => sum + part.length, 0))
  let offset = 0
  for (const part of parts) {
    packed.set(part, offset)
    offset += part.length
  }
  return packed
}

function write (value, parts) {
  if (Array.isArray(value)) {
    parts.push(value.length < 16 ? [0x90 | value.length] : sized(0xdc, 2, value.length))
    for (const each of value) write(each, parts)
  } else if (typeof value === "string") {
    const bytes = text.encode(value)
    parts.push(bytes.length < 32 ? [0xa0 | bytes.length] : bytes.length < 256 ? sized(0xd9, 1, bytes.length) : sized(0xda, 2, bytes.length), bytes)
  } else if (ArrayBuffer.isView(value)) {
    parts.push(sized(0xc4, 1, value.length), value)
  } else if (Number.isInteger(value) && value >= 0 && value < 2 ** 32) {
    parts.push(value < 128 ? [value] : sized(0xce, 4, value))
  } else {
    throw new TypeError("not a value of a frame")
  }
}

function sized (kind, bytes, number) {
  if (number >= 256 ** bytes) throw new TypeError("too long for a frame")
  const part = new Uint8Array(1 + bytes)
  part[0] = kind
  for (let at = bytes; at > 0; at--, number = Math.floor(number / 256)) part[at] = number % 256
  return part
}

/** Reads exactly one value. Throws: SwarmSpaceError("invalid"). */
export function unpack (bytes) {
  const reader = { bytes, at: 0 }
  const value = read(reader, 0)
  if (reader.at !== bytes.length) throw new SwarmSpaceError("invalid")
  return value
}

function read (reader, depth) {
  const kind = number(reader, 1)
  if (kind < 0x80) return kind
  if ((kind & 0xf0) === 0x90) return list(reader, kind & 0x0f, depth)
  if ((kind & 0xe0) === 0xa0) return utf8.decode(take(reader, kind & 0x1f))
  switch (kind) {
    case 0xc4: return take(reader, number(reader, 1)).slice()
    case 0xc5: return take(reader, number(reader, 2)).slice()
    case 0xcc: return number(reader, 1)
    case 0xcd: return number(reader, 2)
    case 0xce: return number(reader, 4)
    case 0xcf: return number(reader, 8)
    case 0xd9: return utf8.decode(take(reader, number(reader, 1)))
    case 0xda: return utf8.decode(take(reader, number(reader, 2)))
    case 0xdc: return list(reader, number(reader, 2), depth)
    default: throw new SwarmSpaceError("invalid")
  }
}

function list (reader, length, depth) {
  if (depth >= 4) throw new SwarmSpaceError("invalid")
  return Array.from({ length }, () => read(reader, depth + 1))
}

function number (reader, bytes) {
  return take(reader, bytes).reduce((sum, byte) => sum * 256 + byte, 0)
}

function take (reader, length) {
  const end = reader.at + length
  if (end > reader.bytes.length) throw new SwarmSpaceError("invalid")
  const part = reader.bytes.subarray(reader.at, end)
  reader.at = end
  return part
}

const view = (bytes) => new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength)
const hex = (bytes) => Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("")
