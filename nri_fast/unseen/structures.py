"""Changes of who acts on whom: heat bath for what acts on the seen entities, single changes for all edges."""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from nri_fast import ops
from nri_fast.energies import all_transitions
from nri_fast.graph import MegaGraph
from nri_fast.heat_bath_rows import HeatBathRows, edges_in_block, random_free_edges
from nri_fast.system_set import SystemSet
from nri_fast.undirected import undirected_responsibilities
from nri_fast.unseen.scene import Guesses, Scene

BLOCK = 16  # assignments of an entity's incoming edges that are weighed jointly; where there are more, edges take turns

PURPOSE = 0x756E7365656E  # keeps this package's draws apart from those of training and simulation


@dataclass(frozen=True)
class Moves:
    """Changes of a structure that a descent tries.

    Attributes
    ----------
    edges : list of Tensor
        For each change the places of the edges that change together.
    """

    edges: list[Tensor]

    @classmethod
    def into_hidden(cls, scene: Scene, undirected: bool) -> Moves:
        """Several of the edges into an unseen entity at once: some that are wrong can make up for each other.

        All choices of them where there are few, otherwise one or two.
        """
        changes: list[Tensor] = []
        for receiver in range(scene.seen, scene.entities):
            edges = _with_reverse(scene, (scene.edges.receiver == receiver).nonzero().flatten(), undirected)
            most = len(edges) if 2 ** len(edges) <= BLOCK else 2
            for number in range(1, most + 1):
                changes += [torch.cat(some) for some in itertools.combinations(edges, number)]
        return cls(changes)

    @classmethod
    def into_seen(cls, scene: Scene, undirected: bool) -> Moves:
        """One edge into a seen entity; where edges are undirected, one between seen entities with its reverse."""
        graph = scene.edges
        edges = graph.receiver < scene.seen
        if undirected:
            edges &= graph.sender < graph.receiver
        return cls(_with_reverse(scene, edges.nonzero().flatten(), undirected))

    def __add__(self, other: Moves) -> Moves:
        """The changes of both."""
        return Moves(self.edges + other.edges)

    def variants(self, guesses: Guesses, kinds: int) -> Guesses:
        """Every guess under each of its changes, [guesses * changes], one guess's behind each other."""
        changes = [(edges, shift) for edges in self.edges for shift in range(1, kinds)]
        places = torch.arange(len(guesses), device=guesses.owner.device).repeat_interleave(len(changes))
        types = guesses.types[:, None].repeat(1, len(changes), 1)
        for number, (edges, shift) in enumerate(changes):
            types[:, number, edges] = (guesses.types[:, edges] + shift) % kinds
        return guesses.take(places).with_types(types.flatten(0, 1))


def heat_bath(
    scene: Scene, guesses: Guesses, steps: int, temperature: float, seed: int, number: int, undirected: bool
) -> Guesses:
    """Redraws what acts on the seen entities, given the paths that the guesses lay out for the unseen ones.

    With these paths the one-step energy is a sum over receivers, and every assignment of a seen entity's incoming edges
    is scored exactly. What acts on unseen entities is not redrawn: their paths agree with it whatever it is. Where
    edges are undirected, that follows from what unseen entities act on.

    Parameters
    ----------
    scene, guesses
        What was seen, and the guesses.
    steps : int
        Transitions scored, from frame 0 on.
    temperature : float
        In units of the likelihood's logarithm.
    seed, number : int
        Name the draws, together with the guesses' names.
    undirected : bool
        Both directions of a pair have one type.
    """
    rolled = scene.clamped(guesses, guesses.start, steps)
    states = torch.cat([scene.states[guesses.owner, : steps + 1], rolled.path], 2)
    usable = torch.isfinite(states).flatten(1).all(1)[:, None]
    present = None
    if scene.present is not None:
        there = scene.present[guesses.owner, : steps + 1]
        present = torch.cat([there, there.new_ones(*there.shape[:2], scene.hidden)], 2)
    systems = SystemSet.complete(torch.where(usable[..., None, None], states, 0.0), present, scene.scale_of(guesses))
    batch = systems.batch(range(len(states)))
    start = all_transitions(batch.graph, steps + 1)
    into_seen = (scene.edges.host.receiver < scene.seen).repeat(len(states))
    types, nodes = guesses.types.flatten().clone(), torch.zeros_like(batch.nodes, dtype=torch.uint8)
    most = edges_in_block(scene.library.edge_types, BLOCK)
    turns = math.ceil((scene.entities - 1) / most)
    for turn in range(turns):
        free = into_seen
        if turns > 1:
            free = free & _in_turn(batch.graph, most, seed, number * turns + turn, undirected)
        held = torch.nn.functional.one_hot(types.long(), scene.library.edge_types).to(states.dtype)
        rows = HeatBathRows(scene.library, batch, steps + 1, start, scene.error, free, held)
        scores = rows.in_likelihood_units(rows.evidence(rows.scores(scene.parameters)))
        if undirected:
            scores = -undirected_responsibilities(rows, scores, temperature).log()
        draws = ops.Draws(seed, number * turns + turn, guesses.name)
        rows.sample(scores, 1.0 if undirected else temperature, draws, types, nodes)
        if undirected:
            types = mirrored(scene, types.view_as(guesses.types)).flatten()
    return guesses.with_types(torch.where(usable, types.view_as(guesses.types), guesses.types))


def mirrored(scene: Scene, types: Tensor) -> Tensor:
    """[P, E] types on which both directions agree: what an unseen entity acts on decides, or the later's edge."""
    graph = scene.edges
    apart = (graph.sender >= scene.seen) != (graph.receiver >= scene.seen)
    follows = torch.where(apart, graph.receiver >= scene.seen, graph.receiver < graph.sender)
    return torch.where(follows, types[:, graph.reverse], types)


def generator(seed: int, stream: int, number: int) -> np.random.Generator:
    """Draws named by seed, stream (0: first guesses of a system; 1: edges whose turn it is in a step) and number."""
    key = np.array([seed, PURPOSE], dtype=np.uint64)
    return np.random.Generator(np.random.Philox(key=key, counter=[0, 0, stream, number]))


def _with_reverse(scene: Scene, edges: Tensor, undirected: bool) -> list[Tensor]:
    return [torch.stack([e, scene.edges.reverse[e]]) if undirected else e[None] for e in edges]


def _in_turn(graph: MegaGraph, most: int, seed: int, step: int, undirected: bool) -> Tensor:
    """[E] edges whose turn it is, the same of all systems."""
    return random_free_edges(graph, most, generator(seed, 1, step), undirected)
