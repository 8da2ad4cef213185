"""Experiments on recordings that people have, worked off on small files made up here."""

import dataclasses
import itertools
import json
from pathlib import Path

import numpy as np
import pytest
from test_readers_mocap import SKELETON

from nri_fast import cli
from nri_fast.experiments import mocap, platoons, runner, vehicles
from nri_fast.experiments.experiment import Workplace
from nri_fast.readers.recording import DataError, Recording
from nri_fast.report import json_text


def figures_of(experiment, files, folder, scale="small"):
    """All parts worked off, as the runner reads them back, and the report."""
    figures = {}
    for part in experiment.parts(scale, 1, files):
        (folder / part.name).mkdir()
        found = part.work(Workplace(folder / part.name, progress=False))
        figures[part.name] = json.loads(json_text(found))
    return figures, experiment.report(figures)


# Platoons -----------------------------------------------------------------------------------------------------------


@pytest.fixture
def cars(tmp_path):
    """Seven runs of cars, each of which follows the speed of the one ahead with a lag of a second or two."""
    random = np.random.default_rng(0)
    runs = {"dt": np.array(0.1)}
    for run in range(7):
        count, steps = 3 + run % 3, 400
        speed = np.full((steps, count), 10.0)
        push = random.normal(size=steps + 60)
        speed[:, 0] += np.convolve(push, np.ones(30) / 10, "valid")[:steps]
        for t in range(1, steps):
            speed[t, 1:] = speed[t - 1, 1:] + 0.06 * (speed[t - 1, :-1] - speed[t - 1, 1:])
            speed[t, 1:] += 0.01 * random.normal(size=count - 1)
        place = np.cumsum(speed, axis=0) * 0.1 - 20 * np.arange(count)
        runs[f"run{run}"] = np.stack([place, np.zeros_like(place), speed], axis=-1)
    file = tmp_path / "platoons.npz"
    np.savez(file, **runs)
    return file


def test_platoons(cars, tmp_path, monkeypatch):
    monkeypatch.setitem(platoons.STEPS, "small", 15)
    monkeypatch.setitem(platoons.SEEDS, "small", 2)
    monkeypatch.setattr(platoons, "FOLDS", 2)
    figures, report = figures_of(platoons.EXPERIMENT, (cars,), tmp_path)
    assert all(row[0].endswith(", at most one leader") for row in report.rows[4:])
    rows, known = ({row[0].split(" (")[0]: row for row in some} for some in (report.rows[:4], report.rows[4:]))
    assert list(rows) == ["nri_fast, mean score of 2 runs", "nri_fast, one training run", "lagged correlation",
                          "Granger causality"]  # fmt: skip
    assert len(known) == 4
    scored = [{**figures[f"seed{seed}-fold0"]["scores"], **figures[f"seed{seed}-fold1"]["scores"]} for seed in (1, 2)]
    both = {name: (np.array(scored[0][name]) + scored[1][name]) / 2 for name in scored[0]}
    assert float(rows["nri_fast, mean score of 2 runs"][1]) == pytest.approx(platoons.quality(both)["auroc"], abs=1e-3)
    told = platoons.quality({name: platoons.one_leader(odds) for name, odds in both.items()})
    assert float(known["nri_fast, mean score of 2 runs, at most one leader"][1]) == pytest.approx(
        told["auroc"], abs=1e-3
    )
    assert float(rows["lagged correlation"][1]) > 0.8
    assert float(known["lagged correlation"][1]) > 0.8
    tested = [name for fold in range(2) for name in figures[f"seed1-fold{fold}"]["scores"]]
    assert sorted(tested) == [f"run{run}" for run in range(7)]  # each once, by modules that never saw it
    assert "7 runs of 3 to 5 cars" in report.notes[0]


def test_speeds_are_means_of_what_is_past(cars):
    run = platoons.platoons([cars])[0]
    recorded = next(iter(run.pieces()))[..., 2]
    assert np.allclose(platoons.speeds(run, 1.0, 3)[1], recorded[13:23].mean(0))
    first = platoons.states(run)[0]
    assert np.allclose(first[0, :, 1], recorded[10:20].mean(0) - recorded[:10].mean(0))
    assert len({len(series) for series in platoons.states(run)}) == 1


def test_quality_of_scores():
    chain = np.eye(4, k=1)
    assert platoons.quality({"a": chain, "b": chain[:3, :3]}) == {
        "auroc": 1.0, "auroc_of_runs": 1.0, "worst_run": 1.0, "leader": 1.0
    }  # fmt: skip
    assert platoons.quality({"a": -chain})["auroc"] == 0
    assert platoons.quality({"a": np.zeros((4, 4))})["auroc"] == 0.5


