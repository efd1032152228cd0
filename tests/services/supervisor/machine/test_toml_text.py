"""What is written for a child is what the child reads."""

from __future__ import annotations

from pathlib import Path

import msgspec
from hypothesis import given, settings
from hypothesis import strategies as st

from services.supervisor.machine.toml_text import config_toml
from shared.settings.config import ENV_CONFIG_FILE, ChunkSettings, Config, NodeSettings, TelemetrySettings, load


def test_the_defaults_survive(tmp_path: Path) -> None:
    file = tmp_path / "node.toml"
    file.write_text(config_toml(Config()))
    assert load({ENV_CONFIG_FILE: str(file)}) == Config()


@given(
    home=st.text(st.characters(exclude_categories=["Cs"])),
    window=st.integers(1, 64),
    otlp=st.text(st.characters(exclude_categories=["Cs"])),
)
@settings(max_examples=60)
def test_any_text_and_number_survives(home: str, window: int, otlp: str) -> None:
    import tomllib

    config = Config(
        node=NodeSettings(home=home),
        chunk=ChunkSettings(request_window=window),
        telemetry=TelemetrySettings(otlp_endpoint=otlp),
    )
    tree = tomllib.loads(config_toml(config))
    assert tree == msgspec.to_builtins(config)
