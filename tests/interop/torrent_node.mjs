// A `webtorrent` client in Node, driven by lines of JSON: `[command, parameters]` in, the answer out.
import { createInterface } from "node:readline"
import WebTorrent from "webtorrent"
import { join } from "./torrents.js"

const ask = await join(WebTorrent, JSON.parse(process.argv[2]))
process.stdout.write("{}\n")
for await (const line of createInterface({ input: process.stdin })) {
  const [command, parameters] = JSON.parse(line)
  process.stdout.write(JSON.stringify(await ask(command, parameters)) + "\n")
}
process.exit(0)
