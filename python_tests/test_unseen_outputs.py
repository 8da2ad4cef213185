"""The command, the picture and the experiment about unseen entities."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from matplotlib.patches import FancyArrowPatch

import nri_fast as nf
from nri_fast import cli, plot
from nri_fast.experiments import lesson, runner
from nri_fast.experiments import unseen as experiment
from nri_fast.experiments.lesson import Lesson
from nri_fast.unseen import find, search

TINY = {"steps": 12, "polish_steps": 4, "batch": 4, "message": 4, "edge_hidden": (5,), "node_hidden": (6,)}


@pytest.fixture(autouse=True)
def _short_search(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(search, "RESTARTS", 4)
    monkeypatch.setattr(find, "SYSTEMS_AT_ONCE", 2)


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A run and test data, three bodies each."""
    folder = tmp_path_factory.mktemp("unseen")
    settings = nf.Settings(**TINY)  # type: ignore[arg-type]
    nf.train(nf.simulate("springs", 12, 3, 13, 1), settings=settings, out=folder / "run", progress=False)
    nf.save_trajectories(nf.simulate("springs", 5, 3, 13, 1, "test"), folder / "data")
    return folder / "run", folder / "data"


def call(*arguments: object) -> int:
    return cli.main(["unseen", *(str(argument) for argument in arguments)])


def arrays_of(folder: Path) -> dict[str, Any]:
    with np.load(folder / "found.npz", allow_pickle=False) as file:
        return dict(file)


def test_hiding_what_is_known(folders: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert call(*folders, "--hide", 1, "--systems", 3, "--out", tmp_path / "x") == 0
    text = capsys.readouterr().out
    assert "best constant guess" in text
    assert "figures.json, found.npz, plan.json, unseen.png" in text
    assert sorted(file.name for file in (tmp_path / "x").iterdir()) == [
        "figures.json",
        "found.npz",
        "plan.json",
        "unseen.png",
    ]
    run, data = nf.Run.load(folders[0]), nf.load_trajectories(folders[1], "test").select(torch.arange(3))
    seen, truth = nf.hide(data, [1])
    found = nf.find_unseen(run, seen)
    arrays = arrays_of(tmp_path / "x")
    assert sorted(arrays) == ["adjacency", "deviation", "energy", "path", "probability"]
    assert np.array_equal(arrays["adjacency"], found.adjacency.numpy())
    assert np.array_equal(arrays["path"], run.normalisation.undo(found.path).numpy())
    figures = json.loads((tmp_path / "x" / "figures.json").read_text())
    assert figures["error"] == nf.score_unseen(run, found, truth)["error"]
    assert (tmp_path / "x" / "unseen.png").read_bytes().startswith(b"\x89PNG")


def test_entities_that_are_missing(folders: tuple[Path, Path], tmp_path: Path) -> None:
    assert call(*folders, "--hidden", 2, "--systems", 2, "--undirected", "--out", tmp_path / "x") == 0
    arrays = arrays_of(tmp_path / "x")
    assert arrays["adjacency"].shape == (2, 5, 5)
    assert np.array_equal(arrays["adjacency"], arrays["adjacency"].transpose(0, 2, 1))
    assert arrays["path"].shape == (2, 13, 2, 4)
    assert not (tmp_path / "x" / "figures.json").exists()


def test_a_killed_search_goes_on(
    folders: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    call(*folders, "--hide", 0, "--out", tmp_path / "undisturbed")
    searched: list[int] = []

    def dies(scene: Any, *rest: Any) -> Any:
        searched.append(int(scene.ids[0]))
        if searched == [0, 2]:
            raise KeyboardInterrupt
        return search.search(scene, *rest)

    monkeypatch.setattr(find, "search", dies)
    assert call(*folders, "--hide", 0, "--out", tmp_path / "x") == cli.INTERRUPTED
    assert "the same command with --resume" in capsys.readouterr().err
    assert call(*folders, "--hide", 0, "--out", tmp_path / "x") == cli.USER_ERROR
    assert "already there and not empty" in capsys.readouterr().err
    assert call(*folders, "--hide", 1, "--out", tmp_path / "x", "--resume") == cli.USER_ERROR
    assert "was begun with hide (0,), got (1,)" in capsys.readouterr().err
    assert call(*folders, "--hide", 0, "--out", tmp_path / "x", "--resume") == 0
    assert searched == [0, 2, 2, 4]
    expected, got = arrays_of(tmp_path / "undisturbed"), arrays_of(tmp_path / "x")
    for name, array in expected.items():
        assert np.array_equal(got[name], array), name


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        (["--systems", 9], "--systems: expected 1 to 5, got 9"),
        (["--hide", 3], "entities: expected different ones of 0 to 2, got [3]"),
        (["--hidden", 0], "--hidden: expected at least 1, got 0"),
    ],
)
def test_mistakes(
    folders: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str], options: list[object], problem: str
) -> None:
    assert call(*folders, *options, "--out", tmp_path / "x") == cli.USER_ERROR
    assert problem in capsys.readouterr().err
    assert not (tmp_path / "x").exists()


