"""Experiments: parts are worked off once, a kill loses the running one at most, and reports show what was measured."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from matplotlib.figure import Figure

import nri_fast as nf
from nri_fast import bouncegrad, cli, simulate
from nri_fast.checkpoint import CheckpointError
from nri_fast.experiments import EXPERIMENTS, accuracy, lesson, mega_graph, runner, text, transfer
from nri_fast.experiments.experiment import Experiment, Part, Report, Workplace
from nri_fast.experiments.lesson import Lesson
from nri_fast.report import json_text

TINY = {
    "steps": 12, "polish_steps": 4, "batch": 3, "transitions": 3, "message": 4, "edge_hidden": (5,), "node_hidden": (6,)
}  # fmt: skip
TINY_LESSON = Lesson("springs", "springs", 5, entities=3, tested=4, ahead=21, changes=TINY)


def tiny_accuracy(monkeypatch):
    """The experiment `accuracy`, two short parts."""
    monkeypatch.setattr(accuracy, "SMALL", ((TINY_LESSON, 2),))
    monkeypatch.setattr(bouncegrad, "CHECKPOINT_SECONDS", -1.0)


def counting(monkeypatch, fails_at=None):
    """An experiment of three parts that notes which ones were worked off."""
    worked = []

    def part(number):
        def work(place):
            worked.append(number)
            assert place.folder.is_dir()
            if number == fails_at:
                raise KeyboardInterrupt
            return {"square": number**2}

        return Part(f"part-{number}", work)

    def report(figures):
        rows = [(name, str(found["square"])) for name, found in figures.items()]
        return Report("Squares", ("part", "square"), rows, ("A note.",), Figure())

    experiment = Experiment(lambda scale, seed: [part(n) for n in (1, 2, 3)], report)
    monkeypatch.setattr(runner, "load_experiment", lambda name: experiment)
    return worked


def run(folder, resume=False, name="accuracy", **options):
    return runner.run_experiment(name, out=folder, resume=resume, progress=False, say=lambda line: None, **options)


def test_what_is_finished_is_not_repeated(tmp_path, monkeypatch):
    worked = counting(monkeypatch, fails_at=2)
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "x")
    assert worked == [1, 2]
    worked = counting(monkeypatch)
    result = run(tmp_path / "x", resume=True)
    assert worked == [2, 3]
    assert [part["figures"]["square"] for part in result["parts"].values()] == [1, 4, 9]
    assert run(tmp_path / "x", resume=True) == result
    assert worked == [2, 3]


def test_what_an_experiment_leaves(tmp_path, monkeypatch):
    counting(monkeypatch)
    lines = []
    result = runner.run_experiment("accuracy", out=tmp_path / "x", say=lines.append)
    assert (tmp_path / "x" / "table.md").read_text() == (
        "# Squares\n\n| part   | square |\n| ------ | ------ |\n| part-1 | 1      |\n| part-2 | 4      |\n"
        "| part-3 | 9      |\n\n- A note.\n"
    )
    assert (tmp_path / "x" / "table.md").read_text() in lines
    assert (tmp_path / "x" / "figure.png").read_bytes().startswith(b"\x89PNG")
    assert json.loads((tmp_path / "x" / "result.json").read_text()) == result
    assert (result["experiment"], result["scale"], result["seed"]) == ("accuracy", "small", 1)
    assert result["table"]["rows"][2] == ["part-3", "9"]
    for part in result["parts"].values():
        assert part["machine"]["processor"]
        assert part["machine"]["torch"]
        assert part["seconds"] >= 0
        assert part["date"].startswith("20")


def test_folders_are_not_mixed_up(tmp_path, monkeypatch):
    counting(monkeypatch)
    run(tmp_path / "x")
    with pytest.raises(FileExistsError, match="already there and not empty; pass another --out, or --resume"):
        run(tmp_path / "x")
    with pytest.raises(ValueError, match="was begun with seed 1, got 2"):
        run(tmp_path / "x", resume=True, seed=2)
    with pytest.raises(ValueError, match="was begun with scale small, got full"):
        run(tmp_path / "x", resume=True, scale="full")
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "precious.txt").write_text("mine")
    with pytest.raises(FileExistsError, match="not empty"):
        run(tmp_path / "other", resume=True)
    run(tmp_path / "new", resume=True)  # nothing to go on with: from the beginning


def test_a_damaged_part_is_named(tmp_path, monkeypatch):
    counting(monkeypatch)
    run(tmp_path / "x")
    file = tmp_path / "x" / "parts" / "part-2.json"
    file.write_text(file.read_text()[:10])
    with pytest.raises(CheckpointError, match=r"part-2.json: damaged .*; remove it"):
        run(tmp_path / "x", resume=True)
    file.unlink()
    run(tmp_path / "x", resume=True)


# Kills itself at the n-th rename: a checkpoint of training, or a part's file.
DIES = """
import os, signal, sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
import test_experiments
from nri_fast import checkpoint
import pytest

