"""Where figures come from: the machine, the versions, the commit."""

from __future__ import annotations

import datetime
import functools
import json
import platform
import re
import subprocess
from pathlib import Path
from typing import Any

import torch

import nri_fast
from nri_fast import _core
from nri_fast.checkpoint import write_atomically

PACKAGE = Path(__file__).parent
MADE_FILE = "made.json"


def provenance() -> dict[str, Any]:
    """Date, commit and machine, as JSON can hold them."""
    return {"date": datetime.date.today().isoformat(), "commit": commit(), "machine": machine()}


def version() -> str:
    """Of the code that runs: its name, its number, and its commit where that is known."""
    known = commit()
    return f"nri_fast {nri_fast.__version__}" + (f" ({known})" if known else "")


def write_made(folder: Path, seconds: float, device: str, resumed: bool) -> None:
    """Notes in a run's folder when, how long and by what it was trained; nothing else in the folder depends on time."""
    facts = {
        "finished": datetime.datetime.now().astimezone().isoformat(timespec="seconds"),
        "seconds": round(seconds, 1),
        "resumed": resumed,
        "device": f"{device} ({machine()['gpu'] if device.startswith('cuda') else processor()})",
        "nri_fast": nri_fast.__version__,
        "commit": commit(),
    }
    write_atomically(folder / MADE_FILE, (json.dumps(facts, indent=1) + "\n").encode())


def read_made(folder: Path) -> dict[str, Any]:
    """What :func:`write_made` noted; empty where there is nothing that can be read."""
    try:
        facts = json.loads((folder / MADE_FILE).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return facts if isinstance(facts, dict) else {}


def machine() -> dict[str, Any]:
    """What figures depend on beside the code."""
    return {
        "processor": processor(),
        "cores": _core.hardware_threads(),
        "cpu_variant": _core.chosen_variant(),
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        "platform": platform.platform(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "nri_fast": nri_fast.__version__,
    }


def processor() -> str:
    """The processor's name. Linux tells it in a file; elsewhere Python knows what it knows."""
    try:
        found = re.search(r"^model name\s*:\s*(.+)$", Path("/proc/cpuinfo").read_text(encoding="utf-8"), re.MULTILINE)
    except OSError:
        found = None
    return found.group(1) if found else platform.processor() or platform.machine()


@functools.cache
def commit() -> str | None:
    """The commit of the code that runs, marked where tracked files differ from it; None for an installed package.

    Result files written meanwhile do not count as a difference. Asked once a process: the code that was loaded counts.
    """
    try:
        _git("ls-files", "--error-unmatch", Path(__file__).name)  # the package may lie inside somebody's repository
        changes = _git("status", "--porcelain", "--untracked-files=no", "--", ":/", ":(top,exclude)bench/results")
        return _git("rev-parse", "--short", "HEAD") + ("+changes" if changes else "")
    except (OSError, subprocess.CalledProcessError):
        return None


def _git(*arguments: str) -> str:
    return subprocess.check_output(["git", *arguments], cwd=PACKAGE, text=True, stderr=subprocess.DEVNULL).strip()
