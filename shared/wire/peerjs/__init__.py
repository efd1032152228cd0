"""PeerJS: signalling messages and client (messages, signalling, urls), what a data channel carries (chunking)."""
