"""The page of settings is what the types say, and every setting says what it is for."""

from __future__ import annotations

import re
from pathlib import Path

import msgspec

from ops.docs.settings_table import PAGE, README, descriptions, page, with_table
from shared.settings.config import Config

ROOT = Path(__file__).parents[2]
ENV_NAME = re.compile(r"\bSWARMBRIDGE_[A-Z_]+\b")
COMPOSE_ONLY = re.compile(
    r"SWARMBRIDGE_(\w+_SCALE|\w+_PORT|TAG|BIND|PUBLIC_BIND|ADVERTISE|SITE|TLS|TURN_CONFIG|"
    r"BASE_IMAGE|DOCUMENT|HOST_DOCUMENT|MESH_NETWORK|LOG_SIZE|SAMPLE_PERCENT|MAX_TRACES|CACHE)"
)
"""Of compose.yaml itself: how many, which published port, which image."""


def test_the_page_is_made_of_the_types() -> None:
    assert PAGE.read_text(encoding="utf-8") == page(), "run python -m ops.docs.settings_table"
    readme = README.read_text(encoding="utf-8")
    assert readme == with_table(readme), "run python -m ops.docs.settings_table"


def test_a_text_belongs_to_the_fields_before_it() -> None:
    class Some(msgspec.Struct):
        """host, port: where it listens, 0 = any: really. name: of it; "" = none.

        last: the end
        """

        host: str
        port: int
        name: str
        last: str

    assert descriptions(Some) == {
        "host": "where it listens, 0 = any: really",
        "port": "where it listens, 0 = any: really",
        "name": 'of it; "" = none',
        "last": "the end",
    }


def test_compose_names_no_setting_that_is_none() -> None:
    """What it hands to a process is a setting; what is its own is known."""
    known = {
        f"SWARMBRIDGE_{section.name}_{field.name}".upper()
        for section in msgspec.structs.fields(Config)
        for field in msgspec.structs.fields(section.type)
    }
    files = [ROOT / "compose.yaml", ROOT / ".env.example", *(ROOT / "ops/compose").glob("*.yaml")]
    named = {name for file in files for name in ENV_NAME.findall(file.read_text(encoding="utf-8"))}
    assert not {name for name in named - known if not COMPOSE_ONLY.fullmatch(name)}
