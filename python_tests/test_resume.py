"""`kill -9` anywhere, resume, and the result equals an undisturbed run's to the bit."""

from __future__ import annotations

import dataclasses
import functools
import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

import nri_fast as nf
from nri_fast import bouncegrad
from nri_fast.checkpoint import CheckpointError, Checkpoints, load

STEPS, POLISH = 24, 8
SMALL = nf.Settings(
    steps=STEPS,
    batch=3,
    message=4,
    edge_hidden=(5,),
    node_hidden=(6,),
    relative=(),
    rollout=2,
    polish_steps=POLISH,
    transitions=4,
    proposals=2,
)
RUNS = {
    "soft": SMALL,
    "sampled": dataclasses.replace(SMALL, bounce="sampled", polish_steps=0),
    "metropolis": dataclasses.replace(SMALL, bounce="metropolis", robust=False),
    "soft, network": dataclasses.replace(SMALL, network="mlp+structure", network_hidden=5, network_dropout=0.3),
    "metropolis, network": dataclasses.replace(
        SMALL, bounce="metropolis", robust=False, network="mlp+structure", network_hidden=5, proposal="node"
    ),
    "metropolis, the authors'": dataclasses.replace(
        SMALL, bounce="metropolis", robust=False, scaled=False, rate_rule="plateau", temperature_rule="residuals"
    ),
    "undirected metropolis, network": dataclasses.replace(
        SMALL,
        bounce="metropolis",
        undirected=True,
        network="mlp+structure",
        network_hidden=5,
        proposal="node",
        proposal_source="both",
    ),
    "shared metropolis": dataclasses.replace(
        SMALL, bounce="metropolis", robust=False, shared=True, temperature_rule="residuals"
    ),
    "two node types": dataclasses.replace(SMALL, edge_types=3, node_types=2),
    "undirected, small blocks": dataclasses.replace(SMALL, block=4, undirected=True, node_types=2),
    "a first step apart": dataclasses.replace(SMALL, polish_first_share=0.5, polish_positions=True),
    "warm start": dataclasses.replace(SMALL, undirected=True),
    "warm start, small blocks": dataclasses.replace(SMALL, block=4),
    "many entities": dataclasses.replace(SMALL, batch=1, steps=8, polish_steps=2),
    "many entities, sampled": dataclasses.replace(SMALL, batch=1, steps=8, polish_steps=0, bounce="sampled"),
}


def data_of(run: str) -> nf.TrajectoryData:
    random_ = torch.Generator().manual_seed(5)
    systems, entities = (2, 13) if run.startswith("many") else (7, 4)
    return nf.TrajectoryData(torch.randn(systems, 6, entities, 3, generator=random_), None, ("a", "b", "c"))


@functools.cache
def start_of(run: str) -> nf.Run | None:
    """The run whose modules a warm start begins with: one of other systems, of another size."""
    if not run.startswith("warm start"):
        return None
    states = torch.randn(3, 6, 3, 3, generator=torch.Generator().manual_seed(6))
    data = nf.TrajectoryData(states, None, ("a", "b", "c"))
    return nf.train(data, settings=dataclasses.replace(RUNS[run], steps=3, polish_steps=0), seed=1, progress=False)


def train(run: str, folder: Path, resume: bool = False, on_step=None) -> nf.Run:
    """Trains, with a checkpoint after every step."""
    bouncegrad.CHECKPOINT_SECONDS = -1.0
    data, start = data_of(run), start_of(run)
    settings = RUNS[run]
    return nf.train(
        data, settings=settings, seed=3, out=folder, resume=resume, progress=False, on_step=on_step, start=start
    )


def result_of(folder: Path) -> tuple[dict[str, torch.Tensor], dict[str, object]]:
    """All that a finished run left: weights, optimiser, structures and curves."""
    tensors, facts = Checkpoints(folder / "checkpoints").latest()
    weights = {
        f"{kind}.{name}": value
        for kind in ("library", "forecaster", "first_step")
        if (folder / f"{kind}.safetensors").exists()
        for name, value in load(folder / f"{kind}.safetensors")[0].items()
    }
    history = json.loads((folder / "history.json").read_text())
    return tensors | {f"final.{name}": value for name, value in weights.items()}, facts | {"file": history}


def assert_same_result(folder: Path, expected: Path) -> None:
    (tensors, facts), (expected_tensors, expected_facts) = result_of(folder), result_of(expected)
    assert facts == expected_facts
    assert tensors.keys() == expected_tensors.keys()
    for name, value in tensors.items():
        assert torch.equal(value, expected_tensors[name]), name
    assert any(name.startswith("structures.") for name in tensors)
    assert any(name.startswith("optimiser.") for name in tensors)


# ---- processes that are killed ----

