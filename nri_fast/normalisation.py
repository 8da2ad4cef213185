"""The map from recorded units to [-1, 1], learned on training data and kept with the run."""

from __future__ import annotations

import dataclasses
from typing import Any

import torch

from nri_fast.trajectory_data import TrajectoryData

POSITION_NAMES = ("x", "y", "z")
VELOCITY_NAMES = ("vx", "vy", "vz")


def feature_group(name: str) -> str:
    """Name of the group that a feature shares its range with.

    Positions share one range and velocities share one, as in NRI (Kipf et al., ICML 2018): directions stay directions.
    Any other feature is alone.
    """
    if name in POSITION_NAMES:
        return "position"
    return "velocity" if name in VELOCITY_NAMES else name


@dataclasses.dataclass(frozen=True)
class Normalisation:
    """A linear map of each feature: `low` becomes -1 and `high` becomes 1.

    A feature that never changed (low equal to high, up to rounding) is moved to 0 and not scaled.

    Parameters
    ----------
    feature_names : tuple of str, [features]
    low, high : tuple of float, [features]
        In recorded units, finite, low <= high.
    """

    feature_names: tuple[str, ...]
    low: tuple[float, ...]
    high: tuple[float, ...]

    def __post_init__(self) -> None:
        """Check the ranges."""
        if not len(self.feature_names) == len(self.low) == len(self.high):
            raise ValueError(
                "normalisation: expected as many feature names as low and high values, "
                f"got {len(self.feature_names)}, {len(self.low)} and {len(self.high)}"
            )
        for name, low, high in zip(self.feature_names, self.low, self.high, strict=True):
            if not (float("-inf") < low <= high < float("inf")):
                raise ValueError(f"normalisation: expected finite low <= high for {name!r}, got {low} and {high}")

    @classmethod
    def learn(cls, data: TrajectoryData) -> Normalisation:
        """Learn the ranges of the feature groups.

        Parameters
        ----------
        data : TrajectoryData
            The training split: other splits must not take part.

        Returns
        -------
        Normalisation
        """
        lows = data.states.amin(dim=(0, 1, 2)).tolist()
        highs = data.states.amax(dim=(0, 1, 2)).tolist()
        groups = [feature_group(name) for name in data.feature_names]
        low = tuple(min(v for v, g in zip(lows, groups, strict=True) if g == group) for group in groups)
        high = tuple(max(v for v, g in zip(highs, groups, strict=True) if g == group) for group in groups)
        return cls(data.feature_names, low, high)

    def _centre_and_half_width(self, device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
        low = torch.tensor(self.low, dtype=torch.float64, device=device)
        high = torch.tensor(self.high, dtype=torch.float64, device=device)
        half = high / 2 - low / 2  # halved first: high - low may overflow
        # Widths at the level of rounding are no width; the floor keeps 1 / half finite.
        smallest = torch.clamp(1e-12 * torch.maximum(low.abs(), high.abs()), min=1e-300)
        return low / 2 + high / 2, torch.where(half > smallest, half, torch.ones_like(half))

    def _check_features(self, states: torch.Tensor) -> None:
        if states.dim() < 1 or states.shape[-1] != len(self.low):
            raise ValueError(
                f"states: expected {len(self.low)} features {self.feature_names} in the last dimension, "
                f"got shape {list(states.shape)}"
            )

    def apply(self, states: torch.Tensor, dtype: torch.dtype = torch.float32) -> torch.Tensor:
        """Map recorded units to [-1, 1]; values beyond the training range land beyond it.

        Parameters
        ----------
        states : Tensor, [..., features]
        dtype : torch.dtype
            Of the result; the arithmetic is in float64.

        Returns
        -------
        Tensor, [..., features]
        """
        self._check_features(states)
        centre, half = self._centre_and_half_width(states.device)
        return ((states.to(torch.float64) - centre) / half).to(dtype)

    def undo(self, states: torch.Tensor) -> torch.Tensor:
        """Map normalised states back to recorded units.

        Parameters
        ----------
        states : Tensor, [..., features]

        Returns
        -------
        Tensor, float64, [..., features]
        """
        self._check_features(states)
        centre, half = self._centre_and_half_width(states.device)
        return states.to(torch.float64) * half + centre

    def to_dict(self) -> dict[str, Any]:
        """Return plain lists, ready for JSON (Python's JSON keeps every bit of a float)."""
        return {"feature_names": list(self.feature_names), "low": list(self.low), "high": list(self.high)}

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Normalisation:
        """Read what `to_dict` wrote.

        Raises
        ------
        ValueError
            A key is missing or a range is no pair of finite numbers.
        """
        try:
            names, low, high = values["feature_names"], values["low"], values["high"]
            return cls(tuple(str(n) for n in names), tuple(float(v) for v in low), tuple(float(v) for v in high))
        except (KeyError, TypeError) as problem:
            raise ValueError(f"normalisation: expected feature_names, low and high, got {values!r}") from problem
