"""The commands of the command line, each a dataclass of its arguments with a method that runs it.

What a command needs is imported when it runs: `nri-fast doctor` must work where the native module does not.
"""

from __future__ import annotations

import dataclasses
import io
import json
import shlex
import shutil
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import tyro

from nri_fast.experiments import EXPERIMENTS
from nri_fast.settings import (
    PRESETS,
    Bounce,
    NetworkKind,
    Proposal,
    ProposalSource,
    Rule,
    Search,
    Settings,
)

if TYPE_CHECKING:
    import torch

    from nri_fast.plan import Plan
    from nri_fast.run import Run
    from nri_fast.trajectory_data import TrajectoryData

PIECE = 500  # systems simulated between two updates of the progress bar

Device = Literal["auto", "cpu", "cuda"]


def _optional(metavar: str, otherwise: str) -> Any:
    """Shows an argument that may be left out with its kind and with what stands in for it."""
    return tyro.conf.arg(metavar=metavar, help_behavior_hint=f"(otherwise: {otherwise})")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Simulate:
    """Simulate systems with random graphs and write them, true graphs included, as NRI's .npy files."""

    kind: tyro.conf.Positional[
        Literal["springs", "charged", "kuramoto", "springs3", "springs_mass", "kuramoto_directed"]
    ]
    """Springs between some pairs, charges that attract or repel, or coupled phase oscillators; springs3: no, weak or
    strong springs; springs_mass: light and heavy bodies; kuramoto_directed: who acts is not always acted upon."""
    systems: int
    """How many systems to simulate."""
    out: Path
    """Folder for the files (or one FILE.npz). Files that are there already are never overwritten."""
    entities: int = 5
    """Entities (bodies, oscillators) of each system."""
    steps: int = 49
    """Recorded steps; one step is 0.1 time units."""
    seed: int = 0
    """Names the random numbers: the same seed gives the same systems, bit for bit."""
    split: Literal["train", "valid", "test"] = "train"
    """Which split to write. No seed repeats a system of another split."""
    noise: float = 0.0
    """Standard deviation of Gaussian noise added to every recorded number, in the feature's units."""
    noise_share: float = 0.0
    """The same as a share of the spread of positions, of velocities, and of any other feature: 0.01 for 1 %."""

    def run(self) -> None:
        """Simulates and writes."""
        from tqdm import tqdm

        from nri_fast.formats import save_trajectories
        from nri_fast.simulate import data_name, simulate

        # Said now, and not after minutes of work.
        name = data_name(self.kind, self.entities)
        there = [self.out] if self.out.suffix == ".npz" else self.out.glob(f"*_{self.split}_{name}.*")
        for file in there:
            _refuse_existing(file)
        pieces = []
        with tqdm(total=self.systems, desc="simulating", unit="system", disable=None) as bar:
            # Where no systems are asked for there is one call, which says what is wrong.
            for first in range(0, self.systems, PIECE) or [0]:
                count = min(PIECE, self.systems - first)
                pieces.append(
                    simulate(
                        self.kind,
                        count,
                        self.entities,
                        self.steps,
                        self.seed,
                        self.split,
                        first_system=first,
                        noise=self.noise,
                        noise_share=self.noise_share,
                    )
                )
                bar.update(count)
        data = _joined(pieces)
        for file in save_trajectories(data, self.out):
            print(file)
        print(f"{data.systems} systems of {data.entities} entities, {data.steps} steps, features {_list(data)}")


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
    preset: Annotated[str | None, _optional("{" + ",".join(PRESETS) + "}", "springs")] = None
    """Settings to start from; the options below change some of them."""
    split: Annotated[str | None, _optional("SPLIT", "train")] = None
    """Which split of the data to train on."""
    name: Annotated[str | None, _optional("NAME", "the only one there")] = None
    """Which data set, where the folder holds several: springs5 for loc_train_springs5.npy."""
    hold_out: Annotated[int | None, _optional("SYSTEMS", "0")] = None
    """Systems to set aside, drawn at random by the seed, for `evaluate --held-out`. The run remembers which."""
    seed: Annotated[int | None, _optional("INT", "0")] = None
    """Names every random draw of the run."""
    start: Annotated[Path | None, _optional("RUN", "random weights")] = None
    """Finished run whose modules to begin with, say one of smaller systems. A copy is kept with the new run."""
    device: Device = "auto"
    """Where to compute; auto takes a GPU if there is one that this build has kernels for."""
    steps: Annotated[int | None, _optional("INT", "the preset's")] = None
    """Gradient steps with a search of structures in each."""
    polish_steps: Annotated[int | None, _optional("INT", "the preset's")] = None
    """Gradient steps behind those, on forecasts over several steps with the structures found."""
    batch: Annotated[int | None, _optional("SYSTEMS", "the preset's")] = None
    """Systems per gradient step."""
    edge_types: Annotated[int | None, _optional("INT", "the preset's")] = None
    """Types of edges to tell apart, "no interaction" included if there is such a type."""
    node_types: Annotated[int | None, _optional("INT", "the preset's")] = None
    """Types of entities to tell apart."""
    silent: Annotated[bool | None, _optional("{True,False}", "the preset's")] = None
    """Whether edge type 0 is fixed to mean "no interaction"."""
    undirected: Annotated[bool | None, _optional("{True,False}", "the preset's")] = None
    """Whether i acts on j as j acts on i: one type for both directions of a pair."""
    shared: Annotated[bool | None, _optional("{True,False}", "the preset's")] = None
    """Whether all systems are recordings of one structure: it is then judged by all of them together."""
    judged: Annotated[tuple[str, ...] | None, _optional("[FEATURE ...]", "the preset's")] = None
    """Features whose one-step prediction judges structures; none after the option: all of them."""
    relative: Annotated[tuple[str, ...] | None, _optional("[FEATURE ...]", "the preset's")] = None
    """Features that count only as sender minus receiver; none after the option: positions count as such."""
    message: Annotated[int | None, _optional("INT", "the preset's")] = None
    """Width of a message from one entity to another."""
    edge_hidden: Annotated[tuple[int, ...] | None, _optional("[INT ...]", "the preset's")] = None
    """Hidden widths of the edge modules."""
    node_hidden: Annotated[tuple[int, ...] | None, _optional("[INT ...]", "the preset's")] = None
    """Hidden widths of the node modules."""
    bounce: Annotated[Bounce | None, _optional("{soft,sampled,metropolis}", "the preset's")] = None
    """How structures are searched: heat bath over all of them, heat bath drawing one, or the paper's chain."""
    network: Annotated[
        NetworkKind | None, _optional("{none,mlp,cnn,structure,mlp+structure,cnn+structure}", "the preset's")
    ] = None
    """A proposal network that learns to imitate the structures: it sees the recordings (mlp: of one length; cnn: of
    any), the rest of the graph (structure), or both in turn. `infer --search network` then answers without a search."""
    network_hidden: Annotated[int | None, _optional("INT", "the preset's")] = None
    """Width of the proposal network."""
    proposal: Annotated[Proposal | None, _optional("{random,edge,node,flip,system}", "the preset's")] = None
    """What a proposal of the chain changes: a random edge; or, drawn from probabilities, one edge, all edges into one
    entity, the same with other types than now, or everything."""
    proposal_source: Annotated[ProposalSource | None, _optional("{network,heat_bath,both}", "the preset's")] = None
    """Whose probabilities those are: the network's, those of one-step errors, or the mean of both."""
    rule: Annotated[Rule | None, _optional("{hastings,plain}", "the preset's")] = None
    """How proposals are accepted: so that the chain samples (Metropolis-Hastings), or by the paper's plain rule."""
    rollout: Annotated[int | None, _optional("STEPS", "the preset's")] = None
    """Steps that a roll-out takes between two recorded states."""
    learning_rate: Annotated[float | None, _optional("FLOAT", "the preset's")] = None
    """Peak learning rate."""
    last_scale: Annotated[float | None, _optional("FLOAT", "the preset's")] = None
    """Lowest s^2 of the robust error, in variances of one step's change. Noisy data keep it above by themselves."""

    def run(self) -> None:
        """Trains and leaves the run in its folder."""
        from nri_fast.plan import PLAN_FILE, START
        from nri_fast.run import RUN_FILE, Run, train

        device = choose_device(self.device)
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
        try:
            # Resumed in any case: the folder holds the plan, and without a checkpoint it means from the first step.
            train(kept, settings=settings, seed=plan.seed, device=device, out=self.out, resume=True, start=start)
        except ValueError:
            if not self.resume:  # nothing was trained: leave the name free for a better attempt
                (self.out / PLAN_FILE).unlink()
                if start is not None:
                    shutil.rmtree(self.out / START)
            raise
        where = "--held-out" if plan.held_out else "--split test"
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
        start = None if self.start is None else Run.load(self.start)
        plan = Plan.make(self.data, split, self.name, settings, seed, hold_out, self.start)
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
            name: getattr(self, name) for name in ("split", "name", "seed") if getattr(self, name) is not None
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


