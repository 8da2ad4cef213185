"""Layouts, maps and schedules of the CUDA kernels, and the emulated instructions: the programs in native/."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
NATIVE = Path(__file__).parent / "native"
CHECKS = {
    "fused_maps": [
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
    ],
    "gradient_maps": [
        "packed_weights",
        "lanes",
        "cursor",
        "shared_memory",
        "plan",
        "grids",
        "slices",
        "banks",
        "product",
        "runs",
    ],
    "heat_bath_gradient_maps": ["cursor", "shared_memory", "plan"],
    "heat_bath_cuts": ["blocks", "conditionals"],
    "heat_bath_maps": ["tiles", "parts", "ranges", "projection", "cursor", "shared_memory", "plan", "runs"],
    "tile_maps": ["coverage", "staging", "products", "places"],
}


@pytest.fixture(scope="module", params=CHECKS)
def program(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A program of checks, compiled with the kernels' headers for the host."""
    compiler = shutil.which(os.environ.get("CXX", "c++"))
    if compiler is None:
        pytest.skip("no C++ compiler")
    path = tmp_path_factory.mktemp("native") / request.param
    flags = ["-std=c++17", "-O1", "-pthread", "-DNRI_CUDA_EMULATED", f"-I{ROOT / 'csrc'}"]
    # Preloaded sanitizers are not for compilers.
    environment = {name: value for name, value in os.environ.items() if name != "LD_PRELOAD"}
    source = NATIVE / f"{request.param}.cpp"
    subprocess.run([compiler, *flags, str(source), "-o", str(path)], check=True, env=environment)
    return path


def run(program: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([str(program), *arguments], capture_output=True, text=True, timeout=120)


def test_every_program_is_compiled() -> None:
    assert sorted(path.stem for path in NATIVE.glob("*.cpp")) == sorted(CHECKS)


def test_every_check_passes(program: Path) -> None:
    names = run(program).stdout.split()
    assert names == CHECKS[program.name]
    for name in names:
        done = run(program, name)
        assert done.returncode == 0, f"{name}: {done.stdout}{done.stderr}"
    assert run(program, "no such check").returncode == 2
