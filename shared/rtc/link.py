"""One link: an RTCPeerConnection with exactly one data channel, from its SDP to its end.

The owner moves descriptions and candidates; this class does the rest. Messages are bytes, whole and in order.
A second channel, an oversized message or a lossy channel is a bad peer: the link closes. So is a text message or an
unordered channel, unless the settings allow it, as for pages.

Source: W3C WebRTC 1.0, RFC 8831 and 8832, through aiortc 1.16. Left out: media, renegotiation, ICE restart.
aiortc gives no receive back-pressure (docs/data-channels.md): what a peer may send unasked is bounded by the owner's
requests.
"""

from __future__ import annotations

import asyncio

from aiortc import (
    RTCCertificate,
    RTCConfiguration,
    RTCDataChannel,
    RTCIceServer,
    RTCPeerConnection,
    RTCSessionDescription,
)
from aiortc.exceptions import InvalidStateError
from aiortc.sdp import candidate_from_sdp

from shared.errors import Cause, LocalProtocolError, RemoteProtocolError, TransportError
from shared.rtc.addresses import AddressRule, address_rule, advertised
from shared.rtc.contract import LinkEvents, LinkSettings
from shared.rtc.description import MAX_CANDIDATES, admit_candidate, admit_description, fingerprint_of
from shared.rtc.gathering import default_route_address, gathering_on, machine_addresses
from shared.settings.config import DEFAULT_ROUTE
from shared.tasks.ending import end_tasks

HIGH_MARK_BYTES = 1024 * 1024
"""`send` waits while more than this is queued before SCTP: 16 records of 64 KiB."""
LOW_MARK_BYTES = 256 * 1024
"""...until this little is left: enough to keep SCTP busy until the sender has run again."""
CLOSE_TIMEOUT_S = 2.0
"""For the abort, DTLS alert and sockets of one connection; whatever is left then is dropped."""