@dataclasses.dataclass(frozen=True, kw_only=True)
class Chosen:
    """Arguments by which commands choose their run and their systems."""

    run_folder: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="RUN")]
    """Folder of a finished run."""
    data: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="DATA")]
    """Folder of NRI's .npy files or of .npz files, or one .npz file."""
    split: str = "test"
    """Which split of the data."""
    name: Annotated[str | None, _optional("NAME", "the only one there")] = None
    """Which data set, where the folder holds several."""
    held_out: bool = False
    """Only the systems that the run set aside (train --hold-out), in the data and split that it was trained on."""
    device: Device = "auto"
    """Where to compute."""

    def load(self) -> tuple[Run, TrajectoryData, torch.Tensor]:
        """The run, the systems, and each system's place in its file."""
        import torch

        from nri_fast.run import Run

        run = Run.load(self.run_folder, choose_device(self.device))
        data, systems = self._data()
        return run, data, torch.arange(data.systems) if systems is None else systems

    def _data(self) -> tuple[TrajectoryData, torch.Tensor | None]:
        import torch

        from nri_fast.formats import load_trajectories
        from nri_fast.plan import PLAN_FILE, Plan, digest_of

        if self.held_out:
            plan = Plan.read(self.run_folder)
            if not plan.held_out:
                raise ValueError(f"--held-out: {self.run_folder} held nothing out (train --hold-out SYSTEMS does)")
            systems = torch.tensor(plan.held_out)
            return plan.load(self.data).select(systems), systems
        data = load_trajectories(self.data, self.split, self.name)
        if (self.run_folder / PLAN_FILE).exists() and (plan := Plan.read(self.run_folder)).digest == digest_of(data):
            trained_on = data.systems - len(plan.held_out)
            print(f"note: {trained_on} of these {data.systems} systems were trained on", file=sys.stderr)
        return data, None


