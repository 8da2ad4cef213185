"""Forecasts of what comes behind recordings."""

import csv
import dataclasses

import numpy as np
import pytest
import torch

import nri_fast as nf
from nri_fast.cli import main
from nri_fast.onwards import forecast_onwards, states_table
from nri_fast.origin import Origin, named_entities


@pytest.fixture(scope="module")
def run():
    settings = dataclasses.replace(nf.PRESETS["springs"], steps=20, polish_steps=2, batch=4)
    return nf.train(nf.simulate("springs", 8, 3, steps=20, seed=1), settings=settings, seed=1, progress=False)


@pytest.fixture
def data():
    return nf.simulate("springs", 4, 3, steps=20, seed=1, split="test")


def test_it_goes_on_from_the_last_step(run, data):
    ahead = forecast_onwards(run, data, horizon=5)
    expected = nf.forecast(run, data, nf.infer(run, data), 5, start=19)
    assert torch.equal(ahead.states, expected.double())
    assert ahead.present is None
    assert ahead.edges is None


def test_nothing_behind_the_start_is_looked_at(run, data):
    ahead = forecast_onwards(run, data, horizon=3, start=9)
    changed = dataclasses.replace(data, states=data.states.clone())
    changed.states[:, 10:] = 0.7
    assert torch.equal(forecast_onwards(run, changed, horizon=3, start=9).states, ahead.states)
    changed.states[:, 9] += 0.1
    assert not torch.equal(forecast_onwards(run, changed, horizon=3, start=9).states, ahead.states)


def test_every_recording_goes_on_from_its_own_end(run, data):
    present = torch.ones(4, 20, 3, dtype=torch.bool)
    present[1, 12:] = False
    present[2, 19, 1] = False  # gone at the end
    origin = Origin(
        torch.arange(4),
        ("a", "b", "c", "d"),
        torch.tensor([0, 100, 0, 0]),
        torch.ones(4, dtype=torch.float64),
        named_entities(4, 3, ["x", "y", "z"]),
    )
    ragged = dataclasses.replace(data, present=present, origin=origin, edges=None)
    ahead = forecast_onwards(run, ragged, horizon=2)
    cut = data.select(torch.tensor([1])).part(slice(0, 12))
    assert torch.equal(ahead.states[1], forecast_onwards(run, cut, horizon=2).states[0])
    assert ahead.there[2].tolist() == [[True, False, True]] * 2
    assert ahead.there[[0, 1, 3]].all()
    assert ahead.origin.first_step.tolist() == [20, 112, 20, 20]
    rows = list(csv.DictReader(states_table(ahead, ahead.origin.first_step, torch.arange(4)).splitlines()))
    assert len(rows) == 2 * (3 + 3 + 2 + 3)
    assert rows[6] == {"system": "1", "recording": "b", "step": "112", "entity": "x"} | {
        name: f"{float(ahead.states[1, 0, 0, d]):.8g}" for d, name in enumerate(data.feature_names)
    }


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"horizon": 0}, "horizon: expected at least 1, got 0"),
        ({"start": 0}, "start: expected 1 to 19"),
        ({"start": 20}, "start: expected 1 to 19"),
    ],
)
def test_what_cannot_be(run, data, arguments, message):
    with pytest.raises(ValueError, match=message):
        forecast_onwards(run, data, **arguments)


def test_a_recording_of_one_step_is_named(run, data):
    present = torch.ones(4, 20, 3, dtype=torch.bool)
    present[2, 1:] = False
    with pytest.raises(ValueError, match="at least 2 steps, got one in system 2"):
        forecast_onwards(run, dataclasses.replace(data, present=present))


def test_the_command(run, data, tmp_path, capsys):
    run.save(tmp_path / "run")
    nf.save_trajectories(data, tmp_path / "data")
    where = [str(tmp_path / "run"), str(tmp_path / "data")]
    assert main(["forecast", *where, "--horizon", "4", "--out", str(tmp_path / "ahead.npz")]) == 0
    ahead = nf.load_trajectories(tmp_path / "ahead.npz")  # as any command reads it
    assert torch.equal(ahead.states, forecast_onwards(run, data, 4).states)
    assert ahead.feature_names == data.feature_names
    assert main(["forecast", *where, "--start", "9", "--horizon", "1", "--out", str(tmp_path / "ahead.csv")]) == 0
    rows = list(csv.DictReader((tmp_path / "ahead.csv").read_text().splitlines()))
    assert {row["step"] for row in rows} == {"10"}
    np.testing.assert_allclose(float(rows[0]["x"]), float(forecast_onwards(run, data, 1, 9).states[0, 0, 0, 0]), 1e-6)
    for name, words in (("ahead.npz", "already there"), ("ahead.txt", ".npz or .csv")):
        assert main(["forecast", *where, "--out", str(tmp_path / name)]) == 2
        assert words in capsys.readouterr().err
