// An end that is npm's `webtorrent`, as it is: a seed of zeros, or who fetches them. Nothing is read from a disk or
// written: a piece of zeros is held in memory, and what comes is checked by its hash and forgotten.
import { readFileSync } from "node:fs"
import { createInterface } from "node:readline"
import WebTorrent from "webtorrent"

const OFFLINE = { dht: false, lsd: false, utPex: false, natUpnp: false, natPmp: false, utp: false }
const { role, size, port, torrent: file, announce } = JSON.parse(process.argv[2])

class Zeros {
  constructor (chunkLength, { length }) {
    this.chunkLength = chunkLength
    this.length = length
    this.piece = new Uint8Array(chunkLength)
  }

  get (index, options, done = options) {
    if (role !== "send") return queueMicrotask(() => done(new Error("nothing is kept")))
    const { offset = 0, length = Math.min(this.chunkLength, this.length - index * this.chunkLength) - offset } =
      typeof options === "function" || !options ? {} : options
    queueMicrotask(() => done(null, this.piece.subarray(offset, offset + length)))
  }

  put (index, piece, done) { queueMicrotask(() => done(null)) }
  close (done = () => {}) { queueMicrotask(() => done(null)) }
  destroy (done = () => {}) { queueMicrotask(() => done(null)) }
}

const say = (values) => process.stdout.write(JSON.stringify(values) + "\n")
const client = new WebTorrent({ ...OFFLINE, tracker: announce.length ? { rtcConfig: { iceServers: [] } } : false })
client.on("error", (error) => { console.error(error); process.exit(1) })
const add = () => client.add(readFileSync(file), { store: Zeros, skipVerify: role === "send", announce, path: "/nowhere" })

const lines = createInterface({ input: process.stdin })
lines.once("close", () => process.exit(0))
if (role === "send") {
  add().once("ready", () => say({ port: client.torrentPort }))
} else {
  lines.once("line", () => {
    const began = performance.now()
    const since = () => (performance.now() - began) / 1000
    let firstByteS = null
    const measures = { wires_tcp: 0, wires_channel: 0 }
    const torrent = add()
    torrent.on("wire", (wire) => { measures[wire.type === "webrtc" ? "wires_channel" : "wires_tcp"] += 1 })
    torrent.once("download", () => { firstByteS = since() })
    torrent.once("done", () => say({ firstByteS, seconds: since(), measures }))
    if (port) torrent.once("ready", () => torrent.addPeer(`127.0.0.1:${port}`))
  })
  say({})
}