@dataclasses.dataclass(frozen=True, kw_only=True)
class Searched(Chosen):
    """Arguments by which `infer` and `evaluate` choose their search, too."""

    search: Annotated[
        Search | None, _optional("{heat_bath,annealing,network,learned,combined}", "as the run was trained")
    ] = None
    """How graphs are searched. heat_bath: one-step errors, exactly. annealing: the paper's chain of random changes.
    network: one forward pass of the run's proposal network (train --network), no search. learned: a chain that starts
    from the network's graph and draws changes from it. combined: the same with the heat bath's probabilities too."""
    chains: int = 1
    """With --search learned or combined: chains per system, at different temperatures; the best graph is kept."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Infer(Searched):
    """Find who acts on whom, and how, in systems never seen. The run's modules stay as they are."""

    out: Path
    """New file: .npz for the arrays below, or .csv for a table with a row an edge."""

    def run(self) -> None:
        """Infers and writes."""
        import numpy as np

        from nri_fast.infer import infer

        if self.out.suffix not in (".npz", ".csv"):
            raise ValueError(f"--out: expected a name that ends in .npz or .csv, got {self.out}")
        _refuse_existing(self.out)
        run, data, systems = self.load()
        found = infer(run, data, progress=True, search=self.search, chains=self.chains)
        if self.out.suffix == ".csv":
            from nri_fast.edge_table import edge_table

            self._write(edge_table(found, data, systems).encode())
            print(f"{self.out}: one row an edge, {data.systems} systems")
            return
        arrays = {"adjacency": found.adjacency, "probability": found.probability, "energy": found.energy}
        if run.settings.node_types > 1:
            arrays |= {"node_types": found.node_types, "node_probability": found.node_probability}
        if self.held_out:
            arrays["systems"] = systems
        if data.sizes is not None:
            arrays["sizes"] = data.sizes
        if data.present is not None:
            arrays["present"] = data.present
        plain = {name: array.numpy() for name, array in arrays.items()}
        if data.origin is not None:
            plain |= {key: array for key, array in data.origin.arrays().items() if key != "notes"}
        content = io.BytesIO()
        np.savez(content, **plain)  # type: ignore[arg-type]
        self._write(content.getvalue())
        shapes = ", ".join(f"{name} {list(array.shape)}" for name, array in arrays.items())
        print(f"{self.out}: {shapes}")

    def _write(self, content: bytes) -> None:
        from nri_fast.checkpoint import write_atomically

        self.out.parent.mkdir(parents=True, exist_ok=True)
        _refuse_existing(self.out)
        write_atomically(self.out, content)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Evaluate(Searched):
    """Compare inferred graphs with the true ones, if there are any, and open-loop forecasts with the recordings."""

    json: bool = False
    """Print JSON and nothing else on stdout."""

    def run(self) -> None:
        """Evaluates and prints."""
        from nri_fast.infer import evaluate, infer
        from nri_fast.report import evaluation_table, json_text

        run, data, _ = self.load()
        figures = evaluate(run, data, infer(run, data, progress=True, search=self.search, chains=self.chains))
        print(json_text(figures) if self.json else evaluation_table(figures))


