"""From arrays of your own to graphs.

Who follows whom? Agents walk in the plane, and each drifts towards the agents that it follows. Only the paths are shown
to nri_fast, which finds the arrows. Takes about ten seconds.
"""

import dataclasses

import numpy as np
import torch

import nri_fast
from nri_fast import metrics


def record_walks(systems: int = 60, steps: int = 30, agents: int = 4, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Paths [systems, steps, agents, 2], and who follows whom: follows[s, i, j] = 1 where i leads and j follows."""
    random = np.random.default_rng(seed)
    follows = random.integers(2, size=(systems, agents, agents)) * (1 - np.eye(agents, dtype=int))
    place = random.normal(size=(systems, agents, 2))
    paths = []
    for _ in range(steps):
        pull = np.einsum("sij,sijd->sjd", follows, place[:, :, None] - place[:, None])
        turn = 0.1 * np.stack([-place[..., 1], place[..., 0]], axis=-1)  # everybody also circles the origin
        place = place + 0.05 * pull + turn
        paths.append(place)
    return np.stack(paths, axis=1), follows


def main() -> float:
    paths, follows = record_walks()
    # Arrays become a data set. Labels (edges) are optional; here they would be None as in real life.
    data = nri_fast.TrajectoryData(torch.from_numpy(paths), None, feature_names=("x", "y"), name="walks")
    learn, unseen = data.select(torch.arange(40)), data.select(torch.arange(40, 60))

    # Agents circle the origin, so absolute positions matter: no feature counts as relative only.
    settings = dataclasses.replace(nri_fast.PRESETS["springs"], relative=(), steps=600, polish_steps=0)
    run = nri_fast.train(learn, settings=settings)
    found = nri_fast.infer(run, unseen)

    # adjacency[s, i, j] is the type of the edge from i to j. Types have no names until somebody looks at them: the
    # relabelling is the one that agrees best with the truth, which this example happens to know.
    accuracy, names = metrics.edge_accuracy(found.adjacency, follows[40:])
    print(f"{100 * accuracy:.1f} % of the arrows of {unseen.systems} unseen groups are right")
    follow = int(np.flatnonzero(names == 1)[0])
    print("first unseen group:")
    for i, j in np.argwhere(found.adjacency[0].numpy() == follow):
        if i != j:
            print(f"  {j} follows {i}  (probability {found.probability[0, i, j, follow]:.2f})")
    return accuracy


if __name__ == "__main__":
    main()
