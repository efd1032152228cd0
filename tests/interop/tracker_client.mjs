// npm's `bittorrent-tracker` client as it is, driven by lines of JSON: `[command]` in, the answer out.
import { createInterface } from "node:readline"
import Client from "bittorrent-tracker"

const { announce, infoHash, peerId } = JSON.parse(process.argv[2])
const seen = { updates: [], peers: 0, connected: 0, scrapes: [], warnings: [], errors: [] }
const client = new Client({ announce, infoHash, peerId: Buffer.from(peerId, "latin1"), port: 6881, rtcConfig: { iceServers: [] } })
client.on("update", ({ complete, incomplete }) => seen.updates.push([complete, incomplete]))
client.on("scrape", ({ complete, incomplete, downloaded }) => seen.scrapes.push([complete, incomplete, downloaded]))
client.on("warning", (error) => seen.warnings.push(error.message))
client.on("error", (error) => seen.errors.push(error.message))
client.on("peer", (peer) => {
  seen.peers++
  peer.on?.("connect", () => seen.connected++)
  peer.on?.("error", () => {})
})

const commands = {
  start: () => client.start(),
  update: () => client.update(),
  complete: () => client.complete(),
  scrape: () => client.scrape(),
  stop: () => client.stop(),
  seen: () => seen,
}
process.stdout.write("{}\n")
for await (const line of createInterface({ input: process.stdin })) {
  const [command] = JSON.parse(line)
  process.stdout.write(JSON.stringify({ result: (await commands[command]()) ?? null }) + "\n")
}
process.exit(0)
