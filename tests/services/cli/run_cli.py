"""Run a command line beside the servers of a test: the CLI has a loop of its own, so it gets a thread."""

from __future__ import annotations

import asyncio
import json
from dataclasses import dataclass
from typing import Any

import pytest

from services.cli.__main__ import run


@dataclass(frozen=True)
class Result:
    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)

    def error_line(self) -> str:
        """stderr, which must be one line that says `error: …`."""
        assert self.err.startswith("error: ")
        assert self.err.count("\n") == 1, self.err
        assert "Traceback" not in self.err
        return self.err


async def run_cli(capsys: pytest.CaptureFixture[str], *arguments: str) -> Result:
    capsys.readouterr()
    code = await asyncio.to_thread(run, list(arguments))
    captured = capsys.readouterr()
    return Result(code, captured.out, captured.err)
