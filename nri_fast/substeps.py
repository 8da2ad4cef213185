"""Forecasts whose modules take several short steps from one recorded state to the next.

Close encounters are over within a recorded step, and a map over the whole of it winds around many times where entities
orbit each other. The law of a short step is smooth. Nothing but the recordings is needed to learn it: between two
recorded states the others count as absent, and are never compared.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from nri_fast.graph import MegaGraph
from nri_fast.linear_start import start_linearly
from nri_fast.modules import ModuleLibrary, linear_layers
from nri_fast.presence import flat_places
from nri_fast.system_set import SystemSet

FINEST = 60.0  # largest slope of an edge module's first layer at the start; normalised positions lie between -1 and 1
SLOPE_OF_OTHERS = 0.5  # standard deviation of its slopes along features that are no positions
STEEPEST, TILT = 20.0, 0.05  # largest slope of a node module's along a position, and a share of it along other features
EDGE = 1.1  # bends lie between minus this and this; normalised positions between -1 and 1


def spaced(
    graph: MegaGraph, states: Tensor, present: Tensor | None, steps: int, substeps: int
) -> tuple[Tensor, Tensor | None, int]:
    """Recordings as modules see them that take `substeps` steps from one recorded state to the next.

    Parameters
    ----------
    graph : MegaGraph
        Of the systems.
    states, present : Tensor, Tensor or None
        Flat recorded states and flags.
    steps : int
        Recorded steps.
    substeps : int
        Steps of the modules for each, at least 1.

    Returns
    -------
    states, present, steps
        The same with ``(steps - 1) * substeps + 1`` steps, of which every `substeps`-th was recorded and the others are
        absent; with 1, what was given.
    """
    if substeps == 1:
        return states, present, steps
    more = (steps - 1) * substeps + 1
    recorded, places = flat_places(graph, steps), flat_places(graph, more)[::substeps]
    rows = states.view(graph.nodes * steps, -1)
    spread = rows.new_zeros(graph.nodes * more, rows.shape[1])
    spread[places] = rows[recorded]
    there = torch.zeros(len(spread), dtype=torch.uint8, device=rows.device)
    there[places] = 1 if present is None else present[recorded]
    return spread.flatten(), there, more


def short_step_library(
    library: ModuleLibrary, systems: SystemSet, substeps: int, positions: bool, seed: int
) -> ModuleLibrary:
    """New modules for forecasts, which take `substeps` steps from one recorded state to the next.

    The judging modules' law of a whole step is no start for that of a short one. Torch's own random weights bend at
    distances of about 1; forces that change within a hundredth of that are hardly ever learned from there. So the first
    layer of edge modules begins with the sender's features minus the receiver's, at slopes up to `FINEST`, and half of
    the node modules' units bend somewhere between -1 and 1, where there may be a wall. Beside these, node modules begin
    with the best linear prediction (:mod:`nri_fast.linear_start`), where their layers are wide enough: two units for
    each feature seen.

    Parameters
    ----------
    library : ModuleLibrary
        Whose shapes the new modules have, with its change scale set.
    systems : SystemSet
        Training systems.
    substeps : int
        At least 1.
    positions : bool
        They see `relative` features as they are.
    seed : int
        Names the random weights.
    """
    shapes = library.settings()
    if positions:
        shapes["relative"] = []
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        short = ModuleLibrary(**shapes)
        _bend_at_every_distance(short, library.relative)
        if positions:
            _bend_in_places(short, library.relative)
    short = short.to(library.change_scale.device, library.change_scale.dtype)
    short.change_scale.copy_(library.change_scale)
    if min(short.node_hidden, default=0) >= 2 * (short.features - len(short.relative)):
        start_linearly(short, systems)
    short.change_scale /= substeps
    return short


def _bend_at_every_distance(library: ModuleLibrary, distances: tuple[int, ...]) -> None:
    """Sets the edge modules' first layers, `distances` being the features that say how far apart two entities are."""
    features = library.features
    along = list(distances) or list(range(features))
    with torch.no_grad():
        for module in library.edge:
            first = linear_layers(module)[0]
            units = first.out_features
            direction = torch.nn.functional.normalize(torch.randn(units, len(along)), dim=1)
            slope = torch.randn(units, features) * SLOPE_OF_OTHERS
            slope[:, along] = direction * torch.logspace(0, math.log10(FINEST), units)[:, None]
            first.weight.copy_(0.5 * torch.cat([slope, -slope], 1))
            first.bias.copy_(torch.rand(units) - 0.5)


def _bend_in_places(library: ModuleLibrary, positions: tuple[int, ...]) -> None:
    """Sets the last units of the node modules' first layers, half of those that the linear start leaves."""
    features = library.features
    along = torch.tensor(list(positions) or list(range(features)))
    with torch.no_grad():
        for module in library.node:
            first = linear_layers(module)[0]
            units = max(0, first.out_features - 2 * features) // 2
            position = along[torch.randint(len(along), (units,))]
            steep = STEEPEST ** torch.rand(units, 1)
            slope = steep * TILT * torch.randn(units, features)
            slope[torch.arange(units), position] = steep[:, 0] * (1.0 - 2.0 * torch.randint(2, (units,)))
            place = 2.0 * EDGE * torch.rand(units) - EDGE
            if units:
                first.weight[-units:, library.message :] = slope
                first.bias[-units:] = -slope[torch.arange(units), position] * place
