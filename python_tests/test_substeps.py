"""Forecasts of several short steps for each recorded one: recordings with room in between, new modules, and a run."""

from __future__ import annotations

import dataclasses

import pytest
import torch

import nri_fast as nf
from nri_fast import bouncegrad, energies, ops
from nri_fast.bouncegrad import BounceGrad
from nri_fast.modules import ModuleLibrary
from nri_fast.rollouts import Rollouts
from nri_fast.simulate import simulate
from nri_fast.substeps import FINEST, short_step_library, spaced
from nri_fast.system_set import SystemSet
from nri_fast.training_draws import TrainingDraws

TINY = dataclasses.replace(
    nf.PRESETS["charged"],
    message=6,
    edge_hidden=(7,),
    node_hidden=(8, 8),
    batch=4,
    transitions=3,
    steps=5,
    polish_steps=9,
    polish_first_share=0.4,
    polish_substeps=3,
    rollout=3,
)


def ragged(sizes: tuple[int, ...], steps: int, holes: bool) -> SystemSet:
    generator = torch.Generator().manual_seed(3)
    graph = nf.MegaGraph.complete_ragged(sizes)
    states = torch.randn(steps * graph.nodes * 2, generator=generator)
    present = None
    if holes:
        present = (torch.rand(steps * graph.nodes, generator=generator) < 0.8).byte()
        states.view(-1, 2)[present == 0] = 0.0
    return SystemSet(graph, states, steps, 2, present)


@pytest.mark.parametrize("holes", [False, True])
@pytest.mark.parametrize("sizes", [(3, 3), (2, 4, 3)])
def test_recorded_states_stand_apart_and_nobody_is_there_between_them(sizes, holes):
    steps, substeps = 4, 3
    systems = ragged(sizes, steps, holes)
    states, present, more = spaced(systems.graph, systems.states, systems.present, steps, substeps)
    assert more == 10
    begin, wide = 0, 0
    for n in sizes:
        recorded = systems.states.view(-1, 2)[begin : begin + steps * n].view(steps, n, 2)
        flags = torch.ones(steps, n) if not holes else systems.present[begin : begin + steps * n].view(steps, n)
        rows, there = states.view(-1, 2)[wide : wide + more * n].view(more, n, 2), present[wide : wide + more * n]
        assert torch.equal(rows[::substeps], recorded)
        expected = torch.zeros(more, n)
        expected[::substeps] = flags.float()
        assert torch.equal(there.view(more, n).float(), expected)
        begin, wide = begin + steps * n, wide + more * n
    assert wide == len(present)


def test_one_step_leaves_recordings_as_they_are():
    systems = ragged((2, 3), 4, True)
    assert spaced(systems.graph, systems.states, systems.present, 4, 1) == (systems.states, systems.present, 4)


def test_energy_and_gradient_are_those_of_short_steps_seen_where_something_was_recorded():
    """Against plain torch: a loop over short steps, compared at every third."""
    torch.manual_seed(1)
    library = ModuleLibrary(2, message=5, edge_hidden=(4,), node_hidden=(6,)).double()
    recorded = torch.randn(2, 5, 3, 2, dtype=torch.float64)
    systems = SystemSet.complete(recorded)
    types = torch.randint(2, (systems.graph.edges,)).byte()
    states, present, steps = spaced(systems.graph, systems.states, None, 5, 3)
    batch = dataclasses.replace(systems.batch([0, 1]), states=states, present=present)
    error = ops.ErrorMeasure(torch.ones(2, dtype=torch.float64))
    rollouts = Rollouts(library, library.flat_parameters().detach(), batch, steps, 2 * 3, error)
    energy, gradient = rollouts.mean_gradient(types, torch.zeros(systems.graph.nodes, dtype=torch.uint8))

    adjacency = systems.graph.adjacency(types)
    errors = []
    for first in (0, 2):
        x = recorded[:, first]
        for step in (first + 1, first + 2):
            for _ in range(3):
                x = x + change(library, adjacency, x)
            errors.append(((x - recorded[:, step]) ** 2).mean())
    expected = torch.stack(errors).mean()
    expected.backward()
    flat = [p.grad.flatten() for module in (*library.edge, *library.node) for p in module.parameters()]
    torch.testing.assert_close(energy, expected.detach())
    torch.testing.assert_close(gradient, torch.cat(flat))


