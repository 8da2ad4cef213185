"""Entities that were never observed: where they are, who acts on them, and on whom they act."""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass, fields
from pathlib import Path

import torch
from torch import Tensor
from tqdm.auto import tqdm

from nri_fast import ops
from nri_fast.checkpoint import CheckpointError, load, save
from nri_fast.plan import digest_of
from nri_fast.run import Run
from nri_fast.trajectory_data import TrajectoryData
from nri_fast.unseen.fit import covariance, differences
from nri_fast.unseen.scene import Guesses, Rolled, Scene, ranked
from nri_fast.unseen.search import search
from nri_fast.unseen.views import View, views

SYSTEMS_AT_ONCE = 16


@dataclass(frozen=True)
class Unseen:
    """What was found about systems with unseen entities; these are numbered behind the N - H seen ones.

    Attributes
    ----------
    adjacency : Tensor
        [S, N, N] uint8: ``A[s, i, j]`` is the type of the edge from i to j in the best guess; diagonal 0. In systems of
        different sizes N is that of the largest, a system's unseen entities stand right behind its seen ones, and what
        lies behind these is zero, here and below.
    probability : Tensor
        [S, N, N, K] float32: of each type, by the weights of all that was tried in the end; zero on the diagonal. Even
        for edges of a seen entity that is there in none of the frames.
    path : Tensor
        [S, T, H, D] float32: states of the unseen entities, in the run's units: one open-loop roll-out from the first
        frame looked at; NaN in frames that were not.
    seen_path : Tensor
        [S, T, N - H, D] float32: the seen entities in the same roll-out; NaN for those that are absent where it starts.
    energy : Tensor
        [S] float32: mean squared error of that roll-out over the seen entities, in the run's units squared, where they
        are there.
    deviation : Tensor
        [S, H] float32: how far off a path is expected to be: root of the expected mean square over its entries.
    sizes : Tensor or None
        [S] int64: entities of each system, the unseen ones included. None: all have N.
    frames : Tensor or None
        [S, 2] int64: the first frame looked at, and the first one after the last. None: all frames.
    """

    adjacency: Tensor
    probability: Tensor
    path: Tensor
    seen_path: Tensor
    energy: Tensor
    deviation: Tensor
    sizes: Tensor | None = None
    frames: Tensor | None = None


def find_unseen(
    run: Run,
    seen: TrajectoryData,
    hidden: int = 1,
    undirected: bool | None = None,
    seed: int = 0,
    progress: bool = False,
    folder: str | os.PathLike[str] | None = None,
) -> Unseen:
    """Finds entities that nobody observed from how the observed ones move; the modules stay as they are.

    Every system gets many guesses of the unseen entities' states at frame 0 and of all edges, and the one that lets the
    open-loop roll-out from frame 0 agree best with the *seen* entities' recording is taken. The unseen entities' true
    states are no argument: they cannot be looked at.

    Systems may differ in size, and states may be absent. A system is then looked at from the frame whose roll-out is
    compared with most states (:mod:`nri_fast.unseen.views`), as if the recording began there.

    Parameters
    ----------
    run : Run
        Trained on systems of as many entities as there are, seen and unseen together, if it was trained on one size.
    seen : TrajectoryData
        Recordings of the seen entities, in recorded units, of any sizes, with or without holes; labels are not looked
        at.
    hidden : int
        How many entities were not seen, the same in every system.
    undirected : bool, optional
        Both directions of a pair have one type: known beforehand, not found. As in training, if not given.
    seed : int
        Names the random draws, together with a system's place in `seen`.
    progress : bool
        Show a progress bar on terminals.
    folder : path, optional
        Where parts that are finished lie meanwhile; a call with the same arguments goes on from them.

    Returns
    -------
    Unseen
        A system's part does not depend on the other systems, to the bit.

    Raises
    ------
    ValueError
        Fewer than one hidden entity or 3 frames, several entity types, or other features than the run's.
    CheckpointError
        `folder` holds parts of another search.

    Notes
    -----
    The idea of optimising an unseen entity's state in the inner loop is that of Alet et al., NeurIPS 2019;
    docs/unseen.md has the equations.
    """
    if hidden < 1:
        raise ValueError(f"hidden: expected at least 1, got {hidden}")
    if seen.steps < 3:
        raise ValueError(f"seen: expected at least 3 steps, got {seen.steps}")
    if run.settings.node_types > 1:
        raise ValueError(
            f"run: expected one entity type, got {run.settings.node_types}; an unseen entity's is not found"
        )
    mutual = run.settings.undirected if undirected is None else undirected
    states, scale = run.padded_states(seen), run.step_scale(seen)
    parts = None
    if folder is not None:
        modules = hashlib.sha256(run.whole_steps.flat_parameters().detach().cpu().numpy().data).hexdigest()
        facts: dict[str, object] = {
            "seen": digest_of(seen),
            "scale": None if scale is None else scale.tolist(),
            "modules": modules,
            "hidden": hidden,
            "undirected": mutual,
            "seed": seed,
        }
        parts = _Parts(Path(folder), facts)
    result = _Whole(seen, hidden, run.settings.edge_types)
    with (
        ops.one_torch_thread(),
        torch.no_grad(),
        tqdm(total=len(states), desc="searching", unit="system", disable=None if progress else True) as bar,
    ):
        for view in views(seen):
            for ids in view.systems.split(SYSTEMS_AT_ONCE):
                part = None if parts is None else parts.read(int(ids[0]))
                some = view.of(ids)
                if part is None:
                    own = None if scale is None else scale[ids.to(run.device)]
                    cut = some.cut(states), some.cut_present(seen.present), own
                    part = _searched(run, *cut, hidden, ids, seed, mutual)
                    if parts is not None:
                        parts.write(int(ids[0]), part)
                result.put(some, part)
                bar.update(len(ids))
    return result.unseen


