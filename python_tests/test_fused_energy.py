"""Roll-out energies of the fused CUDA kernels in each precision, against the oracle with the same numbers rounded."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest
import torch
from cases import Case, assert_close, assert_same_bits, make_case
from torch import Tensor, nn

import nri_fast as nf
from nri_fast import ops, reference
from nri_fast.energies import rollout_energy

PRECISIONS = ["fp32", "tf32", "bf16"]
# Of the largest energy, against the oracle that rounds alike. Sums in another order round a hidden number the other way
# now and then, by one unit of the format, 2^-10 or 2^-8, of which the energies of these cases show less than a
# hundredth or a fortieth.
TOLERANCE = {"fp32": 1e-5, "tf32": 2**-10 / 100, "bf16": 2**-8 / 40}
# Rounding itself: both factors of every product, by half a unit each, in some five layers.
MOST = {"fp32": 1e-5, "tf32": 5 * 2**-10, "bf16": 5 * 2**-8}
SHAPES = {
    "ragged": {"sizes": [3, 1, 5, 2], "message": 20, "edge_hidden": (33,), "node_hidden": (24, 17)},
    "three types, one silent": {"sizes": [3, 1, 4], "edge_types": 3, "node_types": 3, "silent": True},
    "several passes": {"sizes": [5] * 14, "keep": 2.0, "edge_types": 1, "node_types": 1, "edge_hidden": ()},
    "128 wide": {"sizes": [4, 2], "message": 70, "edge_hidden": (35,), "node_hidden": (100,), "features": 1},
    "256 wide": {"sizes": [4], "message": 12, "edge_hidden": (9,), "node_hidden": (200, 10), "features": 7},
    "no edges": {"sizes": [3, 1], "keep": -1.0},
}


@pytest.fixture
def fused(backend: torch.device) -> torch.device:
    """A backend that has the fused kernels."""
    if not ops.uses_cuda_kernels(torch.empty(0, device=backend)):
        pytest.skip("the fused kernels are CUDA's")
    return backend


def shaped_case(shape: str, **more: object) -> Case:
    torch.manual_seed(4)
    case = make_case(torch.float32, **({"steps": 12} | SHAPES[shape] | more))
    case.library.change_scale.fill_(1.0)  # is multiplied into weights before they are rounded
    return case


def rounded(precision: str) -> Callable[[Tensor], Tensor]:
    """To the numbers that a product of that precision takes."""
    if precision == "bf16":
        return lambda x: x.float().bfloat16().to(x)
    if precision == "tf32":
        return lambda x: ((x.float().view(torch.int32) + 0x1000) & ~0x1FFF).view(torch.float32).to(x)
    return lambda x: x


@contextmanager
def rounded_layers(library: nf.ModuleLibrary, precision: str, one_by_one: bool = False) -> Iterator[None]:
    """Layers round their weights and what they read, states apart, and in bf16 messages are rounded too.

    One by one: the node modules read messages that are rounded, and not the rounded sum of messages.
    """
    plain, to_precision = nn.Linear.forward, rounded(precision)

    def layers(modules: nn.ModuleList) -> list[list[nn.Linear]]:
        return [[x for x in module.modules() if isinstance(x, nn.Linear)] for module in modules]

    edge, node = layers(library.edge), layers(library.node)
    exact = {id(module[0]): 2 * library.features for module in edge}
    exact |= {id(module[0]): library.features for module in node}
    messages = {id(module[-1]) for module in edge}
    sums = {id(module[0]) for module in node} if one_by_one else set()

    def forward(self: nn.Linear, x: Tensor) -> Tensor:
        depth = self.in_features - exact.get(id(self), 0)
        a, w = x[..., :depth], to_precision(self.weight[:, :depth])
        a = a if id(self) in sums else to_precision(a)
        y = a @ w.T + x[..., depth:] @ self.weight[:, depth:].T + self.bias
        return to_precision(y) if (precision == "bf16" or one_by_one) and id(self) in messages else y

    nn.Linear.forward = forward  # type: ignore[method-assign]
    try:
        yield
    finally:
        nn.Linear.forward = plain  # type: ignore[method-assign]


def arguments_of(case: Case, rollout: int) -> tuple[object, ...]:
    return case.library, case.graph, case.trajectories, case.edge_types, case.node_types, rollout


def energies_of(case: Case, rollout: int, precision: str, **options: object) -> Tensor:
    with torch.no_grad(), ops.scoring_precision(precision):
        return rollout_energy(*arguments_of(case, rollout), **options)


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("rollout", [1, 3, 10])  # 11 transitions: the last roll-out is whole, shorter, much shorter
@pytest.mark.parametrize("shape", SHAPES)
def test_energy_equals_oracle(fused: torch.device, shape: str, rollout: int, precision: str) -> None:
    case = shaped_case(shape)
    with torch.no_grad():
        exact = reference.rollout_energy(*arguments_of(case, rollout))
        with rounded_layers(case.library, precision):
            expected = reference.rollout_energy(*arguments_of(case, rollout))
    got = energies_of(case.on(fused), rollout, precision)
    assert_close(got, expected, TOLERANCE[precision])
    assert_close(got, exact, MOST[precision])
    if precision != "fp32":  # it is this rounding and no other
        assert 2 * float((got.cpu() - expected).abs().max()) < float((exact - expected).abs().max())
    weight = torch.rand(case.library.features)
    with torch.no_grad(), rounded_layers(case.library, precision):
        expected = reference.rollout_energy(*arguments_of(case, rollout), 0.1, weight)
    options = {"error": "robust", "scale_squared": 0.1, "weight": weight.to(fused)}
    assert_close(energies_of(case.on(fused), rollout, precision, **options), expected, TOLERANCE[precision])


def test_a_lower_precision_is_another_one(fused: torch.device) -> None:
    case = shaped_case("ragged")
    with torch.no_grad():
        exact = reference.rollout_energy(*arguments_of(case, 3))
    fp32, tf32, bf16 = (float((energies_of(case.on(fused), 3, p).cpu() - exact).abs().max()) for p in PRECISIONS)
    assert 10 * fp32 < tf32
    assert 2 * tf32 < bf16


@pytest.mark.parametrize("precision", PRECISIONS)
def test_energy_does_not_know_its_batch(fused: torch.device, precision: str) -> None:
    case = shaped_case("several passes", sizes=[5] * 9, edge_types=2).on(fused)
    graph, states = nf.MegaGraph.complete(9, 5, fused), torch.stack(case.trajectories)
    types = graph.adjacency(case.edge_types)

    def energies(chosen: Tensor) -> Tensor:
        part = nf.MegaGraph.complete(len(chosen), 5, fused)
        with torch.no_grad(), ops.scoring_precision(precision):
            return rollout_energy(case.library, part, states[chosen], types[chosen], rollout=3)

    together = energies(torch.arange(9))
    for chosen in (torch.randperm(9), torch.tensor([4]), torch.arange(2, 7)):
        assert_same_bits(energies(chosen), together[chosen])


@pytest.mark.parametrize("precision", PRECISIONS)
def test_several_structures_are_each_what_they_are_alone(fused: torch.device, precision: str) -> None:
    case = shaped_case("ragged", edge_types=3).on(fused)
    types = torch.randint(3, (4, case.graph.edges), dtype=torch.uint8, device=fused)
    with torch.no_grad(), ops.scoring_precision(precision):
        together = rollout_energy(case.library, case.graph, case.trajectories, types, case.node_types, 3)
        for one, energy in zip(types, together, strict=True):
            alone = rollout_energy(case.library, case.graph, case.trajectories, one, case.node_types, 3)
            assert_same_bits(energy, alone)


@pytest.mark.parametrize("precision", PRECISIONS)
def test_unobserved_entities_do_not_count(fused: torch.device, precision: str) -> None:
    case = shaped_case("ragged")
    seen = torch.tensor([1, 0, 1, 0, 1, 1, 0, 1, 0, 1, 1], dtype=torch.bool)
    with torch.no_grad(), rounded_layers(case.library, precision):
        expected = reference.rollout_energy(
            *arguments_of(case, 3), None, None, seen.index_fill(0, torch.tensor(3), True)
        )
    seen_by_kernels = seen.index_fill(0, torch.tensor(3), True).to(fused)
    assert_close(energies_of(case.on(fused), 3, precision, observed=seen_by_kernels), expected, TOLERANCE[precision])


@pytest.mark.parametrize("precision", PRECISIONS)
def test_a_system_that_runs_away_leaves_its_tile_alone(fused: torch.device, precision: str) -> None:
    case = shaped_case("ragged").on(fused)
    before = energies_of(case, 3, precision)
    case.trajectories[2][:] = 3e38
    after = energies_of(case, 3, precision)
    assert not bool(torch.isfinite(after[2]))
    others = torch.tensor([0, 1, 3])
    assert_same_bits(after[others], before[others])


def test_systems_too_large_for_a_tile(fused: torch.device) -> None:
    """They take the unfused kernels, and their neighbours do not notice."""
    torch.manual_seed(5)
    case = make_case(torch.float32, sizes=[4, 130, 2, 3], keep=0.02, steps=4).on(fused)
    with torch.no_grad():
        expected = reference.rollout_energy(*arguments_of(case.on(torch.device("cpu")), 2))
    for precision in PRECISIONS:
        together = energies_of(case, 2, precision)
        assert_close(together, expected, 1e-5 if precision == "fp32" else 0.05)
        first = 0
        for b, states in enumerate(case.trajectories):
            mine = (case.graph.receiver >= first) & (case.graph.receiver < first + len(states[0]))
            index = torch.stack([case.graph.sender[mine], case.graph.receiver[mine]]) - first
            alone = Case(
                case.library,
                nf.MegaGraph.from_edge_index(index, [len(states[0])]),
                [states],
                case.edge_types[mine],
                case.node_types[first : first + len(states[0])],
            )
            assert_same_bits(energies_of(alone, 2, precision), together[b : b + 1])
            first += len(states[0])
    assert_same_bits(energies_of(case, 2, "bf16")[1], energies_of(case, 2, "fp32")[1])


def test_libraries_too_wide_for_a_tile(fused: torch.device) -> None:
    case = shaped_case("ragged", node_hidden=(260,)).on(fused)
    assert_same_bits(energies_of(case, 3, "tf32"), energies_of(case, 3, "fp32"))


def test_gradients_and_doubles_are_as_always(fused: torch.device) -> None:
    case = shaped_case("ragged").on(fused)

    def gradients() -> list[Tensor]:
        energy = rollout_energy(*arguments_of(case, 3))
        return list(torch.autograd.grad(energy.sum(), list(case.library.parameters())))

    before = gradients()
    with ops.scoring_precision("tf32"):
        for a, b in zip(before, gradients(), strict=True):
            assert_same_bits(a, b)
    double = make_case(torch.float64, sizes=[3]).on(fused)
    assert_same_bits(energies_of(double, 3, "tf32"), energies_of(double, 3, "fp32"))


def test_tf32_is_for_gpus() -> None:
    with pytest.raises(RuntimeError, match="tf32 expects CUDA tensors"):
        energies_of(shaped_case("ragged"), 3, "tf32")
    with (
        pytest.raises(ValueError, match="expected 'fp32', 'tf32' or 'bf16', got 'fp16'"),
        ops.scoring_precision("fp16"),
    ):
        pass