renames = 0
replace = os.replace

def dying(source, target):
    global renames
    renames += 1
    if renames == int(sys.argv[3]):
        os.kill(os.getpid(), signal.SIGKILL)
    replace(source, target)

checkpoint.os.replace = dying
with pytest.MonkeyPatch.context() as patch:
    test_experiments.tiny_accuracy(patch)
    test_experiments.run(Path(sys.argv[2]))
"""


@pytest.mark.parametrize("rename", [9, 25])  # in the first part's training, in the second's
def test_killed_and_resumed_equals_undisturbed(tmp_path, monkeypatch, rename):
    tiny_accuracy(monkeypatch)
    command = [sys.executable, "-c", DIES, str(Path(__file__).parent), str(tmp_path / "killed"), str(rename)]
    assert subprocess.run(command, check=False).returncode == -signal.SIGKILL
    finished = len(list((tmp_path / "killed" / "parts").iterdir()))
    assert finished == (0 if rename == 9 else 1)
    assert len(list((tmp_path / "killed" / "work").glob("*/run/checkpoints/*"))) > 0
    killed, undisturbed = run(tmp_path / "killed", resume=True), run(tmp_path / "undisturbed")
    interrupted = []
    for name, part in undisturbed["parts"].items():
        found = killed["parts"][name]["figures"]
        interrupted.append(found.pop("train_seconds") is None)
        del part["figures"]["train_seconds"]
        assert found == part["figures"]
    assert interrupted == [rename == 9, rename == 25]
    assert not list((tmp_path / "killed").rglob("checkpoints"))


# The experiments themselves -----------------------------------------------------------------------------------------


def test_every_name_has_a_module():
    for name in EXPERIMENTS:
        found = runner.load_experiment(name)
        for scale in ("small", "full"):
            parts = found.parts(scale, 1, (Path("file"),)) if found.data else found.parts(scale, 1)
            assert len({part.name for part in parts}) == len(parts) > 0
    with pytest.raises(ValueError, match=r"experiment: expected one of accuracy, .*, got 'guess'"):
        runner.load_experiment("guess")


@pytest.mark.parametrize("name", ["accuracy", "calibration", "data-efficiency", "noise", "split", "transfer", "types"])
def test_reports_show_what_was_measured(name, tmp_path, monkeypatch):
    """Parts' real figures, of tiny runs, go through the report."""
    monkeypatch.setattr(lesson, "SMALL_STEPS", 10)
    monkeypatch.setitem(transfer.MORE, "small", dict.fromkeys(("springs", "charged"), (3, {"steps": 3})))
    monkeypatch.setattr(Lesson, "data", few)
    experiment = runner.load_experiment(name)
    figures = {}
    for part in experiment.parts("small", 3):
        (tmp_path / part.name).mkdir()
        found = part.work(Workplace(tmp_path / part.name, progress=False))
        figures[part.name] = json.loads(json_text(found))  # as the runner reads it back
    report = experiment.report(figures)
    assert len(report.rows) >= 1
    assert report.markdown().count("\n| ") == len(report.rows) + 2
    assert "nan" not in report.markdown()
    assert report.figure.axes


