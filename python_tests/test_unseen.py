"""Entities that nobody observed are found, and nothing of their truth has a part in it."""

from __future__ import annotations

import dataclasses
import itertools
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from cases import assert_close, assert_same_bits
from torch import Tensor

import nri_fast as nf
from nri_fast import ops
from nri_fast.normalisation import Normalisation
from nri_fast.unseen import Hidden, Unseen, find_unseen, hide, score_unseen, search, structures
from nri_fast.unseen.fit import covariance, differences, fit, solve
from nri_fast.unseen.scene import Guesses, Scene, ranked

NAMES = ("x", "y", "vx", "vy")
DT, PULL = 0.15, 0.25
STEPS, ENTITIES = 26, 4
FIELDS = [field.name for field in dataclasses.fields(Unseen) if field.default is dataclasses.MISSING]


def spring_library() -> nf.ModuleLibrary:
    """Springs exactly, in ReLU units: a message is the sender's offset, positive and negative parts apart."""
    library = nf.ModuleLibrary(4, 2, 1, 4, (), (8,))
    with torch.no_grad():
        for value in library.parameters():
            value.zero_()
        for row, (axis, sign) in enumerate(itertools.product((0, 1), (1.0, -1.0))):
            library.edge[1][0].weight[row, axis], library.edge[1][0].weight[row, 4 + axis] = sign, -sign
        first, last = library.node[0][0], library.node[0][2]
        for unit, (axis, sign) in enumerate(itertools.product((0, 1), (1.0, -1.0))):
            first.weight[unit, 2 * axis] = sign  # the pull's positive part minus its negative one, rectified
            first.weight[unit, 2 * axis + 1] = -sign
            last.weight[2 + axis, unit] = sign * PULL * DT
            first.weight[4 + unit, 4 + 2 + axis] = sign
            last.weight[axis, 4 + unit] = sign * DT
    library.change_scale.copy_(torch.tensor([0.06, 0.06, 0.03, 0.03]))
    with torch.no_grad():
        library.node[0][2].weight /= library.change_scale[:, None]
    return library


@pytest.fixture(scope="module")
def run() -> nf.Run:
    settings = nf.Settings(relative=())
    unit = Normalisation(NAMES, (-1.0,) * 4, (1.0,) * 4)
    return nf.Run(spring_library(), spring_library(), unit, settings, 0, {"name": "made", "split": "train"}, 0.003)


def recordings(run: nf.Run, systems: int, entities: int = ENTITIES, seed: int = 0) -> nf.TrajectoryData:
    """Random mutual springs, rolled by the modules themselves."""
    random = torch.Generator().manual_seed(seed)
    edges = (torch.rand(systems, entities, entities, generator=random) < 0.6).triu(1)
    edges = (edges | edges.transpose(1, 2)).to(torch.uint8)
    start = 0.5 * torch.randn(systems, entities, 4, generator=random)
    graph = nf.MegaGraph.complete(systems, entities)
    path = nf.energies.forecast(run.library, graph, start, edges, horizon=STEPS - 1)
    return nf.TrajectoryData(torch.cat([start[:, None], path], 1), edges, NAMES, "made", "test")


def scene_of(run: nf.Run, seen: nf.TrajectoryData, hidden: int = 1, device: torch.device | None = None) -> Scene:
    states = run.states(seen)
    library = spring_library().to(device) if device else run.library
    error = ops.ErrorMeasure((library.change_scale**-2).contiguous(), run.scale_squared)
    states = states.to(device) if device else states
    return Scene(library, error, states, hidden, torch.arange(len(states), device=states.device))


def true_guesses(scene: Scene, truth: Hidden) -> Guesses:
    assert truth.edges is not None
    edges, device = truth.edges.to(scene.states.device), scene.states.device
    systems = len(edges)
    return Guesses(
        torch.arange(systems, device=device),
        torch.arange(systems, device=device),
        truth.states[:, 0].float().to(device),
        edges[:, scene.edges.sender, scene.edges.receiver],
        torch.full((systems,), torch.inf, dtype=torch.float64, device=device),
    )


@pytest.fixture
def few_restarts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(search, "RESTARTS", 6)


# ---- the search ----


