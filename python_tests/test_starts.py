"""Several starts: the best is kept, without labels, and each is what it is alone. And signs that one ended badly."""

import dataclasses
import json
import math

import pytest
import torch

import nri_fast
from nri_fast import cli
from nri_fast.doubts import agreement_of_halves
from nri_fast.settings import PRESETS
from nri_fast.starts import error_of_halves

TINY = dataclasses.replace(PRESETS["springs"], steps=12, polish_steps=2, batch=5)


@pytest.fixture(scope="module")
def data():
    return nri_fast.simulate("springs", 10, entities=3, steps=16, seed=2)


@pytest.fixture(scope="module")
def learned():
    """A run that has learned springs, and systems it has not seen."""
    settings = dataclasses.replace(PRESETS["springs"], steps=500, polish_steps=0)
    train, test = (nri_fast.simulate("springs", 40, entities=3, seed=4, split=split) for split in ("train", "test"))
    return nri_fast.train(train, settings=settings, seed=1, progress=False), test


def weights(run):
    return torch.cat([value.flatten() for value in run.library.state_dict().values()])


def test_the_best_of_several_is_kept(data, tmp_path):
    best = nri_fast.train_starts(data, 3, settings=TINY, seed=5, out=tmp_path / "run", progress=False)
    alone = [nri_fast.train(data, settings=TINY, seed=seed, progress=False) for seed in (5, 6, 7)]
    least = min(run.scale_squared for run in alone)
    errors = [error_of_halves(run, data, least) for run in alone]
    assert best.starts == [{"seed": 5 + k, "error": error} for k, error in enumerate(errors)]
    assert best.seed == 5 + errors.index(min(errors))
    assert torch.equal(weights(best), weights(alone[errors.index(min(errors))]))
    again = nri_fast.Run.load(tmp_path / "run")
    assert (again.starts, again.seed) == (best.starts, best.seed)
    assert sorted(p.name for p in (tmp_path / "run" / "starts").iterdir()) == ["seed-5", "seed-6", "seed-7"]


def test_labels_do_not_count(data):
    without = dataclasses.replace(data, edges=None)
    kept = [nri_fast.train_starts(d, 2, settings=TINY, progress=False) for d in (data, without)]
    assert kept[0].starts == kept[1].starts


def test_modules_that_know_the_law_err_less_than_others(learned):
    run, test = learned
    ignorant = nri_fast.train(test, settings=TINY, seed=3, progress=False)
    assert error_of_halves(run, test, 1e-4) < error_of_halves(ignorant, test, 1e-4) - 1
    with torch.no_grad():
        for parameter in ignorant.library.parameters():
            parameter.fill_(math.nan)
    assert error_of_halves(ignorant, test, 1e-4) == math.inf


@pytest.mark.parametrize(("starts", "steps"), [(0, 16), (2, 3)])
def test_starts_that_cannot_be(data, starts, steps):
    short = dataclasses.replace(data, states=data.states[:, :steps])
    with pytest.raises(ValueError, match="starts: expected"):
        nri_fast.train_starts(short, starts, settings=TINY, progress=False)


def test_the_command_resumes_between_starts(data, tmp_path, capsys):
    nri_fast.save_trajectories(data, tmp_path / "data.npz")
    options = ["--steps", "12", "--polish-steps", "2", "--batch", "5", "--seed", "5"]
    for out, more in (("whole", []), ("broken", [])):
        arguments = [
            "train",
            str(tmp_path / "data.npz"),
            "--out",
            str(tmp_path / out),
            "--starts",
            "2",
            *options,
            *more,
        ]
        assert cli.main(arguments) == 0
    capsys.readouterr()
    for file in ("run.json", "starts/seed-6/run.json"):
        (tmp_path / "broken" / file).unlink()
    assert cli.main(["train", "--resume", "--out", str(tmp_path / "broken")]) == 0
    assert "of 2 starts" in capsys.readouterr().out
    whole, again = (json.loads((tmp_path / out / "run.json").read_text()) for out in ("whole", "broken"))
    assert whole == again
    assert cli.main(["train", "--resume", "--out", str(tmp_path / "broken"), "--starts", "3"]) == 2
    assert "--starts" in capsys.readouterr().err


def test_the_command_refuses_starts_from_a_start(data, tmp_path, capsys):
    nri_fast.save_trajectories(data, tmp_path / "data.npz")
    assert cli.main(["train", str(tmp_path / "data.npz"), "--out", str(tmp_path / "r"), "--starts", "2",
                     "--start", str(tmp_path)]) == 2  # fmt: skip
    assert "--starts: expected 1 or more, and 1 with --start" in capsys.readouterr().err


def test_a_refused_attempt_leaves_the_name_free(data, tmp_path):
    nri_fast.save_trajectories(data, tmp_path / "data.npz")
    arguments = ["train", str(tmp_path / "data.npz"), "--out", str(tmp_path / "run"), "--starts", "2", "--batch", "5"]
    assert cli.main([*arguments, "--judged", "colour"]) == 2
    assert cli.main([*arguments, "--steps", "2", "--polish-steps", "0"]) == 0


# Signs ---------------------------------------------------------------------------------------------------------------


def test_no_sign_where_the_graphs_are_right(learned):
    run, test = learned
    found = nri_fast.infer(run, test)
    assert nri_fast.evaluate(run, test, found)["edge_accuracy"] > 0.97
    assert nri_fast.doubts(run, test, found) == []
    assert agreement_of_halves(run, test) > 0.8


def test_modules_that_learned_nothing_are_noticed(learned):
    _, test = learned
    run = nri_fast.train(test, settings=dataclasses.replace(TINY, steps=1), seed=3, progress=False)
    signs = " ".join(nri_fast.doubts(run, test, nri_fast.infer(run, test)))
    assert "agree little" in signs
    assert "no better than" in signs


def test_each_sign_is_seen(learned):
    run, test = learned
    found = nri_fast.infer(run, test)
    even = dataclasses.replace(found, probability=torch.where(found.probability > 0.5, 0.55, 0.45))
    assert "near even" in " ".join(nri_fast.doubts(run, test, even))
    one = dataclasses.replace(found, adjacency=torch.zeros_like(found.adjacency))
    assert "Almost all edges have type 0" in " ".join(nri_fast.doubts(run, test, one))
    figures = nri_fast.evaluate(run, test, found)
    worse = figures | {"mse_1": figures["mse_1_constant_velocity"] * 1.01}
    assert "constant velocity" in " ".join(nri_fast.doubts(run, test, found, worse))
    twins = nri_fast.Run(**{**vars(run), "library": nri_fast.ModuleLibrary(**run.library.settings())})
    twins.library.load_state_dict(run.library.state_dict())
    twins.library.edge[1].load_state_dict(run.library.edge[0].state_dict())
    assert "Types 0 and 1 move their receivers alike" in " ".join(nri_fast.doubts(twins, test, found))
