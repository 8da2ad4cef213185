"""The search for unseen entities: states by Gauss-Newton steps, structures by annealing, many guesses side by side."""

from __future__ import annotations

from dataclasses import replace

import torch

from nri_fast.unseen.fit import fit
from nri_fast.unseen.scene import Guesses, Scene, ranked
from nri_fast.unseen.structures import Moves, generator, heat_bath, mirrored

RESTARTS = 48  # guesses that every system begins with
KEPT, FINALISTS = 8, 4  # after the first horizon, and for the open loop
# Steps rolled and temperature of each round: at first few steps, in which what acts on an unseen entity matters little.
COOLING = ((10, 16.0), (10, 8.0), (20, 4.0), (20, 0.0))


def search(scene: Scene, seed: int, undirected: bool) -> Guesses:
    """What was tried in the end, equally many guesses of every system.

    Rounds of a heat bath and a few steps on the starts, over ever more of the recording, the seen entities clamped to
    what was recorded; then descent over what acts on the unseen ones; then all of it on the objective that counts, one
    open-loop roll-out from frame 0. Single changes of the best guess are fitted too: they show how sure it is.
    """
    last = scene.last_step
    into = Moves.into_hidden(scene, undirected)
    every = Moves.into_seen(scene, undirected) + into
    guesses = first_guesses(scene, seed, undirected)
    for number, (horizon, temperature) in enumerate(COOLING):
        steps = min(horizon, last)
        guesses = heat_bath(scene, guesses, steps, temperature, seed, number, undirected)
        guesses = fit(scene, guesses, steps, True, 2)
    guesses = fit(scene, _diverse(scene, guesses, KEPT), last, True, 4)
    guesses = heat_bath(scene, guesses, last, 0.0, seed, len(COOLING), undirected)
    guesses = descend(scene, fit(scene, guesses, last, True, 4), into, last, True)
    guesses = fit(scene, _diverse(scene, guesses, FINALISTS), last, False, 8)
    best = descend(scene, _diverse(scene, guesses, 1), every, last, False)
    tried = [best, guesses]
    if scene.library.edge_types > 1:
        tried.append(fit(scene, every.variants(best, scene.library.edge_types), last, False, 4))
    return _side_by_side(scene, tried)


def first_guesses(scene: Scene, seed: int, undirected: bool) -> Guesses:
    """Random starts where the seen entities are, and random types; draws are named by the seed and the system."""
    starts, types = [], []
    systems, numbers = len(scene.states), scene.hidden * scene.library.features
    for place in scene.ids.tolist():
        random = generator(seed, 0, place)
        starts.append(torch.from_numpy(random.standard_normal((RESTARTS, numbers))))
        types.append(torch.from_numpy(random.integers(scene.library.edge_types, size=(RESTARTS, scene.edges.edges))))
    device = scene.states.device
    owner = torch.arange(systems, device=device).repeat_interleave(RESTARTS)
    off = torch.cat(starts).to(device).view(-1, scene.hidden, scene.library.features)
    start = scene.middle[owner][:, None] + scene.spread[owner][:, None] * off
    name = (scene.ids[:, None] * RESTARTS + torch.arange(RESTARTS, device=device)).flatten()
    nothing = torch.full((len(owner),), torch.inf, dtype=torch.float64, device=device)
    drawn = torch.cat(types).to(device, torch.uint8)
    drawn = mirrored(scene, drawn) if undirected else drawn
    return Guesses(owner, name, start.to(scene.states.dtype), drawn, nothing)


def descend(scene: Scene, guesses: Guesses, moves: Moves, steps: int, clamped: bool) -> Guesses:
    """Makes every guess's best change, its start fitted anew, as long as that lowers its objective."""
    kinds = scene.library.edge_types
    if kinds == 1:
        return guesses
    active = torch.arange(len(guesses), device=guesses.owner.device)
    for _ in moves.edges:
        tried = fit(scene, moves.variants(guesses.take(active), kinds), steps, clamped, 2)
        table = tried.objective.view(len(active), -1)
        chosen = tried.take(table.argmin(1) + torch.arange(len(active), device=active.device) * table.shape[1])
        lower = chosen.objective < guesses.objective[active]
        active, chosen = active[lower], chosen.take(lower.nonzero().flatten())
        if len(active) == 0:
            break
        for name in ("start", "types", "objective"):
            changed = getattr(guesses, name).clone()
            changed[active] = getattr(chosen, name)
            guesses = replace(guesses, **{name: changed})
    return guesses


def _diverse(scene: Scene, guesses: Guesses, count: int) -> Guesses:
    """The `count` best of every system, of those that agree on who acts on the seen entities one before the others.

    Otherwise one wrong structure that is easily fallen into would fill all places.
    """
    structures = guesses.types[:, scene.edges.receiver < scene.seen]
    places, first = ranked(len(scene.states), guesses.objective, structures)
    order = (~first).to(torch.uint8).argsort(dim=1, stable=True)[:, :count]
    return guesses.take(places.gather(1, order).flatten())


def _side_by_side(scene: Scene, parts: list[Guesses]) -> Guesses:
    """Guesses of several searches, a system's behind each other."""
    systems = len(scene.states)
    columns = [
        torch.cat([getattr(part, name).view(systems, -1, *getattr(part, name).shape[1:]) for part in parts], 1)
        for name in ("owner", "name", "start", "types", "objective")
    ]
    return Guesses(*(column.flatten(0, 1) for column in columns))
