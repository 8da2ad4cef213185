"""Fixtures: every test that asks for `backend` runs on each backend that this build and machine offer."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path

import pytest
import torch

from nri_fast import _core, ops

# For `bench`, which is not installed. Last, so that the nri_fast that is being tested is the one that was chosen.
sys.path.append(str(Path(__file__).parents[1]))

BACKENDS = ["cpu", "emulated", "cuda"]


@pytest.fixture(params=BACKENDS)
def backend(request: pytest.FixtureRequest) -> Iterator[torch.device]:
    """Device to put tensors on. "emulated" runs the CUDA kernels, compiled for the host, on CPU tensors."""
    name = request.param
    if name == "emulated" and _core.cuda_build() != "emulated":
        pytest.skip("this build has no emulated CUDA kernels (NRI_FAST_CUDA=emulated)")
    if name == "cuda" and not (_core.cuda_device_count() and torch.cuda.is_available()):
        assert os.environ.get("NRI_FAST_REQUIRE_GPU") != "1", "NRI_FAST_REQUIRE_GPU=1, but no GPU can be used"
        pytest.skip("no GPU")
    with ops.emulated_cuda() if name == "emulated" else nullcontext():
        yield torch.device("cuda:0" if name == "cuda" else "cpu")


@pytest.fixture(autouse=True)
def _seeded() -> None:
    torch.manual_seed(0)
