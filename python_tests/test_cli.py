"""Every command from end to end on tiny data, and what it says to mistakes."""

import json
import runpy
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

import nri_fast
from nri_fast import bouncegrad, cli, commands, demo, settings
from nri_fast.commands import arguments
from nri_fast.commands.convert import SOURCES
from nri_fast.experiments import EXPERIMENTS

TINY = ["--steps", "8", "--polish-steps", "2", "--batch", "5"]
EXAMPLES = Path(__file__).resolve().parents[1] / "examples"
ARGUMENTS = {
    "simulate": "springs charged kuramoto springs3 springs_mass kuramoto_directed --systems --entities --steps --seed "
    "--out --split --noise --noise-share",
    "train": "DATA --out --preset --split --seed --device --resume --hold-out --steps --batch --edge-types --relative "
    "--starts --network --network-hidden --proposal --proposal-source --rule",
    "report": "RUN DATA --out --graphs --split --held-out --search",
    "infer": "RUN DATA --out --split --held-out --search --chains adjacency probability energy",
    "forecast": "RUN DATA --out --horizon --start --split --held-out --search --chains states present",
    "evaluate": "RUN DATA --split --json --held-out --search --chains",
    "experiment": " ".join([*EXPERIMENTS, "--scale", "--out", "--resume", "--seed", "--device"]),
    "convert": " ".join(SOURCES),
    "demo": "--out",
    "doctor": "--json",
    "teach": "RUN DATA --out --split --network --hidden --steps --batch --seed --resume",
    "unseen": "RUN DATA --out --hide --hidden --systems --undirected --seed --resume path deviation",
}


def call(*arguments):
    return cli.main([str(argument) for argument in arguments])


def simulate(out, split="train", systems=20, *more):
    assert call("simulate", "springs", "--systems", systems, "--entities", 3, "--steps", 23, "--out", out,
                "--split", split, *more) == 0  # fmt: skip
    return out


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data")
    simulate(folder, "train", 20)
    return simulate(folder, "test", 6)


@pytest.fixture(scope="module")
def run(data, tmp_path_factory):
    """A run that held out 5 of its 20 systems."""
    folder = tmp_path_factory.mktemp("runs") / "run"
    assert call("train", data, "--out", folder, *TINY, "--seed", 4, "--hold-out", 5) == 0
    return folder


@pytest.fixture
def copy_of_run(run, tmp_path):
    return Path(shutil.copytree(run, tmp_path / "copy"))


def complaint(capsys, *arguments, code=2):
    """What the command says on stderr: one line, no traceback."""
    assert call(*arguments) == code
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.count("\n") == 1
    assert said.err.startswith("nri-fast: ")
    return said.err


# Help ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("command", ARGUMENTS)
def test_help_names_every_argument_and_gives_examples(command, capsys):
    with pytest.raises(SystemExit) as exit_:
        call(command, "--help")
    assert exit_.value.code == 0
    text = capsys.readouterr().out
    assert [name for name in ARGUMENTS[command].split() if name not in text] == []
    assert f"nri-fast {command}" in text.partition("examples:")[2]
    assert all(name in text for name in settings.PRESETS) or command != "train"


def test_help_lists_the_commands(capsys):
    with pytest.raises(SystemExit):
        call("--help")
    text = capsys.readouterr().out
    assert all(command in text for command in ARGUMENTS)


@pytest.mark.parametrize("arguments", [[], ["guess"], ["train"], ["simulate", "gas", "--systems", "1", "--out", "x"]])
def test_arguments_that_cannot_be_parsed_exit_with_2(arguments, capsys):
    with pytest.raises(SystemExit) as exit_:
        cli.main(arguments)
    assert exit_.value.code == 2
    assert capsys.readouterr().err


def test_python_dash_m():
    done = subprocess.run([sys.executable, "-m", "nri_fast", "doctor", "--json"], capture_output=True, check=True)
    assert json.loads(done.stdout)["native"]["built"]


# Simulate -----------------------------------------------------------------------------------------------------------