def _searched(
    run: Run,
    states: Tensor,
    present: Tensor | None,
    scale: Tensor | None,
    hidden: int,
    ids: Tensor,
    seed: int,
    undirected: bool,
) -> Unseen:
    """Of systems of one size, cut to the frames looked at."""
    device = run.device
    there = None if present is None else present.to(device)
    scene = Scene(run.whole_steps, run.error_measure(), states, hidden, ids.to(device), there, scale)
    return _summary(scene, search(scene, seed, undirected))


class _Whole:
    """What was found about all systems, put together from parts."""

    def __init__(self, seen: TrajectoryData, hidden: int, kinds: int) -> None:
        systems, steps, entities, features = seen.states.shape
        size, self._hidden = entities + hidden, hidden
        self._seen_sizes = seen.members.sum(1)
        sizes = self._seen_sizes + hidden
        members = torch.arange(size) < sizes[:, None]
        pairs = members[:, :, None] & members[:, None] & ~torch.eye(size, dtype=torch.bool)
        self.unseen = Unseen(
            torch.zeros(systems, size, size, dtype=torch.uint8),
            pairs[..., None].expand(-1, -1, -1, kinds).float() / kinds,
            torch.full((systems, steps, hidden, features), torch.nan),
            torch.full((systems, steps, entities, features), torch.nan),
            torch.zeros(systems),
            torch.zeros(systems, hidden),
            None if seen.sizes is None else sizes,
            None if seen.present is None else torch.zeros(systems, 2, dtype=torch.int64),
        )

    def put(self, view: View, part: Unseen) -> None:
        """Takes a view's systems."""
        to, ids = self.unseen, view.systems
        last = self._seen_sizes[ids][:, None] + torch.arange(self._hidden)
        places = torch.cat([view.entities, last], 1)
        pairs = ids[:, None, None], places[:, :, None], places[:, None]
        to.adjacency[pairs], to.probability[pairs] = part.adjacency, part.probability
        frames = slice(view.first, view.end)
        to.path[ids, frames] = part.path
        steps = torch.arange(view.first, view.end)[:, None]
        to.seen_path[ids[:, None, None], steps, view.entities[:, None]] = part.seen_path
        to.energy[ids], to.deviation[ids] = part.energy, part.deviation
        if to.frames is not None:
            to.frames[ids] = torch.tensor([view.first, view.end])


