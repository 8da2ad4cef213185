"""Layouts, maps and schedules of the fused gradient, and its product: native/gradient_maps.cpp."""

from __future__ import annotations

from pathlib import Path

import pytest
from native_program import compiled, run

CHECKS = ["packed_weights", "lanes", "cursor", "shared_memory", "plan", "slices", "banks", "product", "runs"]


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return compiled("gradient_maps", tmp_path_factory.mktemp("native"))


def test_every_check_is_run(program: Path) -> None:
    assert run(program).stdout.split() == CHECKS
    assert run(program, "no such check").returncode == 2


@pytest.mark.parametrize("name", CHECKS)
def test_map(program: Path, name: str) -> None:
    done = run(program, name)
    assert done.returncode == 0, done.stdout + done.stderr