def change(library: ModuleLibrary, adjacency: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
    """[systems, N, D]: what one message-passing step adds, from the equations."""
    n = x.shape[1]
    pairs = torch.cat([x[:, :, None].expand(-1, -1, n, -1), x[:, None].expand(-1, n, -1, -1)], -1)
    messages = torch.stack([library.edge_module(k)(pairs) for k in range(2)])
    chosen = torch.where(adjacency[..., None] == 1, messages[1], messages[0]) * (1 - torch.eye(n))[..., None]
    return library.node_module(0)(torch.cat([chosen.sum(1), x], -1))


def test_new_modules_begin_linearly_and_bend_at_every_distance():
    data = simulate("springs", 20, seed=1)
    states = nf.Normalisation.learn(data).apply(data.states)
    systems = SystemSet.complete(states)
    library = ModuleLibrary(4, message=8, edge_hidden=(16,), node_hidden=(16,), relative=(0, 1))
    library.change_scale.copy_(systems.change_deviation())
    short = short_step_library(library, systems, 4, positions=True, seed=5)
    assert short.relative == ()
    torch.testing.assert_close(short.change_scale * 4, library.change_scale)
    for edge in short.edge:
        weight = edge[0].weight
        assert torch.equal(weight[:, :4], -weight[:, 4:])  # sender minus receiver
        slopes = 2 * weight[:, :2].norm(dim=1)
        assert slopes[0].item() == pytest.approx(1.0)
        assert slopes[-1].item() == pytest.approx(FINEST)
        ratio = slopes[1:] / slopes[:-1]
        torch.testing.assert_close(ratio, ratio[:1].expand(15), rtol=1e-4, atol=0)
    # Four short steps move as far as the linear prediction of the whole one says, but for what it says of itself.
    moved = 4 * change(short, torch.zeros(20, 5, 5), states[:, 7])
    recorded = states[:, 8] - states[:, 7]
    assert ((moved - recorded) ** 2).mean() < 0.5 * (recorded**2).mean()
    again = short_step_library(library, systems, 4, positions=True, seed=5)
    assert torch.equal(again.flat_parameters(), short.flat_parameters())
    assert not torch.equal(
        short_step_library(library, systems, 4, positions=True, seed=6).flat_parameters(), short.flat_parameters()
    )
    assert short_step_library(library, systems, 4, positions=False, seed=5).relative == (0, 1)


@pytest.mark.parametrize(("node_hidden", "linear"), [((7,), False), ((), False), ((9, 7), False), ((8, 8), True)])
def test_narrow_modules_begin_without_the_linear_prediction(node_hidden, linear):
    states = torch.randn(3, 5, 3, 4)
    systems = SystemSet.complete(states)
    library = ModuleLibrary(4, node_hidden=node_hidden, relative=(0, 1))
    short = short_step_library(library, systems, 2, positions=True, seed=0)
    moved = change(short, torch.zeros(3, 3, 3), states[:, 0])
    assert torch.isfinite(moved).all()
    shifted = change(short, torch.ones(3, 3, 3), states[:, 0])  # other messages, the same linear prediction
    assert torch.allclose(moved, shifted) == linear


def test_sudden_changes_are_drawn_more_often():
    states = torch.zeros(3, 5, 2, 1)
    states[..., 0] += torch.arange(5)[:, None] * 0.1
    states[1, 3:, 1] += 5.0  # system 1, transition 2
    systems = SystemSet.complete(states)
    share = systems.sudden.diff(prepend=torch.zeros(1, dtype=torch.float64)) / systems.sudden[-1]
    assert share.min() >= 0.5 / 12 * 0.999
    assert share.argmax() == 1 * 4 + 2
    assert share.max() > 0.5
    draws = TrainingDraws(1, dataclasses.replace(TINY, batch=300, transitions=4))
    chosen, start = draws.sudden_transitions(systems, 7)
    drawn = torch.bincount(chosen * 4 + start, minlength=12) / len(chosen)
    torch.testing.assert_close(drawn.double(), share, atol=0.05, rtol=0)
    assert all(torch.equal(a, b) for a, b in zip((chosen, start), draws.sudden_transitions(systems, 7), strict=True))


def test_transitions_in_which_nobody_is_compared_are_never_drawn():
    states = torch.randn(2, 5, 2, 1)
    present = torch.ones(2, 5, 2, dtype=torch.bool)
    present[0, 2] = False
    systems = SystemSet.complete(states, present)
    share = systems.sudden.diff(prepend=torch.zeros(1, dtype=torch.float64))
    assert (share == 0).tolist() == [False, True, True, False] + [False] * 4
    still = SystemSet.complete(torch.ones(2, 5, 2, 1)).sudden
    torch.testing.assert_close(still / still[-1], torch.arange(1, 9, dtype=torch.float64) / 8)


@pytest.fixture(scope="module")
def run() -> nf.Run:
    return nf.train(simulate("charged", 12, seed=1), settings=TINY, seed=1, progress=False)


def test_a_forecast_keeps_every_third_state(run):
    data = simulate("charged", 5, seed=2)
    found = nf.infer(run, data)
    whole = nf.forecast(run, data, found, 4, start=3, normalised=True)
    graph, initial = run.systems(data).graph, run.padded_states(data)[:, 3]
    first = energies.forecast(run.first_step, graph, initial, found.adjacency, None, 3)[:, 2]
    rest = energies.forecast(run.forecaster, graph, first, found.adjacency, None, 9)[:, 2::3]
    assert torch.equal(whole, torch.cat([first[:, None], rest], 1))
    assert torch.equal(nf.forecast(run, data, found, 1, 3, normalised=True), whole[:, :1])


def test_energies_are_those_of_forecasts(run):
    data = simulate("charged", 3, seed=2)
    found = nf.infer(run, data)
    states = run.padded_states(data)
    alone = dataclasses.replace(run, first_step=None)
    errors = []
    for start in range(0, 48, 3):
        predicted = nf.forecast(alone, data, found, 3, start, normalised=True)
        errors.append((predicted - states[:, start + 1 : start + 4]).square().mean((2, 3)))
    torch.testing.assert_close(found.energy, torch.cat(errors, 1).mean(1), rtol=1e-4, atol=0)


def test_systems_of_other_sizes_and_with_holes(run):
    data = simulate("charged", 4, seed=2)
    present = torch.ones(4, 49, 5, dtype=torch.bool)
    present[0, 10:, 1] = False
    present[2, 4] = False
    holes = dataclasses.replace(data, present=present)
    found = nf.infer(run, holes)
    assert torch.isfinite(found.energy).all()
    assert nf.forecast(run, holes, found, 3, start=12)[0, :, 1].isnan().all()
    some = nf.train(holes, settings=TINY, seed=1, progress=False)
    assert torch.isfinite(some.forecaster.flat_parameters()).all()


def test_later_steps_are_learned_from_where_forecasts_come_to():
    data = simulate("charged", 6, seed=1)
    systems = SystemSet.complete(nf.Normalisation.learn(data).apply(data.states))
    trainer = BounceGrad(ModuleLibrary(4, 2, 1, 6, (7,), (8, 8), (0, 1)), TINY, seed=1).fit(systems, progress=False)
    assert trainer.first_step is not None
    batch = systems.batch([4, 1])
    parameters = trainer.forecaster.flat_parameters()
    followed = trainer._polishing._from_own_states(systems, batch, parameters, trainer.structures, trainer.step, 4)
    start = trainer._draws.piece_start(batch, systems.steps, systems.steps - 1 - 4, trainer.step)
    recorded, types = systems.states.view(6, 49, 5, 4), trainer.structures.edge_types[batch.edges]
    state, expected = torch.stack([recorded[s, t] for s, t in zip([4, 1], start, strict=True)]), []
    for k, library in enumerate([trainer.first_step, trainer.forecaster, trainer.forecaster]):
        state = energies.forecast(library, batch.graph, state, types, None, 3)[:, 2]
        target = torch.stack([recorded[s, t + k + 2] for s, t in zip([4, 1], start, strict=True)])
        expected.append(torch.stack([state, target], 1))
    torch.testing.assert_close(followed.states.view(6, 2, 5, 4), torch.cat(expected))
    assert followed.present.all()
    assert followed.systems.tolist() == [4, 1] * 3


@pytest.mark.parametrize("stop", [7, 11])  # among the single steps, and behind them
def test_an_interrupted_run_comes_to_the_same(run, tmp_path, monkeypatch, stop):
    def interrupt(trainer: BounceGrad) -> None:
        if trainer.step == stop:
            raise KeyboardInterrupt

    data = simulate("charged", 12, seed=1)
    monkeypatch.setattr(bouncegrad, "CHECKPOINT_SECONDS", -1.0)
    with pytest.raises(KeyboardInterrupt):
        nf.train(data, settings=TINY, seed=1, out=tmp_path, progress=False, on_step=interrupt)
    nf.train(data, settings=TINY, seed=1, out=tmp_path, resume=True, progress=False)
    again = nf.Run.load(tmp_path)
    assert again.settings.forecast_substeps == 3
    for name in ("library", "forecaster", "first_step"):
        assert torch.equal(getattr(run, name).flat_parameters(), getattr(again, name).flat_parameters())


def test_who_needs_whole_steps_gets_the_judging_modules(run):
    assert run.whole_steps is run.library
    unpolished = dataclasses.replace(run.settings, polish_steps=0)
    assert unpolished.forecast_substeps == 1
    assert dataclasses.replace(run, settings=unpolished).whole_steps is run.forecaster
    found = nf.find_unseen(run, simulate("charged", 2, steps=6, seed=2), hidden=1, progress=False)
    assert torch.isfinite(found.energy).all()
