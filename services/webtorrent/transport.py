"""The webtorrent transport as the contract has it; a Worker does the work of each run."""

from __future__ import annotations

from collections import Counter

from services.webtorrent.addresses import our_addresses
from services.webtorrent.beacon import SignRecord, read_mesh_secret
from services.webtorrent.endpoints import Endpoint
from services.webtorrent.wires import MAX_RECORD_BYTES
from services.webtorrent.worker import Membership, Worker
from shared.bus.messages.records import MeetingPlace
from shared.clock import Clock, monotonic
from shared.errors import Cause, LocalProtocolError, TransportError
from shared.ids import LinkId
from shared.settings.config import Config
from shared.transport.contract import Capabilities, Emit, PeerHint
from shared.transports import TransportName


class WebtorrentTransport:
    """Implements shared.transport.contract.Transport.

    refused: what was turned away since `run` began, by limit or cause, and links that broke a rule or a limit of the
    wire; what else ends a link is LinkDown's alone.
    """

    name = TransportName.WEBTORRENT
    capabilities = Capabilities(max_record_bytes=MAX_RECORD_BYTES, ordered=True, reliable=True)

    def __init__(self, config: Config, clock: Clock = monotonic, sign: SignRecord | None = None) -> None:
        """sign: the node's identity over its DHT record; None = it has none. Raises: LocalProtocolError: no secret."""
        secret_file = config.trust.mesh_secret_file
        self._mesh_secret = read_mesh_secret(secret_file) if secret_file else b""
        self._sign = sign
        self._identity = b""
        self.refused: Counter[str] = Counter()
        self._config = config
        self._clock = clock
        self._worker: Worker | None = None
        self._running = False

    @property
    def endpoint(self) -> Endpoint | None:
        """Where our wire listens; None while it does not."""
        return self._worker.wires.listening_at if self._worker is not None else None

    def meeting_places(self) -> list[MeetingPlace]:
        """Trackers and DHT nodes of the rendezvous document; none while it does not run."""
        return self._worker.meeting_places() if self._worker is not None else []

    def measures(self) -> dict[str, float]:
        """Numbers of this run for the bus; none while there is none."""
        return self._worker.measures() if self._worker is not None else {}

    def set_identity(self, identity_key: bytes) -> None:
        """Nothing of it shows on the wire: the seal above says who we are. It names our record in the DHT."""
        self._identity = identity_key

    async def run(self, emit: Emit) -> None:
        """See the contract. Raises: TransportError(REFUSED): our wire's address is taken, or none of ours."""
        if self._running:
            raise LocalProtocolError("the transport runs already")
        self._running = True
        self.refused.clear()
        try:
            addresses = await our_addresses(self._config.webtorrent)
            self._worker = Worker(self._config, addresses, emit, self.refused, self._clock, self._membership())
            await self._worker.run()
        finally:
            self._running, self._worker = False, None

    def _membership(self) -> Membership | None:
        if not self._mesh_secret or self._sign is None or not self._identity:
            return None
        return Membership(self._mesh_secret, self._identity, self._sign)

    async def dial(self, hint: PeerHint, timeout_s: float) -> None:
        """See the contract: discovery is in flight when it returns.

        Raises: TransportError(DISABLED): not running. (BUSY): only just starting.
                (SIGNALLING_UNAVAILABLE): nothing can find anybody now.
        """
        if self._worker is None or self.endpoint is None:
            raise TransportError(Cause.DISABLED if not self._running else Cause.BUSY)
        self._worker.search(hint)

    async def send(self, link: LinkId, record: bytes) -> None:
        """See the contract."""
        if len(record) > MAX_RECORD_BYTES:
            raise TransportError(Cause.TOO_LARGE)
        if self._worker is None:
            raise TransportError(Cause.CLOSED)
        await self._worker.wires.send(link, record)

    async def close(self, link: LinkId, cause: Cause) -> None:
        """See the contract; the LinkDown comes before this returns."""
        if self._worker is not None:
            self._worker.wires.close_link(link, cause)
