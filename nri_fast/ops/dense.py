"""A dense layer on the kernels' threads."""

from __future__ import annotations

import torch
from torch import Tensor

from nri_fast import _core
from nri_fast.ops.place import address, place


def linear(rows: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """[rows, out] of ``rows`` [rows, in] times ``weight`` [out, in], plus ``bias``. CPU only: ``csrc/ops/linear.h``."""
    output = rows.new_empty(len(rows), len(weight))
    _core.linear(
        place(rows),
        rows.dtype == torch.float64,
        len(rows),
        weight.shape[1],
        len(weight),
        address(rows),
        address(weight),
        address(bias),
        address(output),
    )
    return output


def linear_gradient(
    rows: Tensor, weight: Tensor, output_gradient: Tensor, with_rows: bool = True
) -> tuple[Tensor | None, Tensor, Tensor]:
    """Gradients in ``rows``, if wanted, in ``weight`` and in the bias."""
    row_gradient = torch.empty_like(rows) if with_rows else None
    weight_gradient, bias_gradient = torch.empty_like(weight), weight.new_empty(len(weight))
    _core.linear_gradient(
        place(rows),
        rows.dtype == torch.float64,
        len(rows),
        weight.shape[1],
        len(weight),
        address(rows),
        address(weight),
        address(output_gradient),
        address(row_gradient),
        address(weight_gradient),
        address(bias_gradient),
    )
    return row_gradient, weight_gradient, bias_gradient
