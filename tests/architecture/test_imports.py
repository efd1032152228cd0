"""The boundaries: who may import whom, and where the outside world may be touched."""

from __future__ import annotations

import ast
import warnings
from collections.abc import Iterable

from tests.architecture.imports import Module, arrows, circles, is_within, modules

MODULES = modules()

PURE_PACKAGES = ("shared.wire", "shared.speech", "shared.content", "shared.hops")
PURE_MODULES = (
    "services.manager.delivery",
    "services.manager.routing",
    "services.chunk.access",
    "services.chunk.classes",
    "services.chunk.fetch_plan",
    "services.chunk.holdings",
    "shared.token_bucket",
)
NOT_PURE = ("asyncio", "socket", "time", "random", "secrets", "threading", "aiohttp", "nats", "ssl", "select")

ONE_HOME = {
    "nats": ("shared.bus.nats",),
    "aiortc": ("shared.rtc",),
    "aioice": ("shared.rtc",),
    "libtorrent": ("services.webtorrent",),
    "obstore": ("services.chunk",),
    "click": ("services.cli",),
    "prometheus_client": ("services.gateway.model.metrics",),
    "openfeature": ("shared.settings",),
}
"""A library -> the only packages that may import it."""

SUBJECT_HOMES = (
    "shared.bus.messages.subjects",
    "shared.bus.nats.permissions",
    "shared.bus.nats.layout",
    "shared.telemetry.names",
)
QUESTION_LINES = 400
"""A file over this is a question, not a fault: is it still one concept?"""
MAX_FUNCTION_LINES = 40
"""Its docstring apart. The 99th percentile is 27: what is longer than this hides a step that has a name."""
LONG_FUNCTIONS = {
    "shared.settings.config._check": "one line a rule, so that every bad key is reported at once",
}


def any_within(name: str, packages: Iterable[str]) -> bool:
    return any(is_within(name, package) for package in packages)


def test_a_service_imports_shared_and_itself_only() -> None:
    def allowed(module: Module, name: str) -> bool:
        own = ".".join(module.name.split(".")[:2]) if module.name.startswith("services.") else "shared"
        return not is_within(name, "services") or is_within(name, own)

    assert not [(module.name, name) for module in MODULES for name in module.imports if not allowed(module, name)]


def test_no_arrow_between_rooms_points_up() -> None:
    """A circle of folders is one folder that pretends to be several."""
    assert not circles(arrows(MODULES))


def test_protocols_and_decisions_touch_no_outside_world() -> None:
    pure = [m for m in MODULES if any_within(m.name, PURE_PACKAGES) or any_within(m.name, PURE_MODULES)]
    assert len(pure) > 20
    assert not [(m.name, name) for m in pure for name in m.imports if any_within(name, NOT_PURE)]
    assert not [m.name for m in pure if "os.urandom" in ast.unparse(m.tree)], "randomness is an argument"


def test_what_a_gateway_knows_and_decides_is_no_matter_of_http() -> None:
    """Its models are read by routes; they know of no request. The API's structs are everybody's."""
    rooms = ("services.gateway.model", "services.gateway.why", "services.gateway.transfers", "shared.gateway_api")
    of_http = ("aiohttp", "services.gateway.http", "services.gateway.api")
    inside = [module for module in MODULES if any_within(module.name, rooms)]
    assert len(inside) > 20
    assert not [(module.name, name) for module in inside for name in module.imports if any_within(name, of_http)]


def test_a_library_has_one_home() -> None:
    strays = [
        (module.name, library)
        for module in MODULES
        for library, homes in ONE_HOME.items()
        if any(is_within(name, library) for name in module.imports) and not any_within(module.name, homes)
    ]
    assert not strays


def test_the_environment_is_read_in_one_module() -> None:
    readers = [
        module.name
        for module in MODULES
        if any(word in ast.unparse(module.tree) for word in ("os.environ", "os.getenv"))
    ]
    assert readers == ["shared.settings.config"]


def test_subjects_are_made_in_one_place() -> None:
    literals = [
        (module.name, node.lineno)
        for module in MODULES
        if module.name not in SUBJECT_HOMES
        for node in ast.walk(module.tree)
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and node.value.startswith("sb.")
    ]
    assert not literals


def test_what_msgspec_raises_is_named_in_one_place() -> None:
    """Its DecodeError alone lets strings that are not UTF-8 through."""
    catchers = [
        module.name
        for module in MODULES
        for node in ast.walk(module.tree)
        if isinstance(node, ast.ExceptHandler) and node.type and "DecodeError" in ast.unparse(node.type)
        if "msgspec" in ast.unparse(node.type)
    ]
    assert not catchers


def test_long_files_are_asked_about() -> None:
    for module in MODULES:
        count = len(module.path.read_text().splitlines())
        if count > QUESTION_LINES:
            warnings.warn(f"{module.name} has {count} lines: is it still one concept?", stacklevel=1)


def test_no_function_hides_a_step_that_has_a_name() -> None:
    long = {
        f"{module.name}.{node.name}": count
        for module in MODULES
        for node in ast.walk(module.tree)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and (count := _length(node)) > MAX_FUNCTION_LINES
    }
    assert long.keys() == LONG_FUNCTIONS.keys()


def _length(function: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    """Lines of a function without its docstring."""
    first = function.body[1].lineno if ast.get_docstring(function) and len(function.body) > 1 else function.lineno
    return (function.end_lineno or first) - first + 1


def test_every_module_says_what_it_is() -> None:
    silent = [
        module.name
        for module in MODULES
        if module.path.name not in ("__init__.py", "__main__.py") and not ast.get_docstring(module.tree)
    ]
    assert not silent
