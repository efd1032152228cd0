"""Our wire beside those of webtorrent and libtorrent, a loopback socket and one hop over NATS."""
