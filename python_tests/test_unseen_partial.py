"""Unseen entities beside seen ones that come and go, in systems of different sizes and lengths."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from cases import assert_close, assert_same_bits
from test_unseen import NAMES, STEPS, recordings, run  # noqa: F401 (a fixture)
from torch import Tensor

import nri_fast as nf
from nri_fast import cli
from nri_fast.origin import Origin
from nri_fast.unseen import Hidden, Unseen, find_unseen, hide, score_unseen, search
from nri_fast.unseen.views import views


@pytest.fixture(autouse=True)
def _few_restarts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(search, "RESTARTS", 6)


def padded(parts: list[nf.TrajectoryData]) -> nf.TrajectoryData:
    """Systems of several sizes as one data set."""
    sizes = torch.cat([torch.full((part.systems,), part.entities) for part in parts])
    most = int(sizes.max())
    states = [torch.nn.functional.pad(p.states, (0, 0, 0, most - p.entities)) for p in parts]
    edges = None
    if all(part.edges is not None for part in parts):
        edges = torch.cat([torch.nn.functional.pad(p.edges, (0, most - p.entities) * 2) for p in parts])  # type: ignore[arg-type]
    return nf.TrajectoryData(torch.cat(states), edges, NAMES, sizes=sizes)


def holes(data: nf.TrajectoryData, share: float = 0.15, whole_frames: int = 1) -> Tensor:
    present = torch.rand(data.states.shape[:3], generator=torch.Generator().manual_seed(4)) > share
    present[:, :whole_frames] = True
    return present & data.members[:, None]


def with_holes(data: nf.TrajectoryData, present: Tensor) -> nf.TrajectoryData:
    there = present[..., None]
    return dataclasses.replace(data, states=torch.where(there, data.states, torch.nan), present=present)


def test_a_hidden_entity_is_found_beside_holes(run: nf.Run, monkeypatch: pytest.MonkeyPatch) -> None:  # noqa: F811
    monkeypatch.setattr(search, "RESTARTS", 48)
    data = padded([recordings(run, 3, 5, seed=3), recordings(run, 3, 4)])
    data = with_holes(data, holes(data))
    seen, truth = hide(data, [1])
    found = find_unseen(run, seen, undirected=True)
    assert found.sizes is not None
    assert found.sizes.tolist() == [5] * 3 + [4] * 3
    figures = score_unseen(run, found, truth)
    assert figures["linked"]["entities"] >= 5
    assert figures["linked"]["error"] < 1e-2 * figures["linked"]["guess"]
    assert figures["edge_accuracy"]["seen"] == 1.0
    assert float(found.energy.max()) < 1e-4
    behind = found.probability[3:].sum(-1)
    assert not bool(behind[:, 4].any())
    assert not bool(behind[:, :, 4].any())
    assert_close(behind[:, :4, :4], 1.0 - torch.eye(4).expand(3, -1, -1), 1e-6)


def test_a_system_is_what_it_is_beside_others_of_another_size(run: nf.Run) -> None:  # noqa: F811
    four, five = recordings(run, 2, 4), recordings(run, 1, 5, seed=3)
    together, alone = find_unseen(run, padded([four, five])), find_unseen(run, four)
    assert_same_bits(together.adjacency[:2, :5, :5], alone.adjacency)
    assert_same_bits(together.probability[:2, :5, :5], alone.probability)
    for name in ("path", "energy", "deviation"):
        assert_same_bits(getattr(together, name)[:2], getattr(alone, name))
    assert_same_bits(together.seen_path[:2, :, :4], alone.seen_path)
    assert bool(together.seen_path[:2, :, 4].isnan().all())
    assert alone.sizes is None
    assert alone.frames is None


def test_masked_results_are_those_of_what_is_cut_out(run: nf.Run) -> None:  # noqa: F811
    """An entity that is never there, and frames in which nobody is, before and behind."""
    data = recordings(run, 1, 4)
    present = torch.zeros(1, STEPS, 4, dtype=torch.bool)
    present[:, 3:22, [0, 1, 3]] = True
    masked = find_unseen(run, with_holes(data, present))
    cut = find_unseen(run, dataclasses.replace(data, states=data.states[:, 3:22][:, :, [0, 1, 3]], edges=None))
    assert masked.frames is not None
    assert masked.frames.tolist() == [[3, 22]]
    assert_same_bits(masked.path[:, 3:22], cut.path)
    assert bool(masked.path[:, :3].isnan().all())
    assert bool(masked.path[:, 22:].isnan().all())
    assert_same_bits(masked.seen_path[:, 3:22][:, :, [0, 1, 3]], cut.seen_path)
    assert_same_bits(masked.energy, cut.energy)
    assert_same_bits(masked.deviation, cut.deviation)
    left = torch.tensor([0, 1, 3, 4])
    assert_same_bits(masked.adjacency[:, left][:, :, left], cut.adjacency)
    assert_same_bits(masked.probability[:, left][:, :, left], cut.probability)
    assert masked.probability[0, 2, 0].tolist() == [0.5, 0.5]  # nobody can say
    assert not bool(masked.adjacency[:, 2].any())


def test_what_stands_where_nothing_is_changes_nothing(run: nf.Run) -> None:  # noqa: F811
    data = recordings(run, 2)
    present = holes(data)
    present[1, :6, 2] = False
    one = find_unseen(run, with_holes(data, present))
    other = find_unseen(
        run, dataclasses.replace(data, states=torch.where(present[..., None], data.states, 9.0), present=present)
    )
    for field in dataclasses.fields(Unseen):
        a, b = getattr(one, field.name), getattr(other, field.name)
        assert (a is None) == (b is None)
        if a is not None:
            assert torch.equal(a.nan_to_num(-7.0), b.nan_to_num(-7.0))


def test_energies_count_what_is_there(run: nf.Run) -> None:  # noqa: F811
    data = recordings(run, 2)
    present = holes(data)
    found = find_unseen(run, with_holes(data, present))
    recorded = run.padded_states(data)
    square = ((found.seen_path[:, 1:] - recorded[:, 1:]) ** 2).double().mean(-1)
    counted = present[:, 1:] & present[:, :1]
    by_hand = torch.where(counted, square, 0.0).sum((1, 2)) / counted.sum((1, 2))
    assert_close(found.energy, by_hand.float(), 1e-5)
    states = torch.cat([found.seen_path[:, 0], found.path[:, 0]], 1)
    graph = nf.MegaGraph.complete(2, 5)
    rolled = nf.energies.forecast(run.library, graph, states, found.adjacency, horizon=STEPS - 1)
    assert_same_bits(found.path[:, 1:], rolled[:, :, -1:])


def test_who_is_absent_at_first_has_no_part_in_the_open_loop(run: nf.Run) -> None:  # noqa: F811
    data = recordings(run, 1)
    present = torch.ones(1, STEPS, 4, dtype=torch.bool)
    present[0, :4, 3] = False
    found = find_unseen(run, with_holes(data, present))
    assert found.frames is not None
    # 3 entities over 25 frames make 75 predictions; from frame 4 on it would be 4 over 21.
    assert found.frames.tolist() == [[4, STEPS]]
    present[0, :16, 3] = False
    found = find_unseen(run, with_holes(data, present))
    assert found.frames is not None
    assert found.frames.tolist() == [[0, STEPS]]
    assert bool(found.seen_path[0, :, 3].isnan().all())
    assert not bool(found.seen_path[0, :, :3].isnan().any())


def test_views_by_hand() -> None:
    states = torch.zeros(3, 6, 2, 1)
    present = torch.ones(3, 6, 2, dtype=torch.bool)
    present[1, 4:] = False
    present[2, :, 1] = False
    seen = nf.TrajectoryData(states, None, ("a",), present=present)
    looked = [(v.systems.tolist(), v.entities.tolist(), v.first, v.end) for v in views(seen)]
    assert looked == [([0], [[0, 1]], 0, 6), ([1], [[0, 1]], 0, 4), ([2], [[0]], 0, 6)]
    present = present.clone()
    present[1, 2:] = False
    with pytest.raises(ValueError, match="seen: system 1: expected an entity that is there at a frame and after it"):
        [*views(nf.TrajectoryData(states, None, ("a",), present=present))]


def test_hide_from_systems_of_different_sizes(run: nf.Run) -> None:  # noqa: F811
    data = padded([recordings(run, 1, 3), recordings(run, 1, 5, seed=1)])
    names = np.array([["a", "b", "c", "", ""], ["a", "b", "c", "d", "e"]])
    origin = Origin(
        torch.zeros(2, dtype=torch.int64), ("made",), torch.zeros(2, dtype=torch.int64), torch.ones(2).double(), names
    )
    data = dataclasses.replace(data, origin=origin, node_types=torch.zeros(2, 5, dtype=torch.uint8))
    seen, truth = hide(data, [2, 0])
    assert seen.sizes is not None
    assert seen.sizes.tolist() == [1, 3]
    assert_same_bits(seen.states[0, :, :1], data.states[0, :, [1]])
    assert_same_bits(seen.states[1], data.states[1][:, [1, 3, 4]])
    assert seen.origin is not None
    assert seen.origin.entity_names.tolist() == [["b", "", ""], ["b", "d", "e"]]
    assert truth.sizes is not None
    assert truth.sizes.tolist() == [3, 5]
    assert truth.edges is not None
    assert data.edges is not None
    small, large = [1, 2, 0], [1, 3, 4, 2, 0]
    assert_same_bits(truth.edges[0, :3, :3], data.edges[0][small][:, small])
    assert not bool(truth.edges[0, 3:].any())
    assert_same_bits(truth.edges[1], data.edges[1][large][:, large])
    with pytest.raises(ValueError, match=r"entities: expected different ones of 0 to 2, got \[3\]"):
        hide(data, [3])
    with pytest.raises(ValueError, match="entities: expected one of 3 to stay"):
        hide(data, [0, 1, 2])


def test_figures_of_different_sizes_by_hand(run: nf.Run) -> None:  # noqa: F811
    """Two systems, of 3 and 4; the hidden ones are 2 and 3. Half of one's states are absent, frames of the other's."""
    truth = torch.zeros(2, 4, 1, 4, dtype=torch.float64)
    truth[1] = 1.0
    present = torch.ones(2, 4, 1, dtype=torch.bool)
    present[0, 2:] = False
    edges = torch.zeros(2, 4, 4, dtype=torch.uint8)
    edges[0, 2, 0] = edges[1, 3, 0] = edges[1, 1, 3] = edges[1, 0, 1] = 1
    path = truth.clone()
    path[0, :2] += 0.3
    path[0, 2:] += 50.0
    path[1] += 0.1
    path[1, 0] = torch.nan
    nothing = torch.zeros(0)
    sizes, frames = torch.tensor([3, 4]), torch.tensor([[0, 4], [1, 4]])
    found = Unseen(edges, nothing, path.float(), nothing, nothing, torch.ones(2, 1), sizes, frames)
    figures = score_unseen(run, found, Hidden(truth, edges, sizes, present))
    assert figures["error"] == pytest.approx((0.09 + 0.01) / 2)
    assert figures["guess"] == pytest.approx(0.24)  # two zeros and three ones
    assert [(row["edges"], round(row["error"], 6)) for row in figures["by_edges"]] == [(1, 0.09), (2, 0.01)]
    assert figures["edge_accuracy"] == {"seen": 1.0, "out": 1.0, "into": 1.0}
    wrong = edges.clone()
    wrong[0, 0, 1] = 1
    figures = score_unseen(run, dataclasses.replace(found, adjacency=wrong), Hidden(truth, edges, sizes, present))
    assert figures["edge_accuracy"]["seen"] == pytest.approx(1 - 1 / 8)


def test_parts_of_ragged_searches_go_on(run: nf.Run, tmp_path, monkeypatch: pytest.MonkeyPatch) -> None:  # noqa: F811
    data = padded([recordings(run, 2, 3), recordings(run, 2, 4, seed=1)])
    data = with_holes(data, holes(data))
    undisturbed = find_unseen(run, data, folder=tmp_path)

    def never(*_: object) -> None:
        raise AssertionError("searched again")

    monkeypatch.setattr("nri_fast.unseen.find.search", never)
    again = find_unseen(run, data, folder=tmp_path)
    for field in dataclasses.fields(Unseen):
        a, b = getattr(undisturbed, field.name), getattr(again, field.name)
        assert torch.equal(a.nan_to_num(-7.0), b.nan_to_num(-7.0))


def test_the_command_takes_ragged_recordings_with_holes(run: nf.Run, tmp_path) -> None:  # noqa: F811
    run.save(tmp_path / "run")
    data = padded([recordings(run, 1, 4), recordings(run, 1, 5, seed=1)])
    data = with_holes(data, holes(data))
    nf.save_trajectories(data, tmp_path / "data")
    out = tmp_path / "found"
    arguments = ["unseen", tmp_path / "run", tmp_path / "data", "--split", data.split, "--hide", "1", "--out", out]
    assert cli.main([str(a) for a in arguments]) == 0
    with np.load(out / "found.npz") as found:
        assert found["sizes"].tolist() == [4, 5]
        assert found["frames"].shape == (2, 2)
        assert found["path"].shape == (2, STEPS, 1, 4)
    assert (out / "unseen.png").stat().st_size > 10_000
    assert (out / "figures.json").exists()
