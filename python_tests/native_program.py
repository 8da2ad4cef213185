"""C++ programs of checks, native/NAME.cpp, compiled with the kernels' headers for the host."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]


def compiled(name: str, folder: Path) -> Path:
    """The program, in this folder; skips the test where there is no compiler."""
    compiler = shutil.which(os.environ.get("CXX", "c++"))
    if compiler is None:
        pytest.skip("no C++ compiler")
    source, path = Path(__file__).parent / "native" / f"{name}.cpp", folder / name
    flags = ["-std=c++17", "-O1", "-pthread", "-DNRI_CUDA_EMULATED", f"-I{ROOT / 'csrc'}"]
    # Preloaded sanitizers are not for compilers.
    environment = {name: value for name, value in os.environ.items() if name != "LD_PRELOAD"}
    subprocess.run([compiler, *flags, str(source), "-o", str(path)], check=True, env=environment)
    return path


def run(program: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([str(program), *arguments], capture_output=True, text=True, timeout=120)
