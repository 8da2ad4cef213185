"""What senders do to receivers, by edge type, as a run's modules have it: measured at states that were recorded.

A message says nothing by itself: node modules may ignore parts of it, and a constant in it can as well be their own. So
what counts is the receiver. The influence of a sender through type k is how the predicted change of the receiver
differs between the message that this sender would send through k and the mean message of that type; all other messages
are those of the graph that was found. A type whose messages do not depend on who sends them has no influence.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from nri_fast.infer import Inference
from nri_fast.metrics import RATES, Array
from nri_fast.modules import ModuleLibrary
from nri_fast.normalisation import POSITION_NAMES, SINE_OF
from nri_fast.run import Run
from nri_fast.trajectory_data import TrajectoryData

SYSTEMS = 64  # looked at, evenly spread over the data
STEPS = 16  # of each
PAIRS = 20_000  # kept
NUMBERS = 1 << 24  # in the messages of all types at a time


@dataclass(frozen=True)
class Influence:
    """Influences of P ordered pairs of entities (sender, receiver) through each of K edge types.

    Attributes
    ----------
    feature_names : tuple of str, [D]
    change : ndarray, float64, [K, P, D]
        What the sender adds to the receiver's change in one step through each type, recorded units.
    difference : ndarray, float64, [P, D]
        Sender's state minus receiver's, recorded units; angles between -pi and pi.
    scale : ndarray, float64, [D]
        Standard deviation of one step's change in the training data, recorded units: what a large influence is.
    judged : tuple of int
        Places of the features that structures are judged by: only of these does the run know who moves them.
    """

    feature_names: tuple[str, ...]
    change: Array
    difference: Array
    scale: Array
    judged: tuple[int, ...]

    @property
    def positions(self) -> list[int]:
        """Places of x, y, z among the features, those that are there."""
        return [d for d, name in enumerate(self.feature_names) if name in POSITION_NAMES]

    @property
    def targets(self) -> list[int]:
        """Places of the features that an influence is told in: what moves positions, or the one that is moved most."""
        names = self.feature_names
        if self.positions:
            rates = [names.index(RATES[names[p]]) for p in self.positions if RATES[names[p]] in names]
            return rates if len(rates) == len(self.positions) else self.positions
        return [self.judged[int((self._shares**2).mean((0, 1)).argmax())]]

    @property
    def distance(self) -> Array | None:
        """[P] between sender and receiver; None where no feature is a position."""
        return np.linalg.norm(self.difference[:, self.positions], axis=1) if self.positions else None

    @property
    def size(self) -> Array:
        """[K, P] length of the influence on :attr:`targets`."""
        return np.asarray(np.linalg.norm(self.change[:, :, self.targets], axis=-1))

    @property
    def pull(self) -> Array | None:
        """[K, P] part of the influence that points at the sender; None where no feature is a position."""
        distance = self.distance
        if distance is None:
            return None
        towards = self.difference[:, self.positions] / np.maximum(distance, 1e-300)[:, None]
        return np.asarray((self.change[:, :, self.targets] * towards).sum(-1))

    @property
    def _shares(self) -> Array:
        """[K, P, judged] of one step's change."""
        change, scale = self.change[..., list(self.judged)], self.scale[list(self.judged)]
        return np.asarray(np.divide(change, scale, out=np.zeros_like(change), where=scale > 0))

    @property
    def strength(self) -> Array:
        """[K] root mean square of each type's influence on judged features, in units of one step's change."""
        return np.asarray(np.sqrt((self._shares**2).mean((1, 2))))

    @property
    def contrast(self) -> Array:
        """[K, K] how differently two types would move the same receivers: root mean square of the difference of their
        influences on judged features, in units of one step's change.
        """
        return np.asarray(np.sqrt(((self._shares[:, None] - self._shares[None]) ** 2).mean((2, 3))))


