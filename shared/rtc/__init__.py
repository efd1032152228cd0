"""Data channels over aiortc; the only folder that imports it.

    available    imports aiortc, or says once that it cannot; start here
    contract     a link as its owner sees it
    link         one RTCPeerConnection with one data channel, as a link
    description  what is let in of a remote peer's SDP (pure)
    addresses    which addresses we gather on and send to (pure)
    gathering    makes aioice gather on them, and notice a dead peer in seconds
    sctp_tuning  aiortc's SCTP with less work a packet

`link`, `gathering` and `sctp_tuning` import aiortc or aioice: use them through `available.load()`.
"""
