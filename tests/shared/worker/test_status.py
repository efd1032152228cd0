from __future__ import annotations

from shared.errors import Cause
from shared.transports import TransportState
from shared.worker.status import ACTIVE_FOR_S, StatusTracker


def test_an_inbound_message_makes_a_ready_transport_active_for_a_while() -> None:
    status = StatusTracker()
    assert status.state(0.0) is TransportState.INITIALIZING
    status.transport_says(TransportState.READY, None)
    status.message_came(10.0)
    assert status.state(10.0 + ACTIVE_FOR_S - 1) is TransportState.ACTIVE
    assert status.state(10.0 + ACTIVE_FOR_S) is TransportState.READY


def test_degraded_stays_whatever_traffic_comes() -> None:
    status = StatusTracker()
    status.transport_says(TransportState.DEGRADED, Cause.IMPORT_FAILED)
    status.message_came(1.0)
    assert status.state(1.0) is TransportState.DEGRADED
    assert status.last_error is Cause.IMPORT_FAILED


def test_a_failed_send_is_the_last_error_with_its_time_until_something_works() -> None:
    status = StatusTracker()
    status.transport_says(TransportState.READY, None)
    status.send_failed(Cause.CLOSED, 1_000)
    status.transport_says(TransportState.READY, None)
    assert (status.last_error, status.last_error_ms) == (Cause.CLOSED, 1_000)
    status.worked()
    assert (status.last_error, status.last_error_ms) == (None, 0)


def test_an_error_of_the_transport_goes_with_its_recovery_and_not_before() -> None:
    status = StatusTracker()
    status.transport_says(TransportState.DEGRADED, Cause.SIGNALLING_UNAVAILABLE, 1_000)
    status.worked()
    assert (status.last_error, status.last_error_ms) == (Cause.SIGNALLING_UNAVAILABLE, 1_000)
    status.transport_says(TransportState.READY, None, 2_000)
    assert (status.last_error, status.last_error_ms) == (None, 0)


def test_a_message_is_activity() -> None:
    status = StatusTracker()
    status.message_came(1.0, 5_000)
    assert status.last_activity_ms == 5_000
    status.reset()
    assert status.last_activity_ms == 0


def test_what_fails_because_of_a_troubled_state_does_not_hide_its_reason() -> None:
    status = StatusTracker()
    status.transport_says(TransportState.DEGRADED, Cause.ID_TAKEN)
    status.send_failed(Cause.SIGNALLING_UNAVAILABLE)
    troubled = status.last_error
    status.transport_says(TransportState.READY, None)
    status.send_failed(Cause.CLOSED)
    assert (troubled, status.last_error) == (Cause.ID_TAKEN, Cause.CLOSED)


def test_switching_off_resets() -> None:
    status = StatusTracker()
    status.transport_says(TransportState.READY, None)
    status.send_failed(Cause.CLOSED)
    status.refuse(Cause.BUSY)
    status.enabled = False
    status.reset()
    assert status.state(0.0) is TransportState.IDLE
    assert status.last_error is None
    assert not status.refused
