"""How forecasts are trained, and the modules of their first step."""

from __future__ import annotations

import dataclasses

import pytest
import torch

import nri_fast as nf
from nri_fast import energies
from nri_fast.pieces import from_forecasts, horizon, piece, piece_length
from nri_fast.simulate import simulate
from nri_fast.system_set import SystemSet

TINY = dataclasses.replace(
    nf.PRESETS["charged"],
    message=6,
    edge_hidden=(6,),
    node_hidden=(6,),
    batch=4,
    steps=6,
    polish_steps=11,
    polish_first_share=0.46,
    rollout=3,
)


@pytest.mark.parametrize("rollout", [1, 2, 7, 10, 33])
def test_roll_outs_grow_over_the_first_half(rollout):
    lengths = [horizon(done / 100, rollout) for done in range(100)]
    assert lengths[0] == 1
    assert lengths == sorted(lengths)
    assert lengths[50:] == [rollout] * 50


@pytest.mark.parametrize(
    ("steps", "rollout", "length"), [(49, 10, 40), (49, 1, 49), (11, 10, 11), (12, 10, 11), (23, 10, 14), (2, 1, 2)]
)
def test_pieces_leave_room_for_any_start(steps, rollout, length):
    assert piece_length(steps, rollout) == length


@pytest.mark.parametrize("sizes", [(3, 3, 3), (2, 4, 3)])
def test_pieces_are_cut_from_each_system(sizes):
    steps, features, length = 7, 2, 4
    recordings = [torch.randn(steps, n, features) for n in sizes]
    graph = nf.MegaGraph.complete(3, 3) if len(set(sizes)) == 1 else nf.MegaGraph.complete_ragged(sizes)
    systems = SystemSet(graph, torch.cat([r.flatten() for r in recordings]), steps, features)
    batch = systems.batch([2, 0, 1])
    start = torch.tensor([3, 0, 2])
    cut = piece(batch, steps, start, length)
    expected = [recordings[s][t : t + length] for s, t in zip([2, 0, 1], start.tolist(), strict=True)]
    assert torch.equal(cut.states, torch.cat([r.flatten() for r in expected]))
    assert cut.graph is batch.graph


@pytest.fixture(scope="module")
def run() -> nf.Run:
    return nf.train(simulate("charged", 12, seed=1), settings=TINY, seed=1, progress=False)


def test_a_first_step_has_modules_of_its_own(run):
    assert run.first_step is not None
    one, other = run.first_step.flat_parameters(), run.forecaster.flat_parameters()
    assert not torch.equal(one, other)


def test_a_forecast_takes_its_first_step_with_them(run):
    data = simulate("charged", 5, seed=2)
    found = nf.infer(run, data)
    whole = nf.forecast(run, data, found, 6, start=3, normalised=True)
    first = nf.forecast(dataclasses.replace(run, forecaster=run.first_step, first_step=None), data, found, 1, 3, True)
    assert torch.equal(whole[:, :1], first)
    graph = run.systems(data).graph
    rest = energies.forecast(run.forecaster, graph, first[:, 0], found.adjacency, None, 5)
    assert torch.equal(whole[:, 1:], rest)
    assert torch.equal(nf.forecast(run, data, found, 1, 3, normalised=True), first)
    with pytest.raises(ValueError, match="horizon"):
        nf.forecast(run, data, found, 0)


def test_what_blows_up_in_the_first_step_stays_so(run):
    data = simulate("charged", 3, seed=2)
    found = nf.infer(run, data)
    wild = dataclasses.replace(run, first_step=run.forecaster.with_positions())
    with torch.no_grad():
        wild.first_step.change_scale.fill_(torch.inf)
    assert not torch.isfinite(nf.forecast(wild, data, found, 4)).any()


def test_it_is_saved_with_the_run(run, tmp_path):
    run.save(tmp_path)
    again = nf.Run.load(tmp_path)
    assert torch.equal(again.first_step.flat_parameters(), run.first_step.flat_parameters())


@pytest.mark.parametrize(("steps", "share"), [(0, 0.5), (4, 0.0), (4, 0.2)])
def test_no_steps_and_no_modules_for_it(steps, share):
    settings = dataclasses.replace(TINY, polish_steps=steps, polish_first_share=share)
    run = nf.train(simulate("charged", 6, seed=1), settings=settings, seed=1, progress=False)
    assert run.first_step is None
    same = torch.equal(run.library.flat_parameters(), run.forecaster.flat_parameters())
    assert same == (steps == 0)


def test_transitions_that_begin_where_forecasts_came_to():
    """Ragged, with holes; a forecast that is lost takes its system out, one that is not there does not."""
    sizes, steps = (2, 3, 2, 2), 4
    graph = nf.MegaGraph.complete_ragged(sizes)
    recorded = torch.rand(steps * graph.nodes, 1)
    present = torch.ones(steps * graph.nodes, dtype=torch.uint8)
    systems = SystemSet(graph, recorded.flatten(), steps, 1, present)
    ids, start = torch.tensor([1, 0, 3, 2]), torch.tensor([2, 1, 0, 1])
    states = torch.tensor([[0.1], [torch.nan], [0.3], [0.4], [0.5], [9.0], [0.7], [0.8], [torch.inf]])
    part = torch.tensor([1, 0, 1, 1, 1, 1, 1, 1, 1], dtype=torch.uint8)
    cut = from_forecasts(systems, ids, start, states, part)
    of_system = dict(zip(range(4), recorded[:, 0].split([steps * n for n in sizes]), strict=True))
    after = [of_system[s].view(steps, -1)[t + 1] for s, t in zip(ids.tolist(), start.tolist(), strict=True)]
    got, there = (values.split([6, 4, 4, 4]) for values in (cut.states, cut.present))
    begin = [[0.1, 0.0, 0.3], [0.4, 0.5], [0.0, 0.0], [0.0, 0.0]]
    flags = [[1, 0, 1], [1, 1], [0, 0], [0, 0]]
    for b in range(4):
        n = len(begin[b])
        torch.testing.assert_close(got[b], torch.cat([torch.tensor(begin[b]), after[b]]))
        assert there[b].tolist() == flags[b] + [1] * n
    assert torch.equal(systems.states, recorded.flatten())
