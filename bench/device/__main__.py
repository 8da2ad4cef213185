"""Our kernels on a GPU: ``python -m bench.device SUBJECT ... [--device cuda] [--out FILE]``.

Times are between CUDA events around so many repetitions that launching them overlaps with running them; `host_ms` is
how long the host took to ask for one. Peers of :mod:`bench.peers` take part where they work, in chunks that suit a GPU,
and are measured only after they gave the same numbers. Limits are of the same process: large products by torch in
float32, TF32 and bf16, and a copy in device memory. Every row is in the file as soon as it is measured: a run that is
killed leaves what it has.

subjects: energy, gradient, heat_bath, anneal, simulate, compiled, training, mega_graph
"""

from __future__ import annotations

import argparse
import functools
import json
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch

from bench import cases
from bench.cases import Effort
from bench.device import anneal, energy, gradient, heat_bath, mega_graph, simulate, training
from bench.device.contest import DeviceLostError, must_answer, one_line
from bench.device.limits import Limits, limits
from bench.rows import OURS, Row
from nri_fast.checkpoint import write_atomically
from nri_fast.record import provenance

Rows = Callable[[torch.device, Effort, Limits], Iterator[Callable[[], Row]]]

SUBJECTS: dict[str, Rows] = {
    "energy": energy.rows,
    "gradient": gradient.rows,
    "heat_bath": heat_bath.rows,
    "anneal": anneal.rows,
    "simulate": simulate.rows,
    "compiled": functools.partial(energy.rows, with_compiled=True),
    "training": training.rows,
    "mega_graph": mega_graph.rows,
}


def machine_of(device: torch.device) -> dict[str, Any]:
    """The device, as JSON can hold it."""
    if device.type != "cuda":
        return {"name": str(device)}
    found = torch.cuda.get_device_properties(device)
    return {
        "name": found.name,
        "capability": f"{found.major}.{found.minor}",
        "multiprocessors": found.multi_processor_count,
        "memory_gib": round(found.total_memory / 2**30, 1),
        "torch_cuda": torch.version.cuda,
    }


def describe(row: Row) -> str:
    """One line for people."""
    if "problem" in row:
        return f"{row['subject']}, row {row['row']}: FAILED: {row['problem']}"
    case = row["case"]
    if row["subject"] == "training":
        run = row["runs"][OURS]
        return f"{row['work']}: {run['reached_s']} s, {run['steps_per_s']} steps/s, last {run['last_accuracy']}"
    if row["subject"] == "mega_graph":
        same = "same bits" if row["figures"]["same_bits"] else "OTHER BITS"
        return f"{row['work']}: width {case['width']}, {case['systems']}: {row['times_faster']}x faster, {same}"
    ours = row["runs"][OURS]
    line = (
        f"{row['work']}: width {case['width']}, {case['systems']:,} systems: {ours['graph_steps_per_s']:,.0f} "
        f"graph-steps/s, {ours['tflops']:.3g} TFLOP/s, {ours['median_ms']:.4g} ms (host {ours['host_ms']:.4g})"
    )
    peers = [f"{name} {run['times_slower']:.2f}x" for name, run in row["runs"].items() if name != OURS]
    left_out = [f"{name} left out ({reason})" for name, reason in row["left_out"].items()]
    return "; ".join([line, *peers, *left_out])


def measure_subject(name: str, device: torch.device, effort: Effort, out: Path, command: str) -> bool:
    """Measures a subject and puts it into the file row by row; whether all of it worked.

    A row that fails is a row that says why, and the next one is tried. A mega-graph whose bits differ is a failure, and
    so is a peer in float32 that gives other numbers.
    """
    started = time.perf_counter()
    rows: list[Row] = []
    whole: dict[str, Any] = {"command": command, **provenance(), "device": machine_of(device), "finished": False}
    good = True

    def put() -> None:
        found: dict[str, Any] = json.loads(out.read_text(encoding="utf-8")) if out.exists() else {}
        found[name] = whole | {"seconds": round(time.perf_counter() - started, 1), "rows": rows}
        out.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(out, (json.dumps(found, indent=1) + "\n").encode())

    floor = limits(device, effort)
    whole["limits"] = floor
    print(", ".join(f"{limit} {value:,.4g}" for limit, value in floor.items()), flush=True)
    for number, measure in enumerate(SUBJECTS[name](device, effort, floor), 1):
        lost = False
        try:
            row = measure()
            good = good and row.get("figures", {}).get("same_bits", True)
            good = good and not any(reason.startswith("differs by") for reason in row.get("left_out", {}).values())
        except Exception as error:  # whatever was raised is a result
            good, row = False, {"subject": name, "row": number, "problem": one_line(error)}
            try:
                must_answer(device, error)
            except DeviceLostError:
                lost = True
        rows.append(row)
        print(describe(row), flush=True)
        put()
        if lost:
            print("the device answers no more: the rest of this subject is given up", flush=True)
            return False
        if device.type == "cuda":
            torch.cuda.empty_cache()
    whole["finished"] = True
    put()
    return bool(good)


def main() -> None:
    """Measures the subjects that are named, all by default; exit status 1 if a row failed."""
    parser = argparse.ArgumentParser(
        "python -m bench.device", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("subjects", nargs="*", metavar="SUBJECT", help="see above; all by default")
    parser.add_argument("--device", default="cuda", help="cuda by default; cpu to try this command")
    parser.add_argument("--out", type=Path, default=Path("build/device/bench.json"), help="%(default)s")
    parser.add_argument("--tiny", action="store_true", help="problems of no meaning, for a test of this command")
    arguments = parser.parse_args()
    for name in arguments.subjects:
        if name not in SUBJECTS:
            parser.error(f"SUBJECT: expected {', '.join(SUBJECTS)}, got {name}")
    device = torch.device(arguments.device)
    if device.type == "cuda":
        if not torch.cuda.is_available():
            sys.exit("no GPU: torch sees no CUDA device")
        device = torch.device("cuda", device.index or 0)
        torch.cuda.set_device(device)
    effort = cases.tiny() if arguments.tiny else cases.device()
    command = f"python -m bench.device --device {device.type}" + (" --tiny" if arguments.tiny else "")
    good = True
    for name in arguments.subjects or SUBJECTS:
        print(f"== {name}", flush=True)
        good = measure_subject(name, device, effort, arguments.out, f"{command} {name}") and good
    sys.exit(0 if good else 1)


if __name__ == "__main__":
    main()
