"""Products by torch in TF32."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

import torch

T = TypeVar("T")


@contextmanager
def tf32() -> Iterator[None]:
    """Products of float32 in TF32 meanwhile."""
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("high")
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)


def in_tf32(work: Callable[[], T]) -> Callable[[], T]:
    """The same work with products in TF32."""

    def with_tf32() -> T:
        with tf32():
            return work()

    return with_tf32
