"""The command ``nri-fast train``."""

from __future__ import annotations

import dataclasses
import shlex
import shutil
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import tyro

from nri_fast.commands.arguments import Device, choose_device, optional
from nri_fast.settings import PRESETS, Bounce, NetworkKind, Proposal, ProposalSource, Rule, Settings

if TYPE_CHECKING:
    from nri_fast.plan import Plan


@dataclasses.dataclass(frozen=True, kw_only=True)
class Train:
    """Learn modules, and who acts on whom, from trajectories alone. Labels in the data are never looked at."""

    data: Annotated[
        tyro.conf.Positional[Path | None],
        tyro.conf.arg(metavar="DATA", help_behavior_hint="(may be left out with --resume)"),
    ] = None
    """Folder of NRI's .npy files or of .npz files, or one .npz file (arrays: states [systems, steps, entities,
    features], and if you like feature_names)."""
    out: Path
    """Folder for the run: new or empty, unless --resume."""
    resume: bool = False
    """Continue a run that was stopped or killed. Everything else is remembered; the result equals that of an
    undisturbed run to the bit."""
    preset: Annotated[str | None, optional("{" + ",".join(PRESETS) + "}", "springs")] = None
    """Settings to start from; the options below change some of them."""
    split: Annotated[str | None, optional("SPLIT", "train")] = None
    """Which split of the data to train on."""
    name: Annotated[str | None, optional("NAME", "the only one there")] = None
    """Which data set, where the folder holds several: springs5 for loc_train_springs5.npy."""
    hold_out: Annotated[int | None, optional("SYSTEMS", "0")] = None
    """Systems to set aside, drawn at random by the seed, for `evaluate --held-out`. The run remembers which."""
    seed: Annotated[int | None, optional("INT", "0")] = None
    """Names every random draw of the run."""
    starts: Annotated[int | None, optional("INT", "1")] = None
    """Train so many times, with the seeds SEED, SEED + 1, ..., and keep the run whose graphs predict best: found in the
    first half of every recording, judged in the second. Training can end at chance; three starts make that rare."""
    start: Annotated[Path | None, optional("RUN", "random weights")] = None
    """Finished run whose modules to begin with, say one of smaller systems. A copy is kept with the new run."""
    tensorboard: bool = False
    """Write the curves while it trains: `tensorboard --logdir RUN` draws them. Needs nri_fast[tensorboard]."""
    device: Device = "auto"
    """Where to compute; auto takes a GPU if there is one that this build has kernels for."""
    steps: Annotated[int | None, optional("INT", "the preset's")] = None
    """Gradient steps with a search of structures in each."""
    polish_steps: Annotated[int | None, optional("INT", "the preset's")] = None
    """Gradient steps behind those, on forecasts over several steps with the structures found."""
    batch: Annotated[int | None, optional("SYSTEMS", "the preset's")] = None
    """Systems per gradient step."""
    edge_types: Annotated[int | None, optional("INT", "the preset's")] = None
    """Types of edges to tell apart, "no interaction" included if there is such a type."""
    node_types: Annotated[int | None, optional("INT", "the preset's")] = None
    """Types of entities to tell apart."""
    silent: Annotated[bool | None, optional("{True,False}", "the preset's")] = None
    """Whether edge type 0 is fixed to mean "no interaction"."""
    undirected: Annotated[bool | None, optional("{True,False}", "the preset's")] = None
    """Whether i acts on j as j acts on i: one type for both directions of a pair."""
    shared: Annotated[bool | None, optional("{True,False}", "the preset's")] = None
    """Whether all systems are recordings of one structure: it is then judged by all of them together."""
    neighbours: Annotated[int | None, optional("INT", "the preset's: all")] = None
    """Look for edges only from an entity's so many nearest ones, by the mean distance through a recording."""
    radius: Annotated[float | None, optional("DISTANCE", "the preset's: any")] = None
    """Look for edges only from entities no farther away on average, in recorded units."""
    block: Annotated[int | None, optional("INT", "the preset's")] = None
    """Weigh at most so many sets of an entity's senders jointly; where there are more, every step frees a random choice
    of edges. Smaller is faster with ten entities or more."""
    judged: Annotated[tuple[str, ...] | None, optional("[FEATURE ...]", "the preset's")] = None
    """Features whose one-step prediction judges structures; none after the option: all of them."""
    relative: Annotated[tuple[str, ...] | None, optional("[FEATURE ...]", "the preset's")] = None
    """Features that count only as sender minus receiver; none after the option: positions count as such."""
    linear_start: Annotated[bool | None, optional("{True,False}", "the preset's")] = None
    """Whether modules of entities begin with the best linear prediction from an entity's own state."""
    message: Annotated[int | None, optional("INT", "the preset's")] = None
    """Width of a message from one entity to another."""
    edge_hidden: Annotated[tuple[int, ...] | None, optional("[INT ...]", "the preset's")] = None
    """Hidden widths of the edge modules."""
    node_hidden: Annotated[tuple[int, ...] | None, optional("[INT ...]", "the preset's")] = None
    """Hidden widths of the node modules."""
    bounce: Annotated[Bounce | None, optional("{soft,sampled,metropolis}", "the preset's")] = None
    """How structures are searched: heat bath over all of them, heat bath drawing one, or the paper's chain."""
    network: Annotated[
        NetworkKind | None, optional("{none,mlp,cnn,structure,mlp+structure,cnn+structure}", "the preset's")
    ] = None
    """A proposal network that learns to imitate the structures: it sees the recordings (mlp: of one length; cnn: of
    any), the rest of the graph (structure), or both in turn. `infer --search network` then answers without a search."""
    network_hidden: Annotated[int | None, optional("INT", "the preset's")] = None
    """Width of the proposal network."""
    proposal: Annotated[Proposal | None, optional("{random,edge,node,flip,system}", "the preset's")] = None
    """What a proposal of the chain changes: a random edge; or, drawn from probabilities, one edge, all edges into one
    entity, the same with other types than now, or everything."""
    proposal_source: Annotated[ProposalSource | None, optional("{network,heat_bath,both}", "the preset's")] = None
    """Whose probabilities those are: the network's, those of one-step errors, or the mean of both."""
    rule: Annotated[Rule | None, optional("{hastings,plain}", "the preset's")] = None
    """How proposals are accepted: so that the chain samples (Metropolis-Hastings), or by the paper's plain rule."""
    rollout: Annotated[int | None, optional("STEPS", "the preset's")] = None
    """Steps that a roll-out takes between two recorded states."""
    learning_rate: Annotated[float | None, optional("FLOAT", "the preset's")] = None
    """Peak learning rate."""
    last_scale: Annotated[float | None, optional("FLOAT", "the preset's")] = None
    """Lowest s^2 of the robust error, in variances of one step's change. Noisy data keep it above by themselves."""

    def run(self) -> None:
        """Trains and leaves the run in its folder."""
        from nri_fast.plan import PLAN_FILE, START
        from nri_fast.run import RUN_FILE, Run, train
        from nri_fast.starts import STARTS, train_starts
        from nri_fast.tensorboard_log import summary_writer

        device = choose_device(self.device)
        if self.tensorboard:
            try:
                summary_writer()
            except ImportError as problem:
                raise ValueError(f"--tensorboard: {problem}") from problem
        if self.resume:
            plan = self._plan_to_resume()
            if (self.out / RUN_FILE).exists():
                print(f"{self.out}: this run is finished already")
                return
        else:
            plan = self._new_plan()
        settings, data = Settings.from_dict(plan.settings), plan.load(self.data)
        kept = plan.kept(data)
        start = None if plan.start is None else Run.load(self.out / START)
        started = time.monotonic()
        # Resumed in any case: the folder holds the plan, and without a checkpoint it means from the first step.
        how: dict[str, Any] = {
            "settings": settings,
            "seed": plan.seed,
            "device": device,
            "out": self.out,
            "resume": True,
        }
        try:
            if plan.starts > 1:
                best = train_starts(kept, plan.starts, tensorboard=self.tensorboard, **how)
                print(f"kept: seed {best.seed} of {plan.starts} starts")
            else:
                train(kept, start=start, tensorboard=self.tensorboard, **how)
        except ValueError:
            if not self.resume:  # nothing was trained: leave the name free for a better attempt
                (self.out / PLAN_FILE).unlink()
                shutil.rmtree(self.out / STARTS, ignore_errors=True)
                if start is not None:
                    shutil.rmtree(self.out / START)
            raise
        where = "--held-out" if plan.held_out else f"--split {'test' if plan.split == 'train' else plan.split}"
        print(f"trained on {kept.systems} systems in {time.monotonic() - started:.1f} s: {self.out}")
        paths = shlex.join([str(self.out), str(self.data or plan.data)])
        print(f"next: nri-fast evaluate {paths} {where}")

    def _new_plan(self) -> Plan:
        from nri_fast.plan import START, Plan
        from nri_fast.run import Run

        if self.data is None:
            raise ValueError("DATA: expected a folder or an .npz file to train on (only --resume goes without)")
        if self.out.exists() and (not self.out.is_dir() or any(self.out.iterdir())):
            raise FileExistsError(f"{self.out}: already there and not empty; pass another --out, or --resume to go on")
        preset = self.preset or "springs"
        if preset not in PRESETS:
            raise ValueError(f"--preset: expected one of {', '.join(PRESETS)}, got {preset!r}")
        settings = dataclasses.replace(PRESETS[preset], **self._overrides())
        split, seed, hold_out = self.split or "train", self.seed or 0, self.hold_out or 0
        starts = 1 if self.starts is None else self.starts
        if starts < 1 or (starts > 1 and self.start is not None):
            raise ValueError(f"--starts: expected 1 or more, and 1 with --start, got {starts}")
        start = None if self.start is None else Run.load(self.start)
        plan = Plan.make(self.data, split, self.name, settings, seed, hold_out, self.start, starts)
        if plan.steps < settings.least_steps:
            raise ValueError(
                f"{self.data}: expected recordings of at least {settings.least_steps} steps, got {plan.steps}"
            )
        if start is not None:
            start.save(self.out / START)
        plan.write(self.out)
        return plan

    def _plan_to_resume(self) -> Plan:
        from nri_fast.plan import Plan

        plan = Plan.read(self.out)
        asked = self._overrides() | {
            name: getattr(self, name) for name in ("split", "name", "seed", "starts") if getattr(self, name) is not None
        }
        if self.start is not None:
            asked["start"] = str(self.start.resolve())
        if self.hold_out is not None:
            asked["hold_out"] = self.hold_out
        planned = plan.settings | {
            "split": plan.split,
            "name": plan.name,
            "seed": plan.seed,
            "hold_out": len(plan.held_out),
            "start": plan.start,
            "starts": plan.starts,
        }
        if self.preset is not None:
            preset = PRESETS.get(self.preset)
            if preset is None or Settings.from_dict(plan.settings) != dataclasses.replace(preset, **self._overrides()):
                raise ValueError(f"--preset: {self.out} was started with other settings; --resume alone remembers them")
        for name, value in asked.items():
            before = planned[name]
            if (list(value) if isinstance(value, tuple) else value) != before:
                option = "--" + name.replace("_", "-")
                raise ValueError(
                    f"{option}: {self.out} was started with {before}, got {value}; --resume alone remembers it"
                )
        return plan

    def _overrides(self) -> dict[str, Any]:
        names = {field.name for field in dataclasses.fields(Settings)}
        given = {field.name: getattr(self, field.name) for field in dataclasses.fields(self) if field.name in names}
        return {name: value for name, value in given.items() if value is not None}


EXAMPLES: dict[type, str] = {
    Train: """
examples:
  nri-fast train data --out runs/springs
  nri-fast train data --out runs/charged --preset charged --hold-out 100
  nri-fast train --out runs/charged --resume""",
}
