from __future__ import annotations

import pytest

from shared.gateway_api.proof import is_nonce, new_nonce, new_proof_key, proof_of

ADDRESS = ("127.0.0.1", 7700)


def test_it_depends_on_key_nonce_and_address() -> None:
    key, nonce = new_proof_key(), new_nonce()
    proof = proof_of(key, nonce, ADDRESS)
    assert proof == proof_of(key, nonce, ADDRESS)
    others = [
        proof_of(new_proof_key(), nonce, ADDRESS),
        proof_of(key, new_nonce(), ADDRESS),
        proof_of(key, nonce, ("127.0.0.1", 7701)),
        proof_of(key, nonce, ("127.0.0.2", 7700)),
    ]
    assert len({proof, *others}) == 5


@pytest.mark.parametrize(("one", "other"), [("127.0.0.1", "::ffff:127.0.0.1"), ("fe80::1%eth0", "fe80::1")])
def test_both_ends_spell_an_address_alike(one: str, other: str) -> None:
    key, nonce = new_proof_key(), new_nonce()
    assert proof_of(key, nonce, (one, 1)) == proof_of(key, nonce, (other, 1))


@pytest.mark.parametrize("text", ["", "0" * 63, "0" * 65, "g" * 64, "A" * 64, "0" * 63 + "\n"])
def test_a_nonce_has_one_form(text: str) -> None:
    assert is_nonce(new_nonce())
    assert not is_nonce(text)