def test_one_leader_is_the_posterior_over_choices_of_senders():
    odds = np.array([[0.0, 1.3, -0.4, 2.0], [0.2, 0.0, 0.9, -3.0], [-1.0, 0.7, 0.0, 0.5], [0.1, -0.2, 0.3, 0.0]])
    found = platoons.one_leader(odds)
    for j in range(4):
        others = [i for i in range(4) if i != j]
        allowed = [choice for choice in itertools.product((0, 1), repeat=3) if sum(choice) <= 1]
        weight = {choice: np.exp(np.dot(choice, odds[others, j])) for choice in allowed}
        for place, i in enumerate(others):
            active = sum(w for choice, w in weight.items() if choice[place])
            assert found[i, j] == pytest.approx(np.log(active / (sum(weight.values()) - active)))
    ahead = platoons.ahead_of_others(odds)
    assert ahead[:, 3] == pytest.approx([1.5, -5.0, -1.5, 0.0])
    assert platoons.ahead_of_others(odds[:2, :2]).tolist() == [[0.0, 1.3], [0.2, 0.0]]


def test_too_few_platoons_and_names_twice(tmp_path):
    np.savez(tmp_path / "few.npz", run=np.ones((100, 3, 3)), dt=np.array(0.1))
    with pytest.raises(DataError, match=r"few\.npz: expected at least 6 runs of 7 s, got 1"):
        platoons.divided((tmp_path / "few.npz",), (), 1, 0)
    np.savez(tmp_path / "short.npz", run=np.ones((60, 3, 3)), dt=np.array(0.1))
    with pytest.raises(DataError, match=r"short\.npz: expected at least 1 runs of 7 s, got 0"):
        platoons.baselines((tmp_path / "short.npz",), Workplace(tmp_path))
    with pytest.raises(DataError, match=r"expected runs of different names, got 'run' twice"):
        platoons.platoons([tmp_path / "few.npz"] * 2)


def test_platoons_of_another_file(cars, tmp_path, monkeypatch):
    monkeypatch.setitem(platoons.STEPS, "small", 3)
    monkeypatch.setitem(platoons.SEEDS, "small", 1)
    with np.load(cars) as runs:
        np.savez(tmp_path / "other.npz", **{name: runs[name] for name in ("dt", "run5", "run6")})
        np.savez(tmp_path / "known.npz", **{name: runs[name] for name in ("dt", "run0", "run1")})
    made = platoons.parts("small", 1, (tmp_path / "known.npz",), (tmp_path / "other.npz",))
    assert [part.name for part in made] == ["baselines", "seed1"]
    figures = {part.name: part.work(Workplace(tmp_path / "work", progress=False)) for part in made}
    assert sorted(figures["seed1"]["scores"]) == ["run5", "run6"]
    assert platoons.EXPERIMENT.report(figures).notes[0].startswith("2 runs of ")


# Vehicles -----------------------------------------------------------------------------------------------------------


