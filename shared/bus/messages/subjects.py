"""Every subject on the bus, made in one place. `N` is the node's id; see the table in the README of this folder.

All work of one node is under `sb.<node>.`; only `sb.bc.>` (account `mesh`) is shared between nodes.
"""

from __future__ import annotations

import base64
import hashlib
from dataclasses import dataclass

from shared.ids import service_of

QUEUE_MANAGER = "manager"
QUEUE_LINK = "link"
QUEUE_DIAL = "dial"
QUEUE_CHUNK = "chunk"
QUEUE_SIGNAL = "signal"

BUCKET_FLAGS = "flags"
BUCKET_BLOCKLIST = "blocklist"
BUCKET_LEASES = "leases"
BUCKET_MANIFESTS = "manifests"
BUCKET_LAYOUT = "layout"
STREAM_HOPS = "hops"

CHUNK_CALLS = ("put", "get", "fetch", "status", "remove", "usage")
"""The chunk service's local API."""


@dataclass(frozen=True, slots=True)
class Subjects:
    """The subjects of one node."""

    node: str

    @property
    def _prefix(self) -> str:
        return f"sb.{self.node}"

    @property
    def deliver(self) -> str:
        """Request, queue `manager`: Deliver -> Taken; the rest comes to `reply(instance)`."""
        return f"{self._prefix}.route.deliver"

    def reply(self, instance: str) -> str:
        """ReplyMessage for one caller's calls."""
        return f"{self._prefix}.reply.{_named(instance)}"

    def link(self, transport: str, peer: str) -> str:
        """Request, queue `link`: SendRequest -> Accepted. Its subscription is the live link."""
        return f"{self._prefix}.link.{transport}.{peer}"

    def dial(self, transport: str) -> str:
        """Request, queue `dial`: Dial -> Dialled."""
        return f"{self._prefix}.dial.{transport}"

    def worker(self, instance: str) -> str:
        """WorkerCommand to one transport worker."""
        return f"{self._prefix}.worker.{_named(instance)}"

    def manager(self, instance: str) -> str:
        """ManagerMessage to one manager."""
        return f"{self._prefix}.manager.{instance}"

    def inbound(self, transport: str) -> str:
        """Request, queue `manager`: Inbound -> InboundAnswer."""
        return f"{self._prefix}.inbound.{transport}"

    def announced(self, transport: str) -> str:
        """Publish: PeerAnnounced, for whoever fetches what peers say they hold."""
        return f"{self._prefix}.announced.{transport}"

    def named(self, transport: str, other: str) -> str:
        """Publish: NamedGuests, from the workers of one transport to those of another."""
        return f"{self._prefix}.named.{transport}.{other}"

    @property
    def announce(self) -> str:
        """Publish: AnnounceManifests, to every transport worker."""
        return f"{self._prefix}.announce"

    @property
    def chunk_message(self) -> str:
        """Request, queue `chunk`: Inbound -> InboundAnswer (the manager forwards it)."""
        return f"{self._prefix}.chunk.message"

    def chunk(self, call: str) -> str:
        """Request, queue `chunk`: the local API; call is one of CHUNK_CALLS."""
        return f"{self._prefix}.chunk.{call}"

    def chunk_instance(self, instance: str) -> str:
        """ChunkCommand to one chunk instance: ping and cancel of its transfers."""
        return f"{self._prefix}.chunk.instance.{instance}"

    @property
    def certify(self) -> str:
        """Request, queue `chunk`: Certify -> Certificate (docs/trust.md#keys)."""
        return f"{self._prefix}.identity.certify"

    @property
    def sign_record(self) -> str:
        """Request, queue `chunk`: SignDhtRecord -> Signed; `webtorrent` alone may ask."""
        return f"{self._prefix}.identity.record"

    @property
    def peerjs_token(self) -> str:
        """Request, queue `chunk`: PeerjsTokenRequest -> PeerjsToken; `webrtc` alone may ask."""
        return f"{self._prefix}.identity.peerjs"

    def health(self, service: str, instance: str) -> str:
        """Request: Ping -> Health. Each process asks itself, so that its answer has crossed the bus."""
        return f"{self._prefix}.health.{service}.{instance}"

    def body(self, instance: str, puller: str) -> str:
        """Request: PullRange -> Range, and ReleaseBody. One subscription an instance, not one a body.

        puller: the service that pulls, "*" where its holder listens for all of them. It is in the subject so that the
        server's permissions can say who pulls from whom.
        """
        return f"{self._prefix}.body.{_named(instance)}.{puller}"

    @property
    def signal_offer(self) -> str:
        """Request, queue `signal`: SignalOffer -> SignalTaken. The lease holder hands an OFFER to any worker."""
        return f"{self._prefix}.signal.offer"

    @property
    def signal_send(self) -> str:
        """Request, served by the lease holder alone: SignalSend -> SignalTaken."""
        return f"{self._prefix}.signal.send"

    @property
    def signal_pages(self) -> str:
        """Publish: PagesHeld, of each webrtc worker to all of them."""
        return f"{self._prefix}.signal.pages"

    def event(self, what: str) -> str:
        """Publish: past facts for views, never for decisions. what: link, status, manager, diagnostic, transfer,
        spans."""
        return f"{self._prefix}.event.{what}"

    def hop(self, transport: str) -> str:
        """Publish into the hops stream: one HopRecord a hop."""
        return f"{self._prefix}.hop.{transport}"