def test_simulated_files_are_those_of_the_python_call(tmp_path, monkeypatch):
    monkeypatch.setattr(commands.simulate, "PIECE", 3)
    simulate(tmp_path, "valid", 7, "--seed", 9, "--noise", 0.1)
    read = nri_fast.load_trajectories(tmp_path, "valid")
    expected = nri_fast.simulate("springs", 7, entities=3, steps=23, seed=9, split="valid", noise=0.1)
    assert torch.equal(read.states, expected.states)
    assert torch.equal(read.edges, expected.edges)


def test_simulate_overwrites_nothing(tmp_path, capsys):
    simulate(tmp_path, "train", 3)
    before = {file.name: file.read_bytes() for file in tmp_path.iterdir()}
    capsys.readouterr()
    text = complaint(
        capsys, "simulate", "springs", "--systems", 4, "--entities", 3, "--steps", 23, "--out", tmp_path
    )  # fmt: skip
    assert "_train_springs3.npy: already there" in text
    assert {file.name: file.read_bytes() for file in tmp_path.iterdir()} == before
    simulate(tmp_path, "test", 3)  # another split goes into the same folder


def test_simulate_says_what_is_out_of_range(tmp_path, capsys):
    text = complaint(capsys, "simulate", "charged", "--systems", 0, "--out", tmp_path / "x")
    assert "systems: expected 1" in text
    assert not (tmp_path / "x").exists()


# Train --------------------------------------------------------------------------------------------------------------


def test_training_obeys_its_options(run):
    trained = nri_fast.Run.load(run)
    assert (trained.settings.steps, trained.settings.polish_steps, trained.settings.batch) == (8, 2, 5)
    assert trained.seed == 4
    assert trained.trained_on["systems"] == 15


def test_other_settings_of_a_preset(data, tmp_path):
    arguments = ["--preset", "charged", "--steps", 2, "--edge-types", 3, "--silent", "True", "--relative"]
    assert call("train", data, "--out", tmp_path / "run", *arguments, "--edge-hidden", 8, 8) == 0
    found = nri_fast.Run.load(tmp_path / "run").settings
    assert (found.edge_types, found.silent, found.relative, found.edge_hidden) == (3, True, (), (8, 8))
    assert found.message == settings.PRESETS["charged"].message


def test_a_run_stopped_half_way_continues_to_the_same_bits(data, run, tmp_path, monkeypatch, capsys):
    stopped = tmp_path / "stopped"
    one_step = bouncegrad.BounceGrad._one_step

    def stop_at_step_6(self, systems):
        if self._step == 6:
            raise KeyboardInterrupt
        one_step(self, systems)

    with monkeypatch.context() as changed:
        changed.setattr(bouncegrad, "CHECKPOINT_SECONDS", 0.0)
        changed.setattr(bouncegrad.BounceGrad, "_one_step", stop_at_step_6)
        assert call("train", data, "--out", stopped, *TINY, "--seed", 4, "--hold-out", 5) == 130
    assert "--resume" in capsys.readouterr().err
    assert not (stopped / "library.safetensors").exists()
    assert call("train", "--out", stopped, "--resume") == 0
    resumed, undisturbed = nri_fast.Run.load(stopped), nri_fast.Run.load(run)
    assert torch.equal(resumed.library.flat_parameters(), undisturbed.library.flat_parameters())
    assert resumed.history == undisturbed.history


@pytest.mark.parametrize(
    ("option", "value"),
    [("--steps", 9), ("--seed", 5), ("--hold-out", 6), ("--split", "test"), ("--preset", "charged")],
)
def test_resuming_with_something_else_is_refused(option, value, data, run, capsys):
    text = complaint(capsys, "train", data, "--out", run, "--resume", option, value)
    assert option in text
    assert "--resume alone" in text


def test_resuming_with_the_same_again_is_fine(data, run, capsys):
    assert call("train", data, "--out", run, "--resume", *TINY, "--seed", 4, "--preset", "springs") == 0
    assert "finished already" in capsys.readouterr().out


def test_resuming_on_other_data_is_refused(run, tmp_path, capsys):
    copy = tmp_path / "run"
    copy.mkdir()
    shutil.copy(run / "plan.json", copy)
    other = simulate(tmp_path / "other", "train", 20, "--seed", 8)
    capsys.readouterr()
    assert "differs from what the run was started with" in complaint(capsys, "train", other, "--out", copy, "--resume")


