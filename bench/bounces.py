"""Metropolis beside the heat bath, 200 springs systems, equal time: ``python -m bench.bounces [--seconds S]``.

Accuracy is that of the training systems' own structures (no labels are used in training), as the paper's curves are:
for Metropolis those that its chains have reached, for the heat bath the likeliest under the modules of the moment.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import time
from pathlib import Path
from typing import Any

import matplotlib

import nri_fast as nf
from bench.record import RESULTS, write_result
from nri_fast import metrics
from nri_fast.heat_bath_search import heat_bath_search

matplotlib.use("Agg")


class _TimeIsUpError(Exception):
    pass


def curve(settings: nf.Settings, data: nf.TrajectoryData, seconds: float) -> list[dict[str, float]]:
    """Accuracy over seconds of training; the time that measuring takes is left out."""
    points: list[dict[str, float]] = []
    systems = nf.SystemSet.complete(nf.Normalisation.learn(data).apply(data.states))
    state = {"measuring": 0.0, "next": 0.0}
    truth = data.edges
    assert truth is not None
    started = time.perf_counter()

    def measure(trainer: nf.BounceGrad) -> None:
        now = time.perf_counter()
        elapsed = now - started - state["measuring"]
        if elapsed < state["next"]:
            return
        if settings.bounce == "metropolis":
            assert trainer.structures is not None
            types = trainer.structures.edge_types
        else:
            types = heat_bath_search(trainer.library, systems, trainer.error_measure(), temperature=0.0).edge_types
        accuracy, _ = metrics.edge_accuracy(systems.graph.adjacency(types), truth)
        points.append({"seconds": round(elapsed, 2), "step": trainer.history.step[-1], "accuracy": round(accuracy, 5)})
        state["next"] = elapsed + max(0.5, elapsed / 15)
        state["measuring"] += time.perf_counter() - now
        if elapsed > seconds:
            raise _TimeIsUpError

    with contextlib.suppress(_TimeIsUpError):
        nf.train(data, settings=settings, seed=1, on_step=measure)
    return points


def draw(curves: dict[str, list[dict[str, float]]], path: Path) -> None:
    """Both curves over time."""
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(figsize=(6.4, 4), layout="constrained")
    for (name, points), colour in zip(curves.items(), ("#0072b2", "#d55e00"), strict=True):
        axes.plot([p["seconds"] for p in points], [100 * p["accuracy"] for p in points], label=name, color=colour)
    axes.axhline(50, color="0.6", linewidth=0.8, linestyle="--")
    axes.set(xscale="log", xlabel="training time (s)", ylabel="edges right (%)", title="200 springs systems, no labels")
    axes.legend(frameon=False)
    figure.savefig(path, dpi=130)
    plt.close(figure)


def main() -> None:
    """Runs both for the same time."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=180.0, help="of training, each")
    seconds = parser.parse_args().seconds
    data = nf.simulate("springs", 200, seed=5)
    choices = {
        "heat bath": dataclasses.replace(nf.PRESETS["springs"], steps=3000, polish_steps=0),
        "Metropolis": nf.PRESETS["metropolis"],
    }
    curves = {name: curve(settings, data, seconds) for name, settings in choices.items()}
    for name, points in curves.items():
        print(f"{name}: {points[-1]}")
    figures: dict[str, Any] = {"settings": {n: s.to_dict() for n, s in choices.items()}, "curves": curves}
    write_result("bounces", f"python -m bench.bounces --seconds {seconds:g}", figures)
    draw(curves, RESULTS / "bounces.png")


if __name__ == "__main__":
    main()