# Forks a child for each line of its input: {"run", "folder", "resume", "die"}. The child reports its steps on its
# output; "die" names the moment at which it kills itself without any clean-up. One import serves all children.
NURSERY = """
import json, os, signal, sys
from pathlib import Path

sys.path.insert(0, sys.argv[1])
import test_resume
from nri_fast import checkpoint

def die():
    os.kill(os.getpid(), signal.SIGKILL)

def live(order):
    moment, number = order["die"] or ("never", 0)
    count = 0

    def reached(what):
        nonlocal count
        if what == moment:
            count += 1
            if count == number:
                die()

    real_fsync, real_replace = os.fsync, os.replace

    def fsync(descriptor):
        reached("before the flush")
        real_fsync(descriptor)

    def replace(source, target):
        reached("before the rename")
        real_replace(source, target)
        reached("after the rename")

    checkpoint.os.fsync, checkpoint.os.replace = fsync, replace

    def on_step(trainer):
        reached("after a step")
        print("step", trainer._step, flush=True)

    test_resume.train(order["run"], Path(order["folder"]), order["resume"], on_step)

for line in sys.stdin:
    child = os.fork()
    if child == 0:
        print("child", os.getpid(), flush=True)
        try:
            live(json.loads(line))
        except BaseException as error:
            print(repr(error), file=sys.stderr, flush=True)
            os._exit(1)
        os._exit(0)
    _, status = os.waitpid(child, 0)
    print("ended", os.waitstatus_to_exitcode(status), flush=True)
"""


class Nursery:
    """Runs training in children that may be killed."""

    def __init__(self) -> None:
        package = str(Path(nf.__file__).parents[1])
        paths = os.pathsep.join(filter(None, [package, os.environ.get("PYTHONPATH")]))
        command = [sys.executable, "-W", "ignore", "-c", NURSERY, str(Path(__file__).parent)]
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
        self.process = subprocess.Popen(command, env=os.environ | {"PYTHONPATH": paths}, **pipes)

    def train(self, run, folder, resume=False, die=None, kill_at=None, after=0.0) -> int:
        """Exit code of a child: 0, or minus the signal that ended it.

        `kill_at` kills it from outside, so many seconds after it has reported that step.
        """
        order = {"run": run, "folder": str(folder), "resume": resume, "die": die}
        print(json.dumps(order), file=self.process.stdin, flush=True)
        child = None
        for line in self.process.stdout:
            word, number = line.split()
            if word == "child":
                child = int(number)
            elif word == "step" and int(number) == kill_at:
                time.sleep(after)
                os.kill(child, signal.SIGKILL)
            elif word == "ended":
                return int(number)
        raise AssertionError("the process that starts the children has ended")

    def close(self) -> None:
        self.process.stdin.close()
        self.process.wait(30)
        self.process.stdout.close()


@pytest.fixture(scope="module")
def nursery() -> Iterator[Nursery]:
    nursery = Nursery()
    yield nursery
    nursery.close()


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory) -> dict[str, Path]:
    """Folders of runs that nobody disturbed and that saved once, at their end; made when first asked for."""

    class Made(dict):
        def __missing__(self, run: str) -> Path:
            folder = tmp_path_factory.mktemp("undisturbed") / "run"
            nf.train(data_of(run), settings=RUNS[run], seed=3, out=folder, progress=False, start=start_of(run))
            self[run] = folder
            return folder

    return Made()


@pytest.fixture(autouse=True)
def _seconds_between_checkpoints() -> Iterator[None]:
    before = bouncegrad.CHECKPOINT_SECONDS
    yield
    bouncegrad.CHECKPOINT_SECONDS = before


@pytest.mark.parametrize("run", RUNS)
def test_killed_at_random_and_resumed(run, nursery, undisturbed, tmp_path):
    folder, chance = tmp_path / "run", random.Random(run)
    total = RUNS[run].steps + RUNS[run].polish_steps
    stops = sorted(chance.sample(range(1, total), 3))
    codes = []
    for i, step in enumerate(stops):
        # From outside: anywhere within the step or the checkpoint that comes next.
        codes.append(nursery.train(run, folder, resume=i > 0, kill_at=step, after=chance.random() * 0.003))
    assert -signal.SIGKILL in codes
    assert not (folder / "library.safetensors").exists() or 0 in codes
    assert nursery.train(run, folder, resume=True) == 0
    assert_same_result(folder, undisturbed[run])


@pytest.mark.parametrize("run", ["soft", "metropolis"])
@pytest.mark.parametrize("moment", ["after a step", "before the flush", "before the rename", "after the rename"])
def test_killed_while_a_checkpoint_is_written(run, moment, nursery, undisturbed, tmp_path):
    folder = tmp_path / "run"
    assert nursery.train(run, folder, die=(moment, 1)) == -signal.SIGKILL
    assert nursery.train(run, folder, resume=True, die=(moment, 7)) == -signal.SIGKILL
    parts = list((folder / "checkpoints").glob(".*.part"))
    assert bool(parts) == moment.startswith("before")
    assert nursery.train(run, folder, resume=True) == 0
    assert_same_result(folder, undisturbed[run])


