"""The webtorrent worker: `swarm-space` links over the BitTorrent peer wire, found by trackers and the DHT.

limits      what strangers may make us do (pure)
endpoints   where a wire listens: parsing and the address rule (pure)
swarm       which known endpoint to dial when (pure)
health      the worker's state from what works (pure)
connection  one TCP stream with its PeerWire
wires       all of them: listening, dialling, who is let in
dht         libtorrent's DHT
trackers    WebSocket trackers
offer       the SDP in our tracker offers
worker      one run of the transport: the parts above, wired
transport   the contract's face
"""
