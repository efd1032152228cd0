"""The vectors that the real swarm-space client made."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

VECTORS: dict[str, Any] = json.loads((Path(__file__).parents[2] / "vectors" / "swarm_space.json").read_text())
