"""The map from recorded units to the modules', learned on training data and kept with the run."""

from __future__ import annotations

import dataclasses
from typing import Any

import torch

from nri_fast.trajectory_data import TrajectoryData

POSITION_NAMES = ("x", "y", "z")
VELOCITY_NAMES = ("vx", "vy", "vz")


#: Angles, and the recorded sine of each. Modules see an angle's cosine in its place: unwrapped it grows without bound.
SINE_OF = {"phi": "sin_phi"}


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

    A feature that never changed (low equal to high, up to rounding) is moved to 0 and not scaled. An angle that is
    recorded beside its sine (:data:`SINE_OF`) becomes its cosine instead; both are left unscaled, so that the modules
    see a point on the circle.

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
            The training split: other splits must not take part, nor do states that are absent.

        Returns
        -------
        Normalisation
        """
        rows = data.rows(data.states)
        lows = rows.amin(dim=0).tolist()
        highs = rows.amax(dim=0).tolist()
        groups = [feature_group(name) for name in data.feature_names]
        low = [min(v for v, g in zip(lows, groups, strict=True) if g == group) for group in groups]
        high = [max(v for v, g in zip(highs, groups, strict=True) if g == group) for group in groups]
        for pair in _angles(data.feature_names):
            for d in pair:
                low[d], high[d] = -1.0, 1.0
        return cls(data.feature_names, tuple(low), tuple(high))

    def _centre_and_half_width(self, device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
        low = torch.tensor(self.low, dtype=torch.float64, device=device)
        high = torch.tensor(self.high, dtype=torch.float64, device=device)
        half = high / 2 - low / 2  # halved first: high - low may overflow
        # Widths at the level of rounding are no width; the floor keeps 1 / half finite.
        smallest = torch.clamp(1e-12 * torch.maximum(low.abs(), high.abs()), min=1e-300)
        return low / 2 + high / 2, torch.where(half > smallest, half, torch.ones_like(half))

    @property
    def half_widths(self) -> torch.Tensor:
        """[features] float64: recorded units that 1 in the modules' units stands for."""
        return self._centre_and_half_width(torch.device("cpu"))[1]

    def _check_features(self, states: torch.Tensor) -> None:
        if states.dim() < 1 or states.shape[-1] != len(self.low):
            raise ValueError(
                f"states: expected {len(self.low)} features {self.feature_names} in the last dimension, "
                f"got shape {list(states.shape)}"
            )

    def apply(self, states: torch.Tensor, dtype: torch.dtype = torch.float32) -> torch.Tensor:
        """Map recorded units to the modules'; values beyond the training range land beyond -1 and 1.

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
        mapped = (states.to(torch.float64) - centre) / half
        for angle, _ in _angles(self.feature_names):
            mapped[..., angle] = states[..., angle].to(torch.float64).cos()
        return mapped.to(dtype)

    def undo(self, states: torch.Tensor) -> torch.Tensor:
        """Map the modules' units back to recorded ones; an angle comes back between -pi and pi.

        Parameters
        ----------
        states : Tensor, [..., features]

        Returns
        -------
        Tensor, float64, [..., features]
        """
        self._check_features(states)
        centre, half = self._centre_and_half_width(states.device)
        recorded = states.to(torch.float64) * half + centre
        for angle, sine in _angles(self.feature_names):
            recorded[..., angle] = torch.atan2(recorded[..., sine], states[..., angle].to(torch.float64))
        return recorded

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


def _angles(feature_names: tuple[str, ...]) -> list[tuple[int, int]]:
    """Places of every angle and of its sine."""
    return [
        (feature_names.index(angle), feature_names.index(sine))
        for angle, sine in SINE_OF.items()
        if angle in feature_names and sine in feature_names
    ]
