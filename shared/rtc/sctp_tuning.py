"""aiortc's SCTP with less work a packet. Python pays for every packet, so what is done less often is speed.

Each change keeps the protocol as it is; the remote peer sees other timing, never other meaning. Where stock aiortc
1.16 spends its time is in docs/data-channels.md; what is changed, and why it is safe:

    datagrams     a first byte over 3 is no STUN (RFC 7983): it is not parsed as STUN first
    reassembly    a fragment that comes in order and does not end its message completes nothing, so messages are
                  looked for only when one may have been completed: stock is quadratic in the message's length
    receiving     a TSN that comes in order, with nothing missing, needs no sorting of what is missing
    SACK          one for SACK_EVERY_PACKETS while more packets wait in our queue: the end of the queue is reported at
                  once, so there is no timer, which collapsed under loss. Only on a path without loss: where a gap
                  or duplicate came within CLEAN_AFTER_PACKETS every packet is answered, as stock does. (With a small
                  window, one lost SACK of few stops the sender for the 1 s of T3: 20 times slower at 5 % loss)
    window        cwnd is capped: uncapped it overflows the peer's UDP buffer and loses its own packets, and stock
                  walks through all that is in flight on every SACK
    sending       ...unless something is marked for retransmission, which only a gap or the T3 timer does
    memory        a peer that sends fragments without end is cut off at MAX_REASSEMBLY_BYTES (stock has no bound)

Left out: one lazy T3 timer, skipping `bio_read`, and anything about loss recovery.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import aioice.ice
import aiortc.rtcpeerconnection
from aiortc.rtcdtlstransport import RTCDtlsTransport
from aiortc.rtcsctptransport import (
    SCTP_DATA_LAST_FRAG,
    USERDATA_MAX_LENGTH,
    DataChunk,
    InboundStream,
    RTCSctpTransport,
    SackChunk,
)
from aiortc.utils import uint32_gt

SACK_EVERY_PACKETS = 4
CLEAN_AFTER_PACKETS = 512
"""In order without a gap since the last one, until SACKs are sent less often."""
MAX_WINDOW_BYTES = 256 * 1024
"""Cap of cwnd (docs/data-channels.md): 5 MB/s at a round trip of 50 ms, and all in flight fits the remote peer's UDP
buffer."""
MAX_REASSEMBLY_BYTES = 8 * 1024 * 1024
"""Received and not yet whole, a link (docs/limits.md#data-channel)."""
LAST_STUN_BYTE = 3
"""RFC 7983, section 7: STUN 0-3, DTLS 20-63."""
BURST_PACKETS, RECOVERY_BURST_PACKETS = 4, 2
"""New packets a SACK may let out, as stock aiortc has them (RFC 9260, 6.1: Max.Burst)."""

_TSN_MODULUS = 2**32
_stock_datagram_received = aioice.ice.StunProtocol.datagram_received


def install() -> None:
    """Use it for every connection made from now on in this process. Idempotent.

    Raises: AttributeError where aiortc's insides are not those of 1.16.
    """
    for name in (
        "_send_sack",
        "_receive_sack_chunk",
        "_receive_data_chunk",
        "_mark_received",
        "_transmit",
        "_t3_expired",
    ):
        # Fails at start, where it is reported as `import_failed`, and not on the first link.
        getattr(RTCSctpTransport, name)
    setattr(aiortc.rtcpeerconnection, "RTCSctpTransport", TunedSctpTransport)  # noqa: B010 - not exported, for mypy
    aioice.ice.StunProtocol.datagram_received = _datagram_received  # type: ignore[method-assign]


def _datagram_received(self: aioice.ice.StunProtocol, data: bytes | str, addr: tuple[Any, ...]) -> None:
    if isinstance(data, bytes) and data and data[0] > LAST_STUN_BYTE:
        self.receiver.data_received(data, self.local_candidate.component)
    else:
        _stock_datagram_received(self, data, addr)


class TunedInboundStream(InboundStream):
    """Looks for whole messages only when there may be one."""

    def __init__(self) -> None:
        super().__init__()
        self._completes_nothing = False

    def add_chunk(self, chunk: DataChunk) -> None:
        last_in_order = not self.reassembly or uint32_gt(chunk.tsn, self.reassembly[-1].tsn)
        self._completes_nothing = last_in_order and not chunk.flags & SCTP_DATA_LAST_FRAG
        super().add_chunk(chunk)

    def pop_messages(self) -> Iterator[tuple[int, int, bytes]]:
        # Once only: a later call comes from elsewhere (FORWARD TSN) and may find what was held back.
        nothing, self._completes_nothing = self._completes_nothing, False
        return iter(()) if nothing else super().pop_messages()


class TunedSctpTransport(RTCSctpTransport):
    """See the module."""

    def __init__(self, transport: RTCDtlsTransport, port: int = 5000) -> None:
        super().__init__(transport, port)
        self._initial_rwnd = self._advertised_rwnd
        self._packets_unacknowledged = 0
        self._packets_in_order = 0
        self._may_retransmit = False

    # ── receiving ────────────────────────────────────────────────────────────────────────────────────────

    def _get_inbound_stream(self, stream_id: int) -> InboundStream:
        if stream_id not in self._inbound_streams:
            self._inbound_streams[stream_id] = TunedInboundStream()
        return self._inbound_streams[stream_id]

    def _mark_received(self, tsn: int) -> bool:
        last = self._last_received_tsn
        in_order = last is not None and tsn == (last + 1) % _TSN_MODULUS
        # With nothing missing there is nothing to sort, and nothing to report but the number itself.
        if in_order and not self._sack_misordered and not self._sack_duplicates:
            self._last_received_tsn = tsn
            return False
        return super()._mark_received(tsn)

    async def _receive_data_chunk(self, chunk: DataChunk) -> None:
        await super()._receive_data_chunk(chunk)
        if self._initial_rwnd - self._advertised_rwnd > MAX_REASSEMBLY_BYTES:
            # Not an exception: aiortc would log it and go on receiving.
            await self._abort()
            self._set_state(self.State.CLOSED)

    async def _send_sack(self) -> None:
        # Asked for after every packet; `_sack_needed` stays set where it is not sent, so the next one asks again.
        self._packets_unacknowledged += 1
        self._packets_in_order += 1
        if self._sack_misordered or self._sack_duplicates:
            self._packets_in_order = 0
        clean = self._packets_in_order > CLEAN_AFTER_PACKETS
        if clean and self._packets_unacknowledged < SACK_EVERY_PACKETS and self._more_waits():
            return
        self._packets_unacknowledged = 0
        await super()._send_sack()

    def _more_waits(self) -> bool:
        return not self.transport.transport._connection._queue.empty()

    # ── sending ──────────────────────────────────────────────────────────────────────────────────────────

    async def _receive_sack_chunk(self, chunk: SackChunk) -> None:
        if chunk.gaps:
            self._may_retransmit = True
        # Before stock reads it: it lets out as much as the window has.
        self._cwnd = min(self._cwnd, MAX_WINDOW_BYTES)
        await super()._receive_sack_chunk(chunk)

    def _t3_expired(self) -> None:
        self._may_retransmit = True
        super()._t3_expired()

    async def _transmit(self) -> None:
        if self._may_retransmit or self._forward_tsn_chunk is not None:
            await super()._transmit()
            self._may_retransmit = any(chunk._retransmit for chunk in self._sent_queue)
            return
        burst = RECOVERY_BURST_PACKETS if self._fast_recovery_exit is not None else BURST_PACKETS
        window = min(self._flight_size + burst * USERDATA_MAX_LENGTH, self._cwnd)
        while self._outbound_queue and self._flight_size < window:
            chunk = self._outbound_queue.popleft()
            chunk._sent_count += 1
            chunk._sent_time = time.time()
            self._sent_queue.append(chunk)
            self._flight_size_increase(chunk)
            await self._send_chunk(chunk)
            if self._t3_handle is None:
                self._t3_start()
