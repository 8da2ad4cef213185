"""What a learned proposal is worth: its predictions without any search, and a chain's way to the truth with it."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Iterator
from functools import partial
from typing import Any, Final

import torch
from matplotlib.figure import Figure
from torch import Tensor

from nri_fast import ops
from nri_fast.checkpoint import Checkpoints
from nri_fast.experiments.experiment import Experiment, Figures, Part, Report, Scale, Workplace
from nri_fast.heat_bath_search import heat_bath_search
from nri_fast.metrics import edge_accuracy
from nri_fast.plot.style import COLOURS, TEXT, plain
from nri_fast.proposals.chains import Chains
from nri_fast.proposals.network import ProposalNetwork, predict
from nri_fast.proposals.proposers import Proposer, RandomProposer, TableProposer
from nri_fast.proposals.teach import taught_network
from nri_fast.rollouts import Rollouts
from nri_fast.run import Run, train
from nri_fast.search import metropolis_search
from nri_fast.settings import PRESETS
from nri_fast.simulate import simulate
from nri_fast.system_set import SystemSet
from nri_fast.trajectory_data import TrajectoryData

MODULES_FROM = 200  # springs5 systems that the modules learn from, without labels
# "No interaction" is fixed and messages are narrow, so that what was learned from five bodies holds for ten.
MODULES = dataclasses.replace(PRESETS["springs"], silent=True, message=8, edge_hidden=(16,))
NETWORK: Final = "mlp"
HIDDEN = 192
# Systems without labels whose structures the network imitates, its gradient steps, and systems in each.
LESSONS: dict[Scale, dict[int, tuple[int, int, int]]] = {
    "small": {5: (1000, 500, 50), 10: (300, 300, 25)},
    "full": {5: (4000, 3000, 50), 10: (2000, 2000, 25)},
}
TESTED = {"small": 50, "full": 100}
PROPOSALS = {"small": 1000, "full": 4000}
COLD, ANNEALED = (1e-3, 1e-5), (0.3, 3e-4)  # first and last temperature; robust energies are logarithms
WANTED = 0.95  # share of edges
ROLLOUT = 10


def parts(scale: Scale, seed: int) -> list[Part]:
    """Five bodies: the network alone. Ten: chains with its proposals and without."""
    tested, proposals = TESTED[scale], PROPOSALS[scale]
    return [
        Part("springs5-network-alone", partial(network_alone, 5, LESSONS[scale][5], tested, seed)),
        Part("springs10-chains", partial(chains_compared, 10, LESSONS[scale][10], tested, proposals, seed)),
    ]


def network_alone(entities: int, lesson: tuple[int, int, int], tested: int, seed: int, place: Workplace) -> Figures:
    """Edge accuracy of one forward pass against that of the searches, on systems never seen.

    Returns
    -------
    dict
        ``lesson`` and accuracies and seconds of ``network``, ``heat_bath`` and ``annealing``.
    """
    run, network, figures = _taught(entities, lesson, seed, place)
    test = simulate("springs", tested, entities, seed=seed, split="test")
    systems = run.systems(test)
    searches = {
        "network": lambda: predict(network, systems).found(systems).edge_types,
        "heat_bath": lambda: heat_bath_search(run.library, systems, run.error_measure()).edge_types,
        "annealing": lambda: _annealed(run, systems, seed),
    }
    for name, search in searches.items():
        started = time.perf_counter()
        types = search()
        seconds = time.perf_counter() - started
        figures[name] = {"edge_accuracy": _accuracy(types, systems, test), "seconds": seconds}
    return figures


def chains_compared(
    entities: int, lesson: tuple[int, int, int], tested: int, proposals: int, seed: int, place: Workplace
) -> Figures:
    """Edge accuracy over proposals per system, and over time, for random and learned proposals.

    Chains accept by roll-out energy at a low temperature; random proposals are tried with slow annealing too. "start"
    begins with the network's structure, which counts as one proposal, like any other structure whose energy is asked
    for; the others begin at random.

    Returns
    -------
    dict
        ``lesson``; for each way of proposing its ``accuracy`` after 0, 1, 2, ... proposals, the ``seconds`` until then
        (the network's forward pass included), and ``proposals_needed`` to reach 95% (None if never).
    """
    run, network, figures = _taught(entities, lesson, seed, place)
    test = simulate("springs", tested, entities, seed=seed, split="test")
    systems = run.systems(test)
    started = time.perf_counter()
    table = predict(network, systems)
    forward = time.perf_counter() - started
    graph = systems.graph
    generator = torch.Generator().manual_seed(seed)
    somewhere = torch.randint(2, (graph.edges,), generator=generator, dtype=torch.uint8).to(graph.device)
    some, few = proposals // 10, proposals // 40
    ways: dict[str, tuple[Proposer, Tensor, int, tuple[float, float]]] = {
        "random_annealed": (RandomProposer(graph, 2, 1), somewhere, proposals, ANNEALED),
        "random": (RandomProposer(graph, 2, 1), somewhere, proposals // 2, COLD),
        "edge": (TableProposer(graph, table, "edge"), somewhere, some, COLD),
        "node": (TableProposer(graph, table, "node"), somewhere, some, COLD),
        "system": (TableProposer(graph, table, "system"), somewhere, few, COLD),
        "start": (TableProposer(graph, table, "edge"), table.likeliest()[0], few, COLD),
    }
    for name, (proposer, start, count, temperatures) in ways.items():
        curve: dict[str, Any] = {"accuracy": [], "seconds": []}
        if name == "start":  # before the first energy, nothing is known
            curve = {"accuracy": [_accuracy(somewhere, systems, test)], "seconds": [0.0]}
        spent = 0.0 if name.startswith("random") else forward
        for types, seconds in _watched(run, systems, proposer, start, count, temperatures, seed):
            curve["accuracy"].append(_accuracy(types, systems, test))
            curve["seconds"].append(spent + seconds)
        reached = [i for i, share in enumerate(curve["accuracy"]) if share >= WANTED]
        figures[name] = curve | {"proposals_needed": reached[0] if reached else None}
    figures["forward_seconds"] = forward
    return figures


def _taught(
    entities: int, lesson: tuple[int, int, int], seed: int, place: Workplace
) -> tuple[Run, ProposalNetwork, Figures]:
    """Modules trained on five bodies, and a network that imitates what they find in systems of this size."""
    count, steps, batch = lesson
    learn_from = simulate("springs", MODULES_FROM, seed=seed)
    run = train(
        learn_from,
        settings=MODULES,
        seed=seed,
        device=place.device,
        out=place.folder / "run",
        resume=True,
        progress=place.progress,
    )
    more = run.systems(simulate("springs", count, entities, seed=seed + 1))
    found = heat_bath_search(run.library, more, run.error_measure(), progress=place.progress)
    network = taught_network(
        run.library,
        more,
        found,
        NETWORK,
        HIDDEN,
        steps,
        batch,
        seed=seed,
        checkpoints=Checkpoints(place.folder / "network"),
        resume=True,
        progress=place.progress,
    )
    figures: Figures = {"entities": entities, "modules_from": MODULES_FROM, "imitated_systems": count}
    return run, network, figures | {"network_steps": steps, "network_batch": batch}


def _annealed(run: Run, systems: SystemSet, seed: int) -> Tensor:
    return metropolis_search(run.library, systems, run.error_measure(), ROLLOUT, seed).edge_types


def _watched(
    run: Run,
    systems: SystemSet,
    proposer: Proposer,
    start: Tensor,
    proposals: int,
    temperatures: tuple[float, float],
    seed: int,
) -> Iterator[tuple[Tensor, float]]:
    """Types of the best structures so far, and the seconds that took, after the start and after each proposal."""
    with torch.no_grad(), ops.one_torch_thread():
        parameters, batch = run.library.flat_parameters(), systems.batch(range(len(systems)))
        rollouts = Rollouts(run.library, parameters, batch, systems.steps, ROLLOUT, run.error_measure())
        began = time.perf_counter()
        nodes = torch.zeros(1, batch.graph.nodes, dtype=torch.uint8, device=batch.graph.device)
        chains = Chains(rollouts, proposer, start[None], nodes, seed)
        spent = time.perf_counter() - began
        yield chains.best_edge_types, spent
        first, last = temperatures
        for step in range(proposals):
            began = time.perf_counter()
            chains.step(step, [first * (last / first) ** (step / proposals)])
            spent += time.perf_counter() - began
            yield chains.best_edge_types, spent


def _accuracy(types: Tensor, systems: SystemSet, test: TrajectoryData) -> float:
    assert test.edges is not None
    return edge_accuracy(systems.graph.adjacency(types).cpu(), test.edges)[0]


def report(figures: dict[str, Figures]) -> Report:
    """Two questions, one table."""
    rows = []
    alone, chains = figures["springs5-network-alone"], figures["springs10-chains"]
    for name, title in (("network", "network alone"), ("heat_bath", "heat bath"), ("annealing", "annealing")):
        found = alone[name]
        rows.append(("springs5", title, f"{100 * found['edge_accuracy']:.2f}", "", f"{found['seconds']:.2f}"))
    # Where random proposals never arrive, learned ones are fewer by more than those made.
    random = [(chains[n]["proposals_needed"], len(chains[n]["accuracy"]) - 1) for n in ("random", "random_annealed")]
    arrived = [needed for needed, _ in random if needed is not None]
    least, more = (min(arrived), "") if arrived else (max(made for _, made in random), "more than ")
    titles = {
        "random": "chain, random proposals",
        "random_annealed": "chain, random proposals, annealed",
        "edge": "chain, learned: one edge",
        "node": "chain, learned: all edges into one entity",
        "system": "chain, learned: the whole structure",
        "start": "chain from the network's structure",
    }
    for name, title in titles.items():
        curve = chains[name]
        some = curve["proposals_needed"]
        count = "never" if some is None else str(some)
        if some is not None and not name.startswith("random"):
            count += f" ({more}{least / max(some, 1):.0f} times fewer)"
        until = "" if some is None else f"{curve['seconds'][some]:.2f}"
        rows.append(("springs10", title, f"{100 * curve['accuracy'][-1]:.2f}", count, until))
    lessons = "; ".join(
        f"springs{f['entities']}: {f['imitated_systems']:,} systems, {f['network_steps']:,} steps of "
        f"{f['network_batch']}"
        for f in (alone, chains)
    )
    return Report(
        "Learned proposals",
        ("data", "search", "edges right at the end (%)", "proposals to 95%", "seconds (to 95% for chains)"),
        rows,
        (
            f"Modules from {alone['modules_from']} springs5 systems without labels; the network ({NETWORK}, width "
            f"{HIDDEN}) imitates what the heat bath finds in others, also without labels ({lessons}).",
            "Held-out systems; proposals are counted per system; the network's structure counts as one.",
        ),
        _curves({title: chains[name] for name, title in titles.items()}),
    )


def _curves(chains: dict[str, Figures]) -> Figure:
    """Edges right over proposals, and over time."""
    figure = Figure(figsize=(10, 4.6), layout="constrained")
    over_proposals, over_time = figure.subplots(1, 2, sharey=True)
    for (title, curve), colour in zip(chains.items(), COLOURS, strict=False):
        right = [100 * share for share in curve["accuracy"]]
        over_proposals.plot(range(1, len(right)), right[1:], color=colour, lw=2, label=title)
        over_time.plot(curve["seconds"][1:], right[1:], color=colour, lw=2)
    over_proposals.set_ylabel("edges right (%)", **TEXT)
    for axes, label in ((over_proposals, "proposals per system"), (over_time, "seconds, all systems")):
        axes.set_xscale("log")
        axes.set_xlabel(label, **TEXT)
        plain(axes)
    figure.legend(loc="outside lower center", ncols=3, frameon=False, fontsize=9)
    return figure


EXPERIMENT = Experiment(parts, report)
