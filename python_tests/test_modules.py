"""The module library: what a law is, what is shared, and what the kernels are given."""

from __future__ import annotations

import pytest
import torch
from cases import assert_close, assert_same_bits

import nri_fast as nf


def library_of(**changes):
    values = {"features": 3, "edge_types": 3, "node_types": 2, "message": 4, "edge_hidden": (5,), "node_hidden": (6,)}
    return nf.ModuleLibrary(**(values | changes))


def test_parameter_counts_of_the_paper():
    library = nf.ModuleLibrary(4, 2, 1, 256, (256, 256), (256, 256, 256))
    edge, node = (sum(p.numel() for p in m.parameters()) for m in (library.edge_module(0), library.node[0]))
    assert (edge, node) == (133_888, 199_428)
    assert library.flat_parameters().numel() == 2 * 133_888 + 199_428


def test_edge_modules_end_in_a_relu_and_node_modules_do_not():
    library = library_of()
    assert float(library.edge_module(0)(torch.randn(200, 6)).detach().min()) == 0
    assert float(library.node_module(0)(torch.randn(200, 7)).detach().min()) < 0


@pytest.mark.parametrize("relative", [(), (0,), (0, 2)])
@pytest.mark.parametrize("silent", [False, True])
def test_laws_share_the_librarys_parameters(relative, silent):
    library = library_of(relative=relative, silent=silent)
    own = {id(p) for p in library.parameters()}
    laws = [library.edge_module(k) for k in range(int(silent), 3)] + [library.node_module(m) for m in range(2)]
    taken = [id(p) for law in laws for p in law.parameters()]
    assert len(set(taken)) == len(taken)
    assert set(taken) == own


def test_laws_taken_out_follow_training():
    library = library_of(relative=(0,))
    law, x = library.edge_module(1), torch.randn(4, 6)
    before = law(x)
    with torch.no_grad():
        for p in library.parameters():
            p.add_(0.1)
    assert not torch.equal(law(x), before)
    assert_same_bits(law(x), library.edge_module(1)(x))


def test_relative_features_do_not_know_where_they_are():
    library = library_of(relative=(0, 2))
    pair, own = torch.randn(9, 6), torch.randn(9, 7)
    moved_pair, moved_own = pair.clone(), own.clone()
    for d in (0, 2):
        moved_pair[:, [d, 3 + d]] += 7.5
        moved_own[:, 4 + d] += 7.5
    assert_close(library.edge_module(0)(moved_pair), library.edge_module(0)(pair), 1e-5)
    assert_same_bits(library.node_module(0)(moved_own), library.node_module(0)(own))
    for d in (1, 4):  # feature 1 is absolute: both ends' values count
        other = pair.clone()
        other[:, d] += 7.5
        assert not torch.allclose(library.edge_module(0)(other), library.edge_module(0)(pair))


def test_relative_positions_are_the_senders_minus_the_receivers():
    library = library_of(features=1, relative=(0,), edge_hidden=())
    x = torch.tensor([[5.0, 2.0]])
    layer = library.edge[0][0]
    assert_close(library.edge_module(0)(x), torch.relu(layer.weight[:, :1].T * 3.0 + layer.bias), 1e-6)


def test_energies_do_not_know_where_relative_systems_are(backend):
    library = library_of(relative=(0, 1, 2)).double().to(backend)
    graph = nf.MegaGraph.complete(2, 3, backend)
    states = torch.randn(2, 5, 3, 3, dtype=torch.float64, device=backend)
    types = torch.randint(3, (2, 3, 3), device=backend)
    here = nf.rollout_energy(library, graph, states, types, rollout=2)
    assert_close(nf.rollout_energy(library, graph, states + 11.0, types, rollout=2), here, 1e-9)


def test_the_change_scale_multiplies_changes():
    library = library_of()
    x = torch.randn(5, 7)
    before = library.node_module(1)(x)
    library.change_scale.copy_(torch.tensor([2.0, 0.5, 4.0]))
    assert_same_bits(library.node_module(1)(x), before * torch.tensor([2.0, 0.5, 4.0]))
    assert "change_scale" in library.state_dict()


