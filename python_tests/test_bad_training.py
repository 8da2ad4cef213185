"""Data sets, settings and folders that are wrong, odd or empty, for training and inference."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest
import torch
from cases import assert_same_bits
from torch import Tensor

import nri_fast as nf
from nri_fast import energies
from nri_fast.heat_bath_search import heat_bath_search
from nri_fast.search import metropolis_search

SYSTEMS, STEPS, N, D = 3, 5, 3, 2
NAN, INF = float("nan"), float("inf")


@pytest.fixture
def library() -> nf.ModuleLibrary:
    return nf.ModuleLibrary(D, 2, 2, 4, (4,), (4,))


@pytest.fixture
def graph() -> nf.MegaGraph:
    return nf.MegaGraph.complete(SYSTEMS, N)


@pytest.fixture
def states() -> Tensor:
    return torch.randn(SYSTEMS, STEPS, N, D)


def small_settings(**changes: Any) -> nf.Settings:
    values = {"steps": 2, "batch": 2, "message": 4, "edge_hidden": (4,), "node_hidden": (4,), "rollout": 2}
    return nf.Settings(**(values | changes))


def data_of(states: Tensor) -> nf.TrajectoryData:
    return nf.TrajectoryData(states, None, tuple("abcdefgh"[: states.shape[-1]]))


@pytest.mark.parametrize(
    ("wrong", "error", "message"),
    [
        (lambda x: x[0], ValueError, r"states: expected shape .* got \[5, 3, 2\]"),
        (lambda x: x[:0], ValueError, "systems: expected at least one, got none"),
        (lambda x: x.half(), TypeError, "states: expected torch.float32 or torch.float64, got torch.float16"),
        (lambda x: x.tolist(), TypeError, "states: expected a tensor, got list"),
        (lambda x: x.index_fill(1, torch.tensor(4), NAN), ValueError, "states: system 0, step 4, entity 0, .* is nan"),
    ],
)
def test_wrong_system_sets(wrong, error, message, states):
    with pytest.raises(error, match=message):
        nf.SystemSet.complete(wrong(states))


def test_system_sets_of_another_length_than_their_graph_says(graph, states):
    flat = states.flatten()
    assert len(nf.SystemSet(graph, flat, STEPS, D)) == SYSTEMS
    for steps, features in [(STEPS + 1, D), (STEPS, D + 1), (STEPS - 1, D)]:
        with pytest.raises(ValueError, match="states: expected shape"):
            nf.SystemSet(graph, flat, steps, features)


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        (lambda x: x[..., :1], ValueError, "systems: expected 2 features, as the library has, got 1"),
        (lambda x: x.double(), TypeError, "states: expected torch.float32, got torch.float64"),
    ],
)
def test_systems_that_do_not_fit_the_library(change, error, message, library, states):
    systems = nf.SystemSet.complete(change(states))
    measure = energies.error_measure(library)
    for use in (
        lambda: nf.BounceGrad(library, small_settings(node_types=2)).fit(systems, progress=False),
        lambda: heat_bath_search(library, systems, measure),
        lambda: metropolis_search(library, systems, measure, 2),
    ):
        with pytest.raises(error, match=message):
            use()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"steps": 0}, "steps: expected a whole number, at least 1, got 0"),
        ({"steps": 2.5}, "steps: expected a whole number, at least 1, got 2.5"),
        ({"steps": "2"}, "steps: expected a whole number, at least 1, got 2"),
        ({"batch": 0}, "batch: expected"),
        ({"transitions": 0}, "transitions: expected"),
        ({"rollout": 0}, "rollout: expected"),
        ({"proposals": 0}, "proposals: expected"),
        ({"edge_types": 0}, "edge_types: expected"),
        ({"node_types": 0}, "node_types: expected"),
        ({"message": 0}, "message: expected"),
        ({"polish_first_share": 1.0}, "polish_first_share: expected 0 to below 1, got 1.0"),
        ({"polish_first_share": NAN}, "polish_first_share: expected 0 to below 1"),
        ({"polish_steps": -1}, "polish_steps: expected a whole number, at least 0, got -1"),
        ({"learning_rate": 0.0}, "learning_rate: expected a positive number, got 0"),
        ({"learning_rate": NAN}, "learning_rate: expected a positive number, got nan"),
        ({"learning_rate": INF}, "learning_rate: expected a positive number, got inf"),
        ({"first_scale": 0.0}, "first_scale: expected a positive number"),
        ({"last_scale": -1.0}, "last_scale: expected a positive number"),
        ({"clip": 0.0}, "clip: expected a positive number"),
        ({"polish_rate": NAN}, "polish_rate: expected a positive number"),
        ({"scale_share": 0.0}, "scale_share: expected a share"),
        ({"temperature_share": 1.5}, "temperature_share: expected a share"),
        ({"first_temperature": NAN}, "first_temperature: expected a number, at least 0"),
        ({"last_temperature": -0.1}, "last_temperature: expected a number, at least 0"),
        ({"bounce": "hard"}, "bounce: expected soft, sampled or metropolis, got 'hard'"),
    ],
)
def test_wrong_settings(changes, message):
    with pytest.raises(ValueError, match=message):
        small_settings(**changes)


def test_settings_as_json_holds_them():
    values = small_settings().to_dict()
    assert nf.Settings.from_dict(values) == small_settings()
    with pytest.raises(ValueError, match=r"settings: unknown names \['colour'\]"):
        nf.Settings.from_dict(values | {"colour": 1})
    assert nf.Settings.from_dict({k: v for k, v in values.items() if k != "shared"}) == small_settings()


@pytest.mark.parametrize("seed", [-1, 2**64])
def test_seeds_out_of_range(seed, library):
    with pytest.raises(ValueError, match=r"seed: expected 0 to 2\^64 - 1"):
        nf.BounceGrad(library, small_settings(), seed)


def test_large_seeds_keep_their_last_bit(states):
    finals = []
    for seed in (2**64 - 1, 2**64 - 2):
        library = nf.ModuleLibrary(D, 2, 1, 4, (4,), (4,))
        with torch.no_grad():
            for p in library.parameters():
                p.fill_(0.1)
        trainer = nf.BounceGrad(library, small_settings(steps=1, batch=1, transitions=1), seed)
        trainer.fit(nf.SystemSet.complete(torch.randn(40, STEPS, N, D, generator=torch.Generator().manual_seed(0))))
        finals.append(library.flat_parameters())
    assert not torch.equal(*finals)


@pytest.mark.parametrize(("bounce", "least"), [("soft", 2), ("sampled", 2), ("metropolis", 3)])
def test_too_few_steps_to_train_on(bounce, least, tmp_path):
    settings_ = small_settings(bounce=bounce)
    with pytest.raises(ValueError, match=f"expected at least {least} steps, got {least - 1}"):
        nf.train(data_of(torch.randn(2, least - 1, N, D)), settings=settings_, out=tmp_path / "run", progress=False)
    run = nf.train(data_of(torch.randn(2, least, N, D)), settings=settings_, out=tmp_path / "run", progress=False)
    with pytest.raises(ValueError, match=f"data: expected at least {least} steps, got {least - 1}"):
        nf.infer(run, data_of(torch.randn(2, least - 1, N, D)))


def test_inference_on_other_features():
    run = nf.train(data_of(torch.randn(2, 3, N, D)), settings=small_settings(), progress=False)
    with pytest.raises(ValueError, match=r"data: features .*'c'.* trained on \('a', 'b'\)"):
        nf.infer(run, data_of(torch.randn(2, 3, N, 3)))


@pytest.mark.parametrize("start", [-1, 3])
def test_forecasts_from_steps_that_are_not_there(start):
    data = data_of(torch.randn(2, 3, N, D))
    run = nf.train(data, settings=small_settings(), progress=False)
    with pytest.raises(ValueError, match=f"start: expected 0 to 2, got {start}"):
        nf.forecast(run, data, nf.infer(run, data), start=start)


@pytest.mark.parametrize("bounce", ["soft", "sampled", "metropolis"])
def test_training_and_inference_on_one_entity_and_on_one_system(bounce):
    for systems, entities in [(3, 1), (1, 3), (1, 1)]:
        data = data_of(torch.randn(systems, 4, entities, D))
        run = nf.train(data, settings=small_settings(bounce=bounce), progress=False)
        found = nf.infer(run, data)
        assert found.adjacency.shape == (systems, entities, entities)
        assert bool(torch.isfinite(found.energy).all())
        assert nf.forecast(run, data, found, horizon=2).shape == (systems, 2, entities, D)


@pytest.mark.parametrize("bounce", ["soft", "sampled", "metropolis"])
def test_features_that_never_change_do_not_spoil_training(bounce):
    states = torch.randn(3, 6, N, D)
    states[..., 1] = 4.0
    for recorded in (states, torch.zeros_like(states)):
        run = nf.train(data_of(recorded), settings=small_settings(bounce=bounce), progress=False)
        assert all(bool(torch.isfinite(p).all()) for p in run.library.parameters())
        assert bool(torch.isfinite(nf.infer(run, data_of(recorded)).probability).all())


def test_unknown_presets_name_the_known_ones():
    with pytest.raises(ValueError, match=r"preset: expected one of own, springs, .* got 'spring'"):
        nf.train(data_of(torch.randn(2, 3, N, D)), preset="spring")


# ---- folders ----


def test_an_existing_output_folder_is_left_alone(tmp_path: Path):
    data = data_of(torch.randn(2, 3, N, D))
    precious = tmp_path / "run" / "thesis.txt"
    precious.parent.mkdir()
    precious.write_text("mine")
    with pytest.raises(FileExistsError, match="the output folder exists and is not empty"):
        nf.train(data, settings=small_settings(), out=tmp_path / "run", progress=False)
    assert [p.name for p in precious.parent.iterdir()] == ["thesis.txt"]
    with pytest.raises(FileExistsError, match="expected a folder, got a file"):
        nf.train(data, settings=small_settings(), out=precious, progress=False)
    assert precious.read_text() == "mine"


def test_an_empty_output_folder_will_do_and_a_finished_run_is_not_overwritten(tmp_path: Path):
    data = data_of(torch.randn(2, 3, N, D))
    nf.train(data, settings=small_settings(), out=tmp_path, progress=False)
    before = {p: p.read_bytes() for p in tmp_path.rglob("*") if p.is_file()}
    with pytest.raises(FileExistsError, match="not empty"):
        nf.train(data, settings=small_settings(), out=tmp_path, seed=1, progress=False)
    assert {p: p.read_bytes() for p in tmp_path.rglob("*") if p.is_file()} == before


def test_resuming_a_finished_run_changes_nothing(tmp_path: Path):
    data = data_of(torch.randn(2, 3, N, D))
    first = nf.train(data, settings=small_settings(), out=tmp_path, progress=False)
    again = nf.train(data, settings=small_settings(), out=tmp_path, resume=True, progress=False)
    assert_same_bits(again.library.flat_parameters(), first.library.flat_parameters())
    assert again.history == first.history


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"settings": small_settings(clip=2.0)}, "settings differs from this run's"),
        ({"seed": 1}, "seed differs from this run's"),
        ({"data": data_of(torch.ones(2, 3, N, D))}, "states differs from this run's"),
        ({"data": data_of(torch.ones(3, 3, N, D))}, "systems differs from this run's"),
        ({"data": data_of(torch.ones(2, 4, N, D))}, "steps_recorded differs from this run's"),
        ({"data": data_of(torch.ones(2, 3, N + 1, D))}, "states differs from this run's"),
        ({"data": data_of(torch.ones(2, 3, N, D + 1))}, "library differs from this run's"),
        ({"settings": small_settings(message=5)}, "settings differs from this run's"),
    ],
)
def test_resuming_something_else_is_refused(change, message, tmp_path: Path):
    arguments = {"data": data_of(torch.randn(2, 3, N, D)), "settings": small_settings(), "seed": 0}
    nf.train(**arguments, out=tmp_path, progress=False)
    before = {p: p.read_bytes() for p in tmp_path.rglob("*") if p.is_file()}
    with pytest.raises(nf.CheckpointError, match=message):
        nf.train(**(arguments | change), out=tmp_path, resume=True, progress=False)
    assert {p: p.read_bytes() for p in tmp_path.rglob("*") if p.is_file()} == before


def test_data_is_not_changed_by_training():
    data = data_of(torch.randn(2, 4, N, D))
    copy = dataclasses.replace(data, states=data.states.clone())
    run = nf.train(data, settings=small_settings(), progress=False)
    nf.infer(run, data)
    assert_same_bits(data.states, copy.states)


def test_threads_are_positive():
    before = nf.get_threads()
    for threads in (0, -1):
        with pytest.raises(ValueError, match="threads: expected at least 1"):
            nf.set_threads(threads)
    assert nf.get_threads() == before
