"""Schedules against torch's own, hand-computed values, and the paper's rule."""

from __future__ import annotations

import math

import pytest
import torch

from nri_fast.schedule import AcceptanceTemperature, Plateau, geometric, linear_floor, one_cycle


def torch_one_cycle(steps, peak):
    optimiser = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=peak)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, peak, total_steps=steps, pct_start=0.1)
    rates = []
    for _ in range(steps):
        rates.append(optimiser.param_groups[0]["lr"])
        optimiser.step()
        schedule.step() if len(rates) < steps else None
    return rates


@pytest.mark.parametrize("steps", [20, 21, 30, 99, 500])
@pytest.mark.parametrize("peak", [3e-3, 1.0])
def test_one_cycle_is_torchs(steps, peak):
    # Below 20 steps torch's warm-up is shorter than one step (below 10 of negative length); ours stays one step long.
    got = [one_cycle(step, steps, peak) for step in range(steps)]
    assert got == pytest.approx(torch_one_cycle(steps, peak), rel=1e-9)


@pytest.mark.parametrize("steps", [1, 2, 3, 9, 19])
def test_short_cycles_stay_between_their_ends(steps):
    rates = [one_cycle(step, steps, 1.0) for step in range(steps)]
    assert rates[0] == pytest.approx(1 / 25)
    assert all(1 / 250_000 * (1 - 1e-9) <= rate <= 1.0 for rate in rates)
    assert max(rates[1:], default=1.0) == 1.0
    assert steps < 3 or rates[-1] == pytest.approx(1 / 250_000)


def test_geometric():
    assert geometric(0.0, 0.3, 0.003, 0.6) == pytest.approx(0.3)
    assert geometric(0.3, 0.3, 0.003, 0.6) == pytest.approx(0.03)
    assert geometric(0.6, 0.3, 0.003, 0.6) == pytest.approx(0.003)
    assert geometric(1.0, 0.3, 0.003, 0.6) == pytest.approx(0.003)
    factors = [geometric((s + 1) / 50, 3.0, 0.1, 1.0) / geometric(s / 50, 3.0, 0.1, 1.0) for s in range(50)]
    assert factors == pytest.approx([(0.1 / 3.0) ** (1 / 50)] * 50)


def test_linear_with_a_floor():
    assert linear_floor(0.0, 0.3, 0.021, 0.7) == pytest.approx(0.3)
    assert linear_floor(0.35, 0.3, 0.021, 0.7) == pytest.approx(0.15)
    assert linear_floor(0.651, 0.3, 0.021, 0.7) == pytest.approx(0.021)
    assert linear_floor(0.7, 0.3, 0.021, 0.7) == 0.021
    assert linear_floor(1.0, 0.3, 0.021, 0.7) == 0.021


def end_epoch(temperature, proposed, worsening, ceiling=math.inf):
    """An epoch of so many proposals, in the counts of two systems."""
    counts = torch.tensor([[proposed - 1, 7, 0, 3], [1, 9, worsening, 5]])
    temperature.take(counts)
    temperature.update(torch.tensor([ceiling], dtype=torch.float64))


def test_temperature_follows_the_papers_rule_by_hand():
    temperature = AcceptanceTemperature(2.0)
    # Epoch 1: the rate becomes 3/10, the target is exp(-1.00625) = 0.3656: too few, warmer.
    end_epoch(temperature, 10, 3)
    assert (temperature.epoch, temperature.rate) == (1, pytest.approx(0.3))
    assert temperature.temperature == pytest.approx(2.2)
    # Epoch 2: the mean of 3/10 and 9/10 is 0.6, the target 0.3633: too many, colder.
    end_epoch(temperature, 10, 9)
    assert temperature.rate == pytest.approx(0.6)
    assert temperature.temperature == pytest.approx(2.0)
    # Epoch 3: a third of the way to nothing, 0.4, the target 0.3610: colder.
    end_epoch(temperature, 10, 0)
    assert temperature.rate == pytest.approx(0.4)
    assert temperature.temperature == pytest.approx(2.0 / 1.1)
    # Epoch 4: 0.3, the target 0.3588: warmer.
    end_epoch(temperature, 10, 0)
    assert temperature.rate == pytest.approx(0.3)
    assert temperature.temperature == pytest.approx(2.0)


def test_the_running_rate_averages_exponentially_by_a_hundredth():
    temperature = AcceptanceTemperature(1.0, rate=0.5, epoch=500)
    end_epoch(temperature, 1000, 0)
    assert temperature.rate == pytest.approx(0.5 * 0.99)
    end_epoch(temperature, 1000, 1000)
    assert temperature.rate == pytest.approx(0.5 * 0.99 * 0.99 + 0.01)


@pytest.mark.parametrize("epoch", [0, 7, 799, 1600])
def test_the_target_falls_with_the_epoch(epoch):
    target = math.exp(-1 - 5 * (epoch + 1) / 800)
    for rate, factor in [(target * 1.0001, 1 / 1.1), (target * 0.9999, 1.1)]:
        temperature = AcceptanceTemperature(1.0, rate=rate, epoch=epoch)
        proposed = 10**9
        end_epoch(temperature, proposed, round(proposed * rate))  # the running rate stays what it is
        assert temperature.temperature == pytest.approx(factor)


def test_no_proposals_count_as_no_acceptance():
    temperature = AcceptanceTemperature(1.0)
    end_epoch(temperature, 0, 0)
    assert temperature.rate == 0.0
    assert temperature.temperature == pytest.approx(1.1)


def test_the_plateau_rule_is_torchs():
    optimiser = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=0.01)
    theirs = torch.optim.lr_scheduler.ReduceLROnPlateau(
        optimiser, factor=0.5, patience=200, cooldown=1000, threshold=1e-4, min_lr=1e-5
    )
    ours = Plateau(0.01)
    generator = torch.Generator().manual_seed(3)
    rates = set()
    for epoch in range(20_000):
        loss = float(torch.rand((), generator=generator)) + 5.0 * math.exp(-epoch / 300)
        theirs.step(loss)
        ours.update(loss)
        assert ours.rate == pytest.approx(optimiser.param_groups[0]["lr"], rel=1e-12)
        rates.add(ours.rate)
    assert min(rates) == 1e-5
    assert len(rates) > 8


def test_the_papers_temperature_has_a_ceiling_where_there_is_one():
    free, capped = AcceptanceTemperature(1.0), AcceptanceTemperature(1.0)
    for _ in range(50):  # nothing worsening is ever accepted
        end_epoch(free, 100, 0)
        end_epoch(capped, 100, 0, ceiling=5.0)
    assert free.temperature == pytest.approx(1.1**50)
    assert 5.0 / 1.1 < capped.temperature <= 5.0
    end_epoch(capped, 100, 100, ceiling=1e-3)  # it may always fall
    assert capped.temperature < 5.0