@pytest.mark.parametrize("undirected", [False, True])
def test_a_hidden_entity_is_found(run: nf.Run, undirected: bool) -> None:
    data = recordings(run, 8)
    seen, truth = hide(data, [1])
    figures = score_unseen(run, find_unseen(run, seen, undirected=undirected), truth)
    assert figures["linked"]["entities"] >= 7
    assert figures["linked"]["error"] < 1e-3 * figures["linked"]["guess"]
    assert figures["edge_accuracy"]["out"] == 1.0
    assert figures["edge_accuracy"]["seen"] == 1.0


def test_two_hidden_entities_are_found(run: nf.Run) -> None:
    seen, truth = hide(recordings(run, 4, 5, seed=3), [0, 4])
    found = find_unseen(run, seen, 2, undirected=True)
    assert found.path.shape == (4, STEPS, 2, 4)
    figures = score_unseen(run, found, truth)
    assert figures["linked"]["median_error"] < 1e-2 * figures["linked"]["guess"]


def test_the_truth_has_no_part_in_it(run: nf.Run, few_restarts: None) -> None:
    data = recordings(run, 3)
    other = data.states.clone()
    other[:, :, 2] = torch.randn(3, STEPS, 4)
    lying = nf.TrajectoryData(other, 1 - data.edges - torch.eye(ENTITIES).to(torch.uint8), NAMES)
    one, two = (find_unseen(run, hide(d, [2])[0]) for d in (data, lying))
    for name in FIELDS:
        assert_same_bits(getattr(one, name), getattr(two, name))
    before = [getattr(one, name).clone() for name in FIELDS]
    score_unseen(run, one, hide(data, [2])[1])
    score_unseen(run, one, hide(lying, [2])[1])
    for name, old in zip(FIELDS, before, strict=True):
        assert_same_bits(getattr(one, name), old)


def test_a_system_does_not_know_its_company(run: nf.Run, few_restarts: None, monkeypatch: pytest.MonkeyPatch) -> None:
    seen, _ = hide(recordings(run, 5), [0])
    together = find_unseen(run, seen)
    monkeypatch.setattr("nri_fast.unseen.find.SYSTEMS_AT_ONCE", 2)
    apart = find_unseen(run, seen)
    first = find_unseen(run, seen.select(torch.arange(1)))
    threads = ops.get_threads()
    try:
        ops.set_threads(threads + 2)
        threaded = find_unseen(run, seen)
    finally:
        ops.set_threads(threads)
    for name in FIELDS:
        assert_same_bits(getattr(apart, name), getattr(together, name))
        assert_same_bits(getattr(first, name), getattr(together, name)[:1])
        assert_same_bits(getattr(threaded, name), getattr(together, name))


def test_the_seed_decides(run: nf.Run, few_restarts: None) -> None:
    seen, _ = hide(recordings(run, 2), [0])
    one, same, other = (find_unseen(run, seen, seed=seed) for seed in (1, 1, 2))
    assert_same_bits(one.path, same.path)
    assert not torch.equal(one.path, other.path)


def test_what_is_reported_is_one_open_loop_roll_out(run: nf.Run, few_restarts: None) -> None:
    seen, _ = hide(recordings(run, 3), [3])
    found = find_unseen(run, seen)
    states = torch.cat([found.seen_path, found.path], 2)
    assert_same_bits(states[:, 0, :-1], run.states(seen)[:, 0])
    graph = nf.MegaGraph.complete(3, ENTITIES)
    rolled = nf.energies.forecast(run.library, graph, states[:, 0].contiguous(), found.adjacency, horizon=STEPS - 1)
    assert_same_bits(found.path[:, 1:], rolled[:, :, -1:])
    assert_close(found.seen_path[:, 1:], rolled[:, :, :-1], 1e-6)
    recorded = torch.cat([run.states(seen), torch.full((3, STEPS, 1, 4), torch.nan)], 2)
    recorded[:, 0, -1] = found.path[:, 0, 0]
    observed = torch.tensor([True] * (ENTITIES - 1) + [False]).expand(3, -1)
    energy = nf.rollout_energy(run.library, graph, recorded, found.adjacency, rollout=STEPS - 1, observed=observed)
    assert_close(found.energy, energy, 1e-5)
    assert_close(found.probability.sum(-1), 1.0 - torch.eye(ENTITIES).expand(3, -1, -1), 1e-6)


