"""Data sets with entities that come and go, recordings of different lengths and time steps: from arrays to figures."""

import dataclasses

import numpy as np
import pytest
import torch

import nri_fast
from nri_fast import SystemSet, TrajectoryData, metrics, presence
from nri_fast.graph import MegaGraph
from nri_fast.normalisation import Normalisation
from nri_fast.origin import Origin, named_entities
from nri_fast.run import Run, step_scale
from nri_fast.settings import PRESETS, Settings
from nri_fast.training_draws import TrainingDraws

STEPS, SYSTEMS = 22, 12
SHORT = dataclasses.replace(PRESETS["springs"], steps=6, polish_steps=2, batch=5)


@pytest.fixture(scope="module")
def whole():
    return nri_fast.simulate("springs", SYSTEMS, entities=4, steps=STEPS, seed=1)


def holes_in(data, seed=0):
    """A sixth of the states are lost, two recordings end early, one entity comes late."""
    present = torch.from_numpy(np.random.default_rng(seed).random(data.states.shape[:3]) > 1 / 6)
    present[1, 9:] = present[2, 15:] = False
    present[3, :12, 2] = False
    return present


def planted(data, present, value=torch.nan):
    return dataclasses.replace(data, states=torch.where(present[..., None], data.states, value), present=present)


@pytest.fixture(scope="module")
def partial(whole):
    return planted(whole, holes_in(whole))


def timed(data, *time_steps):
    """The data with an origin that knows the time steps, one for each system in turn."""
    steps = torch.tensor(time_steps, dtype=torch.float64).repeat(data.systems)[: data.systems]
    zeros = torch.zeros(data.systems, dtype=torch.int64)
    names = named_entities(data.systems, data.entities)
    return dataclasses.replace(data, origin=Origin(zeros, ("only",), zeros, steps, names))


def train(data, settings=SHORT):
    return nri_fast.train(data, settings=settings, seed=1, progress=False)


@pytest.fixture(scope="module")
def run(partial):
    return train(partial)


def weights(run):
    return torch.cat([p.detach().flatten() for lib in (run.library, run.forecaster) for p in lib.parameters()])


# The data -----------------------------------------------------------------------------------------------------------


def test_absent_states_become_zero_and_nothing_absent_is_none(whole, partial):
    assert not partial.states[~partial.present].any()
    assert torch.equal(partial.states[partial.present], whole.states[partial.present])
    assert partial.lengths[1] <= 9
    assert int(partial.lengths.max()) == STEPS
    assert len(partial.rows(partial.states)) == int(partial.present.sum())
    assert dataclasses.replace(whole, present=torch.ones(SYSTEMS, STEPS, 4, dtype=torch.bool)).present is None
    assert partial.select(torch.tensor([3, 1])).present.equal(partial.present[[3, 1]])


def test_masks_that_do_not_fit(whole, partial):
    with pytest.raises(TypeError, match=r"present: expected a bool tensor, got torch\.uint8"):
        dataclasses.replace(whole, present=partial.present.byte())
    with pytest.raises(ValueError, match=r"present: expected \[systems, steps, entities\] = \[12, 22, 4\], got \[11"):
        dataclasses.replace(whole, present=partial.present[1:])
    with pytest.raises(ValueError, match="got nan at system 0, step 0"):
        dataclasses.replace(whole, states=torch.full_like(whole.states, torch.nan))
    sizes = torch.full((SYSTEMS,), 4)
    sizes[5] = 3
    states = whole.states.clone()
    states[5, :, 3] = 0
    with pytest.raises(ValueError, match="got entity 3 of system 5 at step"):
        TrajectoryData(states, None, whole.feature_names, sizes=sizes, present=partial.present | (sizes == 4)[0])
    alone = torch.zeros_like(partial.present)
    alone[:, ::2] = True
    with pytest.raises(ValueError, match="present: system 0: expected an entity that is there at two steps in success"):
        SystemSet.complete(whole.states, alone)


def test_files_keep_what_is_absent(tmp_path, partial):
    nri_fast.save_trajectories(partial, tmp_path)
    assert torch.equal(nri_fast.load_trajectories(tmp_path).present, partial.present)
    states = partial.states.numpy()
    np.savez(tmp_path / "ends.npz", states=states, lengths=np.arange(2, 2 + SYSTEMS), sizes=np.array([3] + [4] * 11))
    ends = nri_fast.load_trajectories(tmp_path / "ends.npz")
    assert not ends.present[0, :, 3].any()
    assert ends.there[0].any(-1).tolist() == [True] * 2 + [False] * (STEPS - 2)
    np.savez(tmp_path / "good.npz", states=states, lengths=np.arange(2, 2 + SYSTEMS))
    assert nri_fast.load_trajectories(tmp_path / "good.npz").lengths.tolist() == list(range(2, 2 + SYSTEMS))
    for key, values in (("lengths", np.full(SYSTEMS, STEPS + 1)), ("present", np.ones((SYSTEMS, STEPS)))):
        np.savez(tmp_path / f"bad_{key}.npz", states=states, **{key: values})
        with pytest.raises(ValueError, match=rf"bad_{key}\.npz: {key}: expected"):
            nri_fast.load_trajectories(tmp_path / f"bad_{key}.npz")


