"""Take a learned law out of a library and look at it.

How does a spring's message grow with distance? Trains on 50 simulated springs systems for some seconds, then asks the
modules themselves. That springs pull both ways is said: with so few steps not every run finds it out. With a path as
argument, also draws the picture: ``python examples/learned_law.py laws.png``.
"""

import dataclasses
import sys
from pathlib import Path

import numpy as np
import torch

import nri_fast
from nri_fast import plot


def main(picture: Path | None = None) -> float:
    data = nri_fast.simulate("springs", 50, seed=3)
    settings = dataclasses.replace(nri_fast.PRESETS["springs"], steps=500, polish_steps=0, undirected=True)
    run = nri_fast.train(data, settings=settings, seed=3)

    # Each type's law is a plain torch module: [..., 2 D] (sender's state, receiver's state) -> [..., message].
    distances = torch.linspace(0.25, 2.0, 8, dtype=torch.float64)
    sender = torch.zeros(len(distances), data.features, dtype=torch.float64)
    sender[:, data.feature_names.index("x")] = distances
    pairs = torch.cat([run.normalisation.apply(sender), run.normalisation.apply(torch.zeros_like(sender))], dim=-1)
    print("distance    " + "  ".join(f"{d:6.2f}" for d in distances))
    with torch.no_grad():
        for k in range(run.library.edge_types):
            message = run.library.edge_module(k)(pairs)
            grown = (message - message[0]).norm(dim=-1)  # what distance changes about the message
            print(f"type {k}      " + "  ".join(f"{size:6.3f}" for size in grown))

    # A message is in the modules' own language. What it does to a receiver can be told in recorded units.
    pull = plot.law_curves(run, distances, entities=data.entities)
    spring = int(np.argmax(np.abs(pull[:, -1])))
    slope = float(np.polyfit(distances.numpy(), pull[spring], 1)[0])
    print(f"type {spring} is the spring: it pulls by {slope:.4f} per unit of distance and step (true: 0.0100)")
    if picture is not None:
        if picture.exists():
            raise SystemExit(f"{picture}: already there, and nothing is overwritten")
        plot.laws(run, distances, data.entities, truth={"true spring": lambda r: 0.01 * r}).savefig(picture, dpi=150)
    return slope


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else None)
