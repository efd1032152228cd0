"""What is let in of a remote peer's session description, before aiortc's parser sees it. Pure.

A description comes from a stranger over a hostile server (docs/trust.md). Let in: printable ASCII, one `m=application`
section, exactly one SHA-256 fingerprint (aiortc holds the certificate to it; it is half of the seal's binding,
docs/seal.md), at most 32 candidates, of which those that the address rule refuses are taken out.

Left out: everything about media; a section of it would make aiortc set up codecs and more sockets.
Source: RFC 8866 (SDP), RFC 8122 (fingerprint), RFC 8839 (candidate).
"""

from __future__ import annotations

from dataclasses import dataclass

from shared.errors import Cause, RemoteProtocolError
from shared.rtc.addresses import AddressRule

MAX_DESCRIPTION_BYTES = 64 * 1024
"""One signalling message (docs/limits.md#peerserver)."""
MAX_CANDIDATES = 32
"""A connection, in its SDP and trickled together (docs/limits.md#data-channel)."""
FINGERPRINT_BYTES = 32
CANDIDATE_FIELDS = 8
"""foundation component protocol priority address port "typ" type (RFC 8839, section 5.1)."""

_CANDIDATE = "a=candidate:"
_FINGERPRINT = "a=fingerprint:"
_MDNS_SUFFIX = ".local"


@dataclass(frozen=True, slots=True)
class Admitted:
    """sdp: what aiortc may parse. fingerprint: 32 bytes. candidates: kept. refused: taken out by the address rule."""

    sdp: str
    fingerprint: bytes
    candidates: int
    refused: int


def admit_description(sdp: str, rule: AddressRule) -> Admitted:
    """Check a remote peer's SDP and take out the candidates that we must not send to.

    Raises: RemoteProtocolError where it is not the description of one data channel.
    """
    lines = _lines(sdp)
    if [line.split(" ")[0] for line in lines if line.startswith("m=")] != ["m=application"]:
        raise RemoteProtocolError("a description needs exactly one application section")
    fingerprint = _only_fingerprint(lines)
    kept, candidates, refused = [], 0, 0
    for line in lines:
        if not line.startswith(_CANDIDATE):
            kept.append(line)
            continue
        if candidates + refused >= MAX_CANDIDATES:
            raise RemoteProtocolError("too many candidates", Cause.RATE_LIMITED)
        if _usable(line.removeprefix(_CANDIDATE), rule):
            kept.append(line)
            candidates += 1
        elif not _is_mdns(line.removeprefix(_CANDIDATE)):
            refused += 1
    return Admitted("\r\n".join(kept) + "\r\n", fingerprint, candidates, refused)


def fingerprint_of(sdp: str) -> bytes:
    """The SHA-256 certificate fingerprint in a description, 32 bytes.

    Raises: RemoteProtocolError unless there is exactly one value.
    """
    return _only_fingerprint(_lines(sdp))


def admit_candidate(candidate: str, rule: AddressRule) -> str | None:
    """A trickled candidate's value without `candidate:`, or None for one that is not used (a name, TCP, blocked).

    Raises: RemoteProtocolError where it is no candidate at all.
    """
    value = candidate.removeprefix("a=").removeprefix("candidate:")
    if len(value) > MAX_DESCRIPTION_BYTES or not _printable(value) or len(value.split()) < CANDIDATE_FIELDS:
        raise RemoteProtocolError("not a candidate")
    return value if _usable(value, rule) else None


def _lines(sdp: str) -> list[str]:
    # Only CR and LF may end a line: str.splitlines, which aiortc uses, knows more of them, and a line that it
    # sees and we do not could hold another fingerprint.
    if len(sdp) > MAX_DESCRIPTION_BYTES or not _printable(sdp.replace("\r\n", "").replace("\n", "")):
        raise RemoteProtocolError("not a session description")
    return sdp.splitlines()


def _printable(text: str) -> bool:
    return text.isascii() and text.isprintable()


def _only_fingerprint(lines: list[str]) -> bytes:
    values = set()
    for line in lines:
        if not line.startswith(_FINGERPRINT):
            continue
        algorithm, _, value = line.removeprefix(_FINGERPRINT).strip().partition(" ")
        if algorithm.lower() == "sha-256":
            values.add(value.strip().upper())
    if len(values) != 1:
        raise RemoteProtocolError("a description needs exactly one SHA-256 fingerprint")
    try:
        fingerprint = bytes.fromhex(values.pop().replace(":", ""))
    except ValueError:
        raise RemoteProtocolError("not a fingerprint") from None
    if len(fingerprint) != FINGERPRINT_BYTES:
        raise RemoteProtocolError("not a SHA-256 fingerprint")
    return fingerprint


def _usable(candidate: str, rule: AddressRule) -> bool:
    """Component 1 over UDP to an allowed address: all that a data channel uses."""
    fields = candidate.split()
    if len(fields) < CANDIDATE_FIELDS:
        return False
    return fields[1] == "1" and fields[2].lower() == "udp" and fields[5].isdigit() and rule.allows(fields[4])


def _is_mdns(candidate: str) -> bool:
    fields = candidate.split()
    return len(fields) >= CANDIDATE_FIELDS and fields[4].lower().endswith(_MDNS_SUFFIX)
