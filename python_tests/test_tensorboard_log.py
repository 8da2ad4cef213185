"""Curves for TensorBoard: the history's own figures, once each, also after a run was resumed."""

import sys

import pytest

import nri_fast
from nri_fast import cli
from nri_fast.settings import Settings
from nri_fast.tensorboard_log import FOLDER

TINY = Settings(message=4, edge_hidden=(4,), node_hidden=(4,), steps=20, batch=4, transitions=2, polish_steps=4)


@pytest.fixture(scope="module")
def data():
    return nri_fast.simulate("springs", 6, 3, seed=1)


def read(folder):
    """{curve: [(step, value)]} as TensorBoard would draw them."""
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    events = accumulator.EventAccumulator(str(folder))
    events.Reload()
    return {name: [(e.step, e.value) for e in events.Scalars(name)] for name in events.Tags()["scalars"]}


def same_as(history, curves):
    told = history.to_dict()
    steps = told.pop("step")
    assert set(curves) == {name for name, values in told.items() if values}
    for name, points in curves.items():
        assert [step for step, _ in points] == steps
        assert [value for _, value in points] == pytest.approx(told[name], rel=1e-6)


def test_the_log_holds_the_history(data, tmp_path):
    pytest.importorskip("tensorboard")
    run = nri_fast.train(data, settings=TINY, out=tmp_path / "run", progress=False, tensorboard=True)
    assert len(run.history.step) == TINY.steps + TINY.polish_steps
    same_as(run.history, read(tmp_path / "run" / FOLDER))


def test_a_resumed_run_goes_on_with_its_log(data, tmp_path):
    pytest.importorskip("tensorboard")

    def stop(trainer):
        if trainer.step == 10:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        nri_fast.train(data, settings=TINY, out=tmp_path / "run", progress=False, tensorboard=True, on_step=stop)
    assert len(read(tmp_path / "run" / FOLDER)["loss"]) == 10
    # There was no checkpoint yet: everything is done again, and what was logged is superseded.
    run = nri_fast.train(data, settings=TINY, out=tmp_path / "run", progress=False, resume=True)
    same_as(run.history, read(tmp_path / "run" / FOLDER))


def test_the_command_logs_every_start(data, tmp_path, capsys):
    pytest.importorskip("tensorboard")
    nri_fast.save_trajectories(data, tmp_path / "data.npz")
    arguments = ["train", str(tmp_path / "data.npz"), "--out", str(tmp_path / "run"), "--tensorboard", "--starts", "2"]
    assert cli.main([*arguments, "--steps", "5", "--polish-steps", "0", "--batch", "4"]) == 0
    for seed in (0, 1):
        assert len(read(tmp_path / "run" / "starts" / f"seed-{seed}" / FOLDER)["loss"]) == 5


def test_a_log_without_tensorboard_is_refused_before_anything_is_made(data, tmp_path, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    with pytest.raises(ImportError, match="TensorBoard is not installed"):
        nri_fast.train(data, settings=TINY, out=tmp_path / "run", progress=False, tensorboard=True)
    nri_fast.save_trajectories(data, tmp_path / "data.npz")
    assert cli.main(["train", str(tmp_path / "data.npz"), "--out", str(tmp_path / "run"), "--tensorboard"]) == 2
    assert "nri_fast[tensorboard]" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_a_log_needs_a_folder(data):
    with pytest.raises(ValueError, match="tensorboard: expected `out`"):
        nri_fast.train(data, settings=TINY, progress=False, tensorboard=True)