class DataChannelLink:
    """One peer connection with one data channel.

    Driven by:    the owner: `offer` then `accept_answer` (dialer), or `accept_offer` (listener); `add_candidate`
                  at any time; `close` at any time.
    Invariants:   on_closed comes once, whatever ends the link; the connection never outlives its channel.
    Cancellation: every method may be cancelled; the owner then calls `close`.
    """

    def __init__(self, settings: LinkSettings, events: LinkEvents) -> None:
        self._settings = settings
        self._events = events
        host = _gathering_host(settings.host)
        self._rule: AddressRule = address_rule(host, [] if host else machine_addresses())
        self._connection = RTCPeerConnection(_configuration(settings))
        self._channel: RTCDataChannel | None = None
        self._local_fingerprint: bytes | None = None
        self._remote_fingerprint: bytes | None = None
        self._dialer = False
        self._open = False
        self._closed: Cause | None = None
        self._closing: asyncio.Task[None] | None = None
        self._writable = asyncio.Event()
        self._candidates = 0
        self._speaks_text = False
        self.refused_candidates = 0
        """Candidates taken out by the address rule or over the limit."""
        self._connection.on("connectionstatechange", self._on_connection_state)

    @property
    def is_open(self) -> bool:
        return self._open and self._closed is None

    @property
    def has_path(self) -> bool:
        """Whether ICE has found a way to the remote peer; DTLS and the channel come after it."""
        return self._connection.iceConnectionState in ("connected", "completed")

    @property
    def ordered(self) -> bool:
        """Whether messages arrive in the order in which they were sent."""
        return self._channel is None or self._channel.ordered

    # ── descriptions ─────────────────────────────────────────────────────────────────────────────────────

    async def offer(self, label: str, *, ordered: bool = True) -> str:
        """Make the channel and the offer. Returns: SDP with every candidate (no trickle)."""
        self._dialer = True
        try:
            self._take_channel(self._connection.createDataChannel(label, ordered=ordered))
            return await self._describe(await self._connection.createOffer())
        except ValueError as error:
            # The rendezvous document lets no such server through; one that aiortc alone refuses is ours all the same.
            raise TransportError(Cause.MISCONFIGURED, "an ICE server cannot be used") from error
        except InvalidStateError as error:
            raise TransportError(Cause.CLOSED) from error

    async def accept_offer(self, sdp: str) -> str:
        """Take a dialer's offer. Returns: the answer's SDP with every candidate.

        Raises: RemoteProtocolError for an offer that is not that of one data channel; close the link.
        """
        self._connection.on("datachannel", self._on_channel)
        await self._apply("offer", sdp)
        try:
            return await self._describe(await self._connection.createAnswer())
        except InvalidStateError as error:
            raise TransportError(Cause.CLOSED) from error

    async def accept_answer(self, sdp: str) -> None:
        """Take the listener's answer to our offer; checks begin. Raises: as `accept_offer`."""
        await self._apply("answer", sdp)

    async def add_candidate(self, candidate: str, mid: str | None, line_index: int | None) -> None:
        """Add a trickled candidate (`candidate:…`); "" means that there are no more.

        One over the limit or to an address that we do not send to is counted and left out.
        Raises: RemoteProtocolError where it is no candidate.
        """
        if self._closed is not None:
            return
        try:
            if not candidate:
                await self._connection.addIceCandidate(None)
                return
            value = admit_candidate(candidate, self._rule)
            if value is None or self._candidates >= MAX_CANDIDATES:
                self.refused_candidates += 1
                return
            self._candidates += 1
            parsed = candidate_from_sdp(value)
            parsed.sdpMid = mid
            # aiortc wants one of the two; browsers send either.
            parsed.sdpMLineIndex = line_index if line_index is not None or mid is not None else 0
            await self._connection.addIceCandidate(parsed)
        except (ValueError, AssertionError) as error:  # how aiortc and aioice refuse what they cannot parse
            raise RemoteProtocolError("not a candidate") from error

    def fingerprints(self) -> tuple[bytes, bytes]:
        """The dialer's, then the listener's SHA-256 DTLS fingerprint, 32 bytes each (docs/seal.md).

        Raises: LocalProtocolError before both descriptions are there.
        """
        if self._local_fingerprint is None or self._remote_fingerprint is None:
            raise LocalProtocolError("fingerprints are known after both descriptions")
        pair = (self._local_fingerprint, self._remote_fingerprint)
        return pair if self._dialer else (pair[1], pair[0])

    async def _describe(self, description: RTCSessionDescription) -> str:
        with gathering_on(self._rule.gather_on, self._settings.ports):
            await self._connection.setLocalDescription(description)
        sdp = advertised(self._connection.localDescription.sdp, self._settings.advertise)
        self._local_fingerprint = fingerprint_of(sdp)
        return sdp

    async def _apply(self, kind: str, sdp: str) -> None:
        admitted = admit_description(sdp, self._rule)
        self._remote_fingerprint = admitted.fingerprint
        self._candidates = admitted.candidates
        self.refused_candidates += admitted.refused
        try:
            await self._connection.setRemoteDescription(RTCSessionDescription(sdp=admitted.sdp, type=kind))
        except Exception as error:  # its parser raises whatever Python raises on the malformed
            raise RemoteProtocolError("a description that cannot be used") from error

    # ── messages ─────────────────────────────────────────────────────────────────────────────────────────

    async def send(self, data: bytes) -> None:
        """Queue one message.

        Back-pressure: waits while HIGH_MARK_BYTES are queued. One task sends at a time.
        Raises: TransportError(CLOSED), (TOO_LARGE).
        """
        if len(data) > self._settings.max_message_bytes:
            raise TransportError(Cause.TOO_LARGE)
        channel = self._usable_channel()
        # An empty buffer takes any message: one longer than the mark would wait indefinitely.
        while channel.bufferedAmount and channel.bufferedAmount + len(data) > HIGH_MARK_BYTES:
            self._writable.clear()
            await self._writable.wait()
            # It may have been closed while we waited.
            channel = self._usable_channel()
        try:
            channel.send(data.decode() if self._speaks_text else data)
        except UnicodeDecodeError:
            channel.send(data)  # no text; its kind is the remote peer's to tell
        except InvalidStateError as error:
            raise TransportError(Cause.CLOSED) from error
        except ValueError as error:  # over what the remote peer's SDP takes
            raise TransportError(Cause.TOO_LARGE) from error

    @property
    def queued_bytes(self) -> int:
        """Bytes that `send` took and SCTP has not; 0 does not mean delivered."""
        return self._channel.bufferedAmount if self._channel is not None else 0

    def _usable_channel(self) -> RTCDataChannel:
        if self._channel is None or not self.is_open:
            raise TransportError(Cause.CLOSED)
        return self._channel

    # ── the channel's life ───────────────────────────────────────────────────────────────────────────────

    def _on_channel(self, channel: RTCDataChannel) -> None:
        if self._channel is not None:
            self._end(Cause.INVALID)
            return
        reliable = channel.maxRetransmits is None and channel.maxPacketLifeTime is None
        if not (reliable and (channel.ordered or self._settings.unordered)):
            self._end(Cause.INVALID)
            return
        # No "open" event comes for a channel that the remote peer made: it is open when we hear of it.
        self._take_channel(channel)
        self._on_channel_open()

    def _take_channel(self, channel: RTCDataChannel) -> None:
        self._channel = channel
        channel.bufferedAmountLowThreshold = LOW_MARK_BYTES
        channel.on("open", self._on_channel_open)
        channel.on("message", self._on_channel_message)
        channel.on("bufferedamountlow", self._writable.set)
        channel.on("close", self._on_channel_close)

    def _on_channel_open(self) -> None:
        if self._closed is None and not self._open:
            self._open = True
            self._events.on_open()

    def _on_channel_message(self, message: bytes | str) -> None:
        if self._closed is not None:
            return
        if isinstance(message, str):
            if not self._settings.text:
                self._end(Cause.INVALID)
                return
            self._speaks_text, message = True, message.encode()
        # aiortc itself takes any length that SCTP puts together.
        if len(message) > self._settings.max_message_bytes:
            self._end(Cause.TOO_LARGE)
        else:
            self._events.on_message(message)

    def _on_channel_close(self) -> None:
        self._end(Cause.CLOSED if self._open else Cause.ICE_FAILED)

    def _on_connection_state(self) -> None:
        if self._connection.connectionState in ("failed", "closed"):
            self._end(Cause.CLOSED if self._open else Cause.ICE_FAILED)

    async def close(self, cause: Cause = Cause.CLOSED) -> None:
        """End the link; unsent messages are dropped. Returns when its sockets are closed. Idempotent."""
        self._end(cause)
        if self._closing is not None:
            await asyncio.shield(self._closing)

    def _end(self, cause: Cause) -> None:
        if self._closed is not None:
            return
        self._closed = cause
        # Whoever waits in `send` finds the link closed.
        self._writable.set()
        # The connection goes with its channel: aiortc would keep it, its sockets and its timers
        # (docs/data-channels.md).
        self._closing = asyncio.get_running_loop().create_task(self._close_connection(), name="rtc-close")
        self._events.on_closed(cause)

    async def _close_connection(self) -> None:
        closing = asyncio.create_task(self._connection.close(), name="rtc-connection-close")
        await asyncio.wait({closing}, timeout=CLOSE_TIMEOUT_S)
        # aioice catches a cancellation while it waits for its own consent task: once is not enough. What fails
        # while closing changes nothing that the owner was notified of.
        await end_tasks([closing])


def _gathering_host(host: str) -> str:
    if host != DEFAULT_ROUTE:
        return host
    return default_route_address() or ""  # no way out: all there are, as without the setting


def _configuration(settings: LinkSettings) -> RTCConfiguration:
    # An empty list, never None: aiortc's default is a public STUN server.
    return RTCConfiguration(
        iceServers=[
            RTCIceServer(urls=list(server.urls), username=server.username or None, credential=server.credential or None)
            for server in settings.ice_servers
        ]
    )


def warm_up() -> None:
    """Do what only the first connection would pay for: loading OpenSSL's bindings, making a certificate."""
    RTCCertificate.generateCertificate().getFingerprints()
