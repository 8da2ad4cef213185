"""Result files: figures with the machine, the versions and the commit that they come from."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from nri_fast.record import provenance

RESULTS = Path(__file__).parent / "results"


def write_result(name: str, command: str, figures: dict[str, Any], folder: Path = RESULTS) -> Path:
    """Writes ``NAME.json`` into the folder of results and says where."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}.json"
    path.write_text(json.dumps({"command": command, **provenance(), **figures}, indent=1) + "\n")
    print(f"wrote {path}")
    return path
