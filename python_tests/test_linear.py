"""The proposal networks' dense layers, against torch's own."""

from __future__ import annotations

import pytest
import torch
from cases import TOLERANCE, assert_close, assert_same_bits

from nri_fast import ops
from nri_fast.proposals.layers import Linear

SHAPES = [(1, 1, 1), (7, 5, 2), (96, 16, 64), (97, 33, 65), (600, 70, 130), (1100, 128, 17), (3, 200, 1), (0, 4, 3)]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("bias", [True, False])
def test_layer_and_gradient_equal_torch(shape: tuple[int, int, int], bias: bool, dtype: torch.dtype) -> None:
    rows, inputs, outputs = shape
    torch.manual_seed(1)
    layer = Linear(inputs, outputs, bias=bias).to(dtype)
    x = torch.randn(rows, inputs, dtype=dtype, requires_grad=True)
    cotangent = torch.randn(rows, outputs, dtype=dtype)
    found = layer(x)
    got = torch.autograd.grad(found, [x, *layer.parameters()], cotangent)
    exact = [v.detach().double().requires_grad_() for v in (x, *layer.parameters())]
    expected = torch.nn.functional.linear(*exact)
    gradients = torch.autograd.grad(expected, exact, cotangent.double())
    assert_close(found.double(), expected, TOLERANCE[dtype])
    for g, e in zip(got, gradients, strict=True):
        assert_close(g.double(), e, TOLERANCE[dtype])


def test_leading_axes_and_inputs_that_need_no_gradient() -> None:
    layer = Linear(6, 4)
    x = torch.randn(3, 6, 5).mT  # not contiguous
    found = layer(x)
    assert found.shape == (3, 5, 4)
    found.sum().backward()
    assert_close(found, torch.nn.functional.linear(x, layer.weight, layer.bias), 1e-6)
    assert_close(layer.bias.grad, torch.full((4,), 15.0), 1e-6)


def test_no_bit_depends_on_threads_nor_a_row_on_its_company() -> None:
    torch.manual_seed(2)
    layer, x, cotangent = Linear(90, 150), torch.randn(700, 90), torch.randn(700, 150)
    found = []
    before = ops.get_threads()
    try:
        for threads in (1, 2, 5):
            ops.set_threads(threads)
            output = ops.linear(x, layer.weight.detach(), layer.bias.detach())
            gradients = ops.linear_gradient(x, layer.weight.detach(), cotangent)
            found.append((output, *gradients))
    finally:
        ops.set_threads(before)
    for several in found[1:]:
        for got, expected in zip(several, found[0], strict=True):
            assert_same_bits(got, expected)
    alone = ops.linear(x[650:651], layer.weight.detach(), layer.bias.detach())
    assert_same_bits(alone, found[0][0][650:651])
