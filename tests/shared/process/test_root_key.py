"""`root.key`: made once, whoever starts first; read by nobody else."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from shared.errors import ConfigError
from shared.process.root_key import ROOT_FILE, load_or_create_root


def test_the_key_is_made_once_and_is_ours_alone(tmp_path: Path) -> None:
    home = tmp_path / "new" / "home"
    root = load_or_create_root(home)
    assert len(root) == 32
    assert load_or_create_root(home) == root
    assert (home / ROOT_FILE).stat().st_mode & 0o777 == 0o600
    assert [entry.name for entry in home.iterdir()] == [ROOT_FILE]


def test_instances_that_start_together_agree(tmp_path: Path) -> None:
    # Threads, not forked processes: a fork of a test run that has threads may never return. The files are the same.
    with ThreadPoolExecutor(6) as pool:
        roots = list(pool.map(load_or_create_root, [tmp_path] * 24))
    assert len(set(roots)) == 1
    assert [entry.name for entry in tmp_path.iterdir()] == [ROOT_FILE]


def test_a_key_that_cannot_be_used_is_reported(tmp_path: Path) -> None:
    path = tmp_path / ROOT_FILE
    path.write_bytes(b"short")
    path.chmod(0o600)
    with pytest.raises(ConfigError, match="32 bytes"):
        load_or_create_root(tmp_path)
    path.write_bytes(os.urandom(32))
    path.chmod(0o644)
    with pytest.raises(ConfigError, match="chmod 600"):
        load_or_create_root(tmp_path)
    with pytest.raises(ConfigError):
        load_or_create_root(path)