def test_normalisation_and_change_know_only_what_is_there(whole, partial):
    shifted = dataclasses.replace(whole, states=whole.states + 100)
    assert min(Normalisation.learn(planted(shifted, partial.present)).low) > 50
    systems = SystemSet.complete(partial.states, partial.present)
    change = (partial.states[:, 1:] - partial.states[:, :-1])[partial.present[:, 1:] & partial.present[:, :-1]]
    assert torch.allclose(systems.change_deviation(), change.std(0, correction=0))
    doubled = SystemSet.complete(partial.states, partial.present, torch.full((SYSTEMS,), 2.0, dtype=torch.float64))
    assert torch.allclose(doubled.change_deviation(), change.std(0, correction=0) / 2)


def test_batches_carry_masks_and_time_steps(partial):
    scale = torch.linspace(0.5, 2, SYSTEMS).double()
    complete = SystemSet.complete(partial.states, partial.present, scale)
    ragged = SystemSet(MegaGraph.complete_ragged([4] * SYSTEMS), complete.states, STEPS, 4, complete.present, scale)
    ragged.graph.entities = None  # the general way through a batch
    for systems in (complete, ragged):
        batch = systems.batch([5, 1])
        assert torch.equal(batch.present.view(2, STEPS, 4).bool(), partial.present[[5, 1]])
        assert torch.equal(batch.step_scale, scale[[5, 1]])
    assert torch.equal(complete.lengths, partial.lengths)
    assert complete.digest != SystemSet.complete(partial.states, None, scale).digest


def test_transitions_are_drawn_where_somebody_is_compared(whole):
    present = torch.zeros(SYSTEMS, STEPS, 4, dtype=torch.bool)
    present[:, 3:5, 1] = present[:, 10:13, 2] = True
    batch = SystemSet.complete(whole.states, present).batch(range(SYSTEMS))
    draws = TrainingDraws(0, dataclasses.replace(SHORT, transitions=7))
    drawn = torch.cat([draws.transitions(batch, STEPS, step) for step in range(5)])
    assert drawn.shape == (5 * SYSTEMS, 7)
    assert set(drawn.flatten().tolist()) == {3, 10, 11}
    assert set(draws.piece_start(batch, STEPS, 10, 0).tolist()) <= {3, 10}
    assert int(draws.residual_start(batch, STEPS, 2, 0).max()) <= 2  # nothing there: any step will do


def test_what_follows_from_a_mask():
    graph = MegaGraph.complete_ragged([2, 1])
    mask = torch.tensor([[1, 1], [1, 0], [0, 0], [1, 0], [1, 0]]).byte()  # system 0
    flat = torch.cat([mask.flatten(), torch.tensor([0, 1, 1, 0, 0]).byte()])
    assert presence.compared_by_step(graph, flat, 5).int().tolist() == [[1, 0, 0], [0, 0, 1], [0, 0, 0], [1, 0, 0]]
    assert presence.lengths(graph, flat, 5).tolist() == [5, 3]
    start = torch.tensor([[0, 3, 3], [1, 1, 0]])
    assert presence.compared_transitions(graph, flat, 5, start).tolist() == [3, 0, 2]
    assert presence.compared_predictions(graph, flat, 5, 1).tolist() == [2, 1]
    assert presence.compared_predictions(graph, flat, 5, 3).tolist() == [3, 0]  # steps 1 and 3 from 0, 4 from 3


# Training and what comes after it -----------------------------------------------------------------------------------

SETTINGS = {
    "heat bath": SHORT,
    "undirected": dataclasses.replace(SHORT, undirected=True),
    "blocks": dataclasses.replace(SHORT, block=4),
    "first steps": dataclasses.replace(SHORT, polish_steps=4, polish_first_share=0.5, rollout=5),
    "chain": dataclasses.replace(PRESETS["metropolis"], steps=4, polish_steps=1, batch=5, rollout=3),
}


@pytest.mark.parametrize("kind", SETTINGS)
def test_what_stands_where_nothing_is_changes_nothing(whole, partial, kind):
    settings: Settings = SETTINGS[kind]
    run = train(partial, settings)
    assert bool(torch.isfinite(weights(run)).all())
    assert torch.equal(weights(run), weights(train(planted(whole, partial.present, 7.0), settings)))
    found = nri_fast.infer(run, partial)
    assert bool(torch.isfinite(found.probability).all())
    assert bool((found.energy > 0).all())
    figures = nri_fast.evaluate(run, partial, found)
    assert all(figures[f"mse_{h}"] > 0 for h in (1, 10, 20))


