"""The CUDA kernels' plans: everything is covered once, whatever the sizes, in 64 bits."""

from __future__ import annotations

import numpy as np
import pytest

from nri_fast import _core

HUGE = 1 << 33  # more than 32 bits hold


def covered(chunks):
    """Systems of chunks, and how many of each one's replicas are taken at a time."""
    return [(system, replicas) for first, end, replicas in chunks for system in range(first, end)]


@pytest.mark.parametrize("scale", [1, HUGE])
@pytest.mark.parametrize("budget", [1, 7, 30, 100, 10_000])
@pytest.mark.parametrize("replicas", [1, 5])
def test_chunks_cover_all_systems_once_and_fit(replicas, budget, scale):
    random = np.random.default_rng(budget)
    sizes = [int(size) * scale for size in random.integers(1, 12, size=40)]
    chunks = _core.plan_chunks(sizes, replicas, budget * scale)
    assert [system for system, _ in covered(chunks)] == list(range(40))
    for first, end, at_once in chunks:
        needed = sum(sizes[first:end]) * at_once
        # What does not fit is a single system that is taken one replica at a time.
        assert needed <= budget * scale or (end == first + 1 and at_once == 1)
        assert at_once == replicas or end == first + 1
        if end < 40 and at_once == replicas:  # a longer chunk would not have fitted
            assert sum(sizes[first : end + 1]) * replicas > budget * scale or end == first + 1


def test_chunks_of_more_memory_are_no_shorter():
    sizes = [3, 1, 4, 1, 5, 9, 2, 6]
    counts = [len(_core.plan_chunks(sizes, 2, budget)) for budget in (1, 10, 20, 40, 80)]
    assert counts == sorted(counts, reverse=True)
    assert counts[-1] == 1


@pytest.mark.parametrize("scale", [1, HUGE])
@pytest.mark.parametrize("replicas", [1, 4, 13])
def test_units_cover_all_rows_of_all_replicas_once(replicas, scale):
    random = np.random.default_rng(replicas)
    rows = [int(n) * scale for n in random.choice([0, 1, 3, 10, 200], size=60)]
    group, split = 96 * scale, 384 * scale
    units = _core.plan_units(rows, replicas, group, split)
    pairs = [(s, r) for first, end, low, high in units for s in range(first, end) for r in range(low, high)]
    assert len(pairs) == len(set(pairs))
    assert set(pairs) == {(s, r) for s in range(60) for r in range(replicas)}
    for first, end, low, high in units:
        if (low, high) != (0, replicas):  # a part of one large system's replicas, which stay under the limit together
            assert end == first + 1
            assert rows[first] * replicas > split
            assert rows[first] * (high - low) <= split or high == low + 1
        elif end > first + 1:  # no longer than it has to be
            assert sum(max(1, n) for n in rows[first : end - 1]) * replicas < max(group, 60 * replicas)


@pytest.mark.parametrize(("items", "replicas"), [(0, 1), (1, 1), (95, 1), (97, 1), (1000, 7), (HUGE, 3)])
def test_groups_cover_a_units_items_once(items, replicas):
    size = 96 if items < HUGE else HUGE // 16
    ends = _core.group_ends(items, replicas, size)
    assert ends[0] == 0
    assert ends[-1] == items
    assert ends == sorted(ends)
    sizes = np.diff(ends) * replicas
    assert len(sizes) == max(1, -(-items * replicas // size))
    assert all(abs(n - items * replicas / len(sizes)) <= replicas for n in sizes)
