"""Recorded trajectories of many systems, with or without their true graphs."""

from __future__ import annotations

import dataclasses

import numpy as np
import torch

from nri_fast.origin import Origin


@dataclasses.dataclass(frozen=True)
class TrajectoryData:
    """Recorded systems, in the units they were recorded in.

    Systems may have different numbers of entities: `sizes` says how many, and what lies behind them is padding, zero
    everywhere. Entities may come and go, frames may be lost, and some recordings may be shorter than others: `present`
    says which states there are, and the others are zero.

    States are kept in double precision so that a normalisation learned from them is exact to the last bits of what the
    network then sees in single precision (`Normalisation.apply` returns float32).

    Parameters
    ----------
    states : Tensor, float64, [systems, steps, entities, features]
        Any other floating-point tensor is converted.
    edges : Tensor, uint8, [systems, entities, entities], optional
        The true types: ``edges[s, i, j]`` is the type of the edge from entity i to entity j. The diagonal is zero.
    feature_names : tuple of str, [features]
        ``x, y, z`` are positions and ``vx, vy, vz`` velocities; other names mean nothing to the package.
    name : str
        What the data set is called, for instance ``springs5``.
    split : str
        ``train``, ``valid``, ``test``, or any other word.
    node_types : Tensor, uint8, [systems, entities], optional
        The true types of the entities.
    sizes : Tensor, int64, [systems], optional
        Number of entities of each system, if they differ; the largest is the number of entities of `states`. None (also
        after construction with equal sizes): every system has all of them.
    origin : Origin, optional
        Where the systems come from: recording, time step, names of entities.
    present : Tensor, bool, [systems, steps, entities], optional
        Whether an entity was recorded at a step; never behind a system's last entity. What `states` holds elsewhere is
        ignored, NaN included, and becomes zero. None (also after construction where nothing is absent): everything.

    Raises
    ------
    TypeError
        States, edges, node types, sizes or present that are no tensor of a suitable dtype.
    ValueError
        Wrong rank or shape, no systems, NaN or infinite states (system, step, entity and feature are named), a
        non-zero diagonal, sizes or present that do not fit, padding that is not zero.
    """

    states: torch.Tensor
    edges: torch.Tensor | None
    feature_names: tuple[str, ...]
    name: str = ""
    split: str = "train"
    node_types: torch.Tensor | None = None
    sizes: torch.Tensor | None = None
    origin: Origin | None = None
    present: torch.Tensor | None = None

    def __post_init__(self) -> None:
        """Check everything that later code relies on."""
        if not isinstance(self.states, torch.Tensor) or not self.states.is_floating_point():
            found = self.states.dtype if isinstance(self.states, torch.Tensor) else type(self.states).__name__
            raise TypeError(f"states: expected a floating-point tensor, got {found}")
        if self.states.dim() != 4:
            raise ValueError(
                "states: expected 4 dimensions [systems, steps, entities, features], "
                f"got {self.states.dim()} {list(self.states.shape)}"
            )
        object.__setattr__(self, "states", self.states.to(torch.float64))
        object.__setattr__(self, "feature_names", tuple(self.feature_names))
        if 0 in self.states.shape:
            raise ValueError(
                "states: expected at least one system, step, entity and feature, "
                f"got [systems, steps, entities, features] = {list(self.states.shape)}"
            )
        if len(self.feature_names) != self.features or len(set(self.feature_names)) != self.features:
            raise ValueError(
                f"feature_names: expected {self.features} different names, one a feature, got {self.feature_names}"
            )
        if self.present is not None:
            self._check_present(self.present)
            object.__setattr__(self, "states", self.states.masked_fill(~self.present[..., None], 0.0))
        check_finite(self.states, self.feature_names)
        if self.edges is not None:
            self._check_edges(self.edges)
        if self.node_types is not None:
            _check_types("node_types", self.node_types, "[systems, entities]", [self.systems, self.entities])
        if self.sizes is not None:
            self._check_sizes(self.sizes)
        if self.present is not None:
            self._check_members(self.present)
        if self.origin is not None and self.origin.entity_names.shape != (self.systems, self.entities):
            raise ValueError(
                f"origin: expected [systems, entities] = {[self.systems, self.entities]} names of entities, "
                f"got {list(self.origin.entity_names.shape)}"
            )

    def _check_edges(self, edges: torch.Tensor) -> None:
        shape = [self.systems, self.entities, self.entities]
        _check_types("edges", edges, "[systems, entities, entities]", shape)
        if bool(torch.diagonal(edges, dim1=1, dim2=2).any()):
            raise ValueError("edges: expected a zero diagonal (no entity acts on itself), got other types there")

    def _check_present(self, present: torch.Tensor) -> None:
        if not isinstance(present, torch.Tensor) or present.dtype != torch.bool:
            found = present.dtype if isinstance(present, torch.Tensor) else type(present).__name__
            raise TypeError(f"present: expected a bool tensor, got {found}")
        if present.shape != self.states.shape[:3]:
            raise ValueError(
                f"present: expected [systems, steps, entities] = {list(self.states.shape[:3])}, "
                f"got {list(present.shape)}"
            )

    def _check_members(self, present: torch.Tensor) -> None:
        members = self.members[:, None].expand(-1, self.steps, -1)
        outside = (present & ~members).nonzero()
        if len(outside):
            system, step, entity = outside[0].tolist()
            raise ValueError(
                f"present: expected nobody behind a system's last entity (sizes), got entity {entity} of system "
                f"{system} at step {step}"
            )
        if bool((present | ~members).all()):
            object.__setattr__(self, "present", None)

    def _check_sizes(self, sizes: torch.Tensor) -> None:
        if not isinstance(sizes, torch.Tensor) or sizes.dtype != torch.int64:
            found = sizes.dtype if isinstance(sizes, torch.Tensor) else type(sizes).__name__
            raise TypeError(f"sizes: expected an int64 tensor, got {found}")
        if list(sizes.shape) != [self.systems]:
            raise ValueError(f"sizes: expected [systems] = {[self.systems]}, got {list(sizes.shape)}")
        if int(sizes.min()) < 1 or int(sizes.max()) != self.entities:
            raise ValueError(
                f"sizes: expected 1 to {self.entities} entities, the largest system having {self.entities}, "
                f"got {int(sizes.min())} to {int(sizes.max())}"
            )
        if int(sizes.min()) == self.entities:
            object.__setattr__(self, "sizes", None)
            return
        absent = ~self.members
        padded: dict[str, torch.Tensor | None] = {
            "states": self.states.transpose(1, 2)[absent].flatten(1),
            "node_types": None if self.node_types is None else self.node_types[absent][:, None],
        }
        if self.edges is not None:
            padded["edges"] = torch.cat([self.edges[absent], self.edges.transpose(1, 2)[absent]])
        for name, values in padded.items():
            if values is not None and bool((values != 0).any()):
                raise ValueError(f"{name}: expected zeros behind a system's last entity (sizes), got other numbers")

    @property
    def members(self) -> torch.Tensor:
        """[systems, entities] bool: whether an entity is one of its system, and not padding."""
        if self.sizes is None:
            return torch.ones(self.systems, self.entities, dtype=torch.bool, device=self.states.device)
        return torch.arange(self.entities, device=self.sizes.device) < self.sizes[:, None]

    @property
    def there(self) -> torch.Tensor:
        """[systems, steps, entities] bool: whether there is a state."""
        return self.members[:, None].expand(-1, self.steps, -1) if self.present is None else self.present

    @property
    def lengths(self) -> torch.Tensor:
        """[systems] int64: steps of each recording, up to the last one at which anybody is there."""
        steps = torch.arange(1, self.steps + 1, device=self.states.device)
        return (self.there.any(-1) * steps).amax(1)

    @property
    def pairs(self) -> torch.Tensor:
        """[systems, entities, entities] bool: two different entities, both of them of the system."""
        here = self.members
        return here[:, :, None] & here[:, None] & ~torch.eye(self.entities, dtype=torch.bool, device=here.device)

    def rows(self, values: torch.Tensor) -> torch.Tensor:
        """What `values` [systems, steps, entities, ...] say of states that are there: [rows, ...]."""
        if self.sizes is None and self.present is None:
            return values.flatten(0, 2)
        return values[self.there.to(values.device)]

    @property
    def systems(self) -> int:
        """Number of systems."""
        return self.states.shape[0]

    @property
    def steps(self) -> int:
        """Number of recorded steps."""
        return self.states.shape[1]

    @property
    def entities(self) -> int:
        """Number of entities of a system; of the largest, if they differ."""
        return self.states.shape[2]

    @property
    def features(self) -> int:
        """Number of features of an entity."""
        return self.states.shape[3]

    def part(self, steps: slice) -> TrajectoryData:
        """Some steps of every system, without labels."""
        present = None if self.present is None else self.present[:, steps]
        return dataclasses.replace(self, states=self.states[:, steps], edges=None, node_types=None, present=present)

    def select(self, systems: torch.Tensor) -> TrajectoryData:
        """Keep some of the systems, in the order given.

        Parameters
        ----------
        systems : Tensor, int64, [kept]
            Indices of the systems to keep.

        Returns
        -------
        TrajectoryData
        """
        sizes = None if self.sizes is None else self.sizes[systems]
        n = self.entities if sizes is None or not len(sizes) else int(sizes.max())
        return dataclasses.replace(
            self,
            states=self.states[systems][:, :, :n],
            edges=None if self.edges is None else self.edges[systems][:, :n, :n],
            node_types=None if self.node_types is None else self.node_types[systems][:, :n],
            sizes=sizes,
            origin=None if self.origin is None else self.origin.select(systems, n),
            present=None if self.present is None else self.present[systems][:, :, :n],
        )


