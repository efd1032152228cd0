"""`python -m ops.docs.settings_table`: writes ops/docs/settings.md, and the operator's table in README.md, from the
types that read the settings.

What a setting is for stands in the docstring of its struct, as `name: text` or `one, other: text`; so a setting without
a text cannot be added without the test noticing, and the page cannot say what the types do not.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import msgspec

from shared.settings.config import ENV_PREFIX, FOREIGN_ENV, Config

PAGE = Path(__file__).with_name("settings.md")
README = Path(__file__).parents[2] / "README.md"
BEGIN, END = "<!-- settings: python -m ops.docs.settings_table -->", "<!-- /settings -->"
OPERATORS = (
    "node.home",
    "trust.members",
    "trust.mesh_secret_file",
    "rendezvous.document",
    "gateway.host",
    "gateway.port",
    "gateway.allowed_hosts",
    "webrtc.advertise",
    "webrtc.ports",
    "webtorrent.port",
    "webtorrent.advertise",
    "broadcast.origins",
    "broadcast.port",
    "chunk.quota_bytes",
    "telemetry.otlp_endpoint",
)
"""What whoever runs a node sets; the rest is on the page."""

HEAD = """# Settings

Made by `python -m ops.docs.settings_table` from `shared/settings/config.py`; a test holds it to that.

Every process reads them from the file that `SWARMBRIDGE_CONFIG` names (TOML, a table a section), then from the
environment, which wins. Every wrong key is reported, by name, and nothing starts. Lists in the environment are
separated by commas.
Under docker compose the environment is set in `compose.yaml`, out of `.env` (see `.env.example`).
"""


def descriptions(struct: type[msgspec.Struct]) -> dict[str, str]:
    """What each field is for, by the struct's docstring."""
    text = " ".join((struct.__doc__ or "").split())
    names = "|".join(field.name for field in msgspec.structs.fields(struct))
    marker = re.compile(rf"(?:^|(?<=[\s;]))((?:{names})(?:, (?:{names}))*): ")
    found: dict[str, str] = {}
    marks = list(marker.finditer(text))
    for mark, following in zip(marks, [*marks[1:], None], strict=True):
        said = text[mark.end() : following.start() if following else len(text)].strip().rstrip(";.")
        for name in mark[1].split(", "):
            found[name] = said
    return found


def page() -> str:
    """The whole page. Raises: ValueError: a setting without a text."""
    parts = [HEAD]
    for section in msgspec.structs.fields(Config):
        texts = descriptions(section.type)
        rows = ["| setting | environment | default | |", "|---|---|---|---|"]
        for field in msgspec.structs.fields(section.type):
            if field.name not in texts:
                raise ValueError(f"{section.type.__name__} does not say what {field.name} is for")
            key = f"{section.name}.{field.name}"
            variable = f"`{ENV_PREFIX}{section.name}_{field.name}`".upper()
            also = "".join(f", `{name}`" for name, target in FOREIGN_ENV.items() if target == key)
            said = texts[field.name].replace("|", "\\|")
            rows.append(f"| `{key}` | {variable}{also} | {_default(field)} | {said} |")
        parts.append(f"\n## {section.name}\n\n" + "\n".join(rows) + "\n")
    return "".join(parts)


def operators_table() -> str:
    """The README's table, between its marks."""
    rows = ["| setting | default | |", "|---|---|---|"]
    for key in OPERATORS:
        section_name, name = key.split(".")
        section = next(each for each in msgspec.structs.fields(Config) if each.name == section_name)
        field = next(each for each in msgspec.structs.fields(section.type) if each.name == name)
        said = descriptions(section.type)[name].replace("|", "\\|")
        rows.append(f"| `{ENV_PREFIX}{section_name.upper()}_{name.upper()}` | {_default(field)} | {said} |")
    return "\n".join([BEGIN, *rows, END])


def with_table(readme: str) -> str:
    """The README with the table as it is now. Raises: ValueError: it has no marks."""
    before, after = readme.index(BEGIN), readme.index(END) + len(END)
    return readme[:before] + operators_table() + readme[after:]


def _default(field: msgspec.structs.FieldInfo) -> str:
    value: Any = field.default if field.default is not msgspec.NODEFAULT else field.default_factory()
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"`{value}`" if value not in ("", []) else "none"


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
    README.write_text(with_table(README.read_text(encoding="utf-8")), encoding="utf-8")
