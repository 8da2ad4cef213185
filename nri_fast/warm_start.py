"""Training that goes on from another run's modules: what it takes over, and what must agree."""

from __future__ import annotations

import copy
import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from nri_fast.modules import ModuleLibrary
from nri_fast.settings import Settings

if TYPE_CHECKING:
    from nri_fast.run import Run

#: Settings that shape modules: a run and its start have the same.
SHAPES = ("edge_types", "node_types", "message", "edge_hidden", "node_hidden", "silent", "scaled")


@dataclass(frozen=True)
class WarmStart:
    """What training takes over from another run, beside its normalisation.

    Attributes
    ----------
    library : ModuleLibrary
        A copy of the modules that judge structures, their scale of change included.
    scale_squared : float or None
        s^2 of the robust error that the run ended with; None with the squared error.
    """

    library: ModuleLibrary
    scale_squared: float | None

    @classmethod
    def of(cls, run: Run, settings: Settings, feature_names: tuple[str, ...]) -> WarmStart:
        """Takes it from a run.

        Raises
        ------
        ValueError
            The data have other features than the run's, or the settings ask for other modules than it has.
        """
        if feature_names != run.normalisation.feature_names:
            raise ValueError(f"start: learned from features {run.normalisation.feature_names}, got {feature_names}")
        wanted, there = ({name: getattr(s, name) for name in SHAPES} for s in (settings, run.settings))
        for s, values in ((settings, wanted), (run.settings, there)):
            values["relative"] = tuple(name for name in feature_names if name in s.relative)
        for name, value in wanted.items():
            if there[name] != value:
                raise ValueError(f"start: its modules have {name} {there[name]}, but the settings {value}")
        return cls(copy.deepcopy(run.library), run.scale_squared)

    def digest(self) -> str:
        """SHA-256 of the modules: whether a run goes on from the same start."""
        digest = hashlib.sha256()
        for name, value in self.library.state_dict().items():
            digest.update(name.encode())
            digest.update(value.detach().cpu().contiguous().numpy().data)
        return digest.hexdigest()


def origin(run: Run, digest: str) -> dict[str, Any]:
    """What a run's file says of the run that it started from, and of that one's own start."""
    facts = {"modules": digest, "seed": run.seed, "trained_on": run.trained_on, "steps": run.settings.steps}
    return facts | {"started_from": run.started_from}
