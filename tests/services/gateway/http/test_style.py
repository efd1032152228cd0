"""The page's colours: text on its badge is readable in both themes (WCAG 2.2, 1.4.3: a contrast of 4.5 to 1)."""

from __future__ import annotations

import re
from importlib import resources

import pytest

CSS = resources.files("services.gateway").joinpath("static/style.css").read_text()
ENOUGH = 4.5
PAIRS = [
    *((name, f"{name}-bg") for name in ("good", "warn", "bad", "info")),
    *((name, "panel") for name in ("good", "warn", "bad", "info", "muted", "text", "accent")),
    *((name, "panel") for name in ("webrtc", "webtorrent", "broadcast")),
    ("muted", "idle-bg"),
    ("muted", "bg"),
    ("accent-text", "accent"),
]


def _theme(dark: bool) -> dict[str, str]:
    light, _, rest = CSS.partition("prefers-color-scheme: dark")
    assert rest, "the page has two themes"
    colours = re.compile(r"--([\w-]+): (#[0-9a-f]{6});")
    return dict(colours.findall(light)) | (dict(colours.findall(rest)) if dark else {})


def _luminance(colour: str) -> float:
    parts = (int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5))
    red, green, blue = (part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


@pytest.mark.parametrize("dark", [False, True])
def test_text_can_be_read_on_its_ground(dark: bool) -> None:
    theme = _theme(dark)
    for text, ground in PAIRS:
        low, high = sorted((_luminance(theme[text]), _luminance(theme[ground])))
        assert (high + 0.05) / (low + 0.05) >= ENOUGH, (text, ground)
