"""The arithmetic and the command line of bench-webtorrent; what it measures is measured by running it."""

from __future__ import annotations

import hashlib
import io
from pathlib import Path

import pytest
from rich.console import Console

from ops.bench.webtorrent.app import SIZES_MIB, parse
from ops.bench.webtorrent.ends import LegFailed, Taken
from ops.bench.webtorrent.legs import _over
from ops.bench.webtorrent.report import NATS_HOP, SYSTEM, WEBTORRENT, WIRE, aims, report, row, tables
from ops.bench.webtorrent.run import ALL_LEGS
from ops.bench.webtorrent.torrent_file import PIECE_BYTES, write_torrent
from shared.wire.peerwire.bencode import decode_bencode


def taken(mb_per_s: float, cpu_s: float = 1.0, measures: dict[str, float] | None = None) -> Taken:
    """10^9 bytes, the first of them after half a second."""
    return Taken(10**9, 0.5, 0.5 + 1000 / mb_per_s, cpu_s, measures or {})


def test_a_rate_counts_from_the_first_byte_and_a_row_has_medians() -> None:
    found = row(WIRE, 64, [taken(100, 3.0), taken(400, 1.0), taken(200, 2.0)])
    assert (found.mb_per_s, found.cpu_s_per_gb, found.first_byte_ms, found.rounds) == (200.0, 2.0, 500.0, 3)
    assert (found.least, found.most) == (100.0, 400.0)


def test_aims_are_ratios_of_medians_and_say_which_were_missed() -> None:
    rows = [row(leg, 64, [taken(speed)]) for leg, speed in ((WIRE, 200), (WEBTORRENT, 100), (NATS_HOP, 500))]
    found = {(aim.leg, aim.than): (aim.ratio, aim.met) for aim in aims([*rows, row(SYSTEM, 64, [taken(70)])])}
    assert found == {
        (WIRE, WEBTORRENT): (2.0, True),
        (WIRE, NATS_HOP): (0.4, False),
        (SYSTEM, WEBTORRENT): (0.7, False),
    }
    assert aims([row(WIRE, 64, [taken(1)]), row(WEBTORRENT, 1024, [taken(1)])]) == [], "of one size only"


def test_figures_over_another_kind_of_wire_are_none() -> None:
    right = taken(1, measures={"wires_tcp": 0, "wires_channel": 1})
    assert _over(right, "wires_channel", not_over="wires_tcp") is right
    for measures in ({"wires_tcp": 1.0}, {"wires_tcp": 1.0, "wires_channel": 1.0}, {}):
        with pytest.raises(LegFailed):
            _over(taken(1, measures=measures), "wires_channel", not_over="wires_tcp")


def test_a_leg_that_failed_has_no_row() -> None:
    found = report({"cores": "2"}, {(WIRE, 64): [taken(100)], (NATS_HOP, 64): []}, ["NATS hop, 64 MiB: silent"])
    assert [each.leg for each in found.rows] == [WIRE]
    output = io.StringIO()
    for table in tables(found):
        Console(file=output, width=120).print(table)
    assert WIRE in output.getvalue()


def test_the_torrent_is_of_zeros(tmp_path: Path) -> None:
    write_torrent(tmp_path / "torrent", 3 * PIECE_BYTES)
    decoded = decode_bencode((tmp_path / "torrent").read_bytes())
    assert isinstance(decoded, dict)
    info = decoded[b"info"]
    assert isinstance(info, dict)
    assert info[b"length"] == 3 * PIECE_BYTES
    assert info[b"pieces"] == hashlib.sha1(bytes(PIECE_BYTES), usedforsecurity=False).digest() * 3


def test_the_command_line() -> None:
    assert parse([]).sizes == list(SIZES_MIB)
    assert parse([]).legs == list(ALL_LEGS)
    quick = parse(["--quick"])
    assert (quick.sizes, quick.rounds) == ([64], 1)
    assert parse(["--sizes", "1,2", "--rounds", "7"]).sizes == [1, 2]
    for wrong in (["--rounds", "0"], ["--sizes", "x"], ["--legs", "pigeon"]):
        with pytest.raises(SystemExit):
            parse(wrong)
