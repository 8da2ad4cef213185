"""A training script of somebody else's, in a process of its own, watched through what it prints.

It takes ``KIND --systems S --width W --steps N --batch B --last-scale L --threads T --seed I``, and prints lines that
hold ``step N``, ``held-out edges A`` and, last, its own clock as ``T s``.
"""

from __future__ import annotations

import re
import signal
import subprocess
import sys
import threading
from pathlib import Path

from bench.peers.dense_trainer import Recipe

LOOK = re.compile(r"step (\d+)\b.*held-out edges ([\d.]+)\b.*?([\d.]+) s\s*$")


def watch_script(
    script: Path, kind: str, systems: int, recipe: Recipe, threads: int, seed: int, limit: float
) -> list[tuple[float, int, float]]:
    """Runs a script until it ends or `limit` seconds have gone by.

    Returns
    -------
    list of tuple
        Seconds by the script's clock, step, accuracy: a look a line.

    Raises
    ------
    RuntimeError
        If the script fails.
    """
    options = {
        "systems": systems,
        "width": recipe.width,
        "steps": recipe.steps,
        "batch": recipe.batch,
        "last-scale": recipe.last_scale,
        "threads": threads,
        "seed": seed,
    }
    command = [sys.executable, str(script), kind, *(f"--{name}={value}" for name, value in options.items())]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
        alarm = threading.Timer(limit, process.terminate)
        alarm.start()
        assert process.stdout is not None
        printed = process.stdout.read()
        alarm.cancel()
    if process.returncode not in (0, -signal.SIGTERM):
        raise RuntimeError(f"{script}: exit status {process.returncode}: {printed[-500:]}")
    found = map(LOOK.search, printed.splitlines())
    return [(float(look[3]), int(look[1]), float(look[2])) for look in found if look]
