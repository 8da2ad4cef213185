"""Bagged posteriors: resamples, means over them, and the probabilities that inference reports."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from cases import assert_close, assert_same_bits

import nri_fast as nf
from nri_fast.heat_bath_rows import HeatBathRows
from nri_fast.posterior import BLOCKS, RESAMPLES, bagged, blocks_of, resamples

TINY = nf.Settings(steps=3, batch=3, message=4, edge_hidden=(5,), node_hidden=(6,), transitions=4)


@pytest.mark.parametrize("transitions", [1, 5, 12, 48, 101])
def test_blocks_cover_every_transition_once(transitions):
    blocks = blocks_of(transitions)
    assert torch.cat(blocks).tolist() == list(range(transitions))
    assert len(blocks) == min(BLOCKS, transitions)
    lengths = [len(block) for block in blocks]
    assert max(lengths) - min(lengths) <= 1


@pytest.mark.parametrize("blocks", [1, 3, 12])
def test_resamples_are_balanced(blocks):
    counts = np.array(resamples(blocks))
    assert counts.shape == (RESAMPLES, blocks)
    assert (counts.sum(1) == blocks).all()
    assert (counts.sum(0) == RESAMPLES).all()
    if blocks > 1:
        assert len(np.unique(counts, axis=0)) > 5  # and differ from each other


def test_bagged_is_the_mean_over_recordings_written_out():
    """Every resample's transitions one by one."""
    lengths = [2, 3, 1]
    random = torch.Generator().manual_seed(1)
    parts = [torch.randn(4, length, generator=random, dtype=torch.float64) for length in lengths]

    def weigh(scores):
        return torch.softmax(-7 * scores, 0)

    expected = torch.zeros(4, dtype=torch.float64)
    for counts in resamples(3):
        recording = torch.cat([part for part, count in zip(parts, counts, strict=True) for _ in range(count)], 1)
        expected += weigh(recording.mean(1)) / RESAMPLES
    assert_close(bagged([part.mean(1) for part in parts], lengths, weigh), expected, 1e-12)


def test_scores_that_are_infinite_never_win():
    scores = [torch.tensor([1.0, 2.0]), torch.tensor([torch.inf, 2.0])]

    def weigh(values):
        return torch.softmax(-values, 0)

    without = sum(counts[1] == 0 for counts in resamples(2)) / RESAMPLES
    found = bagged(scores, [1, 1], weigh)
    assert bool(torch.isfinite(found).all())
    assert float(found[0]) == pytest.approx(without * float(weigh(scores[0])[0]), abs=1e-6)


def test_evidence_that_contradicts_itself_convinces_less():
    """Two rows, and log-likelihood ratios that wander from block to block around zero or around a clear mean."""
    random = np.random.default_rng(3)
    wandering, clear = random.normal(0, 10, (500, BLOCKS)), random.normal(5, 1, (500, BLOCKS))

    def sure(evidence, posterior):
        return np.mean([float(posterior([torch.tensor([0.0, e]) for e in row]).max()) for row in evidence])

    def weigh(scores):
        return torch.softmax(-BLOCKS * scores, 0)

    def bag(parts):
        return bagged(parts, [1] * BLOCKS, weigh)

    def plain(parts):
        return weigh(torch.stack(parts).mean(0))

    assert sure(wandering, plain) > 0.97
    assert sure(wandering, bag) < 0.9
    assert sure(clear, bag) > 0.999


@pytest.mark.parametrize("judged", [(), ("vx", "vy", "x")])
def test_marginals_of_three_entities_by_hand(backend, judged):
    data = nf.simulate("springs", 2, entities=3, steps=20)
    settings = dataclasses.replace(TINY, judged=judged)
    run = nf.train(data, settings=settings, progress=False, device=backend)
    features = len(judged) or 4
    found = nf.infer(run, data)
    systems = run.systems(data)
    parts = []
    with torch.no_grad():
        for block in blocks_of(19):
            start = block.repeat(2, 1).to(backend)
            rows = HeatBathRows(run.library, systems.batch([0, 1]), 20, start, run.error_measure())
            scores = rows.scores(run.library.flat_parameters()).double().cpu().view(2, 3, 2, 2)
            parts.append(scores * (0.5 * features * len(block)))  # minus log-likelihoods of the block's transitions
    weights = torch.zeros(2, 3, 2, 2, dtype=torch.float64)
    lengths = [len(block) for block in blocks_of(19)]
    for counts in resamples(len(parts)):
        transitions = sum(c * n for c, n in zip(counts, lengths, strict=True))
        total = sum(c * part for c, part in zip(counts, parts, strict=True)) * (19 / transitions)
        weights += torch.softmax(-total.flatten(2), -1).view(weights.shape) / RESAMPLES
    for receiver in range(3):
        first, second = [i for i in range(3) if i != receiver]
        assert_close(found.probability[:, first, receiver].double(), weights[:, receiver].sum(2), 1e-4)
        assert_close(found.probability[:, second, receiver].double(), weights[:, receiver].sum(1), 1e-4)


@pytest.mark.parametrize(
    ("entities", "changes"),
    [(4, {}), (4, {"undirected": True}), (4, {"robust": False}), (3, {"edge_types": 3, "node_types": 2}), (13, {})],
)
def test_a_system_knows_nothing_of_the_others(entities, changes):
    data = nf.simulate("springs", 5, entities=entities, steps=14)
    settings = dataclasses.replace(TINY, batch=1 if entities > 10 else 3, **changes)
    run = nf.train(data, settings=settings, progress=False)
    together = nf.infer(run, data)
    assert_close(together.probability.sum(-1), 1.0 - torch.eye(entities).expand(5, -1, -1), 1e-5)
    order = torch.tensor([3, 0]) if entities < 10 else torch.tensor([0])  # chains are named by their place
    some = nf.infer(run, data.select(order))
    assert_same_bits(some.probability, together.probability[order])
    assert_same_bits(some.node_probability, together.node_probability[order])
