"""Configuration structs as TOML text, for the file that a child process reads (`shared.settings.config.load`)."""

from __future__ import annotations

import msgspec
import tomli_w

from shared.settings.config import Config


def config_toml(config: Config) -> str:
    """Every setting, one table a section; reading it again gives an equal Config. Pure."""
    return tomli_w.dumps(msgspec.to_builtins(config))
