"""A forked process is as an executed one to whoever started it, and shares nothing with its siblings but memory."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from services.supervisor.machine.processes import Child, Children, Program
from services.supervisor.nursery.client import Nursery, can_fork
from tests.services.supervisor.machine.test_processes import alive, soon, zombie
from tests.services.supervisor.waiting import until

pytestmark = pytest.mark.skipif(not can_fork(), reason="the nursery is Linux's")

ROOT = Path(__file__).resolve().parents[4]
REPORTS = """
import json, os, signal, sys
import tiny_shared
print(json.dumps({
    "environment": dict(os.environ),
    "argv": sys.argv,
    "session": os.getsid(0) == os.getpid(),
    "descriptors": sorted(int(name) for name in os.listdir("/proc/self/fd"))[:-1],
    "stdin": os.readlink("/proc/self/fd/0"),
    "command": open("/proc/self/cmdline", "rb").read().rstrip(b"\\0").decode().split("\\0"),
    "comm": open("/proc/self/comm").read().strip(),
    "loaded_by": tiny_shared.PID,
    "parent": os.getppid(),
    "default": [signal.getsignal(number) is signal.SIG_DFL for number in (signal.SIGTERM, signal.SIGCHLD)],
    "interrupt": signal.getsignal(signal.SIGINT) is signal.default_int_handler,
    "random": __import__("random").random(),
}), flush=True)
"""
SLEEPS = "import time\nprint('here', flush=True)\ntime.sleep(60)\n"
STUBBORN = f"import signal\nsignal.signal(signal.SIGTERM, signal.SIG_IGN)\n{SLEEPS}"
THREADED = "import threading, time\nthreading.Thread(target=time.sleep, args=(60,), daemon=True).start()\n"
MODULES = {
    "tiny_shared": "import os\nPID = os.getpid()\n",
    "tiny_reports": REPORTS,
    "tiny_sleeps": SLEEPS,
    "tiny_stubborn": STUBBORN,
    "tiny_seven": "import sys, atexit\natexit.register(print, 'bye')\nsys.exit(7)\n",
    "tiny_raises": "raise RuntimeError('no')\n",
    "tiny_threaded": THREADED,
}


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    for name, code in MODULES.items():
        (tmp_path / f"{name}.py").write_text(code)
    return {"PATH": os.environ["PATH"], "PYTHONPATH": f"{tmp_path}{os.pathsep}{ROOT}"}


@pytest.fixture
async def children(environment: dict[str, str]) -> AsyncIterator[Children]:
    all_of_them = Children(Nursery(["tiny_shared", "is_not_there"], environment))
    yield all_of_them
    await all_of_them.close()


def nursery_of(children: Children) -> Nursery:
    assert children._nursery is not None
    return children._nursery


def program(tmp_path: Path, name: str, *, restart: bool = False, **settings: str) -> Program:
    module = f"tiny_{name}"
    environment = {"PYTHONPATH": f"{tmp_path}{os.pathsep}{ROOT}", **settings}
    arguments = [sys.executable, "-P", "-m", module]
    return Program(name, arguments, environment, tmp_path / "logs" / f"{name}.log", restart=restart, module=module)


async def said_here(child: Child) -> None:
    await until(lambda: child.log_tail()[-1:] == ["here"])


async def test_a_child_is_as_if_it_had_been_executed(children: Children, tmp_path: Path) -> None:
    first = children.start(program(tmp_path, "reports", OWN="first"))
    assert await first.ended() == 0
    own = json.loads(first.log_tail()[0])
    assert own["environment"] == {**first.program.environment}, "nothing of the nursery's, nothing of another's"
    assert (own["argv"][0].rpartition("/")[2], own["session"], own["stdin"]) == (
        "tiny_reports.py",
        True,
        "/dev/null",
    )
    assert own["descriptors"] == [0, 1, 2]
    assert own["command"] == list(first.program.arguments)
    assert own["comm"] == "tiny_reports"
    assert own["default"] == [True, True]
    assert own["interrupt"]
    assert own["loaded_by"] == own["parent"] == nursery_of(children).pid, "what is shared was loaded before the fork"
    second = children.start(program(tmp_path, "reports", OWN="second"))
    await second.ended()
    other = json.loads(second.log_tail()[0])
    assert other["environment"]["OWN"] == "second"
    assert other["random"] != own["random"]


async def test_exit_codes_last_words_and_tracebacks_are_the_ones_of_the_child(
    children: Children, tmp_path: Path
) -> None:
    seven = children.start(program(tmp_path, "seven"))
    raises = children.start(program(tmp_path, "raises"))
    assert (await seven.ended(), await raises.ended()) == (7, 1)
    assert seven.log_tail() == ["bye"]
    assert raises.log_tail()[-1] == "RuntimeError: no"


async def test_it_is_killed_restarted_and_stopped_like_any_other(children: Children, tmp_path: Path) -> None:
    child = children.start(program(tmp_path, "sleeps", restart=True))
    await said_here(child)
    first = child.pid
    assert first is not None
    os.kill(first, signal.SIGKILL)
    await until(lambda: child.start_count == 2 and child.running and child.pid not in (None, first))
    await child.kill()
    assert child.exit_code == -signal.SIGKILL
    child.start()
    stubborn = children.start(program(tmp_path, "stubborn"))
    await said_here(stubborn)
    pid = stubborn.pid
    assert pid is not None
    await stubborn.stop(grace_s=0.1)
    assert stubborn.exit_code == -signal.SIGKILL
    assert not alive(pid)


async def test_one_that_is_stopped_before_its_birth_is_gone(children: Children, tmp_path: Path) -> None:
    child = children.start(program(tmp_path, "sleeps", restart=True))
    await child.kill()
    assert not child.running
    assert child.start_count == 1


async def test_without_a_nursery_it_is_executed(
    children: Children, tmp_path: Path, environment: dict[str, str]
) -> None:
    """One that dies takes its children along; they and whatever comes later are executed."""
    child = children.start(program(tmp_path, "sleeps", restart=True))
    await said_here(child)
    os.kill(nursery_of(children).pid, signal.SIGKILL)
    await until(lambda: child.start_count == 2 and child.running)
    await said_here(child)
    assert nursery_of(children).lost
    other = children.start(program(tmp_path, "seven"))
    assert await other.ended() == 7


async def test_a_library_that_starts_a_thread_forbids_forking(tmp_path: Path, environment: dict[str, str]) -> None:
    children = Children(Nursery(["tiny_threaded"], environment))
    try:
        child = children.start(program(tmp_path, "seven"))
        assert await child.ended() == 7
        assert nursery_of(children).lost
    finally:
        await children.close()


def test_a_killed_supervisor_leaves_nothing(tmp_path: Path, environment: dict[str, str]) -> None:
    code = f"""
import asyncio, pathlib
from services.supervisor.machine.processes import Children, Program
from services.supervisor.nursery.client import Nursery
async def main():
    environment = {environment!r}
    nursery = Nursery([], environment)
    children = Children(nursery)
    log = pathlib.Path({str(tmp_path / "log")!r})
    child = children.start(Program("tiny", ["tiny"], environment, log, module="tiny_sleeps"))
    while not child.log_tail():
        await asyncio.sleep(0.01)
    print(nursery.pid, child.pid, flush=True)
    await asyncio.sleep(60)
asyncio.run(main())
"""
    supervisor = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True, cwd=ROOT)
    try:
        assert supervisor.stdout is not None
        pids = [int(word) for word in supervisor.stdout.readline().split()]
        assert len(pids) == 2
    finally:
        supervisor.kill()
        supervisor.communicate()
    assert soon(lambda: all(not alive(pid) or zombie(pid) for pid in pids))


async def test_closing_ends_the_nursery(tmp_path: Path, environment: dict[str, str]) -> None:
    nursery = Nursery([], environment)
    children = Children(nursery)
    children.start(program(tmp_path, "sleeps"))
    await children.close()
    assert not alive(nursery.pid)
    await asyncio.sleep(0)
