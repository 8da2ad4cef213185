"""Builds ``nri_fast._core`` with CMake and ninja. Everything else about the package stands in ``pyproject.toml``.

Environment variables:

=============================  =======================================================================================
``NRI_FAST_CUDA``              ``auto`` (default), ``on``, ``off``, or ``emulated`` for tests without a GPU
``NRI_FAST_SANITIZE``          sanitizers of a test build, for instance ``address,undefined``
``NRI_FAST_BUILD_DIR``         where CMake builds; default ``build/cmake/...`` beside this file
``CMAKE_CUDA_ARCHITECTURES``   CUDA architectures, for instance ``90-real`` or ``80;120``
``CMAKE_ARGS``                 further arguments for CMake's configuration
``MAX_JOBS``                   compilers running side by side; default: processors, or fewer when memory is short
=============================  =======================================================================================
"""

from __future__ import annotations

import importlib
import os
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext

ROOT = Path(__file__).resolve().parent
BYTES_PER_JOB = 3 << 29  # 1.5 GiB, more than any one of our files takes


def find_tool(name: str, folder_attribute: str) -> str:
    """Path of a build tool: the Python package of that name where it is installed, otherwise the one on ``PATH``."""
    try:
        folder = getattr(importlib.import_module(name), folder_attribute)
    except (ImportError, AttributeError):
        folder = None
    tool = (folder and shutil.which(name, path=str(folder))) or shutil.which(name)
    if tool is None:
        raise SystemExit(f"nri_fast needs {name} to build: pip install {name}")
    return tool


def parallel_jobs() -> int:
    """Number of compilers to run at once."""
    if os.environ.get("MAX_JOBS"):
        return max(1, int(os.environ["MAX_JOBS"]))
    processors = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    try:
        free = os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, OSError, ValueError):
        return processors
    return max(1, min(processors, free // BYTES_PER_JOB))


class CMakeBuild(build_ext):
    """Configures, builds and copies the one extension module."""

    def build_extension(self, ext: Extension) -> None:
        cuda = os.environ.get("NRI_FAST_CUDA", "auto").lower()
        sanitize = os.environ.get("NRI_FAST_SANITIZE", "")
        flavour = "-".join(filter(None, [sys.implementation.cache_tag, cuda, sanitize.replace(",", "-")]))
        build = Path(os.environ.get("NRI_FAST_BUILD_DIR") or ROOT / "build" / "cmake" / flavour)
        build.mkdir(parents=True, exist_ok=True)

        cmake = find_tool("cmake", "CMAKE_BIN_DIR")
        pybind11 = subprocess.check_output([sys.executable, "-m", "pybind11", "--cmakedir"], text=True).strip()
        options = {
            "CMAKE_BUILD_TYPE": "Release",
            "CMAKE_MAKE_PROGRAM": find_tool("ninja", "BIN_DIR"),
            "Python_EXECUTABLE": sys.executable,
            "pybind11_DIR": pybind11,
            "NRI_FAST_CUDA": cuda,
            "NRI_FAST_SANITIZE": sanitize,
        }
        if os.environ.get("CMAKE_CUDA_ARCHITECTURES"):
            options["CMAKE_CUDA_ARCHITECTURES"] = os.environ["CMAKE_CUDA_ARCHITECTURES"]
        # --fresh: a cache of an isolated build names tools that are gone. Objects that are up to date stay.
        configure = [cmake, "--fresh", "-G", "Ninja", "-S", str(ROOT), "-B", str(build)]
        configure += [f"-D{name}={value}" for name, value in options.items()]
        subprocess.run(configure + shlex.split(os.environ.get("CMAKE_ARGS", "")), check=True)
        subprocess.run([cmake, "--build", str(build), "--parallel", str(parallel_jobs())], check=True)

        target = Path(self.get_ext_fullpath(ext.name)).resolve()
        target.parent.mkdir(parents=True, exist_ok=True)
        # Written beside and renamed: a process that has the old module open keeps it whole.
        fresh = target.with_name(target.name + ".new")
        shutil.copy2(build / target.name, fresh)
        fresh.replace(target)


setup(ext_modules=[Extension("nri_fast._core", sources=[])], cmdclass={"build_ext": CMakeBuild})
