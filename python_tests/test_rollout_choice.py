"""A Metropolis choice together with its gradient, against the energies, the decision and the gradient one by one."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from cases import TOLERANCE, Case, assert_close, assert_same_bits
from test_present import make_holes
from test_rollout_energy import SHAPES, shaped_case
from torch import Tensor

import nri_fast as nf
from nri_fast import ops, reference
from nri_fast.bounces import BounceResult, Structures, metropolis_bounce
from nri_fast.energies import error_measure
from nri_fast.modules import ModuleLibrary
from nri_fast.rollouts import Rollouts
from nri_fast.schedule import AcceptanceTemperature


class Choices:
    """A case's systems with a structure that they hold, and another that is proposed."""

    def __init__(self, case: Case, rollout: int = 3, scale_squared: float | None = None) -> None:
        self.case, self.rollout, self.scale_squared = case, rollout, scale_squared
        graph, library = case.graph, case.library
        self.states = torch.cat([x.flatten() for x in case.trajectories])
        generator = torch.Generator().manual_seed(4)
        kinds = {"dtype": torch.uint8, "generator": generator}
        edges = torch.randint(library.edge_types, (graph.edges,), **kinds)
        nodes = torch.randint(library.node_types, (graph.nodes,), **kinds)
        self.edge_types, self.node_types = torch.stack([case.edge_types, edges]), torch.stack([case.node_types, nodes])
        self.draws = ops.Draws(7, 11, torch.arange(graph.systems) + 3)
        self.temperature = self.states.new_full((1,), 0.3)
        # What is proposed is accepted in every other system.
        self.log_ratio = torch.tensor([1e3, -1e3], dtype=torch.float64).repeat(graph.systems)[: graph.systems]
        kind = "squared" if scale_squared is None else "robust"
        self.error = error_measure(library, kind, scale_squared)
        self.parameters = library.flat_parameters().detach()

    def problem(self, structure: int) -> tuple[Tensor, Tensor | None]:
        """Types of one of the two."""
        nodes = self.node_types[structure] if self.case.library.node_types > 1 else None
        return self.edge_types[structure], nodes

    def chosen(self, **more: Tensor) -> tuple[Tensor, Tensor]:
        """In one pass."""
        nodes = self.node_types if self.case.library.node_types > 1 else None
        front = (self.case.library, self.parameters, self.case.graph, self.states, len(self.case.trajectories[0]))
        types = (self.edge_types, nodes, self.rollout, self.error)
        return ops.rollout_choice(*front, *types, self.draws, self.temperature, self.log_ratio, **more)

    def one_by_one(self, **more: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
        """Energies, gradient, types that are kept, and counts."""
        library, graph = self.case.library, self.case.graph
        front = (library, self.parameters, graph, self.states, len(self.case.trajectories[0]))
        energy = []
        for structure in (0, 1):
            edges, nodes = self.problem(structure)
            found = ops.rollout_energy(*front, edges[None], nodes, self.rollout, self.error, **more)
            energy.append(found[0])
        (edges, nodes), (other, other_nodes) = (self.problem(s) for s in (0, 1))
        edges, nodes, kept = edges.clone(), None if nodes is None else nodes.clone(), energy[0].clone()
        counts = torch.zeros(graph.systems, 4, dtype=torch.int64)
        ops.metropolis_decide(
            graph,
            self.draws,
            self.temperature,
            energy[1],
            other,
            other_nodes,
            kept,
            edges,
            nodes,
            counts,
            self.log_ratio,
        )
        part = torch.isfinite(kept).to(kept.dtype) / graph.systems
        _, gradient, _ = ops.rollout_gradient(*front, edges, nodes, self.rollout, self.error, part, **more)
        return torch.stack(energy), gradient, edges, self.case.node_types if nodes is None else nodes, counts


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("shape", SHAPES)
def test_same_as_one_by_one(shape: str, dtype: torch.dtype) -> None:
    choices = Choices(shaped_case(shape, dtype))
    energy, gradient = choices.chosen()
    expected, expected_gradient, *_ = choices.one_by_one()
    assert_same_bits(energy, expected)
    assert_close(gradient, expected_gradient, TOLERANCE[dtype])


def test_gradient_equals_autograd_of_oracle() -> None:
    choices = Choices(shaped_case("three edge types"), scale_squared=0.1)
    case = choices.case
    _, gradient = choices.chosen()
    _, _, edges, nodes, counts = choices.one_by_one()
    assert 0 < int(counts[:, 1].sum()) < case.graph.systems  # both structures are chosen somewhere
    energy = reference.rollout_energy(case.library, case.graph, case.trajectories, edges, nodes, 3, 0.1)
    parameters = list(case.library.parameters())
    expected = torch.autograd.grad(energy.mean(), parameters)
    got = torch.autograd.grad(case.library.flat_parameters(), parameters, gradient)
    for g, e in zip(got, expected, strict=True):
        assert_close(g, e, 1e-10)


@pytest.mark.parametrize("rollout", [2, 5])
def test_same_as_one_by_one_where_states_are_absent(rollout: int) -> None:
    holes = make_holes()
    choices = Choices(holes.case, rollout)
    more = {"present": torch.cat([p.flatten() for p in holes.present]).byte(), "step_scale": holes.scale}
    energy, gradient = choices.chosen(**more)
    expected, expected_gradient, *_ = choices.one_by_one(**more)
    assert_same_bits(energy, expected)
    assert_close(gradient, expected_gradient, 1e-12)


@pytest.mark.parametrize("rollout", [4, 240])
def test_systems_with_too_much_to_keep(rollout: int) -> None:
    """The structure that is chosen runs once more, of long roll-outs every step too: to the same gradient."""
    torch.manual_seed(5)
    library = nf.ModuleLibrary(4, 2, 1, 48, (48,), (48,))
    library.change_scale.fill_(0.05)
    graph = nf.MegaGraph.complete(2, 5)
    states = [torch.randn(961, 5, 4).cumsum(0) * 0.05 for _ in range(2)]
    types = torch.randint(2, (graph.edges,), dtype=torch.uint8)
    choices = Choices(Case(library, graph, states, types, torch.zeros(graph.nodes, dtype=torch.uint8)), rollout)
    energy, gradient = choices.chosen()
    expected, expected_gradient, *_ = choices.one_by_one()
    assert_same_bits(energy, expected)
    assert_close(gradient, expected_gradient, 1e-5)


def test_energies_that_are_not_finite_take_no_part() -> None:
    case = shaped_case("three edge types")
    case.trajectories[0] = torch.full_like(case.trajectories[0], 1e300)
    choices = Choices(case)
    energy, gradient = choices.chosen()
    assert not bool(torch.isfinite(energy[:, 0]).any())
    _, expected, *_ = choices.one_by_one()
    assert bool(torch.isfinite(gradient).all())
    assert_close(gradient, expected, 1e-12)


@pytest.fixture
def threads() -> Iterator[None]:
    before = ops.get_threads()
    yield
    ops.set_threads(before)


@pytest.mark.usefixtures("threads")
def test_no_bit_depends_on_threads() -> None:
    choices = Choices(shaped_case("complete", torch.float32))
    found = []
    for count in (1, 2, 5):
        ops.set_threads(count)
        found.append(choices.chosen())
    for energy, gradient in found[1:]:
        assert_same_bits(energy, found[0][0])
        assert_same_bits(gradient, found[0][1])


def bounce(systems: nf.SystemSet, library: ModuleLibrary) -> tuple[BounceResult, Structures, AcceptanceTemperature]:
    batch = systems.batch(range(len(systems)))
    structures = Structures.zeros(systems.graph, library.edge_types)
    acceptance = AcceptanceTemperature(1e-3)
    named = ops.Draws(5, 3, batch.systems)
    rollouts = Rollouts(library, library.flat_parameters().detach(), batch, systems.steps, 5, error_measure(library))
    return metropolis_bounce(rollouts, structures, named, 1, acceptance=acceptance), structures, acceptance


@pytest.mark.parametrize("node_types", [1, 2])
def test_a_bounce_of_one_proposal(node_types: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the choice and without it: the same structures, loss, counts and temperature, and the same gradient."""
    library = nf.ModuleLibrary(4, 2, node_types, 8, (8,), (8,))
    systems = nf.SystemSet.complete(torch.randn(30, 12, 5, 4))
    calls = []
    choose = Rollouts.choose
    monkeypatch.setattr(Rollouts, "choose", lambda *arguments: calls.append(1) or choose(*arguments))
    together = bounce(systems, library)
    assert calls
    monkeypatch.setattr(Rollouts, "can_choose", False)
    apart = bounce(systems, library)
    assert len(calls) == 1
    assert 0 < int(apart[0].counts[:, 1].sum()) < 30
    for got, expected in (
        (together[0].loss, apart[0].loss),
        (together[0].counts, apart[0].counts),
        (together[0].temperature, apart[0].temperature),
        (together[1].edge_types, apart[1].edge_types),
        (together[1].node_types, apart[1].node_types),
        (together[2].state, apart[2].state),
    ):
        assert_same_bits(got, expected)
    assert_close(together[0].gradient, apart[0].gradient, 1e-5)
