"""One tensor for all weights: the same numbers as the modules' own, there and back."""

import copy

import pytest
import torch
from cases import assert_close, assert_same_bits

import nri_fast as nf
from nri_fast.checkpoint import load, save
from nri_fast.parameter_vector import ParameterVector

SHAPES = {
    "plain": {},
    "relative": {"relative": (0, 2)},
    "silent": {"silent": True, "relative": (1,)},
    "types": {"edge_types": 3, "node_types": 2, "relative": (0,)},
    "one-layer": {"edge_hidden": (), "node_hidden": (), "relative": (0,)},
}


@pytest.fixture(params=SHAPES)
def library(request):
    shape = {"edge_hidden": (5,), "node_hidden": (6, 7)} | SHAPES[request.param]
    made = nf.ModuleLibrary(3, message=4, **shape).double()
    made.change_scale.copy_(torch.tensor([2.0, 0.5, 4.0]))
    return made


def test_the_kernels_read_the_same_bits(library):
    before = library.flat_parameters().detach()
    vector = ParameterVector(library)
    assert_same_bits(vector.kernel(), before)
    assert_same_bits(library.flat_parameters().detach(), before)
    assert not vector.kernel().requires_grad


def test_a_gradient_finds_the_same_way_back(library):
    cotangent = torch.randn_like(library.flat_parameters())
    expected = torch.autograd.grad(library.flat_parameters(), list(library.parameters()), cotangent)
    vector = ParameterVector(library)
    vector.take_gradient(cotangent.clone())
    parameters = [p.flatten() for p in library.parameters()]
    assert_same_bits(vector.weights.detach(), torch.cat(parameters).detach())  # in the modules' own order
    assert_close(vector.weights.grad, torch.cat([value.flatten() for value in expected]), 1e-12)


def test_what_changes_the_vector_changes_the_modules(library):
    vector = ParameterVector(library)
    optimiser = torch.optim.Adam([vector.weights], lr=0.1)
    vector.take_gradient(torch.randn_like(vector.kernel()))
    before = library.flat_parameters().detach()
    optimiser.step()
    assert not torch.equal(library.flat_parameters(), before)
    assert_same_bits(library.flat_parameters().detach(), vector.kernel())


def test_loading_copying_and_saving_the_modules(library, tmp_path):
    other = copy.deepcopy(library)
    with torch.no_grad():
        for value in other.parameters():
            value.add_(1.0)
    vector = ParameterVector(library)
    copied = copy.deepcopy(library)
    library.load_state_dict(other.state_dict())
    assert_same_bits(vector.kernel(), other.flat_parameters().detach())
    assert not torch.equal(copied.flat_parameters(), other.flat_parameters())
    save(tmp_path / "library.safetensors", library.state_dict(), {})
    for name, value in load(tmp_path / "library.safetensors")[0].items():
        assert_same_bits(value, other.state_dict()[name])
