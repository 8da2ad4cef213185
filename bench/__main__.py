"""``python -m bench``: what the kernels reach, beside the machine's limits and beside others."""

from __future__ import annotations

import argparse
import functools
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from bench import (
    anneal,
    bf16,
    cases,
    choice,
    energy,
    epoch,
    gradient,
    heat_bath,
    mega_graph,
    network,
    ragged,
    scaling,
    simulate,
    time_to_accuracy,
)
from bench.record import RESULTS, write_result
from bench.rows import Row, describe, use_threads
from nri_fast import ops

QUICK_RESULTS = Path("build/bench")
QUICK_LIMIT, FULL_LIMIT = 12.0, 400.0

ABOUT = """Benchmarks. Every subject is timed beside its peers, in turns, after a check that they give the same numbers,
and beside the machine's limits of the same moments: multiply-adds between registers (the FMA peak), a copy through
memory, a product by torch. A line says graph-steps a second (one message-passing step of one system), useful GFLOP/s,
the share of the peak, and how many times longer each peer takes. Everything stands in a JSON file a subject.

subjects:
  energy            roll-out energies, what a proposal costs
  gradient          the same with the gradient of the modules' parameters
  choice            a Metropolis choice between two structures, and the gradient of what is kept
  heat_bath         scores of all assignments; a training step, hot (all have weight) and cold (few have)
  anneal            proposing and deciding as a share of a sweep
  bf16              scoring in bfloat16 against float32: time, and decisions that change
  epoch             an epoch of the faithful preset fmml, one proposal a system
  network           a step of the proposal network that imitates structures, against torch's own layers
  mega_graph        all systems in one graph against one at a time
  ragged            systems of different sizes and absent entities against uniform ones with as many edges
  simulate          springs and charged particles
  scaling           cost over entities, edge types, roll-out length and systems, up to a million
  time_to_accuracy  from nothing to 99% of held-out springs edges; --full: to 95% and 98% of charged ones too
"""

USAGE = """examples:
  python -m bench --quick            everything in about a minute, results in build/bench/
  python -m bench energy gradient    two subjects, quickly
  python -m bench --full             the record, results in bench/results/: up to 25 minutes on two idle cores
  python -m bench.summary            tables of README and docs, and the figures, from the record

Optional peers take part where they are installed: torch-geometric, dwave-samplers."""


def main() -> None:
    """Runs the subjects that are named, all by default."""
    parser = argparse.ArgumentParser(
        "python -m bench", description=ABOUT, epilog=USAGE, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("subjects", nargs="*", metavar="SUBJECT", help="see above; all by default")
    effort_choice = parser.add_mutually_exclusive_group()
    effort_choice.add_argument("--quick", action="store_true", help="few cases, all threads (default)")
    effort_choice.add_argument("--full", action="store_true", help="all cases, one thread and all, for the record")
    parser.add_argument(
        "--limit",
        type=float,
        metavar="S",
        help=f"time_to_accuracy: seconds until a run is given up ({QUICK_LIMIT:g}, --full {FULL_LIMIT:g})",
    )
    parser.add_argument(
        "--beside",
        type=Path,
        metavar="SCRIPT",
        help="time_to_accuracy: a training script to run too (bench/peers/trainer_script.py says what it has to print)",
    )
    arguments = parser.parse_args()
    if arguments.beside is not None and not arguments.beside.is_file():
        parser.error(f"--beside: expected a script, got {arguments.beside}")
    effort = cases.full() if arguments.full else cases.quick()
    limit = (FULL_LIMIT if effort.full else QUICK_LIMIT) if arguments.limit is None else arguments.limit
    subjects = subjects_with(limit, arguments.beside)
    for name in arguments.subjects:
        if name not in subjects:
            parser.error(f"SUBJECT: expected {', '.join(subjects)}, got {name}")
    folder = RESULTS if effort.full else QUICK_RESULTS
    everything = ops.get_threads()
    for name in arguments.subjects or subjects:
        started, rows = time.perf_counter(), []
        print(f"== {name}", flush=True)
        for row in subjects[name](effort):
            rows.append(row)
            print(describe(row), flush=True)
        use_threads(everything)
        seconds = round(time.perf_counter() - started, 1)
        command = f"python -m bench --{effort.name} {name}"
        if name == "time_to_accuracy":
            command += f" --limit {limit:g}" + (f" --beside {arguments.beside.name}" if arguments.beside else "")
        write_result(name, command, {"seconds": seconds, "rows": rows}, folder)


def subjects_with(limit: float, beside: Path | None = None) -> dict[str, Callable[[cases.Effort], Iterator[Row]]]:
    """The subjects by name; runs to an accuracy are given up after `limit` seconds, and run `beside` a script."""
    return {
        "energy": energy.rows,
        "gradient": gradient.rows,
        "choice": choice.rows,
        "heat_bath": heat_bath.rows,
        "anneal": anneal.rows,
        "bf16": bf16.rows,
        "epoch": epoch.rows,
        "network": network.rows,
        "mega_graph": mega_graph.rows,
        "ragged": ragged.rows,
        "simulate": simulate.rows,
        "scaling": scaling.rows,
        "time_to_accuracy": functools.partial(time_to_accuracy.rows, limit=limit, beside=beside),
    }


if __name__ == "__main__":
    main()
