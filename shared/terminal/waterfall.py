"""A waterfall drawn with text: one line a span, bars to scale, outcome and cause beside each hop. Pure."""

from __future__ import annotations

import re

from rich.text import Text

from shared.gateway_api.traces import Waterfall, WaterfallRow
from shared.terminal.text import OUTCOME_STYLES, TRANSPORT_STYLES, ago, printable

NODE_PREFIX = re.compile(r"\S*\{node\}\.")
MIN_BAR = 12
MAX_BAR = 60
MIN_NAME = 20
MAX_NAME = 44
MAX_DEPTH = 8
DURATION_CHARS = 9
GAPS = 5


def draw(found: Waterfall, width: int) -> Text:
    """width: of the terminal, in characters."""
    rows = found.rows
    several = len({row.node for row in rows}) > 1
    names, notes = [_name(row, several) for row in rows], [_note(row) for row in rows]
    note_chars = max((len(note) for note in notes), default=0)
    rest = width - DURATION_CHARS - note_chars - GAPS
    name_chars = max(MIN_NAME, min(MAX_NAME, rest - MIN_BAR, max((len(name) for name in names), default=0)))
    bar_chars = max(MIN_BAR, min(MAX_BAR, rest - name_chars))
    whole_ms = max(found.duration_ms, 0.001)
    lines = [_heading(found), Text()]
    for row, name, note in zip(rows, names, notes, strict=True):
        line = Text(_fitted(name, name_chars), "bold" if row.hop else "")
        line.append("  ")
        line.append(_bar(row, whole_ms, bar_chars))
        line.append(f" {_duration(row.duration_ms):>{DURATION_CHARS}}  ", "dim")
        line.append(note)
        line.rstrip()
        lines.append(line)
    if found.hidden:
        what = "the delivery that fell back" if found.focused else "the first spans"
        lines += [Text(), Text(f"{what}; {found.hidden} more spans: see --json of the trace or Jaeger", "dim")]
    return Text("\n").join(lines)


def _heading(found: Waterfall) -> Text:
    heading = Text(f"trace {found.trace_id}".rstrip(), "bold")
    heading.append(f"  {_duration(found.duration_ms)}, {ago(found.started_at)}", "dim")
    if found.fallback:
        heading.append("  fallback", "yellow")
    return heading


def _name(row: WaterfallRow, several_nodes: bool) -> str:
    indent = "  " * min(row.depth, MAX_DEPTH)
    # Every subject begins alike and every hop says so: what differs must not be what is cut off.
    short = NODE_PREFIX.sub("", row.name).replace("transport.attempt", "hop")
    place = f"{row.node}/{row.service}" if several_nodes else row.service
    return indent + printable(f"{short} ({place})")


def _fitted(name: str, chars: int) -> str:
    return name.ljust(chars) if len(name) <= chars else name[: chars - 1] + "…"


def _bar(row: WaterfallRow, whole_ms: float, chars: int) -> Text:
    start = min(chars - 1, int(chars * row.offset_ms / whole_ms))
    length = max(1, min(chars - start, round(chars * row.duration_ms / whole_ms)))
    bar = Text("·" * start, "dim")
    bar.append("━" * length, _style(row))
    bar.append("·" * (chars - start - length), "dim")
    return bar


def _style(row: WaterfallRow) -> str:
    if row.status == "error":
        return "red"
    return OUTCOME_STYLES.get(row.outcome or "") or TRANSPORT_STYLES.get(row.transport or "", "blue")


def _note(row: WaterfallRow) -> Text:
    note = Text(row.outcome or "", _style(row))
    if row.fallback_reason:
        note.append(f", after {printable(row.fallback_reason)}", _style(row))
    if row.cause:
        note.append(f" {printable(row.cause)}" if row.outcome else printable(row.cause), _style(row))
    return note


def _duration(milliseconds: float) -> str:
    return f"{milliseconds / 1000:.2f} s" if milliseconds >= 1000 else f"{milliseconds:.1f} ms"
