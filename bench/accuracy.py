"""How right, from how little, how soon: ``python -m bench.accuracy NAME ... [--data FOLDER]``.

springs20: simulated springs; springs_file: a real NRI file, 100 of its systems held out. More is measured by
`nri-fast experiment`.
"""

from __future__ import annotations

import argparse
import dataclasses
import time
from typing import Any

import nri_fast as nf
from bench.record import write_result


def learn_and_test(
    train: nf.TrajectoryData, test: nf.TrajectoryData, settings: nf.Settings, seed: int
) -> dict[str, Any]:
    """Trains on one set and evaluates on the other."""
    started = time.perf_counter()
    run = nf.train(train, settings=settings, seed=seed)
    trained = time.perf_counter()
    figures = nf.evaluate(run, test)
    seconds = {"train": round(trained - started, 2), "evaluate": round(time.perf_counter() - trained, 2)}
    print(f"{train.name}: {train.systems} systems, edges {figures['edge_accuracy']:.4f}, {seconds}")
    return {"systems_trained_on": train.systems, "seed": seed, "seconds": seconds, "steps": settings.steps, **figures}


def simulated(kind: str, systems: int, seeds: tuple[int, ...], **changes: Any) -> dict[str, Any]:
    """Repeats over seeds of data and training, 200 systems never seen each time."""
    settings = dataclasses.replace(nf.PRESETS[kind], **changes)
    runs = [
        learn_and_test(
            nf.simulate(kind, systems, seed=seed), nf.simulate(kind, 200, seed=seed, split="test"), settings, seed
        )
        for seed in seeds
    ]
    return {"settings": settings.to_dict(), "runs": runs}


def from_file(folder: str) -> dict[str, Any]:
    """Springs from a file of the NRI family, labels used for the figures only."""
    train, test = nf.hold_out(nf.load_trajectories(folder), count=100, seed=0)
    settings = nf.PRESETS["springs"]
    return {"settings": settings.to_dict(), "runs": [learn_and_test(train, test, settings, 0)]}


def main() -> None:
    """Runs the experiments that are named."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="+", metavar="NAME")
    parser.add_argument("--data", help="folder of the real file, for springs_file")
    arguments = parser.parse_args()
    experiments = {
        "springs20": lambda: simulated("springs", 20, (1, 2, 3)),
        "springs_file": lambda: from_file(arguments.data),
    }
    for name in arguments.names:
        if name not in experiments:
            parser.error(f"NAME: expected {', '.join(experiments)}, got {name}")
        if name == "springs_file" and not arguments.data:
            parser.error("springs_file needs --data FOLDER")
        data = " --data FOLDER" if name == "springs_file" else ""
        write_result(name, f"python -m bench.accuracy {name}{data}", experiments[name]())


if __name__ == "__main__":
    main()
