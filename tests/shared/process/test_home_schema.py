"""A home of a newer version is refused by a line that says what to do, and nothing in it is touched."""

from __future__ import annotations

from pathlib import Path

import pytest

from shared.errors import ConfigError
from shared.process.home_schema import HOME_SCHEMA, SCHEMA_FILE, ensure_home_schema


def test_a_new_home_gets_our_number_once(tmp_path: Path) -> None:
    home = tmp_path / "home"
    ensure_home_schema(home)
    ensure_home_schema(home)
    assert (home / SCHEMA_FILE).read_text() == f"{HOME_SCHEMA}\n"
    assert [path.name for path in home.iterdir()] == [SCHEMA_FILE]


def test_an_older_number_stays(tmp_path: Path) -> None:
    (tmp_path / SCHEMA_FILE).write_text("0\n")
    ensure_home_schema(tmp_path)
    assert (tmp_path / SCHEMA_FILE).read_text() == "0\n"


@pytest.mark.parametrize(
    ("text", "said"),
    [(f"{HOME_SCHEMA + 1}\n", "newer version"), ("", "no number"), ("-1", "no number"), ("é", "number")],
)
def test_a_newer_one_is_refused(tmp_path: Path, text: str, said: str) -> None:
    (tmp_path / SCHEMA_FILE).write_text(text)
    with pytest.raises(ConfigError, match=said):
        ensure_home_schema(tmp_path)
    assert (tmp_path / SCHEMA_FILE).read_text() == text