# ---- picture ----


def test_picture() -> None:
    random = np.random.default_rng(0)
    seen, found = random.normal(size=(2, 9, 3, 4)), random.normal(size=(2, 9, 2, 4))
    adjacency = random.integers(2, size=(2, 5, 5))
    adjacency[:, range(5), range(5)] = 0
    true = adjacency.copy()
    true[1, 0, 4] = 1 - true[1, 0, 4]
    figure = plot.unseen(seen, found, adjacency, found + 0.1, true, silent=0)
    assert [len([p for p in axes.patches if isinstance(p, FancyArrowPatch)]) for axes in figure.axes] == [0, 0, 20, 20]
    crosses = [[line for line in axes.lines if line.get_marker() == "x"] for axes in figure.axes]
    assert [len(each) for each in crosses] == [0, 0, 0, 1]
    drawn = figure.axes[1].lines
    assert len(drawn) == 3 + 2 * 3  # seen; true, found and its first state of two
    assert np.allclose(drawn[4].get_ydata(), found[1, :, 0, 1])
    labels = [text.get_text() for text in figure.legends[0].texts]
    assert {"unseen entity, found", "unseen entity, in truth", "no interaction", "wrong type"} <= {*labels}
    over_time = plot.unseen(seen[..., :1], found[..., :1], adjacency, feature_names=("phi",))
    assert over_time.axes[0].get_xlabel() == "step"
    with pytest.raises(ValueError, match=r"adjacency: expected shape \[2, 5, 5\], got \[2, 4, 4\]"):
        plot.unseen(seen, found, adjacency[:, :4, :4])


# ---- experiment ----


def test_experiment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tiny = Lesson("springs", "springs", 6, entities=3, tested=4, changes=TINY)
    tasks = (experiment.Task((2,), False), experiment.Task((2,), True))
    monkeypatch.setitem(experiment.TASKS, "small", tasks)
    monkeypatch.setitem(experiment.LESSONS, "small", tiny)
    monkeypatch.setitem(lesson.SEEDS, "small", 2)
    result = runner.run_experiment("unseen", out=tmp_path / "x", progress=False, say=lambda line: None)
    rows = result["table"]["rows"]
    assert {row[0] for row in rows} == {"1 hidden, directed", "1 hidden, undirected"}
    parts = [part["figures"]["tasks"][0]["figures"] for part in result["parts"].values()]
    (all_of_them,) = (row for row in rows if row[:2] == ["1 hidden, directed", "1 or more"])
    counts = [figures["linked"]["entities"] for figures in parts]
    assert all_of_them[2] == str(sum(counts))
    mean = sum(f["linked"]["error"] * n for f, n in zip(parts, counts, strict=True) if n) / sum(counts)
    assert float(all_of_them[3]) == pytest.approx(mean, rel=0.06)
    assert sum(int(row[2]) for row in rows if row[0] == "1 hidden, directed" and row[1].isdigit()) == 8
