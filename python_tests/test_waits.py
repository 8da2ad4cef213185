"""A training step asks the device for nothing: whatever waits for a GPU is seen without one (far_device.py)."""

from __future__ import annotations

import pytest
import torch
from far_device import FarDevice, OnDevice, WaitedError

import nri_fast as nf
from nri_fast import (
    _core,
    bouncegrad,
    energies,
    graph,
    heat_bath_rows,
    learner,
    ops,
    polishing,
    residual_temperature,
    schedule,
    search,
    system_set,
    training_draws,
)
from nri_fast.bouncegrad import BounceGrad
from nri_fast.ops import heat_bath
from nri_fast.proposals import chains

MODULES = (
    chains,
    energies,
    graph,
    heat_bath,
    heat_bath_rows,
    learner,
    polishing,
    residual_temperature,
    schedule,
    search,
    system_set,
    training_draws,
)
OPERATIONS = (ops.anneal, ops.chains, ops.heat_bath, ops.rollouts)
CACHES = (system_set.complete_graph, heat_bath._whole_blocks, heat_bath_rows._groups_of_all)
SMALL = {"message": 6, "steps": 200, "transitions": 3, "batch": 4, "rollout": 3, "robust": False, "relative": ()}


@pytest.fixture
def far(monkeypatch):
    """The device, with the CPU's kernels for its own."""
    mode = FarDevice()
    for module in MODULES:
        monkeypatch.setattr(module, "to_device", mode.put)
    place = _core.Place(False, 1, 0, 0, _core.Precision.fp32)
    for module in OPERATIONS:
        for name in ("place", "scoring_place"):
            monkeypatch.setattr(module, name, lambda tensor: place, raising=False)
    monkeypatch.setattr(torch.nn.utils, "clip_grad_norm_", mode.trusted(torch.nn.utils.clip_grad_norm_))
    monkeypatch.setattr(torch.optim.Adam, "step", mode.trusted(torch.optim.Adam.step))
    for cached in CACHES:
        cached.cache_clear()
    yield mode
    for cached in CACHES:
        cached.cache_clear()


def on_device(values):
    return values.as_subclass(OnDevice)


def systems_on(mode, ragged):
    torch.manual_seed(0)
    sizes = [4, 3, 5, 4, 3, 4] if ragged else [4] * 6
    whole = nf.MegaGraph.complete_ragged(sizes)
    states = 0.1 * torch.randn(whole.nodes * 12 * 4).cumsum(0)
    with mode, mode.waiting():
        return system_set.SystemSet(whole.to("cuda"), on_device(states), 12, 4)


def library_on(node_types=1):
    library = nf.ModuleLibrary(4, 2, node_types, 6, (8,), (8,))
    for name, buffer in library.named_buffers():
        library._buffers[name] = on_device(buffer)
    return library


CASES = {
    "heat bath": {},
    "sampled": {"bounce": "sampled"},
    "undirected": {"undirected": True},
    "robust": {"robust": True},
    "some edges held": {"block": 4},
    "some edges held, undirected": {"block": 4, "undirected": True},
    "node types": {"node_types": 2, "bounce": "sampled"},
    "metropolis": {"bounce": "metropolis", "proposals": 5},
    "metropolis, geometric": {"bounce": "metropolis", "temperature_rule": "geometric"},
    "metropolis, residuals": {"bounce": "metropolis", "temperature_rule": "residuals"},
    "metropolis, heat-bath proposals": {"bounce": "metropolis", "proposal": "edge", "proposal_source": "heat_bath"},
}


@pytest.mark.parametrize("ragged", [False, True], ids=["equal", "ragged"])
@pytest.mark.parametrize("name", CASES)
def test_training_steps_wait_at_intervals_only(far, name, ragged):
    """A step that is not recorded waits for nothing, an epoch's last included; a look at the residuals waits."""
    settings = nf.Settings(**{**SMALL, **CASES[name]})
    systems = systems_on(far, ragged)
    with far, ops.one_torch_thread():
        trainer = BounceGrad(library_on(settings.node_types), settings, seed=1)
        with far.waiting():
            trainer._begin(systems)
            trainer._one_step(systems)  # makes what is kept from step to step
        far.waits = 0
        trainer.history.add = lambda *facts: None  # a thousand times a run
        for _ in range(6):
            if settings.robust and trainer._step % bouncegrad.RESIDUALS_EVERY == 0:
                with far.waiting():  # for the median of the errors
                    trainer._one_step(systems)
                assert 0 < far.waits <= 3
                far.waits = 0
            else:
                trainer._one_step(systems)
        assert far.waits == 0
        with far.waiting():
            assert trainer.skipped == 0


def test_a_wait_is_seen(far):
    with far:
        values = torch.arange(6, device="cuda") / 2
        assert values.is_cuda
        assert values.device == torch.device("cuda:0")
        doubled = (values[1:] * 2).sum() + torch.zeros((), device="cuda")
        for wait in (
            lambda: float(doubled),
            lambda: bool(doubled > 0),
            lambda: int(doubled),
            lambda: values.tolist(),
            lambda: values.cpu(),
            lambda: values.to("cpu"),
            lambda: values.nonzero(),
            lambda: values[values > 1],
            lambda: values[[0, 1]],
            lambda: torch.repeat_interleave(values, torch.ones(6, dtype=torch.int64, device="cuda")),
            lambda: values + torch.zeros(6),
            lambda: torch.zeros(6).to("cuda"),
            lambda: torch.tensor([1.0], device="cuda"),
            lambda: torch.cat([values, torch.zeros(1)]),
        ):
            with pytest.raises(WaitedError):
                wait()
        assert not torch.zeros(3).is_cuda
        with far.waiting():
            assert float(doubled) == 15.0
        assert far.waits == 1


def test_search_batches_are_planned_on_the_host(far):
    systems = systems_on(far, ragged=True)
    library = library_on()
    with far, ops.one_torch_thread():
        parameters = library.flat_parameters().detach()
        error = energies.one_step_error(library, None, None)
        searched = 0
        for batch in search.batches(library, systems, progress=False):
            rollouts = search.Rollouts(library, parameters, batch, systems.steps, 3, error)
            search.Descent(rollouts, 0).anneal()
            searched += batch.graph.systems
    assert searched == len(systems)  # and nothing waited, or the device would have complained