def test_undirected_edges_are_mutual(run: nf.Run, few_restarts: None) -> None:
    seen, _ = hide(recordings(run, 3, 5), [0, 2])
    found = find_unseen(run, seen, 2, undirected=True)
    assert_same_bits(found.adjacency, found.adjacency.transpose(1, 2))
    as_trained = replace(run, settings=replace(run.settings, undirected=True))
    assert_same_bits(find_unseen(as_trained, seen, 2).adjacency, found.adjacency)


def test_it_knows_what_it_cannot_know(run: nf.Run) -> None:
    data = recordings(run, 6, seed=5)
    assert data.edges is not None
    alone = data.edges.clone()
    alone[:3, 3], alone[:3, :, 3] = 0, 0
    alone[3:, 3, :3], alone[3:, :3, 3] = 1, 1
    start = data.states[:, 0].float()
    path = nf.energies.forecast(run.library, nf.MegaGraph.complete(6, ENTITIES), start, alone, horizon=STEPS - 1)
    seen, _ = hide(nf.TrajectoryData(torch.cat([start[:, None], path], 1), alone, NAMES), [3])
    deviation = find_unseen(run, seen).deviation
    assert float(deviation[:3].min()) > 0.05
    assert float(deviation[3:].max()) < 0.01


# ---- its parts ----


def test_elimination_solves() -> None:
    a = torch.randn(7, 5, 5, dtype=torch.float64)
    matrix, right = a @ a.mT + 0.1 * torch.eye(5), torch.randn(7, 5, 2, dtype=torch.float64)
    assert_close(solve(matrix, right), torch.linalg.solve(matrix, right), 1e-9)


@pytest.mark.parametrize("clamped", [False, True])
def test_a_fit_descends_to_the_truth_under_the_true_edges(backend: torch.device, run: nf.Run, clamped: bool) -> None:
    seen, truth = hide(recordings(run, 5), [2])
    scene = scene_of(run, seen, device=backend)
    with torch.no_grad():
        guesses = true_guesses(scene, truth)
        start = guesses.start
        off = replace(guesses, start=start + 0.3 * torch.randn_like(start.cpu()).to(backend))
        steps = [fit(scene, off, STEPS - 1, clamped, n) for n in (0, 1, 3, 12)]
    for a, b in itertools.pairwise(steps):
        assert bool((b.objective <= a.objective).all())
    touching = truth.edges[:, -1].sum(1) > 0  # type: ignore[index]
    assert_close(steps[-1].start[touching], start[touching], 2e-3)


def test_what_is_not_finite_never_wins(run: nf.Run) -> None:
    seen, truth = hide(recordings(run, 2), [2])
    scene = scene_of(run, seen)
    with torch.no_grad():
        guesses = true_guesses(scene, truth)
        lost = replace(guesses, start=torch.full_like(guesses.start, 3e38))
        lost = structures.heat_bath(scene, fit(scene, lost, STEPS - 1, False, 2), STEPS - 1, 0.0, 0, 0, False)
    assert bool(torch.isinf(lost.objective).all())
    assert_same_bits(lost.types, guesses.types)
    objective = torch.tensor([torch.inf, 1.0, 2.0, 0.5], dtype=torch.float64)
    kinds = torch.tensor([[0], [1], [1], [2]], dtype=torch.uint8)
    places, first = ranked(1, objective, kinds)
    assert places.tolist() == [[3, 1, 2, 0]]
    assert first.tolist() == [[True, True, False, True]]


def test_slopes_are_those_of_autograd(run: nf.Run) -> None:
    seen, truth = hide(recordings(run, 2), [2])
    scene = scene_of(run, seen)
    with torch.no_grad():
        guesses = true_guesses(scene, truth)
        start = guesses.start + 0.1
        rolled = scene.open_loop(guesses, start, STEPS - 1)
        slopes, _ = differences(scene, guesses, start, rolled, STEPS - 1, False)
        slope = 2 * (slopes * rolled.residual.double()).mean(2).T  # of the mean squared error, [S, D]
    recorded = torch.cat([scene.states, torch.zeros(2, STEPS, 1, 4)], 2)
    recorded[:, 0, -1] = start[:, 0]
    recorded.requires_grad_()
    observed = torch.tensor([True] * (ENTITIES - 1) + [False]).expand(2, -1)
    graph = nf.MegaGraph.complete(2, ENTITIES)
    energy = nf.rollout_energy(run.library, graph, recorded, truth.edges, rollout=STEPS - 1, observed=observed)
    (gradient,) = torch.autograd.grad(energy.sum(), recorded)
    assert_close(slope.float(), gradient[:, 0, -1], 2e-3)


