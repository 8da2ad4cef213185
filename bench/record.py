"""Result files: figures with the machine, the versions and the commit that they come from."""

from __future__ import annotations

import datetime
import json
import platform
import subprocess
from pathlib import Path
from typing import Any

import torch

import nri_fast
from nri_fast import _core

RESULTS = Path(__file__).parent / "results"


def processor() -> str:
    """The processor's name."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


def machine() -> dict[str, Any]:
    """What the figures depend on beside the code."""
    return {
        "processor": processor(),
        "cores": _core.hardware_threads(),
        "cpu_variant": _core.chosen_variant(),
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "nri_fast": nri_fast.__version__,
    }


def commit() -> str:
    """The commit that was measured; marked where code differs from it. Result files written meanwhile do not count."""
    try:
        changes = _git("status", "--porcelain", "--untracked-files=no", "--", ":/", ":(top,exclude)bench/results")
        return _git("rev-parse", "--short", "HEAD") + ("+changes" if changes else "")
    except (OSError, subprocess.CalledProcessError):
        return "unknown"


def _git(*arguments: str) -> str:
    return subprocess.check_output(["git", *arguments], cwd=Path(__file__).parent, text=True).strip()


def write_result(name: str, command: str, figures: dict[str, Any]) -> Path:
    """Writes ``bench/results/NAME.json`` and says where."""
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / f"{name}.json"
    facts = {
        "command": command,
        "date": datetime.date.today().isoformat(),
        "commit": commit(),
        "machine": machine(),
        **figures,
    }
    path.write_text(json.dumps(facts, indent=1) + "\n")
    print(f"wrote {path}")
    return path
