"""`broadcast.js` has no build and is typed all the same: TypeScript reads its JSDoc and finds nothing."""

from __future__ import annotations

import subprocess

from tests.architecture.imports import ROOT
from tests.interop.conftest import HERE

SCRIPT = ROOT / "services/broadcast/static/broadcast.js"
STRICT = ("--noEmit", "--allowJs", "--checkJs", "--strict", "--target", "esnext", "--module", "esnext")
LIBRARIES = ("--lib", "esnext,dom,dom.iterable")


def test_the_types_of_the_script_hold() -> None:
    compiler = HERE / "types/node_modules/.bin/tsc"
    ended = subprocess.run(
        [compiler, *STRICT, *LIBRARIES, SCRIPT], capture_output=True, text=True, timeout=100, check=False
    )
    assert (ended.stdout, ended.returncode) == ("", 0)
