"""What tests need on a machine that was not set up for them: ``pytest -p bench.pytest_device``, by device_check.sh.

- A CUDA error that stays makes every later test of the process fail. Under pytest-xdist such a worker ends after the
  test that began it, and another takes its place.
- Each of several workers keeps to processors of its own, so that the kernels' threads do not take turns.
- SIGTERM ends a run as Ctrl-C does: with a summary and the JUnit file.
- Without tyro there is no command line: tests that import it are skipped.
"""

from __future__ import annotations

import importlib.util
import os
import signal
import sys
from collections.abc import Sequence
from contextlib import suppress
from importlib.machinery import ModuleSpec
from types import ModuleType

import pytest

WORKER = os.environ.get("PYTEST_XDIST_WORKER", "")
LOST = 70  # a worker's exit status where its device answers no more
NO_TYRO = "tyro is not installed: no command line"

_failed = False


class _SkipsTyro:
    """Importing tyro skips the test, or the file of tests."""

    @staticmethod
    def find_spec(name: str, path: Sequence[str] | None = None, target: ModuleType | None = None) -> ModuleSpec | None:
        if name.partition(".")[0] == "tyro":
            pytest.skip(NO_TYRO, allow_module_level=True)
        return None


def own_processors(worker: str, workers: int, processors: Sequence[int]) -> list[int]:
    """Those of a worker called ``gw0``, ``gw1``, ...; all where there are fewer processors than workers."""
    share = len(processors) // max(1, workers)
    if not worker.startswith("gw") or share == 0:
        return list(processors)
    first = int(worker[2:]) % workers * share
    return list(processors[first : first + share])


def device_is_lost() -> bool:
    """Whether the device that torch uses has an error that stays."""
    torch = sys.modules.get("torch")
    if torch is None or not torch.cuda.is_initialized():
        return False
    try:
        torch.cuda.synchronize()
    except RuntimeError:
        return True
    return False


def pytest_configure() -> None:
    """Before anything of ours is imported."""
    with suppress(ValueError):  # a worker's own thread may not
        signal.signal(signal.SIGTERM, signal.default_int_handler)
    workers = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))
    if WORKER and hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, own_processors(WORKER, workers, sorted(os.sched_getaffinity(0))))
    if importlib.util.find_spec("tyro") is None:
        sys.meta_path.insert(0, _SkipsTyro)
    if importlib.util.find_spec("hypothesis") is not None:
        from hypothesis import HealthCheck, settings

        settings.register_profile("device", deadline=None, suppress_health_check=list(HealthCheck))
        settings.load_profile("device")


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    """Remembers that something failed."""
    global _failed
    _failed = _failed or report.failed


def pytest_runtest_logfinish(nodeid: str) -> None:
    """Ends a worker whose device is lost; the failure has been reported."""
    global _failed
    if _failed and WORKER and device_is_lost():
        print(f"{WORKER}: the device answers no more after {nodeid}", file=sys.stderr, flush=True)
        os._exit(LOST)
    _failed = False
