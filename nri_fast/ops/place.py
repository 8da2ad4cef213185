"""Where kernels run: device, stream, threads, precision. And how tensors become addresses."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

from nri_fast import _core

_threads = _core.hardware_threads()
_emulate_cuda = False
_precision = _core.Precision.fp32
_fused = True


def set_threads(threads: int) -> None:
    """Sets how many threads the CPU kernels use; no result depends on it. The default is every processor."""
    global _threads
    if threads < 1:
        raise ValueError(f"threads: expected at least 1, got {threads}")
    _threads = threads


def get_threads() -> int:
    """How many threads the CPU kernels use."""
    return _threads


@contextmanager
def one_torch_thread() -> Iterator[None]:
    """Keeps torch's own operations on the calling thread meanwhile.

    Around hot loops of small tensors: torch's OpenMP threads and the kernels' would otherwise take the processors from
    each other, which on busy cores costs more than all the work.
    """
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@contextmanager
def emulated_cuda() -> Iterator[None]:
    """Runs CPU tensors through the CUDA kernels as compiled for the host, where the build has them (for tests)."""
    global _emulate_cuda
    if _core.cuda_build() != "emulated":
        raise RuntimeError(f"the CUDA kernels were built as '{_core.cuda_build()}', expected 'emulated'")
    _emulate_cuda = True
    try:
        yield
    finally:
        _emulate_cuda = False


@contextmanager
def scoring_precision(precision: str) -> Iterator[None]:
    """Energies and heat-bath scores of float32 tensors from products of rounded numbers meanwhile, which is faster.

    Gradients, forecasts and float64 tensors are as always, and so are operations that have no such kernel. States,
    beside which a step's change is small, are never rounded. Scores in bf16 come out with relative errors of a percent
    or so, and near-ties between structures are decided differently: see ``python -m bench bf16``.

    Parameters
    ----------
    precision : str
        ``"fp32"``, as always: on a GPU products are made of three in TF32, as exact as plain ones or nearly so.
        ``"tf32"``: GPU only. Roll-out energies round factors to 11 bits of mantissa.
        ``"bf16"``: factors have 8 bits. On a processor with AVX-512 BF16: energies and scores, layers with at least 32
        inputs and more than four outputs. On a GPU: roll-out energies, all layers.

    Raises
    ------
    ValueError
        If there is no such precision.
    RuntimeError
        When a score is asked for and this processor, or this build, has no such instructions.
    """
    global _precision
    if precision not in ("fp32", "tf32", "bf16"):
        raise ValueError(f"precision: expected 'fp32', 'tf32' or 'bf16', got {precision!r}")
    before, _precision = _precision, getattr(_core.Precision, precision)
    try:
        yield
    finally:
        _precision = before


@contextmanager
def layer_by_layer() -> Iterator[None]:
    """Without the fused CUDA kernels meanwhile, which keep activations in shared memory: to see what they are worth.

    Results agree up to rounding. On the CPU nothing changes.
    """
    global _fused
    before, _fused = _fused, False
    try:
        yield
    finally:
        _fused = before


def uses_cuda_kernels(tensor: Tensor) -> bool:
    """Whether the CUDA kernels take this tensor: on a GPU, or emulated."""
    return tensor.is_cuda or _emulate_cuda


def scores_rounded(tensor: Tensor) -> bool:
    """Whether energies and scores of this tensor come from products of rounded numbers (:func:`scoring_precision`)."""
    return tensor.dtype == torch.float32 and _precision != _core.Precision.fp32


def place(tensor: Tensor, precision: _core.Precision = _core.Precision.fp32, threads: int | None = None) -> _core.Place:
    """Where the kernels that are given this tensor run; `threads` overrides :func:`set_threads`."""
    if tensor.is_cuda:
        index = tensor.device.index
        return _core.Place(True, 1, index, torch.cuda.current_stream(index).cuda_stream, precision, _fused)
    return _core.Place(_emulate_cuda, _threads if threads is None else threads, 0, 0, precision, _fused)


def scoring_place(tensor: Tensor) -> _core.Place:
    """Of energies and scores, which :func:`scoring_precision` is about."""
    if not scores_rounded(tensor):
        return place(tensor)
    if not uses_cuda_kernels(tensor):
        if _precision == _core.Precision.tf32:
            raise RuntimeError("scoring_precision: tf32 expects CUDA tensors, got tensors on the CPU")
        if not _core.bf16_available():
            raise RuntimeError("scoring_precision: bf16 expects a processor (and a build) with AVX-512 BF16, got none")
    return place(tensor, _precision)


def address(tensor: Tensor | None) -> int:
    """Of a tensor's first number; 0 stands for none."""
    if tensor is None:
        return 0
    assert tensor.is_contiguous()
    return tensor.data_ptr()


def on_device(value: float | Tensor, device: torch.device) -> Tensor:
    """One float64 where the kernels read it."""
    if not isinstance(value, Tensor):
        return torch.full((1,), value, dtype=torch.float64, device=device)
    assert value.dtype == torch.float64
    assert value.numel() == 1
    return value
