"""The noise of recordings, read off the recordings."""

import dataclasses

import pytest
import torch

import nri_fast as nf
from nri_fast.observation_noise import LEAST_SHARE, feature_weights, noise_share


def share_of(states, sigma):
    """[D] what white noise of these standard deviations is of one step's change, noise included."""
    return 2 * sigma**2 / states.diff(dim=1).flatten(0, 2).var(0, correction=0)


def smooth(systems=200, steps=40, entities=3):
    generator = torch.Generator().manual_seed(0)
    phase = torch.rand(systems, 1, entities, 2, generator=generator, dtype=torch.float64) * 6.28
    return torch.sin(phase + 0.1 * torch.arange(steps, dtype=torch.float64)[None, :, None, None])


def noisy(states, sigma):
    generator = torch.Generator().manual_seed(1)
    return states + sigma * torch.randn(states.shape, generator=generator, dtype=torch.float64)


def test_smooth_motion_has_none():
    assert noise_share(smooth()).max() < 5e-5


@pytest.mark.parametrize("kind", ["springs", "charged"])
def test_simulated_motion_has_hardly_any(kind):
    shares = noise_share(nf.simulate(kind, 100, seed=1).states)
    assert shares.max() < 1e-4
    assert feature_weights(shares) == pytest.approx([1.0] * 4, rel=0.1)


@pytest.mark.parametrize("sigma", [(0.03, 0.001), (0.01, 0.01), (0.3, 0.0)])
def test_noise_that_was_added_is_found(sigma):
    sigma = torch.tensor(sigma, dtype=torch.float64)
    states = noisy(smooth(), sigma)
    assert noise_share(states).tolist() == pytest.approx(share_of(states, sigma).tolist(), rel=0.03, abs=5e-5)


def test_what_is_not_there_does_not_count():
    sigma = torch.tensor([0.03, 0.01], dtype=torch.float64)
    states, present = noisy(smooth(), sigma), torch.ones(200, 40, 3, dtype=torch.bool)
    expected = noise_share(states)
    present[:, :, 2] = False
    present[::2, 17:] = False
    spoiled = torch.where(present[..., None], states, torch.nan)
    assert noise_share(spoiled, present).tolist() == pytest.approx(expected.tolist(), rel=0.1)


def test_too_short_or_constant_says_nothing():
    assert noise_share(smooth(steps=3)).tolist() == [0.0, 0.0]
    assert noise_share(torch.ones(4, 9, 2, 2)).tolist() == [0.0, 0.0]
    assert noise_share(smooth(), torch.zeros(200, 40, 3, dtype=torch.bool)).tolist() == [0.0, 0.0]


def test_weights_by_hand():
    assert feature_weights(torch.tensor([0.0, 0.0])) == (1.0, 1.0)
    first, second = feature_weights(torch.tensor([LEAST_SHARE, 3 * LEAST_SHARE]))
    assert (first, second) == pytest.approx((2 * 4 / 5, 2 * 1 / 5))


def test_a_run_judges_by_what_is_recorded_well(tmp_path):
    data = nf.simulate("springs", 12, seed=1)
    data.states[..., :2] = noisy(data.states[..., :2], 0.2)
    settings = dataclasses.replace(nf.PRESETS["springs"], steps=2, polish_steps=0)
    run = nf.train(data, settings=settings, seed=1, progress=False, out=tmp_path / "run")
    assert min(run.feature_weights[2:]) > 100 * max(run.feature_weights[:2])
    plain = dataclasses.replace(run, feature_weights=()).error_measure().weight
    assert torch.allclose(run.error_measure().weight, plain * torch.tensor(run.feature_weights))
    assert nf.Run.load(tmp_path / "run").feature_weights == run.feature_weights
    judged = dataclasses.replace(settings, judged=("vx", "vy"))
    assert nf.train(data, settings=judged, progress=False).feature_weights == pytest.approx((1.0, 1.0), rel=0.1)