def test_a_mask_that_says_nothing_trains_to_the_same_bits(whole):
    systems = SystemSet.complete(whole.states.float(), torch.ones(SYSTEMS, STEPS, 4, dtype=torch.bool))
    plain = SystemSet.complete(whole.states.float())
    library = nri_fast.run.initial_library(4, [], SHORT, 1)
    found = [
        nri_fast.heat_bath_search.heat_bath_search(library, s, nri_fast.energies.one_step_error(library, None, 0.1))
        for s in (systems, plain)
    ]
    assert torch.equal(found[0].edge_probabilities, found[1].edge_probabilities)


def test_inference_of_a_short_recording_is_that_of_what_was_recorded(run, whole):
    present = torch.ones(SYSTEMS, STEPS, 4, dtype=torch.bool)
    present[::2, 13:] = False
    found = nri_fast.infer(run, planted(whole, present))
    cut = dataclasses.replace(whole, states=whole.states[:, :13]).select(torch.arange(0, SYSTEMS, 2))
    alone = nri_fast.infer(run, cut)
    for name in ("adjacency", "probability", "energy"):
        assert torch.equal(getattr(found, name)[::2], getattr(alone, name))
    rest = nri_fast.infer(run, whole)
    assert torch.equal(found.probability[1::2], rest.probability[1::2])
    assert torch.equal(found.energy[1::2], rest.energy[1::2])


def test_forecasts_start_from_who_is_there(run, whole, partial):
    found = nri_fast.infer(run, partial)
    ahead = nri_fast.forecast(run, partial, found, 3, start=5)
    assert torch.equal(ahead.isnan().any(-1).any(1), ~partial.present[:, 5])
    everybody = dataclasses.replace(partial, states=whole.states, present=None)
    complete = partial.present[:, 5].all(-1)
    assert complete.any()
    assert torch.equal(ahead[complete], nri_fast.forecast(run, everybody, found, 3, start=5)[complete])


def test_figures_count_what_is_compared(run, whole, partial):
    found = nri_fast.infer(run, partial)
    figures = nri_fast.evaluate(run, partial, found)
    states = run.normalisation.apply(partial.states)
    squares, count = 0.0, 0
    for start in range(0, STEPS - 20, 20):
        there = partial.present[:, start] & partial.present[:, start + 10]
        ahead = nri_fast.forecast(run, partial, found, 20, start, normalised=True)
        squares += float((ahead[:, 9] - states[:, start + 10])[there].double().square().sum())
        count += int(there.sum())
    assert figures["mse_10"] == pytest.approx(squares / (4 * count), rel=1e-6)


# Time steps ---------------------------------------------------------------------------------------------------------


def test_scales_of_time_steps(whole):
    assert step_scale(whole, 0.1) is None
    assert step_scale(timed(whole, 0.1, 0.1 + 1e-7), 0.1) is None
    assert step_scale(timed(whole, 0.1, 0.3), None) is None
    assert step_scale(timed(whole, 0.1, 0.3), 0.1)[:3].tolist() == pytest.approx([1, 3, 1])


def test_modules_are_made_for_the_median_time_step(tmp_path, whole):
    same, mixed = train(timed(whole, 0.1)), train(timed(whole, 0.1, 0.1, 0.3))
    assert torch.equal(weights(same), weights(train(whole)))
    assert not torch.equal(weights(same), weights(mixed))
    assert mixed.time_step == same.time_step == 0.1
    mixed.save(tmp_path / "run")
    assert Run.load(tmp_path / "run").time_step == 0.1
    assert train(whole).time_step is None


def test_forecasts_go_by_the_time_step_of_the_data(whole):
    run = train(timed(whole, 0.1))
    slow = timed(whole, 0.05)
    found = nri_fast.infer(run, timed(whole, 0.1))
    half = nri_fast.forecast(run, slow, found, 1, normalised=True)
    full = nri_fast.forecast(run, timed(whole, 0.1), found, 1, normalised=True)
    start = run.states(whole)[:, :1]
    assert torch.allclose(half - start, 0.5 * (full - start), atol=1e-6)
    # Of every second step, modules for twice the time step predict what is right to the first order.
    drift = dataclasses.replace(whole, states=whole.states[:, ::2])
    fit = metrics.displacement_fit(run.states(whole), whole.feature_names)
    scaled = metrics.displacement_fit(run.states(drift), whole.feature_names, step_scale=torch.full((SYSTEMS,), 2.0))
    assert scaled["x"][0] == pytest.approx(fit["x"][0], rel=0.02)
    ahead = metrics.constant_velocity(
        run.states(drift), 0, 1, whole.feature_names, fit, step_scale=torch.full((SYSTEMS,), 2.0)
    )
    twice = metrics.constant_velocity(run.states(whole), 0, 2, whole.feature_names, fit)
    assert torch.allclose(ahead[:, 0], twice[:, 1], atol=1e-6)