def test_an_unrelated_entity_is_as_uncertain_as_expected_of_any(run: nf.Run) -> None:
    seen, _ = hide(recordings(run, 3), [2])
    scene = scene_of(run, seen)
    owner = torch.arange(3)
    spread = covariance(scene, owner, torch.zeros(4, 3, 10, dtype=torch.float64), torch.ones(3, dtype=torch.float64))
    assert_close(spread.diagonal(dim1=1, dim2=2), scene.spread**2, 1e-12)


def test_heat_bath_takes_the_best_assignment_of_every_seen_entity(backend: torch.device, run: nf.Run) -> None:
    seen, truth = hide(recordings(run, 4), [1])
    scene = scene_of(run, seen, device=backend)
    with torch.no_grad():
        true = true_guesses(scene, truth)
        into = scene.edges.receiver >= scene.seen
        wrong = true.with_types(torch.where(into, true.types, 1 - true.types))
        found = structures.heat_bath(scene, wrong, STEPS - 1, 0.0, 0, 0, False)
        assert_same_bits(found.types, true.types)
        mutual = structures.heat_bath(scene, true.with_types(1 - true.types), STEPS - 1, 0.0, 0, 0, True)
    assert_same_bits(mutual.types, structures.mirrored(scene, mutual.types))


def test_edges_take_turns_where_an_entity_has_many(run: nf.Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(structures, "BLOCK", 2)
    seen, truth = hide(recordings(run, 4), [1])
    scene = scene_of(run, seen)
    with torch.no_grad():
        true = true_guesses(scene, truth)
        guesses = true
        for number in range(6):
            guesses = structures.heat_bath(scene, guesses, STEPS - 1, 0.0, 0, number, False)
    assert_same_bits(guesses.types, true.types)


@pytest.mark.parametrize("undirected", [False, True])
def test_moves(run: nf.Run, undirected: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    seen, truth = hide(recordings(run, 2), [1])
    scene = scene_of(run, seen)
    guesses = true_guesses(scene, truth)
    for moves, count in (
        (structures.Moves.into_seen(scene, undirected), 3 if undirected else 9),
        (structures.Moves.into_hidden(scene, undirected), 2**3 - 1),
    ):
        variants = moves.variants(guesses, 2)
        assert len(variants) == 2 * count
        changed = variants.types != guesses.types.repeat_interleave(count, 0)
        assert len(changed[:count].unique(dim=0)) == count
        assert bool(changed.any(1).all())
        if undirected:
            assert_same_bits(variants.types, structures.mirrored(scene, variants.types))
    monkeypatch.setattr(structures, "BLOCK", 4)
    assert len((structures.Moves.into_hidden(scene, False) + structures.Moves.into_hidden(scene, True)).edges) == 2 * 6


# ---- on disk ----


def test_it_goes_on_from_finished_parts(
    run: nf.Run, tmp_path: Path, few_restarts: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("nri_fast.unseen.find.SYSTEMS_AT_ONCE", 2)
    seen, _ = hide(recordings(run, 5), [0])
    undisturbed = find_unseen(run, seen)
    searched = []

    def dies_in_the_second(scene: Scene, seed: int, undirected: bool) -> Guesses:
        searched.append(scene.ids.tolist())
        if len(searched) == 2:
            raise KeyboardInterrupt
        return search.search(scene, seed, undirected)

    monkeypatch.setattr("nri_fast.unseen.find.search", dies_in_the_second)
    with pytest.raises(KeyboardInterrupt):
        find_unseen(run, seen, folder=tmp_path)
    found = find_unseen(run, seen, folder=tmp_path)
    assert searched == [[0, 1], [2, 3], [2, 3], [4]]
    for name in FIELDS:
        assert_same_bits(getattr(found, name), getattr(undisturbed, name))
    with pytest.raises(nf.CheckpointError, match="belongs to another search"):
        find_unseen(run, seen, seed=1, folder=tmp_path)


# ---- scoring ----


def test_hide_puts_the_hidden_last(run: nf.Run) -> None:
    data = recordings(run, 2, 5)
    assert data.edges is not None
    seen, truth = hide(data, [3, 0])
    assert_same_bits(seen.states, data.states[:, :, [1, 2, 4]])
    assert_same_bits(truth.states, data.states[:, :, [3, 0]])
    assert truth.edges is not None
    assert seen.edges is None
    assert int(truth.edges[1, 0, 3]) == int(data.edges[1, 1, 3])
    assert int(truth.edges[1, 4, 2]) == int(data.edges[1, 0, 4])
    with pytest.raises(ValueError, match=r"entities: expected different ones of 0 to 4, got \[1, 1\]"):
        hide(data, [1, 1])
    with pytest.raises(ValueError, match="to stay"):
        hide(data, range(5))


def test_figures_by_hand(run: nf.Run) -> None:
    truth = torch.zeros(3, STEPS, 1, 4, dtype=torch.float64)
    truth[2] = 1.0
    edges = torch.zeros(3, 3, 3, dtype=torch.uint8)
    edges[1, 2, 0] = edges[2, 0, 2] = edges[2, 2, 0] = edges[2, 1, 2] = edges[0, 0, 1] = 1
    path = truth.clone()
    path[0] += 0.3
    path[1] += 0.2
    found = _found(path, 1 - edges - torch.eye(3).to(torch.uint8), torch.tensor([[1.0], [0.09], [0.01]]))
    figures = score_unseen(run, found, Hidden(truth, edges))
    assert figures["error"] == pytest.approx((0.09 + 0.04) / 3)
    assert figures["guess"] == pytest.approx(2 / 9)
    assert figures["linked"]["error"] == pytest.approx(0.02)
    assert figures["linked"]["guess"] == pytest.approx(0.25)
    assert [(row["edges"], row["entities"], round(row["error"], 6)) for row in figures["by_edges"]] == [
        (0, 1, 0.09),
        (1, 1, 0.04),
        (2, 1, 0.0),
    ]
    assert figures["edge_accuracy"] == {"seen": 1.0, "out": 1.0, "into": 1.0}
    assert figures["sure"] == {"rank_correlation": pytest.approx(1.0), "within_two": pytest.approx(2 / 3)}


def test_several_hidden_entities_have_no_names(run: nf.Run) -> None:
    truth = torch.randn(2, STEPS, 2, 4, dtype=torch.float64)
    edges = torch.zeros(2, 4, 4, dtype=torch.uint8)
    edges[:, 2, 0] = edges[:, 0, 1] = edges[:, 1, 2] = 1
    swapped = [0, 1, 3, 2]
    found = _found(truth[:, :, [1, 0]], edges[:, swapped][:, :, swapped], torch.ones(2, 2))
    figures = score_unseen(run, found, Hidden(truth, edges))
    assert figures["error"] < 1e-12
    assert figures["edge_accuracy"] == {"seen": 1.0, "out": 1.0, "into": 1.0}


def _found(path: Tensor, adjacency: Tensor, deviation: Tensor) -> Unseen:
    nothing = torch.zeros(0)
    return Unseen(adjacency, nothing, path.float(), nothing, nothing, deviation)


def test_bad_input(run: nf.Run) -> None:
    seen, truth = hide(recordings(run, 2), [0])
    with pytest.raises(ValueError, match="hidden: expected at least 1, got 0"):
        find_unseen(run, seen, 0)
    with pytest.raises(ValueError, match="seen: expected at least 3 steps, got 2"):
        find_unseen(run, replace(seen, states=seen.states[:, :2]))
    kinds = replace(run, settings=replace(run.settings, node_types=2))
    with pytest.raises(ValueError, match="run: expected one entity type, got 2"):
        find_unseen(kinds, seen)
    with pytest.raises(ValueError, match="truth: expected states"):
        score_unseen(run, _found(torch.zeros(2, 3, 1, 4), torch.zeros(0), torch.zeros(0)), truth)
