"""The helpers that other tests lean on can fail: on NaN, on infinity, on shapes, on signs, and by a little."""

from __future__ import annotations

import pytest
import torch
from cases import assert_close, assert_same_bits, make_case, random_edges

from nri_fast import reference

NAN, INF = float("nan"), float("inf")


def tensor(*values):
    return torch.tensor(values, dtype=torch.float64)


@pytest.mark.parametrize(
    ("got", "expected"),
    [
        (tensor(NAN), tensor(1.0)),
        (tensor(1.0), tensor(NAN)),
        (tensor(NAN), tensor(NAN)),
        (tensor(INF), tensor(INF)),
        (tensor(1.0, INF), tensor(1.0, 2.0)),
        (tensor(1.0), tensor(INF)),
        (tensor(1.0), tensor(1.0 + 2e-6)),
        (tensor(1.0 + 2e-6), tensor(1.0)),
        (tensor(-1.0), tensor(1.0)),
        (tensor(-1.0), tensor(-1.0 - 2e-6)),
        (tensor(1.0), tensor(-1.0)),
        (tensor(1e-300), tensor(0.0)),
        (tensor(0.0), tensor(1e-300)),
        (tensor(1.0, 2.0), tensor(1.0)),
        (tensor(1.0), tensor(1.0, 1.0)),
        (tensor(1.0, 1.0)[None], tensor(1.0, 1.0)),
        (tensor(), tensor(1.0)),
    ],
)
def test_assert_close_fails(got, expected):
    with pytest.raises(AssertionError):
        assert_close(got, expected, 1e-6)


@pytest.mark.parametrize(
    ("got", "expected"),
    [
        (tensor(0.0, 0.0), tensor(0.0, 0.0)),
        (tensor(-0.0), tensor(0.0)),
        (tensor(1.0 + 5e-7), tensor(1.0)),
        (tensor(-1.0 - 5e-7), tensor(-1.0)),
        (tensor(0.0, 1.0), tensor(5e-7, 1.0)),  # relative to the largest, not to each
        (tensor(), tensor()),
    ],
)
def test_assert_close_passes(got, expected):
    assert_close(got, expected, 1e-6)


@pytest.mark.parametrize(
    ("got", "expected"),
    [
        (tensor(1.0), tensor(1.0 + 2**-52)),
        (tensor(NAN), tensor(NAN)),
        (tensor(1.0), tensor(1.0, 1.0)),
        (tensor(1.0, 1.0), tensor(1.0)),
    ],
)
def test_assert_same_bits_fails(got, expected):
    with pytest.raises(AssertionError):
        assert_same_bits(got, expected)


def test_assert_same_bits_passes():
    assert_same_bits(tensor(1.0, -2.0, INF), tensor(1.0, -2.0, INF))


def test_cases_are_what_they_say():
    case = make_case()
    assert case.graph.sizes == [3, 1, 5, 2]
    assert 0 < case.graph.edges < 6 + 20 + 2  # edges are missing, but not all
    assert [x.shape for x in case.trajectories] == [(8, n, 3) for n in case.graph.sizes]
    assert set(case.edge_types.tolist()) == {0, 1}
    assert bool((case.library.change_scale != 1).all())
    assert random_edges([3, 2], 2.0).shape == (2, 8)
    assert random_edges([3, 2], -1.0).shape == (2, 0)


def test_the_oracle_by_hand():
    """Two entities, one feature, laws f([s, r]) = relu(2 s + r) and g([a, x]) = a - x / 2, by pencil."""
    case = make_case(
        sizes=[2], keep=2.0, steps=3, features=1, edge_types=1, node_types=1, message=1, edge_hidden=(), node_hidden=()
    )
    library = case.library
    with torch.no_grad():
        for layer, weight in [(library.edge[0][0], [[2.0, 1.0]]), (library.node[0][0], [[1.0, -0.5]])]:
            layer.weight.copy_(tensor(*weight[0])[None])
            layer.bias.zero_()
        library.change_scale.fill_(1.0)
    states = tensor(1.0, -3.0, 2.0, 0.0, 7.0, 1.0).view(3, 2, 1)
    types = torch.zeros(2, dtype=torch.uint8)
    # From (1, -3): messages relu(2 * 1 - 3) = 0 to entity 1 and relu(-6 + 1) = 0 to entity 0, so (0.5, -1.5).
    # Recorded (2, 0): errors 2.25 and 2.25.
    # From there, (0.5, -1.5): messages relu(1 - 1.5) = 0 and relu(-3 + 0.5) = 0, so (0.25, -0.75).
    # Recorded (7, 1): errors 45.5625 and 3.0625.
    energy = reference.rollout_energy(library, case.graph, [states], types, None, 2)
    assert_close(energy, tensor((2.25 + 2.25 + 45.5625 + 3.0625) / 4), 1e-12)
    # Restarted at (2, 0): messages relu(4 + 0) = 4 to entity 1 and relu(0 + 2) = 2 to entity 0, so (3, 4).
    # Recorded (7, 1): errors 16 and 9.
    energy = reference.rollout_energy(library, case.graph, [states], types, None, 1)
    assert_close(energy, tensor((2.25 + 2.25 + 16 + 9) / 4), 1e-12)
    robust = reference.rollout_energy(library, case.graph, [states], types, None, 1, 0.5, tensor(2.0))
    assert_close(robust, tensor(5.0, 5.0, 32.5, 18.5).log().mean()[None], 1e-12)
    scores = reference.heat_bath_scores(library, case.graph, [states], torch.tensor([[1]]))
    assert_close(scores, tensor(16.0, 9.0), 1e-12)


def test_a_case_that_moves_leaves_the_first_one_where_it_was() -> None:
    """Or an oracle on the CPU would meet a library on the GPU."""
    case = make_case()
    moved = case.on(torch.device("meta"))
    assert {p.device.type for p in moved.library.parameters()} == {moved.trajectories[0].device.type} == {"meta"}
    assert {p.device.type for p in case.library.parameters()} == {case.trajectories[0].device.type} == {"cpu"}
