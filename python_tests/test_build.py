"""Packages: what a wheel and a source archive hold, and what happens without a working compiler for CUDA."""

import os
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
SOURCES = ("CMakeLists.txt", "LICENSE", "MANIFEST.in", "README.md", "csrc", "nri_fast", "pyproject.toml", "setup.py")

pytest.importorskip("pybind11", reason="building needs requirements/build.txt")


@pytest.fixture(scope="module")
def tree(tmp_path_factory):
    """Copy of the sources alone, as a fresh clone has them."""
    tree = tmp_path_factory.mktemp("tree")
    for name in SOURCES:
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, tree / name, ignore=shutil.ignore_patterns("*.so", "__pycache__"))
        elif (ROOT / name).exists():
            shutil.copy2(ROOT / name, tree / name)
    return tree


def run(command, folder, **environment):
    """Output of a command that must succeed. Preloaded sanitizers are not for compilers."""
    inherited = {key: value for key, value in os.environ.items() if key not in {"LD_PRELOAD", "PYTHONPATH"}}
    done = subprocess.run(
        command,
        cwd=folder,
        env={**inherited, **environment},
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    assert done.returncode == 0, done.stdout
    return done.stdout


def configure(tree, build, **environment):
    """Configure without compiling; the exit status and everything that was printed."""
    cmakedir = run([sys.executable, "-m", "pybind11", "--cmakedir"], tree).strip()
    cmake = pytest.importorskip("cmake")
    ninja = pytest.importorskip("ninja")
    command = [
        Path(cmake.CMAKE_BIN_DIR) / "cmake",
        *("-S", tree, "-B", build, "-G", "Ninja"),
        f"-DCMAKE_MAKE_PROGRAM={Path(ninja.BIN_DIR) / 'ninja'}",
        f"-DPython_EXECUTABLE={sys.executable}",
        f"-Dpybind11_DIR={cmakedir}",
        f"-DNRI_FAST_CUDA={environment.pop('NRI_FAST_CUDA', 'auto')}",
    ]
    inherited = {key: value for key, value in os.environ.items() if key != "LD_PRELOAD"}
    done = subprocess.run(
        command, env={**inherited, **environment}, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )
    return done.returncode, " ".join(done.stdout.split())


@pytest.fixture
def broken_nvcc(tmp_path):
    """A CUDA compiler that tells its version and then compiles nothing."""
    nvcc = tmp_path / "nvcc"
    nvcc.write_text(
        '#!/bin/sh\ncase "$*" in *--version*) echo "Cuda compilation tools, release 12.8" ;; *) exit 1 ;; esac\n'
    )
    nvcc.chmod(0o755)
    return str(nvcc)


def test_a_broken_cuda_compiler_means_a_build_for_the_cpu(tree, tmp_path, broken_nvcc):
    status, said = configure(tree, tmp_path / "build", CUDACXX=broken_nvcc)
    assert status == 0, said
    assert "no working CUDA compiler" in said
    rules = (tmp_path / "build" / "build.ninja").read_text()
    assert "csrc/cuda/stub.cpp" in rules
    assert ".cu.o" not in rules


def test_cuda_demanded_without_a_compiler_is_an_error(tree, tmp_path, broken_nvcc):
    status, said = configure(tree, tmp_path / "build", CUDACXX=broken_nvcc, NRI_FAST_CUDA="on")
    assert status != 0
    assert "NRI_FAST_CUDA=on, but no working CUDA compiler was found" in said


def test_an_unknown_choice_is_an_error(tree, tmp_path):
    status, said = configure(tree, tmp_path / "build", NRI_FAST_CUDA="maybe")
    assert status != 0
    assert "NRI_FAST_CUDA is 'maybe', expected auto, on, off or emulated" in said


def test_baseline_objects_are_linked_first(tree, tmp_path):
    """The linker keeps the first copy of an inline function, which every processor must be able to run."""
    status, said = configure(tree, tmp_path / "build", NRI_FAST_CUDA="off")
    assert status == 0, said
    rules = (tmp_path / "build" / "build.ninja").read_text()
    link = next(line for line in rules.splitlines() if line.startswith("build _core"))
    targets = [word.split("/")[1].removesuffix(".dir") for word in link.split() if word.endswith(".o")]
    order = [
        name for name in ("nri_cpu_generic", "nri_cpu_avx2", "nri_cpu_avx512", "nri_cpu_avx512bf16") if name in targets
    ]
    assert order[0] == "nri_cpu_generic"
    assert list(dict.fromkeys(targets))[-len(order) :] == order


@pytest.mark.slow
def test_wheel(tree, tmp_path):
    run(
        [sys.executable, "-m", "pip", "wheel", "--no-deps", "--no-build-isolation", "--wheel-dir", tmp_path, "."],
        tree,
        NRI_FAST_CUDA="off",
        NRI_FAST_BUILD_DIR=str(tmp_path / "build"),
    )
    (wheel,) = tmp_path.glob("nri_fast-*.whl")
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
        archive.extractall(tmp_path / "site")
    modules = [name for name in names if name.startswith("nri_fast/_core.") and name.endswith(".so")]
    assert len(modules) == 1
    for name in ("nri_fast/__init__.py", "nri_fast/py.typed", "nri_fast/_core.pyi"):
        assert name in names
    assert not [name for name in names if name.startswith(("csrc/", "python_tests/", "build/"))]
    module = "import nri_fast._core as core; print(core.__file__, core.cuda_build(), *core.built_variants())"
    said = run([sys.executable, "-c", module], tmp_path, PYTHONPATH=str(tmp_path / "site"))
    where, kind, *variants = said.split()
    assert where.startswith(str(tmp_path / "site"))
    assert kind == "none"
    assert "generic" in variants


@pytest.mark.slow
def test_source_archive(tree, tmp_path):
    run([sys.executable, "setup.py", "--quiet", "sdist", "--dist-dir", tmp_path], tree)
    (archive,) = tmp_path.glob("nri_fast-*.tar.gz")
    with tarfile.open(archive) as tar:
        names = {name.partition("/")[2] for name in tar.getnames()}
    native = {str(path.relative_to(tree)) for path in (tree / "csrc").rglob("*") if path.is_file()}
    assert native <= names
    assert {"CMakeLists.txt", "setup.py", "pyproject.toml", "LICENSE", "nri_fast/py.typed"} <= names
    assert not [name for name in names if name.endswith(".so")]
