"""Signals cancel the work once and never the cleaning up."""

from __future__ import annotations

import asyncio
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from services.supervisor.machine.interrupts import unbroken
from shared import exit_codes

PROGRAM = """
import asyncio, sys
from services.supervisor.machine.interrupts import Interrupted, exit_quietly_when_interrupted, run, unbroken
exit_quietly_when_interrupted()
async def clean():
    print("cleaning", flush=True)
    await asyncio.sleep(0.3)
    print("clean", flush=True)
async def work():
    try:
        print("working", flush=True)
        await asyncio.sleep(60 if sys.argv[1] == "long" else 0)
    finally:
        await unbroken(clean())
try:
    run(work())
    print("done", flush=True)
except Interrupted:
    print("interrupted", flush=True)
    sys.exit(130)
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_ends_the_work_and_not_the_cleaning(number: signal.Signals) -> None:
    with subprocess.Popen([sys.executable, "-c", PROGRAM, "long"], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "working\n"
        process.send_signal(number)
        assert process.stdout.readline() == "cleaning\n"
        process.send_signal(number)  # an impatient person
        assert process.stdout.read() == "clean\ninterrupted\n"
        assert process.wait(10) == exit_codes.INTERRUPTED


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_nohup_is_kept() -> None:
    """An ignored SIGHUP at the start is all that nohup does."""
    with subprocess.Popen(
        [sys.executable, "-c", PROGRAM, "long"],
        stdout=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGHUP, signal.SIG_IGN),
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "working\n"
        status = Path(f"/proc/{process.pid}/status").read_text()
        ignored = next(int(line.split()[1], 16) for line in status.splitlines() if line.startswith("SigIgn:"))
        assert ignored & 1 << (signal.SIGHUP - 1)
        process.send_signal(signal.SIGTERM)
        assert process.stdout.read() == "cleaning\nclean\ninterrupted\n"
        assert process.wait(10) == exit_codes.INTERRUPTED


def test_a_signal_while_cleaning_after_success_waits_for_the_end() -> None:
    with subprocess.Popen([sys.executable, "-c", PROGRAM, "short"], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "working\n"
        assert process.stdout.readline() == "cleaning\n"
        process.send_signal(signal.SIGINT)
        assert process.stdout.read().startswith("clean\n")
        assert process.wait(10) == exit_codes.INTERRUPTED


def test_a_signal_before_anything_started_is_quiet() -> None:
    code = (
        "import time\nfrom services.supervisor.machine.interrupts import exit_quietly_when_interrupted\n"
        "exit_quietly_when_interrupted()\nprint('importing', flush=True)\ntime.sleep(60)"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.readline()
        process.send_signal(signal.SIGINT)
        assert process.wait(10) == exit_codes.INTERRUPTED
        assert process.stderr.read() == ""


async def test_unbroken_gives_the_result_and_keeps_the_cancellation() -> None:
    assert await unbroken(asyncio.sleep(0, result=3)) == 3
    finished: list[float] = []

    async def cleaning() -> None:
        await asyncio.sleep(0.05)
        finished.append(time.monotonic())

    task = asyncio.create_task(unbroken(cleaning()))
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert finished
