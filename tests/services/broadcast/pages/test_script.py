"""`broadcast.js` and the worker have the same numbers; what it does is tested in a real browser (tests/interop)."""

from __future__ import annotations

import re
from importlib import resources

from services.broadcast.pages import limits
from shared.wire.pages import frames, values

SCRIPT = resources.files("services.broadcast").joinpath("static", "broadcast.js").read_text()


def constant(name: str) -> float:
    found = re.search(rf"\b{name} = ([0-9* ]+)[;,]", SCRIPT)
    assert found is not None, name
    product = 1
    for factor in found[1].replace("2 ** 20", "1048576").split("*"):
        product *= int(factor)
    return product


def test_limits_are_the_workers() -> None:
    assert constant("VERSION") == frames.VERSION
    assert constant("MAX_VALUE_BYTES") == limits.MAX_VALUE_BYTES
    assert constant("WINDOW_BYTES") == limits.PAGE_WINDOW_BYTES
    assert constant("WINDOW_MESSAGES") == limits.PAGE_WINDOW_MESSAGES
    assert constant("MAX_DEPTH") == values.MAX_DEPTH
    assert constant("MAX_SENDERS") == limits.MAX_SENDERS


def test_the_layout_of_values_is_the_same() -> None:
    views = re.search(r"const VIEWS = \[([^\]]*)\]", SCRIPT)
    assert views is not None
    assert tuple(re.findall(r"\w+", views[1])) == values.VIEW_KINDS
    for name in ("DATE", "MAP", "SET", "VIEW", "UNDEFINED", "TEXT16"):
        assert constant(name) == getattr(values, name)


def test_what_is_kept_for_a_page_fits_its_queue() -> None:
    """A page that comes back gets at once what was posted meanwhile, and must not be cut off for it."""
    assert limits.LOG_BYTES + limits.MAX_VALUE_BYTES > limits.PAGE_QUEUE_BYTES > limits.LOG_BYTES
    assert constant("KEEP_TAKEN_MS") / 1000 < limits.LOG_S


def test_it_is_one_module_that_needs_no_other() -> None:
    assert not re.search(r"^\s*import\s", SCRIPT, re.MULTILINE)
    for word in ("innerHTML", "eval(", "new Function", "document.write"):
        assert word not in SCRIPT
