"""Every cause in words: what it means for a hop, and what to do about it. Pure.

`because` follows the word "because" in a verdict and names the transport; `meaning` and `advice` make one
sentence a cause. A test holds this table to the whole of shared.errors.Cause.
"""

from __future__ import annotations

from typing import NamedTuple

from shared.errors import Cause


class CauseWords(NamedTuple):
    """because: a clause with `{transport}` in it. meaning, advice: the two halves of its sentence."""

    because: str
    meaning: str
    advice: str

    @property
    def sentence(self) -> str:
        return f"{self.meaning}; {self.advice}."


CAUSE_WORDS: dict[Cause, CauseWords] = {
    Cause.NO_LINK: CauseWords(
        "there was no {transport} link to the peer",
        "No worker of this node has an open link to the peer over this transport",
        "see what closed it before, and whether both ends run a worker of it",
    ),
    Cause.DIAL_TIMEOUT: CauseWords(
        "no {transport} link opened in time",
        "A link was dialled and the peer did not complete it in time",
        "see whether the peer runs, and whether a firewall or NAT lies between (a TURN server helps webrtc)",
    ),
    Cause.SIGNALLING_UNAVAILABLE: CauseWords(
        "{transport} could reach no signalling server",
        "No PeerServer, tracker or meeting place answers, so no new link can be arranged; open links go on",
        "start the rendezvous, or correct the addresses in its document",
    ),
    Cause.ID_TAKEN: CauseWords(
        "another process holds this node's PeerJS id",
        "The PeerServer says that somebody else is registered under this node's id",
        "stop the second copy of this node, or use another PeerServer",
    ),
    Cause.ICE_FAILED: CauseWords(
        "no network path was found for {transport}",
        "Signalling worked and none of the two ends' addresses could reach the other",
        "open the UDP ports, set the advertised address, or name a TURN server in the rendezvous document",
    ),
    Cause.PEER_UNKNOWN: CauseWords(
        "nobody on {transport} knows the peer",
        "The peer is not registered where it was looked for, or no holder was named at all",
        "see whether the peer runs and uses the same rendezvous, or take a fresh link",
    ),
    Cause.NO_EXTENSION: CauseWords(
        "the peer's {transport} client does not speak swarm-space",
        "The remote peer is a BitTorrent client without the swarm-space extension, which cannot take our frames",
        "nothing is wrong here: reach that peer over another transport",
    ),
    Cause.NO_LISTENER: CauseWords(
        "nobody listened on {transport}",
        "The message was posted to a channel on which the peer does not listen",
        "see whether the peer shares the bus, or has its page open on the same origin and channel",
    ),
    Cause.BUSY: CauseWords(
        "the {transport} link was busy",
        "The worker, the link or the remote peer had no room for one more request",
        "wait, or run more workers of this transport",
    ),
    Cause.RATE_LIMITED: CauseWords(
        "the peer's limit was reached over {transport}",
        "More requests came in a short time than one end allows",
        "wait a moment, or raise the limit at the end that refuses",
    ),
    Cause.TOO_LARGE: CauseWords(
        "it was too large for {transport}",
        "The message or the content is larger than the transport, the peer or the quota takes",
        "use another transport, or raise the quota",
    ),
    Cause.SILENT: CauseWords(
        "the peer showed no sign of life over {transport}",
        "The request was sent and neither an ack nor a byte came back in time, so another transport was started",
        "see whether the peer or the network is overloaded or cut off; a remote peer without native links cannot ack",
    ),
    Cause.TIMEOUT: CauseWords(
        "the answer over {transport} did not come in time",
        "The peer was alive but its answer was not complete by the deadline",
        "see how slow the link is in `swarmbridge trace`, and whether the peer is overloaded",
    ),
    Cause.CLOSED: CauseWords(
        "the {transport} link was closed",
        "The link went away under the request: the remote peer, the network or an operator ended it",
        "see whether the peer's worker still runs; a new link is dialled within seconds",
    ),
    Cause.REFUSED: CauseWords(
        "the peer refused over {transport}",
        "The peer was reached and does not hold what was asked for, or keeps it for the members of its mesh: the two "
        "look alike on purpose",
        "ask another holder; or give that node's operator this node's peer token (`swarmbridge peers --self`), who "
        "makes it a member by adding it to `trust.members`",
    ),
    Cause.BLOCKED: CauseWords(
        "one end has blocked the other",
        "One end has the other on its blocklist and refuses it on every transport",
        "if that was not meant, do `swarmbridge blocklist remove PEER` at the end that blocks",
    ),
    Cause.FORBIDDEN: CauseWords(
        "the peer does not allow us this over {transport}",
        "The caller's role does not allow it: a guest asked for what is for members",
        "add the peer to `trust.members` at both ends if you trust it",
    ),
    Cause.CLOCK_SKEW: CauseWords(
        "the two nodes' clocks are too far apart for {transport}",
        "One node's link certificate is out of date by the other's clock, by more than two minutes",
        "set the clock of both machines (NTP); if both are right, restart the node whose chunk service was down",
    ),
    Cause.UNAUTHENTICATED: CauseWords(
        "the peer over {transport} did not prove who it is",
        "The seal's handshake failed: another key, an expired certificate or an altered link",
        "compare both nodes' peer tokens (`swarmbridge peers --self`) and their clocks",
    ),
    Cause.DISABLED: CauseWords(
        "{transport} is switched off",
        "The transport's flag is off on this node",
        "switch it on with `swarmbridge flags`",
    ),
    Cause.CIRCUIT_OPEN: CauseWords(
        "{transport} failed too often and is being spared",
        "After repeated failures this transport is passed over until a probe of it succeeds",
        "mend what failed before; it comes back by itself within seconds of that",
    ),
    Cause.DRAINING: CauseWords(
        "the {transport} worker was about to stop",
        "The worker is being stopped or replaced and takes nothing new",
        "nothing if that was meant; else start another worker of it",
    ),
    Cause.EXPIRED: CauseWords(
        "its time was over before {transport} could be tried",
        "The deadline had passed when the process came to it: the process was stopped or the machine overloaded",
        "see the machine's load and whether a process was suspended",
    ),
    Cause.WORKER_LOST: CauseWords(
        "the {transport} worker was lost",
        "The worker process died, hangs, or is cut off from the bus",
        "see the worker's log; its supervisor starts a new one",
    ),
    Cause.SOURCE_LOST: CauseWords(
        "the process that held the bytes was lost",
        "A process died while it held the bytes to be sent, the peer's or this node's own; no transport is to blame",
        "nothing, it is asked again; see the chunk service's log, at the end that sends, if it happens often",
    ),
    Cause.STORE_FULL: CauseWords(
        "this node's store had no room for it",
        "The file does not fit into what `chunk.quota_bytes` leaves free on this node; no transport is to blame",
        "remove files with `swarmbridge rm`, or raise `chunk.quota_bytes`",
    ),
    Cause.DISK_FULL: CauseWords(
        "the disk under this node's store was full",
        "The disk, or the account's quota on it, has no space left for this node's store; no transport is to blame",
        "free space on the disk that holds the store, or move `chunk.store` to another",
    ),
    Cause.STORE_FAILED: CauseWords(
        "this node's store could not be used",
        "The folder or bucket behind `chunk.store` cannot be read or written; no transport is to blame",
        "see the chunk service's log, and whether the folder, its permissions and its disk are in order",
    ),
    Cause.IMPORT_FAILED: CauseWords(
        "a package that {transport} needs is missing",
        "An optional package of this transport cannot be imported",
        "install swarmbridge[node]",
    ),
    Cause.INTEGRITY_MISMATCH: CauseWords(
        "what came over {transport} was not what was asked for",
        "The bytes do not match their reference or signature: the holder's copy is damaged, or it lies",
        "fetch from another holder; nothing of it was stored",
    ),
    Cause.INVALID: CauseWords(
        "the two ends did not understand each other over {transport}",
        "One end sent what the other cannot make sense of",
        "check the link or digest, and that both ends run compatible versions",
    ),
    Cause.MISCONFIGURED: CauseWords(
        "this node's own configuration of {transport} cannot be used",
        "The rendezvous document cannot be read, or none of the servers that it names can be used; no peer is to blame",
        "mend the rendezvous document: the rendezvous' /healthz and the node's log name what is wrong",
    ),
    Cause.BUS_UNAVAILABLE: CauseWords(
        "this node's own bus was away",
        "NATS did not answer, or its streams were gone, for longer than a transfer waits; no peer is to blame",
        "see whether the NATS server runs and has disk space; what had begun goes on when it is asked again",
    ),
    Cause.OTHER: CauseWords(
        "{transport} failed for a reason that has no word",
        "Something failed that has no cause of its own, or a newer process reported one that this one does not know",
        "see the trace and the log of the service that it names",
    ),
}


def because(cause: Cause, transport: str) -> str:
    """The clause after "because" for a hop on `transport` that ended with `cause`."""
    return CAUSE_WORDS[cause].because.format(transport=transport)
