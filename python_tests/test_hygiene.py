"""Rules that a reader could check by eye, checked by machine."""

import ast
import re
from pathlib import Path

import pytest

import nri_fast as nf

ROOT = Path(__file__).resolve().parents[1]
PYTHON_FILES = sorted(path for folder in ("nri_fast", "bench") for path in (ROOT / folder).rglob("*.py"))
PACKAGE_FILES = sorted((ROOT / "nri_fast").rglob("*.py"))
NATIVE_FILES = sorted(path for path in (ROOT / "csrc").rglob("*") if path.suffix in {".h", ".cuh", ".cpp", ".cu"})
PICKLERS = {"pickle", "cPickle", "_pickle", "dill", "cloudpickle", "joblib", "marshal", "shelve"}


def name_of(path):
    return str(path.relative_to(ROOT))


def loaders_that_run_code(source):
    """Lines of Python that could run code from a file they load."""
    found = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found += [node.lineno for alias in node.names if alias.name.split(".")[0] in PICKLERS]
        elif isinstance(node, ast.ImportFrom):
            if (node.module or "").split(".")[0] in PICKLERS:
                found.append(node.lineno)
            if node.module == "torch" and any(alias.name == "load" for alias in node.names):
                found.append(node.lineno)
        elif isinstance(node, ast.Attribute) and ast.unparse(node) in {"torch.load", "torch.jit.load"}:
            found.append(node.lineno)
        elif isinstance(node, ast.keyword) and node.arg == "allow_pickle" and ast.unparse(node.value) != "False":
            found.append(node.value.lineno)
    return found


@pytest.mark.parametrize(
    "source",
    [
        "import pickle",
        "import pickle as p, os",
        "from pickle import load",
        "from torch import load",
        "import torch\ntorch.load('x', weights_only=True)",
        "import numpy as np\nnp.load('x', allow_pickle=True)",
        "import numpy as np\nnp.load('x', allow_pickle=choice)",
    ],
)
def test_the_search_finds_what_it_looks_for(source):
    assert loaders_that_run_code(source)


def test_the_search_leaves_safe_code_alone():
    assert not loaders_that_run_code("import numpy as np, json\nnp.load('x', allow_pickle=False)\njson.load(f)")


@pytest.mark.parametrize("path", PYTHON_FILES, ids=name_of)
def test_nothing_loads_code(path):
    assert not loaders_that_run_code(path.read_text(encoding="utf-8"))


@pytest.mark.parametrize("path", PYTHON_FILES, ids=name_of)
def test_numpy_files_say_that_they_hold_no_pickles(path):
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Call) and ast.unparse(node.func) in {"np.load", "numpy.load"}:
            assert any(keyword.arg == "allow_pickle" for keyword in node.keywords), f"line {node.lineno}"


def test_only_the_bindings_see_a_framework():
    framework = re.compile(r'#\s*include\s*[<"](pybind11|torch|ATen|c10|Python\.h)')
    seen = [name_of(path) for path in NATIVE_FILES if framework.search(path.read_text(encoding="utf-8"))]
    assert seen == ["csrc/bindings.cpp"]


def test_cmake_lists_every_source():
    text = re.sub(r"#.*", "", (ROOT / "CMakeLists.txt").read_text(encoding="utf-8"))
    listed = re.findall(r"csrc/[\w/]+\.(?:cpp|cu)\b", text)
    on_disk = [name_of(path) for path in NATIVE_FILES if path.suffix in {".cpp", ".cu"}]
    assert sorted(set(listed)) == on_disk


def test_headers_are_included_once():
    headers = [path for path in NATIVE_FILES if path.suffix in {".h", ".cuh"}]
    assert headers
    assert [name_of(path) for path in headers if "#pragma once" not in path.read_text(encoding="utf-8")] == []


def test_every_public_name_is_in_the_documentation():
    page = (ROOT / "docs" / "api.md").read_text()
    listed = re.findall(r"^\.\. (?:auto\w+|py:data):: (\w+)$", page, re.MULTILINE)
    assert sorted(listed) == sorted(nf.__all__)


@pytest.mark.parametrize("path", PACKAGE_FILES, ids=name_of)
def test_public_names_have_docstrings(path):
    tree = ast.parse(path.read_text(encoding="utf-8"))
    kinds = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)
    public = [node for node in tree.body if isinstance(node, kinds) and not node.name.startswith("_")]
    for owner in [node for node in public if isinstance(node, ast.ClassDef)]:
        public += [node for node in owner.body if isinstance(node, kinds) and not node.name.startswith("_")]
    missing = [node.name for node in public if ast.get_docstring(node) is None]
    assert ast.get_docstring(tree)
    assert missing == []