def _check_types(argument: str, types: torch.Tensor, dimensions: str, shape: list[int]) -> None:
    if not isinstance(types, torch.Tensor) or types.dtype != torch.uint8:
        found = types.dtype if isinstance(types, torch.Tensor) else type(types).__name__
        raise TypeError(f"{argument}: expected a uint8 tensor, got {found}")
    if list(types.shape) != shape:
        raise ValueError(f"{argument}: expected {dimensions} = {shape}, got {list(types.shape)}")


def check_finite(states: torch.Tensor, feature_names: tuple[str, ...]) -> None:
    """Refuse NaN and infinity.

    Parameters
    ----------
    states : Tensor, [systems, steps, entities, features]
    feature_names : tuple of str, [features]

    Raises
    ------
    ValueError
        Names the first offending system, step, entity and feature, and how many values are bad.
    """
    finite = torch.isfinite(states)
    if bool(finite.all()):
        return
    bad = torch.nonzero(~finite)
    system, step, entity, feature = (int(i) for i in bad[0])
    raise ValueError(
        f"states: expected finite numbers, got {float(states[system, step, entity, feature])} at system {system}, "
        f"step {step}, entity {entity}, feature {feature_names[feature]!r} ({len(bad)} bad values in all)"
    )


def hold_out(
    data: TrajectoryData, fraction: float | None = None, count: int | None = None, seed: int = 0
) -> tuple[TrajectoryData, TrajectoryData]:
    """Split by system, at random: no system is in both parts.

    Parameters
    ----------
    data : TrajectoryData
    fraction : float, in (0, 1)
        Share of the systems to hold out (rounded, at least one). Give this or `count`.
    count : int
        How many systems to hold out.
    seed : int
        The same seed draws the same systems.

    Returns
    -------
    kept, held_out : TrajectoryData
        Both in the order of `data`.

    Raises
    ------
    ValueError
        Both or neither of `fraction` and `count` given, or one part would be empty.
    """
    if (fraction is None) == (count is None):
        raise ValueError(f"hold_out: expected either fraction or count, got fraction={fraction}, count={count}")
    if fraction is not None:
        if not 0 < fraction < 1:
            raise ValueError(f"fraction: expected a number between 0 and 1, got {fraction}")
        count = max(1, round(fraction * data.systems))
    assert count is not None
    held_out = draw_systems(data.systems, count, seed)
    keep = torch.ones(data.systems, dtype=torch.bool)
    keep[held_out] = False
    return data.select(keep.nonzero().flatten()), data.select(held_out)


def draw_systems(systems: int, count: int, seed: int) -> torch.Tensor:
    """Places of the systems that `hold_out` sets aside: int64 [count], ascending."""
    if not 0 < count < systems:
        raise ValueError(f"hold_out: expected 1 to {systems - 1} of {systems} systems, got {count}")
    order = np.random.Generator(np.random.Philox(key=seed)).permutation(systems)
    return torch.from_numpy(np.sort(order[:count]))
