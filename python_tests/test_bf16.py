"""Energies and scores from products in bfloat16, against the oracle with the same numbers rounded."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import torch
from cases import Case, assert_close, assert_same_bits, make_case
from torch import Tensor, nn

import nri_fast as nf
from nri_fast import _core, ops, reference
from nri_fast.energies import heat_bath_scores, rollout_energy

WIDE = {"message": 40, "edge_hidden": (48, 33), "node_hidden": (70, 36), "features": 3}
needs_bf16 = pytest.mark.skipif(not _core.bf16_available(), reason="no AVX-512 BF16 here")


@contextmanager
def rounded_layers(library: nf.ModuleLibrary) -> Iterator[None]:
    """Layers that the kernels multiply in bf16 round their weights and what they read, states apart."""
    plain = nn.Linear.forward
    first = {id(next(iter(module.children()))) for module in library.node}

    def forward(self: nn.Linear, x: Tensor) -> Tensor:
        exact = library.features if id(self) in first else 0
        depth = self.in_features - exact
        if depth < 32 or self.out_features <= 4:
            return plain(self, x)
        a, w = x[..., :depth].float().bfloat16().to(x), self.weight[:, :depth].float().bfloat16().to(x)
        return a @ w.T + x[..., depth:] @ self.weight[:, depth:].T + self.bias

    nn.Linear.forward = forward  # type: ignore[method-assign]
    try:
        yield
    finally:
        nn.Linear.forward = plain  # type: ignore[method-assign]


@pytest.fixture
def case() -> Case:
    torch.manual_seed(2)
    return make_case(torch.float32, sizes=[4, 2, 5], **WIDE)


@needs_bf16
def test_energy_equals_oracle_with_rounded_layers(case: Case) -> None:
    arguments = (case.library, case.graph, case.trajectories, case.edge_types, case.node_types, 3)
    with torch.no_grad():
        with rounded_layers(case.library):
            expected = reference.rollout_energy(*arguments)
        with ops.scoring_precision("bf16"):
            got = rollout_energy(*arguments)
        exact = rollout_energy(*arguments)
    assert_close(got, expected, 1e-3)  # sums in another order may round a hidden number the other way
    assert 1e-6 < float(((got - exact) / exact).abs().max()) < 3e-2


@needs_bf16
def test_scores_are_near_the_exact_ones(case: Case) -> None:
    arguments = (case.library, case.graph, case.trajectories)
    options = {"node_types": case.node_types, "error": "robust", "scale_squared": 0.1}
    with torch.no_grad():
        exact = heat_bath_scores(*arguments, **options)
        with ops.scoring_precision("bf16"):
            rounded = heat_bath_scores(*arguments, **options)
    assert not torch.equal(exact, rounded)
    assert_close(rounded, exact, 1e-2)


@needs_bf16
def test_energy_does_not_know_its_batch(case: Case) -> None:
    states, types = torch.cat([x.flatten() for x in case.trajectories]), case.edge_types[None]
    error = ops.ErrorMeasure(torch.ones(3))
    parameters = case.library.flat_parameters().detach()

    def energies() -> Tensor:
        return ops.rollout_energy(case.library, parameters, case.graph, states, 8, types, case.node_types, 3, error)

    with ops.scoring_precision("bf16"):
        before = energies()
        ops.set_threads(1)
        try:
            assert_same_bits(before, energies())
        finally:
            ops.set_threads(_core.hardware_threads())


@needs_bf16
def test_gradients_and_doubles_are_as_always(case: Case) -> None:
    parameters = list(case.library.parameters())

    def gradients() -> list[Tensor]:
        energy = rollout_energy(case.library, case.graph, case.trajectories, case.edge_types, case.node_types, 3)
        return list(torch.autograd.grad(energy.sum(), parameters))

    before = gradients()
    with ops.scoring_precision("bf16"):
        after = gradients()
    for a, b in zip(before, after, strict=True):
        assert_same_bits(a, b)
    double = make_case(torch.float64, sizes=[3], **WIDE)
    arguments = (double.library, double.graph, double.trajectories, double.edge_types, double.node_types, 3)
    with torch.no_grad():
        exact = rollout_energy(*arguments)
        with ops.scoring_precision("bf16"):
            assert_same_bits(exact, rollout_energy(*arguments))


def test_refused_where_the_processor_has_none(case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_core, "bf16_available", lambda: False)
    arguments = (case.library, case.graph, case.trajectories, case.edge_types, case.node_types, 3)
    with pytest.raises(RuntimeError, match="AVX-512 BF16"), ops.scoring_precision("bf16"), torch.no_grad():
        rollout_energy(*arguments)
