"""Training that goes on from another run's modules."""

from __future__ import annotations

import dataclasses

import pytest
import torch

import nri_fast as nf
from nri_fast.bouncegrad import BounceGrad
from nri_fast.checkpoint import CheckpointError
from nri_fast.simulate import simulate

TINY = dataclasses.replace(
    nf.PRESETS["springs"], message=8, edge_hidden=(8,), steps=100, polish_steps=5, learning_rate=0.01
)


@pytest.fixture(scope="module")
def start() -> nf.Run:
    return nf.train(simulate("springs", 12, seed=1), settings=TINY, seed=1, progress=False)


def trained(start: nf.Run | None, data=None, out=None, resume=False, on_step=None, **changes) -> nf.Run:
    data = simulate("springs", 6, entities=4, seed=2) if data is None else data
    settings = dataclasses.replace(TINY, **{"steps": 4, "polish_steps": 0, **changes})
    return nf.train(
        data, settings=settings, seed=2, start=start, out=out, resume=resume, progress=False, on_step=on_step
    )


def test_it_begins_with_the_modules_and_their_units(start):
    seen = []

    def look(trainer: BounceGrad) -> None:
        seen.append((trainer.scale_squared, trainer.history.temperature[-1], trainer.history.learning_rate[-1]))

    run = trained(start, steps=1, learning_rate=1e-12, on_step=look)
    for name, value in start.library.state_dict().items():
        assert torch.allclose(run.library.state_dict()[name], value, atol=1e-9), name
    assert run.normalisation == start.normalisation
    assert seen[0][0] == pytest.approx(start.scale_squared, rel=0.2)
    cold = nf.train(simulate("springs", 6, entities=4, seed=2), settings=TINY, seed=2, progress=False)
    assert cold.history.scale_squared[0] > 3 * seen[0][0]


def test_the_start_is_not_changed(start):
    before = start.library.flat_parameters().clone()
    run = trained(start)
    assert torch.equal(start.library.flat_parameters(), before)
    assert not torch.equal(run.library.flat_parameters(), before)


def test_the_file_tells_where_a_run_started(start, tmp_path):
    run = trained(start, out=tmp_path / "run")
    again = nf.Run.load(tmp_path / "run")
    assert again.started_from == run.started_from
    assert again.started_from["trained_on"]["systems"] == 12
    third = trained(again)
    assert third.started_from["started_from"] == again.started_from
    assert third.started_from["modules"] != again.started_from["modules"]


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"message": 7}, "message 8, but the settings 7"),
        ({"edge_types": 3}, "edge_types 2"),
        ({"node_types": 2}, "node_types 1"),
        ({"silent": True}, "silent False"),
        ({"edge_hidden": (8, 8)}, "edge_hidden"),
        ({"relative": ()}, "relative"),
        ({"scaled": False}, "scaled"),
    ],
)
def test_other_modules_are_refused(changes, named, start):
    with pytest.raises(ValueError, match=f"start: .*{named}"):
        trained(start, **changes)


def test_other_features_are_refused(start):
    data = simulate("kuramoto", 3, seed=2)
    with pytest.raises(ValueError, match="start: learned from features"):
        trained(start, data=data)


def test_a_metropolis_run_can_start_from_a_heat_bath(start):
    run = trained(start, bounce="metropolis", robust=False, rollout=2)
    assert torch.isfinite(run.library.flat_parameters()).all()


def test_resuming_with_another_start_is_refused(start, tmp_path):
    trained(start, out=tmp_path / "run")
    with pytest.raises(CheckpointError, match="states differs"):  # they would have another normalisation
        trained(None, out=tmp_path / "run", resume=True)
    other = dataclasses.replace(start, library=trained(start).library)
    with pytest.raises(CheckpointError, match="start differs"):
        trained(other, out=tmp_path / "run", resume=True)
