"""A missing or broken aiortc is one cause, not a crash."""

from __future__ import annotations

import subprocess
import sys

import pytest

BROKEN = """
import sys
sys.modules[{module!r}] = None
from shared.rtc import available
from shared.errors import TransportError
try:
    available.load()
except TransportError as error:
    print(error.cause.value)
"""


@pytest.mark.parametrize("module", ["aiortc", "aioice.ice", "av"])
def test_a_missing_part_is_import_failed(module: str) -> None:
    ran = subprocess.run(
        [sys.executable, "-c", BROKEN.format(module=module)], capture_output=True, text=True, timeout=30
    )
    assert ran.stdout.strip() == "import_failed"
    assert ran.returncode == 0