def few(lesson, split, systems, ahead=0):
    """Far fewer and smaller systems than a lesson asks for."""
    systems = {"train": 24, "test": 12}[split]
    steps = 22 + ahead
    return simulate(lesson.kind, systems, 4, steps, seed=lesson.seed, split=split, noise_share=lesson.noise_share)


def test_forecasts_ahead_begin_where_structures_see_nothing_more(tmp_path):
    found = lesson.examined(TINY_LESSON, Workplace(tmp_path, progress=False))
    run = nf.Run.load(tmp_path / "run")
    recorded = simulate("springs", 4, 3, steps=70, seed=1, split="test")
    seen = simulate("springs", 4, 3, steps=49, seed=1, split="test")
    assert torch.equal(recorded.states[:, :49], seen.states)
    for way, settings in (("directed", run.settings), ("undirected", replace(run.settings, undirected=True))):
        judge = replace(run, settings=settings)
        structures = nf.infer(judge, seen)
        assert found[way]["edge_accuracy"] == nf.evaluate(judge, seen, structures)["edge_accuracy"]
        states = judge.normalisation.apply(recorded.states)
        path = nf.forecast(judge, recorded, structures, 20, start=49, normalised=True)
        for h in (1, 10, 20):
            error = float((path[:, h - 1] - states[:, 49 + h]).double().square().mean())
            assert found[way]["ahead"][f"mse_{h}"] == pytest.approx(error, rel=1e-5)
        still = float((states[:, 49] - states[:, 59]).double().square().mean())
        assert found[way]["ahead"]["mse_10_nothing_moves"] == pytest.approx(still, rel=1e-5)


def test_mega_graphs_give_the_same_bits(tmp_path, monkeypatch):
    monkeypatch.setitem(mega_graph.SYSTEMS, "small", (1, 3))
    result = run(tmp_path / "x", name="mega-graph")
    assert [part["figures"]["same_bits"] for part in result["parts"].values()] == [True, True]
    assert [row[:2] for row in result["table"]["rows"]] == [["32", "1"], ["32", "3"]]
    assert all(part["figures"]["one_at_a_time"] > 0 for part in result["parts"].values())


def test_cells():
    assert text.percent([0.5]) == "50.00"
    assert text.percent([0.5, 0.7]) == "60.00 ± 14.14"
    assert text.error([1e-3, None, 3e-3]) == "2.00e-03"
    assert (text.percent([]), text.error([None]), text.seconds([None]), text.number([])) == ("-",) * 4


def test_command_line(tmp_path, monkeypatch, capsys):
    counting(monkeypatch)
    arguments = ["experiment", "accuracy", "--out", str(tmp_path / "x"), "--seed", "5", "--device", "cpu"]
    assert cli.main(arguments) == 0
    assert "| part-3 | 9      |" in capsys.readouterr().out
    assert cli.main(arguments) == 2
    assert "already there and not empty" in capsys.readouterr().err
    assert cli.main([*arguments, "--resume"]) == 0
    assert capsys.readouterr().out.count("done before") == 3
    counting(monkeypatch, fails_at=1)
    assert cli.main(["experiment", "accuracy", "--out", str(tmp_path / "y"), "--device", "cpu"]) == 130
    assert "the same command with --resume" in capsys.readouterr().err


def test_command_line_names_the_experiments(tmp_path, capsys):
    assert cli.main(["experiment", "guess", "--out", str(tmp_path / "x"), "--device", "cpu"]) == 2
    assert "experiment: expected one of accuracy" in capsys.readouterr().err
    assert not (tmp_path / "x").exists()