@dataclasses.dataclass(frozen=True, kw_only=True)
class Experiment:
    """Repeat an experiment of the paper, or one beyond it: small by default, in resumable parts, with a table, a figure
    and a result file.
    """

    name: Annotated[tyro.conf.Positional[str], tyro.conf.arg(metavar="{" + ",".join(EXPERIMENTS) + "}")]
    """Which one; they are explained below."""
    scale: Literal["small", "full"] = "small"
    """A minute or so, which shows that it works, or the full size (hours, for some)."""
    out: Annotated[Path | None, _optional("DIR", "nri-fast-NAME")] = None
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

        run_experiment(self.name, self.scale, self.out, self.resume, self.seed, choose_device(self.device))


@dataclasses.dataclass(frozen=True, kw_only=True)
class Demo:
    """See it work in a few minutes: simulate, train, infer on systems never seen, print tables and draw pictures."""

    out: Annotated[Path | None, _optional("DIR", "nri-fast-demo, or nri-fast-demo-2, ... if that is there")] = None
    """Folder for pictures, figures and runs: new or empty."""

    def run(self) -> None:
        """Runs the demonstration."""
        from nri_fast.demo import demo

        demo(self.out)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Doctor:
    """Say what was built, what this machine offers, and which path a computation will take."""

    json: bool = False
    """Print JSON and nothing else on stdout."""

    def run(self) -> None:
        """Examines and prints."""
        from nri_fast.doctor import collect, render

        facts = collect()
        print(json.dumps(facts, indent=2) if self.json else render(facts))


EXAMPLES: dict[type, str] = {
    Simulate: """
examples:
  nri-fast simulate springs --systems 100 --out data
  nri-fast simulate springs --systems 200 --split test --out data""",
    Train: """
examples:
  nri-fast train data --out runs/springs
  nri-fast train data --out runs/charged --preset charged --hold-out 100
  nri-fast train --out runs/charged --resume""",
    Infer: """
The arrays, for S systems of N entities and K edge types:
  adjacency    [S, N, N] uint8       A[s, i, j] is the likeliest type of the edge from i to j; diagonal 0
  probability  [S, N, N, K] float32  of each type
  energy       [S] float32           mean squared error of roll-outs, normalised units squared
  node_types   [S, N] uint8          with node_probability [S, N, M], if the run tells entities apart
  systems      [S] int64             with --held-out: each system's place in the data
  sizes        [S] int64             numbers of entities, if they differ; what lies behind them is zero
and, of converted data, entity_names [S, N], recording_names, recording [S], first_step [S], time_step [S].

The table has the columns system, recording, first_step, sender, receiver, type, probability (of that type).

examples:
  nri-fast infer runs/springs data --out graphs.npz
  nri-fast infer runs/springs my_recordings.npz --out graphs.npz
  nri-fast infer runs/ants data --out who_acts_on_whom.csv""",
    Evaluate: """
Edge accuracy is the share of edges whose type is right under the best renaming of the types over the whole set.
Errors stand beside two baselines: "nothing moves" and "constant velocity".

examples:
  nri-fast evaluate runs/springs data
  nri-fast evaluate runs/charged data --held-out --json""",
    Experiment: f"""
experiments:
{chr(10).join(f"  {name:16} {what}" for name, what in EXPERIMENTS.items())}

examples:
  nri-fast experiment calibration
  nri-fast experiment accuracy --scale full --out accuracy
  nri-fast experiment accuracy --scale full --out accuracy --resume""",
    Demo: """
examples:
  nri-fast demo
  nri-fast demo --out first_look""",
    Doctor: """
examples:
  nri-fast doctor
  nri-fast doctor --json""",
}


def choose_device(wanted: Device) -> str:
    """The device to use: ``cpu`` or ``cuda``.

    Raises
    ------
    ValueError
        CUDA was asked for and cannot be used; the message says why.
    """
    if wanted == "cpu":
        return "cpu"
    from nri_fast.doctor import collect

    problem = collect()["paths"]["cuda"]
    if not problem.startswith("unavailable"):
        return "cuda"
    if wanted == "cuda":
        raise ValueError(f"--device cuda: {problem}")
    return "cpu"


def _refuse_existing(file: Path) -> None:
    if file.exists():
        raise FileExistsError(f"{file}: already there, and nothing is overwritten")


def _joined(pieces: list[TrajectoryData]) -> TrajectoryData:
    import torch

    def together(parts: list[torch.Tensor | None]) -> torch.Tensor | None:
        there = [part for part in parts if part is not None]
        return torch.cat(there) if there else None

    return dataclasses.replace(
        pieces[0],
        states=torch.cat([piece.states for piece in pieces]),
        edges=together([piece.edges for piece in pieces]),
        node_types=together([piece.node_types for piece in pieces]),
    )


def _list(data: TrajectoryData) -> str:
    return ", ".join(data.feature_names)
