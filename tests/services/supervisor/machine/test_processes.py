"""Children are started, restarted, killed and ended, with tiny programs in their place."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from services.supervisor.machine.process_log import ProcessLog
from services.supervisor.machine.processes import Child, Children, Program
from tests.services.supervisor.waiting import until

SLEEPER = "import time; print('here', flush=True); time.sleep(60)"
STUBBORN = (
    "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('here', flush=True); time.sleep(60)"
)


@pytest.fixture
async def children() -> AsyncIterator[Children]:
    all_of_them = Children()
    yield all_of_them
    await all_of_them.close()


def program(tmp_path: Path, code: str, *, restart: bool = True) -> Program:
    return Program("tiny", [sys.executable, "-S", "-c", code], dict(os.environ), tmp_path / "tiny.log", restart=restart)


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


async def said_here(child: Child) -> None:
    await until(lambda: child.log_tail()[-1:] == ["here"])


async def test_a_dead_child_is_started_again(children: Children, tmp_path: Path) -> None:
    child = children.start(program(tmp_path, SLEEPER))
    await said_here(child)
    first = child.pid
    assert first is not None
    os.kill(first, signal.SIGKILL)
    await until(lambda: child.start_count == 2 and child.running)
    assert child.pid != first


async def test_a_killed_child_stays_down_until_started(children: Children, tmp_path: Path) -> None:
    child = children.start(program(tmp_path, SLEEPER))
    pid = child.pid
    assert pid is not None
    await child.kill()
    assert not alive(pid)
    assert child.exit_code == -signal.SIGKILL
    assert child.start_count == 1
    child.start()
    await said_here(child)
    assert child.start_count == 2


async def test_stopping_asks_first_and_insists_later(children: Children, tmp_path: Path) -> None:
    child = children.start(program(tmp_path, STUBBORN))
    await said_here(child)
    pid = child.pid
    assert pid is not None
    await child.stop(grace_s=0.1)
    assert child.exit_code == -signal.SIGKILL
    assert not alive(pid)


async def test_an_unwanted_restart_does_not_happen(children: Children, tmp_path: Path) -> None:
    child = children.start(program(tmp_path, "raise SystemExit(7)", restart=False))
    assert await child.ended() == 7
    assert (await children.first_exit([child])) is child
    assert child.start_count == 1


async def test_the_first_exit_is_reported(children: Children, tmp_path: Path) -> None:
    sleeper = children.start(program(tmp_path, SLEEPER))
    brief = children.start(program(tmp_path / "b", "import time; time.sleep(0.2)", restart=False))
    assert await children.first_exit([sleeper, brief]) is brief


async def test_a_run_begins_with_an_empty_log_and_keeps_the_one_before(children: Children, tmp_path: Path) -> None:
    (tmp_path / "tiny.log").write_text("of an older run\n")
    child = children.start(program(tmp_path, SLEEPER))
    await until(lambda: child.log_tail() == ["here"])
    assert (tmp_path / "tiny.log.1").read_text() == "of an older run\n"


async def test_what_a_crashed_process_said_last_is_kept(children: Children, tmp_path: Path) -> None:
    child = children.start(program(tmp_path, "print('last words', flush=True); raise SystemExit(9)"))
    await until(lambda: child.start_count >= 3)
    lines = child.log_tail()
    assert lines.count("last words") >= 2
    assert "started again (start 2 of this run)" in lines[1]


def test_a_log_that_grew_too_long_moves_away(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("services.supervisor.machine.process_log.MAX_LOG_BYTES", 10)
    kept = ProcessLog(tmp_path / "x.log")
    descriptor = kept.begin_run()
    try:
        os.write(descriptor, b"something long\n")
        kept.bound()
        os.write(descriptor, b"and so on\n")
        kept.bound()
    finally:
        os.close(descriptor)
    assert (tmp_path / "x.log").read_text() == "and so on\n"
    assert (tmp_path / "x.log.1").read_text() == "something long\n"


async def test_the_word_of_a_restart_says_when(
    children: Children, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    child = children.start(program(tmp_path, "raise SystemExit(9)"))
    await until(lambda: child.start_count == 2)
    assert "tiny ended with code 9; restarting it in 0." in caplog.text


async def test_closing_ends_everything(tmp_path: Path) -> None:
    all_of_them = Children()
    children = [all_of_them.start(program(tmp_path / str(n), SLEEPER)) for n in range(3)]
    pids = [child.pid for child in children]
    await all_of_them.close()
    assert not any(alive(pid) for pid in pids if pid is not None)


@pytest.mark.skipif(sys.platform != "linux", reason="PR_SET_PDEATHSIG is Linux's")
def test_a_killed_supervisor_leaves_nothing(tmp_path: Path) -> None:
    """The kernel ends the children of a supervisor that was killed."""
    code = f"""
import asyncio, os, sys, pathlib
from services.supervisor.machine.processes import Children, Program
async def main():
    log = pathlib.Path({str(tmp_path / "log")!r})
    program = Program("tiny", [sys.executable, "-S", "-c", {SLEEPER!r}], dict(os.environ), log)
    print(Children().start(program).pid, flush=True)
    await asyncio.sleep(60)
asyncio.run(main())
"""
    supervisor = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    try:
        assert supervisor.stdout is not None
        pid = int(supervisor.stdout.readline())
        assert alive(pid)
    finally:
        supervisor.kill()
        supervisor.communicate()
    assert soon(lambda: not alive(pid) or zombie(pid))


def zombie(pid: int) -> bool:
    """An orphan that nobody reaps, where the container's init does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except OSError:
        return True


def soon(condition: Callable[[], bool]) -> bool:
    give_up_s = time.monotonic() + 5
    while time.monotonic() < give_up_s:
        if condition():
            return True
        time.sleep(0.01)
    return False


async def test_cancelled_waiting_leaves_the_child_ours(children: Children, tmp_path: Path) -> None:
    child = children.start(program(tmp_path, SLEEPER))
    waiting = asyncio.create_task(children.first_exit([child]))
    await asyncio.sleep(0)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    assert child.running
