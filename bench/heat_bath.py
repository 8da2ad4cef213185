"""Heat-bath scores and training step against plain PyTorch: ``python -m bench.heat_bath [--seconds S]``."""

from __future__ import annotations

import argparse
from collections.abc import Callable

import torch

import nri_fast as nf
from bench.peers import plain_torch
from bench.record import write_result
from bench.timer import interleaved
from nri_fast import ops
from nri_fast.energies import all_transitions

SYSTEMS, TRANSITIONS, ENTITIES, SCALE_SQUARED = 50, 12, 5, 0.1


def competitors(width: int) -> dict[str, Callable[[], object]]:
    """Scores without a gradient, and a whole soft step (scores, responsibilities, gradient) hot and cold."""
    torch.manual_seed(0)
    library = nf.ModuleLibrary(4, 2, 1, width, (width,), (width, width), relative=(0, 1))
    states = torch.randn(SYSTEMS, TRANSITIONS + 1, ENTITIES, 4)
    graph = nf.MegaGraph.complete(SYSTEMS, ENTITIES)
    peer = plain_torch.HeatBath(library, ENTITIES, SCALE_SQUARED)
    rows = ops.RowLayout.blocks(graph, 2)
    problem = ops.HeatBathProblem(
        library,
        graph,
        states.flatten(),
        TRANSITIONS + 1,
        all_transitions(graph, TRANSITIONS + 1),
        rows,
        ops.ErrorMeasure(torch.ones(4), SCALE_SQUARED),
    )
    with torch.no_grad():
        ours, theirs = problem.scores(library.flat_parameters()), peer(states).flatten()
    worst = float((ours - theirs).abs().max())
    assert worst < 1e-4, f"the competitors disagree by {worst}"

    def our_scores() -> None:
        with torch.no_grad():
            problem.scores(library.flat_parameters())

    def their_scores() -> None:
        with torch.no_grad():
            peer(states)

    def our_step(factor: float) -> None:
        library.zero_grad()
        parameters = library.flat_parameters()
        scores = problem.scores(parameters.detach())
        temperature = factor * float(scores.view(-1, 16).std(-1).mean())
        weights = ops.responsibilities(rows.offset, scores, temperature) / graph.nodes
        parameters.backward(problem.gradient(parameters.detach(), weights))

    def their_step(factor: float) -> None:
        library.zero_grad()
        scores = peer(states)
        with torch.no_grad():
            temperature = factor * scores.std(-1).mean()
            weights = torch.softmax(-scores / temperature, -1)
        (weights * scores).sum(-1).mean().backward()

    return {
        "scores nri_fast": our_scores,
        "scores plain_torch": their_scores,
        "hot step nri_fast": lambda: our_step(0.3),
        "hot step plain_torch": lambda: their_step(0.3),
        "cold step nri_fast": lambda: our_step(0.021),
        "cold step plain_torch": lambda: their_step(0.021),
    }


def main() -> None:
    """Times widths 32 and 64 on one thread and on all."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=10.0, help="per width and number of threads")
    seconds = parser.parse_args().seconds
    rows = []
    for threads in sorted({1, ops.get_threads()}):
        for width in (32, 64):
            ops.set_threads(threads)
            torch.set_num_threads(threads)
            times = interleaved(competitors(width), seconds)
            for work in ("scores", "hot step", "cold step"):
                ours, theirs = times[f"{work} nri_fast"], times[f"{work} plain_torch"]
                ratio = round(theirs["median_ms"] / ours["median_ms"], 2)
                rows.append(
                    {"work": work, "width": width, "threads": threads, "nri_fast": ours, "plain_torch": theirs}
                    | {"times_faster": ratio}
                )
                print(
                    f"{work}, width {width}, {threads} threads: {ours['median_ms']:.2f} ms, {ratio} times plain PyTorch"
                )
    write_result("heat_bath", f"python -m bench.heat_bath --seconds {seconds:g}", {"rows": rows})


if __name__ == "__main__":
    main()
