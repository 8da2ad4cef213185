"""What a large table costs: ``python -m bench.large_table [--gigabytes 2] [--folder DIR] [--write NAME]``.

Writes a CSV table as a tracker logs it (all systems side by side, a step after the other, so that converting has to
sort it), converts it by ``nri-fast convert csv`` in a process of its own, and says how much memory that took at most.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from bench.record import write_result

SYSTEMS, ENTITIES = 1000, 5
TEMPLATES = 8  # different steps, again and again
HEADER = "system,step,entity,x,y\n"
STEP = b"@"


def write_table(file: Path, size: int) -> int:
    """Writes a table of about `size` bytes and returns its rows."""
    templates = [_one_step(np.random.default_rng(k)).encode() for k in range(TEMPLATES)]
    steps = 0
    with file.open("wb") as out:
        out.write(HEADER.encode())
        while out.tell() < size:
            out.write(templates[steps % TEMPLATES].replace(STEP, str(steps).encode()))
            steps += 1
    return steps * SYSTEMS * ENTITIES


def _one_step(random: np.random.Generator) -> str:
    places = random.normal(size=(SYSTEMS, ENTITIES, 2))
    return "".join(
        f"{s},{STEP.decode()},{e},{x!r},{y!r}\n"
        for s, system in enumerate(places.tolist())
        for e, (x, y) in enumerate(system)
    )


def measure(gigabytes: float, folder: Path) -> dict[str, Any]:
    """Writes, converts, and measures the process that converted."""
    with tempfile.TemporaryDirectory(dir=folder) as scratch:
        table = Path(scratch) / "table.csv"
        rows = write_table(table, round(gigabytes * 1e9))
        arguments = ["--system", "system", "--entity", "entity", "--step", "step", "--features", "x", "y"]
        command = [
            sys.executable,
            "-m",
            "nri_fast",
            "convert",
            "csv",
            str(table),
            *arguments,
            "--out",
            f"{scratch}/data",
        ]
        began = time.perf_counter()
        process = subprocess.Popen(command, env=os.environ | {"TMPDIR": scratch})
        _, status, usage = os.wait4(process.pid, 0)
        seconds = time.perf_counter() - began
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode:
            raise SystemExit(f"convert failed with code {process.returncode}")
        size, written = table.stat().st_size, (Path(scratch) / "data" / "train.npz").stat().st_size
    processor = usage.ru_utime + usage.ru_stime
    return {
        "table_bytes": size,
        "rows": rows,
        "written_bytes": written,
        "peak_memory_bytes": usage.ru_maxrss * 1024,  # Linux counts in kilobytes
        "seconds": round(seconds, 1),
        "processor_seconds": round(processor, 1),
        "megabytes_per_second": round(size / 1e6 / seconds, 2),
        "megabytes_per_processor_second": round(size / 1e6 / processor, 2),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--gigabytes", type=float, default=2.0)
    parser.add_argument(
        "--folder", type=Path, default=None, help="for scratch files, five times the table (default: TMPDIR)"
    )
    parser.add_argument("--write", metavar="NAME", help="write bench/results/NAME.json")
    options = parser.parse_args()
    figures = measure(options.gigabytes, options.folder)
    print(figures)
    if options.write:
        command = f"python -m bench.large_table --gigabytes {options.gigabytes:g} --write {options.write}"
        write_result(options.write, command, figures)


if __name__ == "__main__":
    main()