def test_resuming_nothing_is_refused(tmp_path, capsys):
    assert "plan.json: no such file" in complaint(capsys, "train", "--out", tmp_path / "none", "--resume")


def test_training_needs_data(tmp_path, capsys):
    assert "DATA" in complaint(capsys, "train", "--out", tmp_path / "run")


def test_training_overwrites_nothing(data, tmp_path, capsys):
    (tmp_path / "precious.txt").write_text("mine")
    assert "not empty" in complaint(capsys, "train", data, "--out", tmp_path, *TINY)
    assert "not empty" in complaint(capsys, "train", data, "--out", tmp_path / "precious.txt", *TINY)
    assert [file.name for file in tmp_path.iterdir()] == ["precious.txt"]


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["--preset", "gas"], "springs, springs10, charged"),
        (["--steps", "0"], "steps: expected"),
        (["--edge-types", "300"], "edge_types"),
        (["--hold-out", "20"], "hold_out: expected 1 to 19"),
        (["--split", "valid"], "'valid' split"),
        (["--name", "charged5"], "'charged5'"),
        (["--bounce", "metropolis", "--rollout", "23"], "at least 24 steps"),
    ],
)
def test_mistakes_leave_the_folder_free(arguments, expected, data, tmp_path, capsys):
    out = tmp_path / "run"
    assert expected in complaint(capsys, "train", data, "--out", out, *arguments)
    assert call("train", data, "--out", out, *TINY) == 0


