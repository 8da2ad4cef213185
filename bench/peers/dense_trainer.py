"""Plain PyTorch, the whole way: the annealed soft heat bath trained with Adam, dense operations and autograd.

The same method as the presets': robust one-step errors whose scale is annealed, weights from a temperature that falls,
relative coordinates, a one-cycle learning rate. Receivers are independent of each other.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

import nri_fast as nf
from bench.peers.dense_heat_bath import DenseHeatBath


@dataclass(frozen=True)
class Recipe:
    """Settings with which the form reaches its best accuracy on a data set.

    Attributes
    ----------
    width, steps, batch, transitions : int
        Of all layers; gradient steps; systems and transitions of each in a step.
    last_scale : float
        s^2 of the robust error from 60% of the steps on, in units of the variance of one step's change.
    learning_rate : float
        Peak.
    """

    width: int
    steps: int
    batch: int
    last_scale: float
    transitions: int = 12
    learning_rate: float = 3e-3
    first_scale: float = 0.3


class DenseTrainer:
    """Trains on recorded states.

    Parameters
    ----------
    states : Tensor
        [S, T, N, D] in normalised units; the first half of the features are positions.
    recipe : Recipe
    seed : int
        Of torch's generator.
    """

    def __init__(self, states: Tensor, recipe: Recipe, seed: int) -> None:
        torch.manual_seed(seed)
        features, width = states.shape[-1], recipe.width
        library = nf.ModuleLibrary(features, 2, 1, width, (width,), (width, width), range(features // 2))
        library.change_scale.copy_(states.diff(dim=1).flatten(0, 2).std(0))
        self.states, self.recipe = states, recipe
        self.bath = DenseHeatBath(library, states.shape[2], recipe.first_scale)
        self.done = 0

    def fit(self, on_step: Callable[[DenseTrainer], None]) -> None:
        """All steps; `on_step` is called after each."""
        recipe, parameters = self.recipe, list(self.bath.library.parameters())
        optimiser = torch.optim.Adam(parameters, recipe.learning_rate)
        rate = torch.optim.lr_scheduler.OneCycleLR(
            optimiser, recipe.learning_rate, total_steps=recipe.steps, pct_start=0.1
        )
        systems, recorded = self.states.shape[:2]
        for step in range(recipe.steps):
            share = step / recipe.steps
            annealed = (recipe.last_scale / recipe.first_scale) ** min(1.0, share / 0.6)
            self.bath.scale_squared = recipe.first_scale * annealed
            chosen = torch.randint(systems, (recipe.batch,))[:, None]
            start = torch.randint(recorded - 1, (recipe.transitions,))
            scores = self.bath(self.states[chosen, start], self.states[chosen, start + 1])
            with torch.no_grad():
                temperature = 0.3 * max(0.07, 1.0 - share / 0.7) * scores.std(-1).mean() + 1e-9
                weights = torch.softmax(-scores / temperature, -1)
            optimiser.zero_grad()
            (weights * scores).sum(-1).mean().backward()
            torch.nn.utils.clip_grad_norm_(parameters, 1.0)
            optimiser.step()
            rate.step()
            self.done = step + 1
            on_step(self)

    def infer(self, states: Tensor) -> Tensor:
        """[S, T, N, D] -> [S, N, N] the likeliest type of every edge."""
        best = self.bath.assignments[self.bath.scores(states).argmin(-1)].flatten(1).byte()
        return nf.MegaGraph.complete(len(states), states.shape[2]).adjacency(best.flatten())