def influence(run: Run, data: TrajectoryData, found: Inference, seed: int = 0) -> Influence:
    """Measures the influences at recorded states.

    Parameters
    ----------
    run : Run
    data : TrajectoryData
        At most 64 systems and 16 steps of each are looked at, evenly spread.
    found : Inference
        What was inferred from `data`: the other messages that a receiver gets.
    seed : int
        Names the draw of 20,000 pairs, where there are more.

    Returns
    -------
    Influence

    Raises
    ------
    ValueError
        No two entities are in one system, or the features are not those of the run.
    """
    library = run.library
    with torch.no_grad():
        states, there, types, nodes = _looked_at(run, data, found)
        pairs = there[:, :, None] & there[:, None] & ~torch.eye(data.entities, dtype=torch.bool, device=run.device)
        q, i, j = _some(pairs.nonzero(), seed).unbind(1)
        sender, receiver = states[q, i], states[q, j]
        received = torch.cat([_received(library, *part) for part in _parts(library, states, types, pairs)])
        own = types[q, i, j]
        messages = _messages(library, torch.cat([sender, receiver], -1))
        rest = received[q, j] - messages[own, torch.arange(len(q), device=run.device)]
        moved = torch.stack(
            [
                _change(library, rest + message, receiver, nodes[q, j])
                - _change(library, rest + message.mean(0), receiver, nodes[q, j])
                for message in messages
            ]
        )
    recorded = run.normalisation.undo(torch.stack([sender, receiver]).double().cpu())
    half = run.normalisation.half_widths.numpy()
    deviation = library.change_scale.double().cpu().numpy()
    change = moved.double().cpu().numpy()
    names = run.normalisation.feature_names
    judged = tuple(run.settings.judged_places(names))
    return Influence(names, change * half, _difference(recorded.numpy(), names), deviation * half, judged)


def _looked_at(run: Run, data: TrajectoryData, found: Inference) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """States [Q, N, D], who is there [Q, N], types [Q, N, N] and [Q, N] of Q moments of the systems looked at."""
    systems = spread_systems(data, SYSTEMS)
    steps = _spread(data.steps, STEPS)
    some = data.select(systems)
    n = some.entities
    states = run.padded_states(some)[:, steps.to(run.device)]
    moments = len(steps)

    def each(values: Tensor) -> Tensor:
        return values.to(run.device).repeat_interleave(moments, 0)

    types = each(found.adjacency[systems][:, :n, :n].long())
    there = some.there[:, steps].to(run.device).flatten(0, 1)
    return states.flatten(0, 1), there, types, each(found.node_types[systems][:, :n].long())


def spread_systems(data: TrajectoryData, most: int) -> Tensor:
    """Places of up to `most` systems of two entities or more, evenly spread over the data.

    Raises
    ------
    ValueError
        There is none.
    """
    places = (data.members.sum(1) > 1).nonzero().flatten().cpu()
    if not len(places):
        raise ValueError("data: expected a system of two entities or more, got none")
    return places[_spread(len(places), most)]


def _spread(count: int, most: int) -> Tensor:
    """Up to `most` places, evenly spread over `count`."""
    return torch.linspace(0, count - 1, min(count, most)).round().long()


def _some(pairs: Tensor, seed: int) -> Tensor:
    if len(pairs) <= PAIRS:
        return pairs
    order = np.random.Generator(np.random.Philox(key=seed)).permutation(len(pairs))[:PAIRS]
    return pairs[torch.from_numpy(np.sort(order)).to(pairs.device)]


def _parts(library: ModuleLibrary, states: Tensor, types: Tensor, pairs: Tensor) -> list[tuple[Tensor, Tensor, Tensor]]:
    """Moments that are looked at together, so that memory stays bounded."""
    each = states.shape[1] ** 2 * library.message * library.edge_types
    split = max(1, NUMBERS // each)
    return list(zip(states.split(split), types.split(split), pairs.split(split), strict=True))


def _messages(library: ModuleLibrary, pairs: Tensor) -> Tensor:
    """[K, ..., message] of sender and receiver states [..., 2 D], through each type."""
    silent = pairs.new_zeros(*pairs.shape[:-1], library.message)
    return torch.stack(
        [silent if library.silent and k == 0 else library.edge_module(k)(pairs) for k in range(library.edge_types)]
    )


def _received(library: ModuleLibrary, states: Tensor, types: Tensor, pairs: Tensor) -> Tensor:
    """[Q, N, message] sums of messages under the types found."""
    n = states.shape[1]
    both = torch.cat([states[:, :, None].expand(-1, -1, n, -1), states[:, None].expand(-1, n, -1, -1)], -1)
    of_type = _messages(library, both).gather(0, types[None, ..., None].expand(1, -1, -1, -1, library.message))[0]
    return (of_type * pairs[..., None]).sum(1)


def _change(library: ModuleLibrary, received: Tensor, own: Tensor, node_types: Tensor) -> Tensor:
    """[P, D] predicted change of receivers."""
    changes = torch.stack([library.node_module(m)(torch.cat([received, own], -1)) for m in range(library.node_types)])
    return changes[node_types, torch.arange(len(own), device=own.device)]


def _difference(states: Array, names: tuple[str, ...]) -> Array:
    sender, receiver = states
    difference = sender - receiver
    for d, name in enumerate(names):
        if name in SINE_OF:
            difference[:, d] = np.arctan2(np.sin(difference[:, d]), np.cos(difference[:, d]))
    return np.asarray(difference)