def test_training_that_starts_from_a_run(data, run, tmp_path, monkeypatch, capsys):
    started, resumed = tmp_path / "started", tmp_path / "resumed"
    assert call("train", data, "--out", started, *TINY, "--start", run) == 0
    assert nri_fast.Run.load(started).started_from["trained_on"]["systems"] == 15

    def stop(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as changed:
        changed.setattr(bouncegrad.BounceGrad, "_one_step", stop)
        assert call("train", data, "--out", resumed, *TINY, "--start", run) == 130
    capsys.readouterr()
    assert "--start" in complaint(capsys, "train", "--out", resumed, "--resume", "--start", started)
    assert call("train", "--out", resumed, "--resume", "--start", run) == 0
    weights = [nri_fast.Run.load(folder).library.flat_parameters() for folder in (started, resumed)]
    assert torch.equal(*weights)


def test_a_start_with_other_modules_leaves_the_folder_free(data, run, tmp_path, capsys):
    out = tmp_path / "run"
    text = complaint(capsys, "train", data, "--out", out, *TINY, "--start", run, "--message", 16)
    assert "start: its modules have message 32, but the settings 16" in text
    assert call("train", data, "--out", out, *TINY) == 0
    assert nri_fast.Run.load(out).started_from is None


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_cuda_that_is_not_there(data, tmp_path, capsys):
    text = complaint(capsys, "train", data, "--out", tmp_path / "run", "--device", "cuda")
    assert "--device cuda: unavailable" in text
    assert arguments.choose_device("auto") == "cpu"


def test_divergence_has_an_exit_code_of_its_own(data, tmp_path, monkeypatch, capsys):
    def diverge(*_, **__):
        raise nri_fast.DivergedError("training diverged: lower\nthe learning rate")

    monkeypatch.setattr(nri_fast.run, "train", diverge)
    assert "diverged: lower the" in complaint(capsys, "train", data, "--out", tmp_path / "run", code=1)


# Infer and evaluate -------------------------------------------------------------------------------------------------


def test_inferred_arrays(data, run, tmp_path):
    out = tmp_path / "new" / "graphs.npz"
    assert call("infer", run, data, "--out", out) == 0
    with np.load(out, allow_pickle=False) as found:
        assert set(found) == {"adjacency", "probability", "energy"}
        adjacency, probability, energy = found["adjacency"], found["probability"], found["energy"]
    assert (adjacency.shape, adjacency.dtype) == ((6, 3, 3), np.uint8)
    assert (probability.shape, probability.dtype) == ((6, 3, 3, 2), np.float32)
    assert (energy.shape, energy.dtype) == ((6,), np.float32)
    assert not adjacency[:, range(3), range(3)].any()
    edges = ~np.eye(3, dtype=bool)
    np.testing.assert_allclose(probability.sum(-1)[:, edges], 1, rtol=1e-5)
    np.testing.assert_array_equal(probability.argmax(-1)[:, edges], adjacency[:, edges])
    assert [file.name for file in out.parent.iterdir()] == ["graphs.npz"]


def test_node_types_are_written_where_a_run_tells_entities_apart(data, tmp_path):
    arguments = ["--preset", "metropolis", "--steps", 2, "--node-types", 2]
    assert call("train", data, "--out", tmp_path / "run", *arguments) == 0
    assert call("infer", tmp_path / "run", data, "--out", tmp_path / "graphs.npz") == 0
    with np.load(tmp_path / "graphs.npz", allow_pickle=False) as found:
        assert found["node_types"].shape == (6, 3)
        assert found["node_probability"].shape == (6, 3, 2)


def test_held_out_systems_are_those_that_were_set_aside(data, run, tmp_path, capsys):
    assert call("infer", run, data, "--held-out", "--out", tmp_path / "graphs.npz") == 0
    with np.load(tmp_path / "graphs.npz", allow_pickle=False) as found:
        systems = found["systems"]
    everything = nri_fast.load_trajectories(data, "train")
    _, held_out = nri_fast.hold_out(everything, count=5, seed=4)
    assert torch.equal(everything.states[torch.from_numpy(systems)], held_out.states)
    capsys.readouterr()
    assert call("evaluate", run, data, "--held-out", "--json") == 0
    figures = json.loads(capsys.readouterr().out)
    expected = nri_fast.evaluate(nri_fast.Run.load(run), held_out)
    assert figures == expected


def test_evaluation_on_training_systems_is_noted(data, run, capsys):
    assert call("evaluate", run, data, "--split", "train") == 0
    assert "15 of these 20 systems were trained on" in capsys.readouterr().err


def test_held_out_of_a_run_that_held_nothing_out(data, tmp_path, capsys):
    assert call("train", data, "--out", tmp_path / "run", *TINY) == 0
    capsys.readouterr()
    assert "held nothing out" in complaint(capsys, "evaluate", tmp_path / "run", data, "--held-out")


def test_evaluation_as_table_and_as_json(data, run, capsys):
    assert call("evaluate", run, data, "--json") == 0
    said = capsys.readouterr()
    figures = json.loads(said.out)
    assert said.err == ""
    assert {"systems", "edge_accuracy", "edge_auroc", "mse_1", "mse_10", "mse_20", "mse_20_nothing_moves",
            "mse_20_constant_velocity"} <= set(figures)  # fmt: skip
    assert call("evaluate", run, data) == 0
    table = capsys.readouterr().out
    for expected in (f"{100 * figures['edge_accuracy']:.2f} %", f"{figures['mse_10']:.2e}", "nothing moves"):
        assert expected in table


def test_evaluation_without_labels_and_with_few_steps(data, run, tmp_path, capsys):
    recorded = nri_fast.load_trajectories(data, "test")
    names = np.array(recorded.feature_names)
    np.savez(tmp_path / "mine.npz", states=recorded.states[:, :12].numpy(), feature_names=names)
    assert call("evaluate", run, tmp_path / "mine.npz", "--json") == 0
    figures = json.loads(capsys.readouterr().out)
    assert figures["edge_accuracy"] is None
    assert figures["mse_10"] is not None
    assert figures["mse_20"] is None
    assert call("evaluate", run, tmp_path / "mine.npz") == 0
    assert "no labels" in capsys.readouterr().out


def test_results_are_never_overwritten(data, run, tmp_path, capsys):
    out = tmp_path / "graphs.npz"
    out.write_bytes(b"precious")
    assert "already there" in complaint(capsys, "infer", run, data, "--out", out)
    assert out.read_bytes() == b"precious"
    assert ".npz" in complaint(capsys, "infer", run, data, "--out", tmp_path / "graphs.txt")


@pytest.mark.parametrize("command", ["infer", "evaluate"])
def test_missing_and_damaged_data(command, data, run, tmp_path, capsys):
    more = ["--out", tmp_path / "graphs.npz"] if command == "infer" else []
    assert "no such file" in complaint(capsys, command, run, tmp_path / "none", *more)
    damaged = Path(shutil.copytree(data, tmp_path / "damaged"))
    velocities = damaged / "vel_test_springs3.npy"
    velocities.write_bytes(velocities.read_bytes()[:-100])
    assert str(velocities) in complaint(capsys, command, run, damaged, *more)
    archive = tmp_path / "damaged.npz"
    archive.write_bytes(b"PK\x03\x04 and nothing else")
    assert str(archive) in complaint(capsys, command, run, archive, *more)
    assert not (tmp_path / "graphs.npz").exists()


@pytest.mark.parametrize("file", ["library.safetensors", "run.json", "history.json"])
def test_damaged_runs(file, data, copy_of_run, capsys):
    content = (copy_of_run / file).read_bytes()
    (copy_of_run / file).write_bytes(content[: len(content) // 2])
    assert file in complaint(capsys, "evaluate", copy_of_run, data)
    (copy_of_run / file).unlink()
    assert file in complaint(capsys, "evaluate", copy_of_run, data)


def test_damaged_checkpoints_and_plans(copy_of_run, capsys):
    for file in (
        "run.json",
        "library.safetensors",
        "forecaster.safetensors",
        "history.json",
    ):  # as a killed run leaves it
        (copy_of_run / file).unlink()
    for file in (copy_of_run / "checkpoints").iterdir():
        file.write_bytes(file.read_bytes()[:50])
    assert call("train", "--out", copy_of_run, "--resume") == 2
    assert "damaged" in capsys.readouterr().err
    (copy_of_run / "plan.json").write_text('{"format": 1, "data": 3')
    assert "plan.json: damaged" in complaint(capsys, "train", "--out", copy_of_run, "--resume")


# Doctor, demo, examples ---------------------------------------------------------------------------------------------


def test_doctor(capsys):
    assert call("doctor", "--json") == 0
    facts = json.loads(capsys.readouterr().out)
    assert call("doctor") == 0
    assert facts["python"] in capsys.readouterr().out


def tiny_example(kind):
    return demo.Example(
        kind,
        settings.Settings(steps=6, polish_steps=2, batch=4),
        systems=6,
        type_names=("one", "other"),
        silent=0,
        forecast=20,
        caption="Tiny.",
        watched=3,
        tested=5,
    )


@pytest.mark.parametrize(("kind", "pictures"), [("springs", 5), pytest.param("kuramoto", 4, marks=pytest.mark.slow)])
def test_demo_leaves_pictures_figures_and_runs(kind, pictures, tmp_path):
    lines = []
    demo.demo(tmp_path / "out", [tiny_example(kind)], lines.append)
    text = "\n".join(lines)
    assert "edge accuracy" in text
    facts = json.loads((tmp_path / "out" / f"{kind}.json").read_text())
    assert facts["figures"]["systems"] == 5
    assert facts["seconds"]["train"] > 0
    assert facts["machine"]["processor"]
    assert facts["held_out_while_training"]["step"][-1] == 8
    assert nri_fast.Run.load(tmp_path / "out" / f"{kind}_run").settings.steps == 6
    drawn = list((tmp_path / "out").glob(f"{kind}_*.png"))
    assert len(drawn) == pictures
    assert all(file.name in text for file in drawn)


def test_demo_takes_a_fresh_folder(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert [str(demo._fresh_folder(None)) for _ in range(3)] == ["nri-fast-demo", "nri-fast-demo-2", "nri-fast-demo-3"]
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "precious.txt").write_text("mine")
    assert "not empty" in complaint(capsys, "demo", "--out", "mine")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("script", "holds"),
    [
        ("own_arrays.py", lambda accuracy: accuracy > 0.98),
        ("learned_law.py", lambda slope: abs(slope - 0.01) < 0.002),
        ("kernels_with_autograd.py", lambda energies: energies[1] < energies[0] / 3),
    ],
)
def test_examples(script, holds):
    assert holds(runpy.run_path(str(EXAMPLES / script))["main"]())