def _named(instance: str) -> str:
    """An instance and, before it, its service, so that permissions can tell one service's instances from another's.

    A name that starts with `<service>.` is a pattern of permissions.
    """
    return instance if "." in instance else f"{service_of(instance)}.{instance}"


def stored(name: str) -> str:
    """Published by the server at each write into a bucket or stream: headers alone, a hint to read.

    name: as the account knows it, "*" in a permission.
    """
    return f"stored.{name}.>"


OURS = "sb."
BROADCAST_SUBJECTS = f"{OURS}bc.>"
RENDEZVOUS_SUBJECTS = f"{OURS}rv.>"
"""Account `mesh`: everything that broadcast workers, and everything that rendezvous instances say to each other."""


def broadcast_channel(origin: str, channel: str) -> str:
    """Account `mesh`: BroadcastChannel messages of one origin and channel, both already subject-safe tokens."""
    return f"sb.bc.{origin}.{channel}"


def subject_token(text: str) -> str:
    """Any text (an origin, a channel's name) as one token: base32 of the first 16 bytes of its SHA-256."""
    return base64.b32encode(hashlib.sha256(text.encode()).digest()[:16]).decode().rstrip("=").lower()


def broadcast_node(origin: str, channel: str, peer: str) -> str:
    """Account `mesh`: request, queue `link`: OpenLink -> LinkOpened, to the node with this peer token.

    origin, channel: as they are; the subject holds their tokens.
    """
    return f"{broadcast_channel(subject_token(origin), subject_token(channel))}.node.{peer}"


def broadcast_worker(origin: str, channel: str, instance: str) -> str:
    """Account `mesh`: request: LinkMessage to one broadcast worker, for a link by its id. One subscription a worker."""
    return f"{broadcast_channel(subject_token(origin), subject_token(channel))}.worker.{instance}"


BROADCAST_PRESENT = "sb.bc.pages.present"
"""Account `mesh`: PagesPresent of every broadcast worker, to all of them."""


def broadcast_pages(instance: str) -> str:
    """Account `mesh`: request: CarryPosts to one broadcast worker, for its pages."""
    return f"sb.bc.pages.worker.{instance}"


RENDEZVOUS_NEWS = "sb.rv.news"
"""Account `mesh`: InstanceNews of every rendezvous instance."""


def rendezvous_peer(peer_id: str) -> str:
    """Account `mesh`: request: PeerCall to the instance that has this PeerJS id, which is why it subscribes."""
    return f"sb.rv.peer.{subject_token(peer_id)}"


def rendezvous_swarm(info_hash: bytes) -> str:
    """Account `mesh`: SwarmNews to the instances that have members in this swarm."""
    return f"sb.rv.swarm.{info_hash.hex()}"


def rendezvous_instance(instance: str) -> str:
    """Account `mesh`: TrackerRelay to one instance."""
    return f"sb.rv.instance.{instance}"