def test_a_silent_type_sends_nothing(backend):
    library = library_of(silent=True).to(backend)
    complete, none = nf.MegaGraph.complete(2, 3, backend), torch.zeros(2, 0, dtype=torch.int64, device=backend)
    alone = nf.MegaGraph.from_edge_index(none, [3, 3])
    states = torch.randn(2, 5, 3, 3, device=backend)
    silent = torch.zeros(12, dtype=torch.uint8, device=backend)
    expected = nf.rollout_energy(library, alone, states, silent[:0], rollout=2)
    assert_same_bits(nf.rollout_energy(library, complete, states, silent, rollout=2), expected)
    assert not torch.equal(nf.rollout_energy(library, complete, states, silent + 1, rollout=2), expected)
    with pytest.raises(ValueError, match="type 0 is silent and has no module"):
        library.edge_module(0)


@pytest.mark.parametrize("number", [-1, 3])
def test_laws_out_of_range(number):
    with pytest.raises(IndexError, match=f"edge_type: expected 0 to 2, got {number}"):
        library_of().edge_module(number)
    with pytest.raises(IndexError, match=f"node_type: expected 0 to 1, got {number}"):
        library_of().node_module(number)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"features": 0}, "features: expected at least 1, got 0"),
        ({"edge_types": 0}, "edge_types: expected at least 1, got 0"),
        ({"node_types": -1}, "node_types: expected at least 1, got -1"),
        ({"message": 0}, "message: expected at least 1, got 0"),
        ({"edge_types": 256}, "edge_types, node_types: expected at most 255, got 256 and 2"),
        ({"node_types": 256}, "edge_types, node_types: expected at most 255, got 3 and 256"),
        ({"edge_hidden": (4, 0)}, r"hidden widths: expected at least 1, got \[4, 0\]"),
        ({"node_hidden": (-1,)}, "hidden widths: expected at least 1"),
        ({"relative": (3,)}, r"relative: expected features 0 to 2, got \[3\]"),
        ({"relative": (-1,)}, r"relative: expected features 0 to 2, got \[-1\]"),
    ],
)
def test_wrong_libraries(changes, message):
    with pytest.raises(ValueError, match=message):
        library_of(**changes)


def test_settings_rebuild_the_library():
    library = library_of(relative=(1,), silent=True)
    again = nf.ModuleLibrary(**library.settings())
    again.load_state_dict(library.state_dict())
    assert again.settings() == library.settings()
    assert_same_bits(again.flat_parameters(), library.flat_parameters())


def test_flat_parameters_carry_gradients_home():
    library = library_of(relative=(0,)).double()
    library.change_scale.copy_(torch.tensor([2.0, 0.5, 4.0]))
    parameters = list(library.parameters())
    cotangent = torch.randn(library.flat_parameters().numel(), dtype=torch.float64)
    got = torch.autograd.grad((library.flat_parameters() * cotangent).sum(), parameters)
    for parameter, gradient in zip(parameters, got, strict=True):
        direction = torch.randn_like(parameter)  # the map is linear: a difference is exact
        with torch.no_grad():
            before = library.flat_parameters()
            parameter.add_(direction)
            change = ((library.flat_parameters() - before) * cotangent).sum()
            parameter.sub_(direction)
        assert_close(change, (gradient * direction).sum(), 1e-9)


def test_the_initial_library_is_the_seeds_alone():
    from nri_fast.run import initial_library

    settings = nf.Settings()
    one = initial_library(4, [0, 1], settings, 3).flat_parameters()
    torch.manual_seed(99)
    state = torch.get_rng_state()
    assert_same_bits(initial_library(4, [0, 1], settings, 3).flat_parameters(), one)
    assert torch.equal(torch.get_rng_state(), state)
    assert not torch.equal(initial_library(4, [0, 1], settings, 4).flat_parameters(), one)