def _summary(scene: Scene, tried: Guesses) -> Unseen:
    """What a search came to, on the CPU."""
    systems, steps, kinds = len(scene.states), scene.last_step, scene.library.edge_types
    best = tried.take(ranked(systems, tried.objective, tried.types)[0][:, 0])
    rolled = scene.open_loop(best, best.start, steps)
    repeats = _repeats(scene, rolled)
    weights = _weights(tried, systems, repeats)
    paths = scene.open_loop(tried, tried.start, steps).path.view(systems, -1, *rolled.path.shape[1:])
    away = ((paths - rolled.path[:, None]).double() ** 2).mean((2, 4))
    between = torch.where(weights[:, :, None] > 0, weights[:, :, None] * away, 0.0).sum(1)
    energy = rolled.mean_square
    one_hot = torch.nn.functional.one_hot(tried.types.view(systems, -1, scene.edges.edges).long(), kinds)
    probability = (weights[:, :, None, None] * one_hot).sum(1).float()
    return Unseen(
        _adjacency(scene, best.types).cpu(),
        torch.stack([_adjacency(scene, p) for p in probability.unbind(-1)], -1).cpu(),
        rolled.path.cpu(),
        _seen_path(scene, best).cpu(),
        energy.float().cpu(),
        (between + _within(scene, best, rolled, energy * repeats)).sqrt().float().cpu(),
    )


def _repeats(scene: Scene, rolled: Rolled) -> Tensor:
    """[S] how many residuals count as one, since each resembles the one before it: (1 + c) / (1 - c), c their
    correlation at one step (an autoregression of first order).
    """
    residual = rolled.residual.view(len(rolled.residual), scene.last_step, -1).double()
    square = (residual**2).sum((1, 2)).clamp(min=torch.finfo(torch.float64).tiny)
    correlation = ((residual[:, 1:] * residual[:, :-1]).sum((1, 2)) / square).clamp(0.0, 1.0 - 1.0 / scene.last_step)
    return (1 + correlation) / (1 - correlation)


def _weights(tried: Guesses, systems: int, repeats: Tensor) -> Tensor:
    """[S, tried] shares of the posterior; of guesses with equal structures the best stands for all."""
    places, first = ranked(systems, tried.objective, tried.types)
    objective = tried.objective[places]
    shares = torch.exp((objective[:, :1] - objective) / repeats[:, None]).nan_to_num(0.0) * first
    shares = shares / shares.sum(1, keepdim=True)
    return torch.zeros_like(shares).flatten().scatter(0, places.flatten(), shares.flatten()).view_as(shares)


def _within(scene: Scene, best: Guesses, rolled: Rolled, variance: Tensor) -> Tensor:
    """[S, H] expected mean square of a path about the best one, its structure being right: slopes and curvature."""
    slopes, path_slopes = differences(scene, best, best.start, rolled, scene.last_step, False)
    spread = covariance(scene, best.owner, slopes, variance)
    square = torch.zeros_like(path_slopes[0])
    for a, row in zip(path_slopes, spread.unbind(1), strict=True):
        for b, value in zip(path_slopes, row.unbind(1), strict=True):
            square += value[:, None] * a * b
    return square.view_as(rolled.path).mean((1, 3)).clamp(min=0.0)


def _adjacency(scene: Scene, values: Tensor) -> Tensor:
    """[S, E] -> [S, N, N]."""
    result = values.new_zeros(len(values), scene.entities, scene.entities)
    result[:, scene.edges.sender, scene.edges.receiver] = values
    return result


def _seen_path(scene: Scene, best: Guesses) -> Tensor:
    """[S, T, No, D] that the roll-out predicts, the recorded first frame first; NaN for who is absent there."""
    recorded = scene.states[best.owner, :1]
    if scene.present is not None:
        recorded = torch.where(scene.present[best.owner, :1, :, None], recorded, torch.nan)
    predicted = scene.rolled_states(best, best.start, scene.last_step)
    return torch.cat([recorded, predicted[:, :, : scene.seen]], 1)


class _Parts:
    """Finished parts of a search on disk."""

    def __init__(self, folder: Path, facts: dict[str, object]) -> None:
        self.folder, self.facts = folder, facts
        folder.mkdir(parents=True, exist_ok=True)

    def read(self, first: int) -> Unseen | None:
        """The part that begins with this system, if it is there."""
        path = self._path(first)
        if not path.exists():
            return None
        tensors, facts = load(path)
        if facts != self.facts:
            raise CheckpointError(f"{path}: belongs to another search; expected {self.facts}, got {facts}")
        return Unseen(**tensors)

    def write(self, first: int, part: Unseen) -> None:
        """Keeps a part."""
        found = {field.name: getattr(part, field.name) for field in fields(Unseen)}
        save(self._path(first), {name: value for name, value in found.items() if value is not None}, self.facts)

    def _path(self, first: int) -> Path:
        return self.folder / f"systems-{first:09d}.safetensors"