def test_killed_while_the_finished_run_is_saved(nursery, undisturbed, tmp_path):
    folder, run = tmp_path / "run", "soft"
    written = STEPS + POLISH + 1  # checkpoints; then come the library, the history and run.json
    for number in (written + 1, written + 2, written + 3):
        folder = tmp_path / str(number)
        assert nursery.train(run, folder, die=("before the rename", number)) == -signal.SIGKILL
        with pytest.raises(CheckpointError, match="no such file"):
            nf.Run.load(folder)
        assert nursery.train(run, folder, resume=True) == 0
        assert_same_result(folder, undisturbed[run])


# ---- interruptions within one process ----


class StopError(Exception):
    """Ends a training run from inside."""


def stop_at(step: int):
    def on_step(trainer: nf.BounceGrad) -> None:
        if trainer._step == step:
            raise StopError

    return on_step


@pytest.mark.parametrize("step", [1, 2, STEPS - 1, STEPS, STEPS + 1, STEPS + 2, STEPS + POLISH])
def test_stopped_around_the_polish(step, undisturbed, tmp_path):
    # The checkpoint of a step is written after on_step: the run goes on from the one before.
    with pytest.raises(StopError):
        train("soft", tmp_path / "run", on_step=stop_at(step))
    train("soft", tmp_path / "run", resume=True)
    assert_same_result(tmp_path / "run", undisturbed["soft"])


@pytest.mark.parametrize("step", [STEPS, STEPS + 1, STEPS + 3, STEPS + 4, STEPS + 5, STEPS + POLISH])
def test_stopped_around_the_first_step(step, undisturbed, tmp_path):
    run = "a first step apart"
    with pytest.raises(StopError):
        train(run, tmp_path / "run", on_step=stop_at(step))
    train(run, tmp_path / "run", resume=True)
    assert_same_result(tmp_path / "run", undisturbed[run])


@pytest.mark.parametrize("run", ["soft", "metropolis"])
def test_a_damaged_newest_checkpoint(run, undisturbed, tmp_path, capsys):
    with pytest.raises(StopError):
        train(run, tmp_path / "run", on_step=stop_at(9))
    older, newest = Checkpoints(tmp_path / "run" / "checkpoints").paths()
    newest.write_bytes(newest.read_bytes()[:-100])
    seen = []
    train(run, tmp_path / "run", resume=True, on_step=lambda trainer: seen.append(trainer._step))
    assert seen[0] == int(older.stem.removeprefix("step-")) + 1
    said = capsys.readouterr()
    assert f"{newest}: damaged" in said.out + said.err
    assert_same_result(tmp_path / "run", undisturbed[run])


def test_only_damaged_checkpoints_stop_a_resume(tmp_path):
    with pytest.raises(StopError):
        train("soft", tmp_path / "run", on_step=stop_at(9))
    for path in Checkpoints(tmp_path / "run" / "checkpoints").paths():
        path.write_bytes(b"")
    with pytest.raises(CheckpointError, match="damaged"):
        train("soft", tmp_path / "run", resume=True)


def test_threads_may_change_at_a_resume(undisturbed, tmp_path):
    before = nf.get_threads()
    try:
        nf.set_threads(1)
        with pytest.raises(StopError):
            train("soft", tmp_path / "run", on_step=stop_at(9))
        nf.set_threads(3)
        train("soft", tmp_path / "run", resume=True)
    finally:
        nf.set_threads(before)
    assert_same_result(tmp_path / "run", undisturbed["soft"])


def test_the_comparison_can_fail(undisturbed, tmp_path):
    nf.train(data_of("soft"), settings=RUNS["soft"], seed=4, out=tmp_path / "run", progress=False)
    with pytest.raises(AssertionError):
        assert_same_result(tmp_path / "run", undisturbed["soft"])


def test_a_fresh_fit_refuses_the_checkpoints_of_another(tmp_path):
    train("soft", tmp_path / "run")
    checkpoints = Checkpoints(tmp_path / "run" / "checkpoints")
    before = {path: path.read_bytes() for path in checkpoints.paths()}
    systems = nf.SystemSet.complete(data_of("soft").states.float())
    library = nf.ModuleLibrary(3, 2, 1, 4, (5,), (6,))
    with pytest.raises(FileExistsError, match="another folder, or resume"):
        nf.BounceGrad(library, RUNS["soft"]).fit(systems, checkpoints, progress=False)
    assert {path: path.read_bytes() for path in checkpoints.paths()} == before