@pytest.fixture
def tracks(tmp_path):
    """Four scenarios of vehicles in two lanes, towards the north-east; some enter late or leave early."""
    random = np.random.default_rng(1)
    rows = []
    for scenario in range(4):
        for track in range(6):
            first, last = (random.integers(8), 90 - random.integers(8)) if track > 2 else (0, 90)
            speed = 12 + random.normal() + np.cumsum(0.05 * random.normal(size=90))
            along = 15 * (track % 3) + np.cumsum(speed) * 0.1
            across = 3.7 * (track // 3)
            for step in range(first, last):
                x, y = (along[step] - across) / np.sqrt(2), (along[step] + across) / np.sqrt(2)
                rows.append((scenario, track, step, x, y, np.pi / 4, speed[step]))
    table = np.array(rows)
    file = tmp_path / "tracks.npz"
    whole = {name: table[:, k].astype(np.int64) for k, name in enumerate(("scenario", "track", "step"))}
    np.savez(file, **whole, x_y_heading_speed=table[:, 3:].astype(np.float32), dt=np.array(0.1))
    return file


def test_vehicles(tracks, tmp_path, monkeypatch):
    monkeypatch.setitem(vehicles.STEPS, "small", (10, 20))
    monkeypatch.setitem(vehicles.TOGETHER, "small", 2)
    monkeypatch.setattr(vehicles, "FOLDS", 2)
    figures, report = figures_of(vehicles.EXPERIMENT, (tracks,), tmp_path)
    alone, related = "without relations", "with relations"
    assert [row[0] for row in report.rows] == [
        "constant velocity", alone, f"{alone}, one run", related, f"{related}, one run"
    ]  # fmt: skip
    assert sorted(s for part in figures.values() for s in part["scenarios"]) == ["0", "1", "2", "3"]
    for part in figures.values():
        assert part["forecasts"][0] >= part["forecasts"][-1] > 0
        assert sum(one["edges"] for one in part["edges"].values()) > 0
        assert all(0 <= one["active"] <= one["edges"] for one in part["edges"].values())
        assert all(np.isfinite(values).all() for values in part["squares"].values())
        for name in (alone, related):  # a mean of forecasts is never worse than the forecasts are on average
            assert all(np.less(part["squares"][name], part["squares"][f"{name}, one run"]))
    assert "nan" not in report.markdown()
    assert len(report.figure.axes) == 2


def test_vehicles_of_another_file(tracks, tmp_path, monkeypatch):
    monkeypatch.setitem(vehicles.STEPS, "small", (5, 10))
    with np.load(tracks) as arrays:
        rows = {name: arrays[name] for name in arrays.files if name != "dt"}
    for file, numbers in (("known", [0, 1]), ("other", [2])):
        chosen = np.isin(rows["scenario"], numbers)
        np.savez(tmp_path / f"{file}.npz", dt=np.array(0.1), **{name: array[chosen] for name, array in rows.items()})
    (part,) = vehicles.parts("small", 1, (tmp_path / "known.npz",), (tmp_path / "other.npz",))
    figures = part.work(Workplace(tmp_path / "work", progress=False))
    assert figures["scenarios"] == ["2"]
    alone = vehicles.windows(vehicles.scenarios([tmp_path / "known.npz"]))
    assert figures["systems"] == alone.systems
    with pytest.raises(DataError, match=r"known\.npz: expected at least 5 scenarios, got 2"):
        vehicles.divided((tmp_path / "known.npz",), (), 1, 0)


def test_lane_coordinates_know_nothing_of_what_comes(tracks, monkeypatch):
    monkeypatch.setattr(vehicles, "FOLDS", 4)
    scenario = vehicles.scenarios([tracks])[0]
    moving = scenario.states
    assert scenario.frames == 5
    there = moving[20:]
    assert np.allclose(scenario.velocity[20:, :3, 1], 0, atol=1e-3)  # all drive along x
    assert np.allclose(there[:, :3, 3], 0, atol=1e-2)
    lanes = np.nanmean(there[..., 1], axis=0) / vehicles.LATERAL
    assert np.allclose(lanes[3:] - lanes[0], 3.7, atol=1e-3)
    assert np.allclose(there[:, 0, 2], scenario.velocity[20:, 0, 0])
    assert np.allclose(there[:, 0, 4], moving[20:, 0, 2] - moving[15:-5, 0, 2])
    assert np.allclose(there[:, 0, 5], moving[15:-5, 0, 4])
    task = vehicles.tasks([scenario])[0]
    assert task.seen.shape[0] == vehicles.SEEN + 1
    assert task.coming.shape == (3, task.seen.shape[1], 2)
    now = vehicles.metres(task.seen[-1, :, :2])
    assert np.allclose(task.straight_on[1] - now, 3 * scenario.velocity[20, np.isfinite(moving[10:21]).all((0, 2))])


def test_drift_is_the_mean_speed_across_over_a_second():
    place = np.zeros((30, 1, 4))
    place[:, 0, 0] = np.arange(30.0)
    place[:, 0, 1] = np.sin(np.arange(30.0))
    place[:, 0, 2] = 10.0  # recorded headings say nothing of it
    recording = Recording("a", 30, ("car",), 0.1, lambda: iter([place]))
    drift = vehicles.scenario(recording).states[:, 0, 3] / vehicles.LATERAL
    assert np.isnan(drift[:10]).all()
    assert np.allclose(drift[10:], np.sin(np.arange(10.0, 30)) - np.sin(np.arange(20.0)))


def test_a_vehicle_is_learned_from_until_it_leaves():
    states = np.ones((51, 3, len(vehicles.FEATURES)))
    states[20:45, 1] = np.nan  # there at steps 0 to 3; that it comes back is another matter
    states[15:, 2] = np.nan  # leaves too soon
    data = vehicles.windows([vehicles.Scenario("a", 5, states, states[..., 2:4])])
    assert data.present.sum(1).tolist() == [[11, 4]]


def test_errors_count_where_a_vehicle_is_still_there():
    coming = np.zeros((3, 2, 2))
    coming[1:, 1] = np.nan
    ahead = np.broadcast_to([3.0, 4.0], (3, 2, 2))
    assert vehicles.squared_errors([ahead], [coming]) == [50.0, 25.0, 25.0]


# Motion capture -----------------------------------------------------------------------------------------------------


@pytest.fixture
def walk(tmp_path):
    """A hip, a thigh and a foot that swing while the root goes along, in eight trials."""
    files = [tmp_path / "1.asf"]
    files[0].write_text(SKELETON)
    for trial in range(8):
        lines = ["#!OML:ASF", ":FULLY-SPECIFIED", ":DEGREES"]
        for frame in range(110):
            swing = np.sin(frame / 10 + trial)
            lines += [str(frame + 1), f"root {0.02 * frame:.5f} 0 0 0 0 0", f"thigh {30 * swing:.5f} {5 * swing:.5f}",
                      f"foot {20 * swing:.5f}"]  # fmt: skip
        files.append(tmp_path / f"1_{trial + 1:02d}.amc")
        files[-1].write_text("\n".join(lines) + "\n")
    return tuple(files)


def test_mocap(walk, tmp_path, monkeypatch):
    monkeypatch.setitem(mocap.STEPS, "small", (5, 10))
    few = {name: dataclasses.replace(s, rollout=4, batch=3) for name, s in mocap.VARIANTS.items()}
    monkeypatch.setattr(mocap, "VARIANTS", few)
    figures, report = figures_of(mocap.EXPERIMENT, walk, tmp_path)
    names = [row[0] for row in report.rows]
    assert names[:4] == ["nothing moves", "constant velocity", "without relations", "with relations"]
    errors = {row[0]: [float(cell) for cell in row[1:]] for row in report.rows[:4]}
    assert errors["with relations"][1] < errors["nothing moves"][1]
    for part in figures.values():
        of = part["trials"]
        assert (len(of["train"]), len(of["valid"]), len(of["test"])) == (5, 1, 2)
        assert len({name for names in of.values() for name in names}) == 8
    assert report.rows[-1][-1] == "> 6.0e-04"


def test_mocap_errors_are_those_of_the_range_of_training(walk):
    _, found = mocap.trials(walk)
    mean = mocap.mean_places(found[:4])
    assert np.allclose(mean[0], 0)  # the root comes first
    data = mocap.windows(found[:4], 50, mean)
    normalisation = mocap.Normalisation.learn(data)
    width = np.ptp(data.states[..., :3].numpy()) / 2
    whole = mocap.windows(found[4:5], 98, mean)
    still = mocap.simple(whole, normalisation)["nothing moves"]
    recorded = whole.states.numpy()
    position = ((recorded[:, 69, :, :3] - recorded[:, 49, :, :3]) / width) ** 2
    speed = ((recorded[:, 69, :, 3:6] - recorded[:, 49, :, 3:6]) / (np.ptp(data.states[..., 3:6].numpy()) / 2)) ** 2
    assert still[19] == pytest.approx((position.mean() + speed.mean()) / 2, rel=1e-4)


def test_mocap_wants_one_skeleton(walk):
    with pytest.raises(DataError, match=r"expected one skeleton \(\.asf\) and motions \(\.amc\) of that subject"):
        mocap.trials(walk[1:])


# The command --------------------------------------------------------------------------------------------------------


def test_data_are_asked_for_and_remembered(cars, tmp_path, monkeypatch, capsys):
    with pytest.raises(ValueError, match=r"--data: platoons needs platoons\.npz"):
        runner.run_experiment("platoons", out=tmp_path / "x")
    with pytest.raises(ValueError, match="--data: accuracy takes none"):
        runner.run_experiment("accuracy", out=tmp_path / "x", data=[cars])
    with pytest.raises(ValueError, match="--test: mocap divides its recordings by itself"):
        runner.run_experiment("mocap", out=tmp_path / "x", data=[cars], test=[cars])
    with pytest.raises(ValueError, match=r"--test: expected files that are not learned from, got .*platoons\.npz"):
        runner.run_experiment("platoons", out=tmp_path / "x", data=[cars], test=[cars])
    assert not (tmp_path / "x").exists()
    monkeypatch.setitem(platoons.STEPS, "small", 3)
    monkeypatch.setattr(platoons, "FOLDS", 2)
    command = ["experiment", "platoons", "--data", str(cars), "--out", str(tmp_path / "x"), "--device", "cpu"]
    assert cli.main(command) == 0
    assert "lagged correlation" in capsys.readouterr().out
    result = json.loads((tmp_path / "x" / "result.json").read_text())
    assert list(result["data"]) == ["platoons.npz"]
    other = Path(tmp_path / "other" / "platoons.npz")
    other.parent.mkdir()
    other.write_bytes(cars.read_bytes() + b" ")
    with pytest.raises(ValueError, match="was begun with data"):
        runner.run_experiment("platoons", out=tmp_path / "x", resume=True, data=[other])
