"""Layouts, maps and schedules of the fused CUDA kernels, and the emulated instructions: native/fused_maps.cpp."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
SOURCE = Path(__file__).parent / "native" / "fused_maps.cpp"
CHECKS = [
    "packed_weights",
    "columns",
    "passes",
    "rollouts",
    "cursor",
    "shared_memory",
    "plan",
    "banks",
    "grids",
    "products",
    "rounding",
    "copies",
    "split_products",
]


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The checks, compiled with the kernels' headers for the host."""
    compiler = shutil.which(os.environ.get("CXX", "c++"))
    if compiler is None:
        pytest.skip("no C++ compiler")
    path = tmp_path_factory.mktemp("native") / "fused_maps"
    flags = ["-std=c++17", "-O1", "-pthread", "-DNRI_CUDA_EMULATED", f"-I{ROOT / 'csrc'}"]
    # Preloaded sanitizers are not for compilers.
    environment = {name: value for name, value in os.environ.items() if name != "LD_PRELOAD"}
    subprocess.run([compiler, *flags, str(SOURCE), "-o", str(path)], check=True, env=environment)
    return path


def run(program: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([str(program), *arguments], capture_output=True, text=True, timeout=120)


def test_every_check_is_run(program: Path) -> None:
    assert run(program).stdout.split() == CHECKS
    assert run(program, "no such check").returncode == 2


@pytest.mark.parametrize("name", CHECKS)
def test_map(program: Path, name: str) -> None:
    done = run(program, name)
    assert done.returncode == 0, done.stdout + done.stderr
