from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.errors import Cause, SwarmbridgeError
from shared.ids import guest_token, member_token, peer_name, peerjs_id, token_key


@given(st.binary(min_size=32, max_size=32))
def test_a_member_token_is_its_key(key: bytes) -> None:
    token = member_token(key)
    assert token.isalnum()
    assert token_key(token) == key
    assert peer_name(token) == peerjs_id(key)


@given(st.text(min_size=1, max_size=16))
def test_a_guest_never_becomes_a_member(guest: str) -> None:
    token = guest_token(guest)
    assert token.startswith("g")
    assert token_key(token) is None
    assert peer_name(token).startswith("guest-")


@pytest.mark.parametrize("nonsense", ["", "k", "x" + "a" * 52, "k!!!!", "k" + "a" * 51, "g"])
def test_nonsense_is_refused(nonsense: str) -> None:
    with pytest.raises(SwarmbridgeError) as refusal:
        token_key(nonsense)
    assert refusal.value.cause is Cause.INVALID


def test_the_peerjs_id_has_swarm_spaces_form() -> None:
    assert peerjs_id(bytes(32)) == "peer-66687aadf862bd77"
