// What a test asks of a `webtorrent` client, in Node and in a page: join a room's swarm, ask and serve chunks, say what
// came. The client is npm's, as it is; the extension is ours to copy, or none (`plain`).
import { controlInfoHash, swarmSpace } from "./swarm-space.js"

const OFFLINE = { dht: false, lsd: false, utPex: false, natUpnp: false, natPmp: false }

const hex = (bytes) => Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("")
const digest = async (bytes) => hex(new Uint8Array(await crypto.subtle.digest("SHA-256", bytes)))

// Bytes that a test can make again, whatever the length: a counter over a prime.
export const bytesOf = (length) => Uint8Array.from({ length }, (_, at) => at % 251)

export async function join (WebTorrent, options) {
  const { room = "public", announce = [], peers = [], plain = false, wrtc, ...client } = options
  const state = { peers: [], wires: [], closed: [], announced: [], goodbyes: [], errors: [], held: new Map(), manifests: new Map() }
  const tracker = { rtcConfig: { iceServers: [] }, ...(wrtc === false ? { wrtc: false } : {}) }
  state.client = new WebTorrent({ ...OFFLINE, tracker, ...client })
  state.client.on("error", (error) => state.errors.push(String(error.message)))
  const torrent = state.torrent = state.client.add({ infoHash: await controlInfoHash(room), announce }, { path: "/tmp/webtorrent-never-written" })
  torrent.on("warning", (error) => state.errors.push(String(error.message)))
  torrent.on("wire", (wire) => {
    const seen = { type: wire.type, extended: [] }
    state.wires.push(seen)
    wire.on("extended", (name) => { if (name !== "handshake") seen.extended.push(String(name)) })
    wire.once("close", () => state.closed.push(wire.type))
    if (plain) return
    wire.use(swarmSpace({
      onOpen: (peer) => state.peers.push(peer),
      onClose: (peer) => { state.peers = state.peers.filter((each) => each !== peer) },
      onAnnounce: (_, manifests) => state.announced.push(...manifests),
      onGoodbye: (_, cause) => state.goodbyes.push(cause),
      chunk: async (ref) => state.held.get(ref) ?? null,
      manifest: async (id) => state.manifests.get(id) ?? null,
    }))
  })
  for (const peer of peers) torrent.once("infoHash", () => torrent.addPeer(peer))

  const commands = {
    port: () => state.client.torrentPort,
    peerId: () => state.client.peerId,
    counts: () => ({
      open: state.peers.length, wires: state.wires.length, closed: state.closed.length,
      types: state.wires.map((wire) => wire.type), frames: state.wires.flatMap((wire) => wire.extended),
      announced: state.announced, goodbyes: state.goodbyes, errors: state.errors,
    }),
    hold: ([ref, length]) => {
      state.held.set(ref, { ref, seq: 0, total: 1, size: length, iv: new Uint8Array(12), mime: "", originalName: "", cipher: bytesOf(length) })
    },
    holdManifest: ([id, json]) => { state.manifests.set(id, json) },
    announce: ([manifests]) => state.peers.forEach((peer) => peer.announce(manifests)),
    addPeer: ([address]) => torrent.addPeer(address),
    requestChunk: async ([ref, timeoutMs]) => {
      const begun = performance.now()
      const chunk = await state.peers[0].requestChunk(ref, timeoutMs)
      if (chunk === null) return null
      const { cipher, iv, ...header } = chunk
      return { ...header, iv: hex(iv), length: cipher.length, digest: await digest(cipher), ms: performance.now() - begun }
    },
    requestManifest: async ([id, timeoutMs]) => await state.peers[0].requestManifest(id, timeoutMs),
    raw: ([frame]) => state.peers[0].wire.extended("swarm-space", Uint8Array.from(frame)),
    close: () => new Promise((done) => state.client.destroy(done)),
  }
  return async (command, parameters) => {
    try {
      return { result: (await commands[command](parameters)) ?? null }
    } catch (error) {
      return { error: error.cause ?? String(error.message) }
    }
  }
}
