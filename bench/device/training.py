"""Seconds to an accuracy of held-out edges, by the presets, simulation and inference included."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from dataclasses import replace

import torch

import nri_fast as nf
from bench import time_to_accuracy
from bench.cases import Effort
from bench.device.limits import Limits
from bench.rows import OURS, Row

RUN_LIMITS = {"springs": 30.0, "charged": 75.0}  # seconds until a run to an accuracy is given up


def wait_for(device: torch.device) -> None:
    """Returns when the device has done what it was asked for."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def rows(device: torch.device, effort: Effort, floor: Limits) -> Iterator[Callable[[], Row]]:
    """A row a lesson."""

    def row(lesson: time_to_accuracy.Lesson) -> Row:
        test = nf.simulate(lesson.kind, lesson.held_out, seed=1, split="test")
        seed, limit = lesson.seeds[0], RUN_LIMITS[lesson.kind]
        if effort.name != "tiny":  # compiles, loads and plans whatever the first steps need
            time_to_accuracy.ours(
                lesson,
                seed,
                test,
                time_to_accuracy.Watch((0.0,), 1.0, wait=functools.partial(wait_for, device)),
                device,
            )
        watch = time_to_accuracy.Watch(lesson.accuracies, limit, wait=functools.partial(wait_for, device))
        time_to_accuracy.ours(lesson, seed, test, watch, device)
        return {
            "subject": "training",
            "work": f"{lesson.kind}5, {lesson.systems:,} systems",
            "case": {"seed": seed, "held_out_systems": lesson.held_out, "limit_s": limit},
            "settings": lesson.settings.to_dict(),
            "runs": {OURS: watch.figures()},
            "left_out": {},
        }

    for lesson in time_to_accuracy.lessons(effort if effort.name == "tiny" else replace(effort, name="full")):
        yield functools.partial(row, lesson)
