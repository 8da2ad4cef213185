"""All systems in one graph against one system at a time: the same work, the same bits, another time."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from statistics import median

import torch
from torch import Tensor

from nri_fast import ops, plot
from nri_fast.experiments.experiment import Experiment, Figures, Part, Report, Scale, Workplace
from nri_fast.modules import ModuleLibrary
from nri_fast.normalisation import Normalisation
from nri_fast.rollouts import Rollouts
from nri_fast.simulate import simulate
from nri_fast.system_set import Batch, SystemSet

WIDTHS = {"small": (32,), "full": (32, 64, 256)}  # of messages and hidden layers; the paper's is 256
SYSTEMS = {"small": (1, 10, 100), "full": (1, 10, 100, 1000)}
ROLLOUT = 10
REPEATS = {"small": 3, "full": 5}


def parts(scale: Scale, seed: int) -> list[Part]:
    """The smallest first."""
    made = []
    for width in WIDTHS[scale]:
        for systems in SYSTEMS[scale]:
            made.append(Part(f"width{width}-systems{systems}", partial(measured, systems, width, REPEATS[scale], seed)))
    return made


def measured(systems: int, width: int, repeats: int, seed: int, place: Workplace) -> Figures:
    """Times of roll-out energies of all systems: what a bounce of annealing asks for."""
    device = place.device
    data = simulate("springs", systems, seed=seed)
    states = Normalisation.learn(data).apply(data.states).to(device)
    everything = SystemSet.complete(states)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        library = ModuleLibrary(4, 2, 1, width, (width,), (width, width), [0, 1]).to(device)
    parameters = library.flat_parameters().detach()
    edges = torch.randint(
        2, (everything.graph.edges,), dtype=torch.uint8, generator=torch.Generator().manual_seed(seed)
    )
    nodes = torch.zeros(everything.graph.nodes, dtype=torch.uint8, device=device)
    error = ops.ErrorMeasure(torch.ones(4, device=device), None)
    alone = [everything.batch([s]) for s in range(systems)]
    together = everything.batch(range(systems))

    def energies(batch: Batch) -> Tensor:
        rollouts = Rollouts(library, parameters, batch, everything.steps, ROLLOUT, error)
        return rollouts.energies(edges.to(device)[batch.edges], nodes[batch.nodes])

    same = bool(torch.equal(energies(together), torch.cat([energies(batch) for batch in alone])))
    with ops.one_torch_thread():
        return {
            "systems": systems,
            "width": width,
            "rollout": ROLLOUT,
            "threads": ops.get_threads(),
            "device": device,
            "same_bits": same,
            "at_once": _seconds(lambda: energies(together), repeats, device),
            "one_at_a_time": _seconds(lambda: [energies(batch) for batch in alone], repeats, device),
        }


def _seconds(work: Callable[[], object], repeats: int, device: str) -> float:
    """Median, a first call that warms up not counted."""
    times = []
    for _ in range(repeats + 1):
        started = time.perf_counter()
        work()
        if device != "cpu":
            torch.cuda.synchronize()
        times.append(time.perf_counter() - started)
    return median(times[1:])


def report(figures: dict[str, Figures]) -> Report:
    """A row for each width and number of systems."""
    rows = []
    series: dict[str, list[tuple[float, float]]] = {}
    for part in figures.values():
        each = {name: 1e3 * part[name] / part["systems"] for name in ("at_once", "one_at_a_time")}
        faster = part["one_at_a_time"] / part["at_once"]
        times = f"{each['at_once']:.3f}", f"{each['one_at_a_time']:.3f}", f"{faster:.1f}"
        rows.append((str(part["width"]), f"{part['systems']:,}", *times, "yes" if part["same_bits"] else "no"))
        for name, value in each.items():
            title = f"{name.replace('_', ' ')}, width {part['width']}"
            series.setdefault(title, []).append((part["systems"], value))
    some = next(iter(figures.values()))
    return Report(
        "Mega-graph against one system at a time",
        ("width", "systems", "at once (ms a system)", "one at a time (ms a system)", "times faster", "same bits"),
        rows,
        (
            f"Energies of roll-outs of {ROLLOUT} steps over 49 recorded steps, springs5, {some['threads']} threads, "
            f"{some['device']}; medians. The paper reports about five times.",
        ),
        plot.curves(series, "systems", "time per system (ms)", x_log=True, y_log=True),
    )


EXPERIMENT = Experiment(parts, report)
