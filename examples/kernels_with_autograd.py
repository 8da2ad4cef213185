"""Call the fast operations directly: energies of structures, their gradient, and heat-bath scores.

Fits modules to trajectories whose graphs are known, by plain torch: a second of work that uses nothing of the trainer.
"""

import torch

import nri_fast


def main() -> tuple[float, float]:
    torch.manual_seed(0)
    data = nri_fast.simulate("springs", 64, seed=5)
    states = nri_fast.Normalisation.learn(data).apply(data.states)  # [systems, steps, N, D] float32
    library = nri_fast.ModuleLibrary(data.features, edge_types=2, message=16, edge_hidden=(32,), node_hidden=(32,))
    library.change_scale.copy_(states.diff(dim=1).std(dim=(0, 1, 2)))  # one step's change becomes 1 for the modules
    graph = nri_fast.MegaGraph.complete(data.systems, data.entities)

    # Energy [systems]: 10-step roll-outs from recorded states, compared with the recording. It has a gradient.
    optimiser = torch.optim.Adam(library.parameters(), lr=3e-3)
    first = last = 0.0
    for step in range(60):
        energy = nri_fast.rollout_energy(library, graph, states, data.edges, rollout=10).mean()
        optimiser.zero_grad()
        energy.backward()
        optimiser.step()
        last = energy.item()
        first = first or last
        if step % 20 == 0 or step == 59:
            print(f"step {step:2d}: energy of the true structures {last:.2e}")

    # Every assignment of a receiver's incoming edges at once: [systems, N, 2^(N - 1)].
    scores = nri_fast.heat_bath_scores(library, graph, states)
    print(
        f"one-step scores {list(scores.shape)}; best assignment of entity 0 in system 0: {int(scores[0, 0].argmin())}"
    )
    return first, last


if __name__ == "__main__":
    main()
