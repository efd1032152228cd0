"""What is put: pipes, standard input, files that change meanwhile; and whose fault it was."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from aiohttp import web

from shared import exit_codes
from tests.fakes.gateway import FakeGateway, problem
from tests.fakes.waiting import until
from tests.services.cli.run_cli import run_cli
from tests.services.cli.test_files import LINK, _transfer

Capsys = pytest.CaptureFixture[str]
UPLOAD = "POST /api/files"
START_S = 30.0


@pytest.fixture
def storing(gateway: FakeGateway) -> FakeGateway:
    gateway.answers = {UPLOAD: {"transfer": "t1"}, "GET /api/transfers/t1": _transfer("done", link=LINK)}
    return gateway


async def _shell(gateway: FakeGateway, script: str) -> tuple[int | None, str, str]:
    """`sh`, with `put` as a command of its own."""
    put = f'put() {{ {sys.executable} -m services.cli put --home {gateway.home} "$@"; }}\n'
    pipe = asyncio.subprocess.PIPE
    shell = await asyncio.create_subprocess_exec("bash", "-c", put + script, stdout=pipe, stderr=pipe)
    out, error = await shell.communicate()
    return shell.returncode, out.decode(), error.decode()


async def test_standard_input_is_put(storing: FakeGateway) -> None:
    code, out, error = await _shell(storing, "printf 'hello' | put - --name greeting.txt")
    assert (code, out) == (0, LINK + "\n"), error
    assert storing.bodies[UPLOAD] == b"hello"
    assert storing.asked[0][1]["name"] == "greeting.txt"


@pytest.mark.parametrize(
    ("script", "content"),
    [
        ("put <(printf a; printf b)", b"ab"),  # process substitution
        ("printf hello | put /dev/stdin", b"hello"),
        ("printf '' | put -", b""),
        ("printf 'one\\ntwo\\n' >f; { read -r first; put -; } <f", b"two\n"),
    ],
)
async def test_what_a_shell_puts_there_instead_of_a_file(
    storing: FakeGateway, script: str, content: bytes, tmp_path: Path
) -> None:
    code, out, error = await _shell(storing, f"cd {tmp_path}\nexport PYTHONPATH={Path.cwd()}\n{script}")
    assert (code, out) == (0, LINK + "\n"), error
    assert storing.bodies[UPLOAD] == content


async def test_a_slow_pipe_is_sent_as_it_comes_and_begun_with_its_first_byte(
    storing: FakeGateway, capsys: Capsys, tmp_path: Path
) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    came: list[bytes] = []

    async def upload(request: web.Request) -> web.StreamResponse:
        while part := await request.content.readany():
            came.append(part)
        return web.json_response({"transfer": "t1"}, status=202)

    storing.answers[UPLOAD] = upload
    putting = asyncio.create_task(run_cli(capsys, "put", str(pipe), "--home", str(storing.home)))
    writer = await asyncio.to_thread(os.open, pipe, os.O_WRONLY)  # which returns when the put has opened it
    assert storing.asked == []  # an upload of which nothing comes would be given up by the node
    for part in (b"first", b"second"):
        os.write(writer, part)
        await until(lambda part=part: part in came, START_S)  # type: ignore[misc]
    os.close(writer)
    assert (await putting).code == 0
    assert b"".join(came) == b"firstsecond"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
async def test_a_put_that_waits_for_a_pipe_can_be_interrupted(
    storing: FakeGateway, tmp_path: Path, number: signal.Signals
) -> None:
    file, pipe = tmp_path / "file", tmp_path / "pipe"
    file.write_text("before it")
    os.mkfifo(pipe)
    arguments = ("-m", "services.cli", "put", str(file), str(pipe), "--home", str(storing.home))
    process = await asyncio.create_subprocess_exec(sys.executable, *arguments, stderr=asyncio.subprocess.PIPE)
    # The first file is stored, and the kernel says that it opens another: nothing but a signal ends that.
    await until(lambda: len(storing.asked) > 1 and _opens(process.pid), START_S)
    process.send_signal(number)
    _, error = await asyncio.wait_for(process.communicate(), START_S)
    assert process.returncode == exit_codes.INTERRUPTED
    assert "error: interrupted" in error.decode()
    assert [key for key, _ in storing.asked].count(UPLOAD) == 1


def _opens(pid: int) -> bool:
    """openat is 257 on x86-64 and 56 on arm64."""
    return Path(f"/proc/{pid}/syscall").read_text().split()[0] in ("257", "56")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda file: file.open("ab").write(b"more"), "grew while it was sent; put it again"),
        (lambda file: os.truncate(file, 1_500_000), "shrank while it was sent; put it again"),
    ],
)
async def test_a_file_that_changes_is_the_files_fault_and_not_the_nodes(
    gateway: FakeGateway, capsys: Capsys, tmp_path: Path, change: Callable[[Path], object], said: str
) -> None:
    file = tmp_path / "log"
    file.write_bytes(b"x" * 30_000_000)  # more than sockets hold, so that it is not all sent before it changes

    async def changes(request: web.Request) -> web.StreamResponse:
        await request.content.readany()
        change(file)
        await request.read()
        return web.json_response({"transfer": "t1"}, status=202)

    gateway.answers = {UPLOAD: changes}
    result = await run_cli(capsys, "put", str(file), "--home", str(gateway.home))
    assert result.code == exit_codes.FAILED
    assert said in result.error_line()
    assert "node" not in result.err


async def test_a_file_that_says_nothing_of_its_length_is_put_whole(storing: FakeGateway, capsys: Capsys) -> None:
    assert (await run_cli(capsys, "put", "/proc/version", "--home", str(storing.home))).code == 0
    assert storing.bodies[UPLOAD] == await asyncio.to_thread(Path("/proc/version").read_bytes)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["/proc/self/mem"], "cannot be read: Input/output error"),
        (["-", "-"], "standard input can be named once"),
        (["/"], "is a directory"),
        (["{socket}"], "cannot be read: No such device or address"),
    ],
)
async def test_what_cannot_be_put_is_one_line(
    storing: FakeGateway, capsys: Capsys, tmp_path: Path, arguments: list[str], said: str
) -> None:
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(tmp_path / "s"))
        files = [argument.format(socket=tmp_path / "s") for argument in arguments]
        result = await run_cli(capsys, "put", *files, "--home", str(storing.home))
    assert said in result.error_line()
    assert storing.asked == []


async def test_a_node_that_has_enough_says_why_itself(storing: FakeGateway, capsys: Capsys) -> None:
    async def full(request: web.Request) -> web.StreamResponse:
        await request.content.readany()
        return problem(413, "too_large", "the upload is larger than this gateway takes", "send less")

    storing.answers[UPLOAD] = full
    result = await run_cli(capsys, "put", "/dev/zero", "--home", str(storing.home))
    assert "larger than this gateway takes" in result.error_line()
