"""The command ``nri-fast experiment``."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Annotated, Literal

import tyro

from nri_fast.commands.arguments import Device, choose_device, optional
from nri_fast.experiments import EXPERIMENTS


@dataclasses.dataclass(frozen=True, kw_only=True)
class Experiment:
    """Repeat an experiment of the paper, or one beyond it: small by default, in resumable parts, with a table, a figure
    and a result file.
    """

    name: Annotated[tyro.conf.Positional[str], tyro.conf.arg(metavar="{" + ",".join(EXPERIMENTS) + "}")]
    """Which one; they are explained below."""
    data: Annotated[
        tuple[Path, ...], tyro.conf.arg(metavar="[FILE ...]", help_behavior_hint="(for mocap, platoons, vehicles)")
    ] = ()
    """Recordings, for the experiments on real ones: platoons.npz, tracks.npz, or 35.asf and its .amc files (or a
    folder, or an archive of them)."""
    test: Annotated[
        tuple[Path, ...], tyro.conf.arg(metavar="[FILE ...]", help_behavior_hint="(for platoons, vehicles)")
    ] = ()
    """Recordings to judge by, none of which is learned from. Without: --data is divided into parts, each of which is
    judged by what was learned from the others."""
    scale: Literal["small", "full"] = "small"
    """A minute or so, which shows that it works, or the full size (hours, for some)."""
    out: Annotated[Path | None, optional("DIR", "nri-fast-NAME")] = None
    """Folder for everything: new or empty, unless --resume."""
    resume: bool = False
    """Go on in a folder that was begun with the same name, scale and seed. What is finished is not repeated."""
    seed: int = 1
    """Names the random numbers; repetitions use the seeds behind it."""
    device: Device = "auto"
    """Where to compute."""

    def run(self) -> None:
        """Runs the experiment."""
        from nri_fast.experiments.runner import run_experiment

        device = choose_device(self.device)
        run_experiment(self.name, self.scale, self.out, self.resume, self.seed, device, data=self.data, test=self.test)


EXAMPLES: dict[type, str] = {
    Experiment: f"""
experiments:
{chr(10).join(f"  {name:16} {what}" for name, what in EXPERIMENTS.items())}

examples:
  nri-fast experiment calibration
  nri-fast experiment platoons --data platoons.npz
  nri-fast experiment vehicles --data monday.npz --test tuesday.npz
  nri-fast experiment accuracy --scale full --out accuracy
  nri-fast experiment accuracy --scale full --out accuracy --resume""",
}
