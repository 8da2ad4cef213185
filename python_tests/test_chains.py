"""Chains side by side: each samples its temperature's Boltzmann distribution, exchanges included; the best is kept.

Frequencies come from fixed seeds; a count may stray five standard deviations from its expectation.
"""

from __future__ import annotations

import dataclasses
import itertools
import json

import numpy as np
import pytest
import torch
from cases import assert_same_bits, make_case

import nri_fast as nf
from nri_fast import cli, energies, ops, schedule
from nri_fast.checkpoint import Checkpoints
from nri_fast.experiments import proposals, runner
from nri_fast.heat_bath_search import heat_bath_search
from nri_fast.proposals import RandomProposer, Table, TableProposer
from nri_fast.proposals import teach as teach_module
from nri_fast.proposals.chain_search import chain_search
from nri_fast.proposals.chains import Chains
from nri_fast.rollouts import Rollouts

STEPS = 6


@pytest.fixture(autouse=True)
def _one_thread():
    with ops.one_torch_thread():
        yield


def copies_of_one_system(copies, node_types=1, entities=2):
    """Many copies of one system, and the energies of all its structures, edges' types slowest."""
    torch.manual_seed(7)
    case = make_case(sizes=[entities], keep=1.0, edge_types=2, node_types=node_types, steps=STEPS)
    states = case.trajectories[0]
    systems = nf.SystemSet.complete(states.repeat(copies, 1, 1, 1))
    parameters, error = case.library.flat_parameters().detach(), energies.error_measure(case.library)
    rollouts = Rollouts(case.library, parameters, systems.batch(range(copies)), STEPS, 2, error)
    alone = Rollouts(case.library, parameters, systems.batch([0]), STEPS, 2, error)
    edges = entities * (entities - 1)
    every = [*itertools.product(*([range(2)] * edges), *([range(node_types)] * entities))]
    energy = [float(alone.energies(torch.tensor(s[:edges]).byte(), torch.tensor(s[edges:]).byte())) for s in every]
    return rollouts, np.array(energy)


def start(chains, graph):
    types = torch.zeros(chains, graph.edges, dtype=torch.uint8), torch.zeros(chains, graph.nodes, dtype=torch.uint8)
    return types


def departure(types, energy, temperature):
    """Largest departure from the Boltzmann distribution, in standard deviations; types are [systems, places]."""
    counts = np.bincount((types.long() @ 2 ** torch.arange(types.shape[1] - 1, -1, -1)).numpy(), minlength=len(energy))
    p = np.exp(-(energy - energy.min()) / temperature)
    p /= p.sum()
    return float(np.max(np.abs(counts - counts.sum() * p) / np.sqrt(counts.sum() * p * (1 - p))))


@pytest.mark.parametrize("node_types", [1, 2])
def test_exchanging_chains_sample_all_temperatures(node_types):
    rollouts, energy = copies_of_one_system(1500, node_types)
    graph = rollouts.batch.graph
    temperatures = [0.3 * energy.std(), energy.std(), 4 * energy.std()]
    chains = Chains(rollouts, RandomProposer(graph, 2, node_types), *start(3, graph), seed=1)
    for step in range(40):
        chains.step(step, temperatures)
        chains.exchange(step, temperatures)
    assert (chains.exchanged > 1000).all()

    def types_of(c):
        edges, nodes = (t[c].view(graph.systems, -1) for t in (chains.edge_types, chains.node_types))
        return torch.cat([edges, nodes], 1) if node_types > 1 else edges

    for c, temperature in enumerate(temperatures):
        types = types_of(c)
        assert departure(types, energy, temperature) < 5
        codes = types.long() @ 2 ** torch.arange(types.shape[1] - 1, -1, -1)
        np.testing.assert_allclose(chains.energy[c].numpy(), energy[codes.numpy()], rtol=1e-12)
    everyone = torch.ones(graph.systems, dtype=torch.bool)
    chains._swap(0, 2, everyone)  # exchanges without the rule
    assert departure(types_of(0), energy, temperatures[0]) > 10


def test_an_exchange_happens_with_its_probability():
    rollouts, energy = copies_of_one_system(4000)
    graph = rollouts.batch.graph
    low, high = int(energy.argmin()), int(energy.argmax())
    types = torch.tensor([[i >> 1, i & 1] for i in (low, high)], dtype=torch.uint8).repeat(1, graph.systems)
    temperatures = [0.7 * np.ptp(energy), 1.5 * np.ptp(energy)]
    chains = Chains(rollouts, RandomProposer(graph, 2, 1), types, start(2, graph)[1])
    chains.exchange(1, temperatures)  # an odd step: there is no pair (1, 2)
    assert int(chains.exchanged) == 0
    chains.exchange(0, temperatures)
    odds = np.exp((1 / temperatures[0] - 1 / temperatures[1]) * (energy[low] - energy[high]))
    assert abs(int(chains.exchanged) - 4000 * odds) < 5 * np.sqrt(4000 * odds * (1 - odds))
    chains = Chains(rollouts, RandomProposer(graph, 2, 1), types.flip(0), start(2, graph)[1])
    chains.exchange(0, temperatures)
    assert int(chains.exchanged) == 4000
    with pytest.raises(ValueError, match="temperatures: expected positive"):
        chains.exchange(0, [0.0, 1.0])
    with pytest.raises(ValueError, match="temperatures: expected 2, one for each chain, got 1"):
        chains.step(0, [1.0])


def test_energies_that_are_not_finite_are_never_exchanged_nor_best():
    rollouts, _ = copies_of_one_system(3)
    graph = rollouts.batch.graph
    chains = Chains(rollouts, RandomProposer(graph, 2, 1), *start(2, graph))
    good = chains.best_energy.clone()
    chains.energy[1] = torch.tensor([float("nan"), float("inf"), -1.0])
    chains.exchange(0, [1.0, 2.0])
    assert chains.energy[1, :2].isfinite().tolist() == [False, False]
    chains._keep_best()
    assert_same_bits(chains.best_energy[:2], good[:2])


def test_the_best_structure_is_kept():
    rollouts, energy = copies_of_one_system(200, entities=3)
    graph = rollouts.batch.graph
    chains = Chains(rollouts, RandomProposer(graph, 2, 1), *start(2, graph), seed=5)
    lowest = chains.energy.amin(0)
    for step in range(30):
        chains.step(step, [1e3, 1e3])
        lowest = torch.minimum(lowest, chains.energy.amin(0))
    assert_same_bits(chains.best_energy, lowest)
    assert_same_bits(rollouts.energies(chains.best_edge_types, chains.best_node_types), lowest)
    assert float((lowest == energy.min()).double().mean()) > 0.3  # 60 of 64 structures were visited, some twice
    assert not torch.equal(chains.energy[0], chains.best_energy)


# ---- searches of new systems ----


@pytest.fixture(scope="module")
def trained():
    """A run with a network, and systems that it has not seen."""
    settings = nf.Settings(steps=300, batch=10, network="mlp", network_hidden=16, rollout=5)
    data = nf.simulate("springs", 60, entities=4, steps=49, seed=1)
    return nf.train(data, settings=settings, seed=1, progress=False), nf.simulate("springs", 12, 4, 49, seed=2)


@pytest.mark.parametrize("search", ["heat_bath", "annealing", "network", "learned", "combined"])
def test_every_search_answers(trained, search):
    run, data = trained
    found = nf.infer(run, data, seed=3, search=search)
    accuracy = nf.evaluate(run, data, found)["edge_accuracy"]
    assert accuracy > {"network": 0.6, "annealing": 0.9}.get(search, 0.95)
    assert_same_bits(nf.infer(run, data, seed=3, search=search).probability, found.probability)


@pytest.mark.parametrize("search", ["network", "learned", "combined"])
def test_searches_do_not_depend_on_company(trained, search):
    run, data = trained
    whole = nf.infer(run, data, seed=3, search=search, chains=1)
    some = nf.infer(run, data.select(torch.arange(5)), seed=3, search=search)  # the same places, fewer systems
    assert_same_bits(some.adjacency, whole.adjacency[:5])
    assert_same_bits(some.probability, whole.probability[:5])
    assert_same_bits(some.energy, whole.energy[:5])


def test_more_chains_are_no_worse(trained):
    run, data = trained
    one = nf.infer(run, data, search="learned").energy
    several = nf.infer(run, data, search="learned", chains=3).energy
    assert float(several.mean()) <= float(one.mean()) * 1.05


def test_a_chain_that_starts_wrong_is_put_right(trained):
    run, data = trained
    systems, graph = run.systems(data), run.systems(data).graph
    wrong = torch.tensor([0.9, 0.1], dtype=torch.float64).repeat(graph.edges, 1)
    found = chain_search(run.library, systems, run.error_measure(), 5, Table(wrong, None))
    truth = nf.infer(run, data, search="heat_bath")
    assert float((graph.adjacency(found.edge_types) == truth.adjacency).double().mean()) > 0.9


def test_searches_that_cannot_be(trained):
    run, data = trained
    without = dataclasses.replace(run, network=None)
    for arguments, message in (
        ({"search": "guess"}, "search: expected one of heat_bath, annealing"),
        ({"chains": 0}, "chains: expected 1, or more"),
        ({"chains": 2}, "chains: expected 1, or more with search 'learned' or 'combined', got 2 with 'heat_bath'"),
    ):
        with pytest.raises(ValueError, match=message):
            nf.infer(run, data, **arguments)
    for search in ("network", "learned"):
        with pytest.raises(ValueError, match=f"search: '{search}' needs a run with a proposal network"):
            nf.infer(without, data, search=search)
    assert nf.infer(without, data, search="combined").adjacency.shape == (12, 4, 4)
    short = nf.TrajectoryData(data.states[:, :5], None, data.feature_names)
    with pytest.raises(ValueError, match="data: expected at least 6 steps, got 5"):
        nf.infer(without, short, search="combined")


def test_tables_of_a_table_proposer_are_those_of_the_batch():
    torch.manual_seed(1)
    systems = nf.SystemSet.complete(torch.randn(5, STEPS, 3, 2))
    table = Table(torch.rand(30, 2).double(), torch.rand(15, 3).double())
    batch = systems.batch([3, 1])
    part = table.of(batch)
    assert_same_bits(part.edge, torch.cat([table.edge[18:24], table.edge[6:12]]))
    assert_same_bits(part.node, torch.cat([table.node[9:12], table.node[3:6]]))
    assert TableProposer(batch.graph, part, "node").kind == "node"


# ---- the experiment ----


def test_what_learned_proposals_are_worth(tmp_path, monkeypatch):
    settings = nf.Settings(steps=20, batch=10, message=8, edge_hidden=(8,), node_hidden=(8,), rollout=5)
    monkeypatch.setattr(proposals, "MODULES", settings)
    monkeypatch.setattr(proposals, "HIDDEN", 8)
    monkeypatch.setitem(proposals.LESSONS, "small", {5: (12, 8, 6), 10: (6, 4, 3)})
    monkeypatch.setitem(proposals.TESTED, "small", 3)
    monkeypatch.setitem(proposals.PROPOSALS, "small", 80)
    result = runner.run_experiment("proposals", out=tmp_path / "x", progress=False, say=lambda line: None)
    chains = result["parts"]["springs10-chains"]["figures"]
    assert len(chains["random"]["accuracy"]) == len(chains["random"]["seconds"]) == 41
    assert len(chains["start"]["accuracy"]) == 2 + 2  # nothing known, the network's structure, two proposals
    assert chains["start"]["seconds"][1] > chains["forward_seconds"]
    for way in ("random", "random_annealed", "edge", "node", "system"):
        assert 0.5 <= chains[way]["accuracy"][0] < 0.7  # a random start, under the better labelling
    alone = result["parts"]["springs5-network-alone"]["figures"]
    assert {len(alone[name]) for name in ("network", "heat_bath", "annealing")} == {2}
    assert len(result["table"]["rows"]) == 9


def test_teaching_goes_on_to_the_bit(tmp_path, trained, monkeypatch):
    run, data = trained
    systems = run.systems(data)
    found = heat_bath_search(run.library, systems, run.error_measure())
    monkeypatch.setattr(teach_module, "CHECKPOINT_SECONDS", -1.0)
    options = {"network": "mlp", "hidden": 8, "steps": 12, "batch": 4}
    whole = teach_module.taught_network(run.library, systems, found, **options, checkpoints=Checkpoints(tmp_path / "a"))
    steps = []

    def stop(step, total, rate):
        steps.append(step)
        if len(steps) == 7:
            raise KeyboardInterrupt
        return schedule.one_cycle(step, total, rate)

    interrupted = Checkpoints(tmp_path / "b")
    with monkeypatch.context() as patch:
        patch.setattr(teach_module, "one_cycle", stop)
        with pytest.raises(KeyboardInterrupt):
            teach_module.taught_network(run.library, systems, found, **options, checkpoints=interrupted)
    with pytest.raises(FileExistsError, match="holds checkpoints of another training"):
        teach_module.taught_network(run.library, systems, found, **options, checkpoints=interrupted)
    resumed = teach_module.taught_network(run.library, systems, found, **options, checkpoints=interrupted, resume=True)
    for name, value in whole.state_dict().items():
        assert torch.equal(value, resumed.state_dict()[name]), name
    other = {**options, "hidden": 9}
    with pytest.raises(nf.CheckpointError, match="belongs to another training"):
        teach_module.taught_network(run.library, systems, found, **other, checkpoints=interrupted, resume=True)


def test_a_run_is_taught(trained, tmp_path):
    run, data = trained
    bare = dataclasses.replace(run, network=None, settings=dataclasses.replace(run.settings, network="none"))
    options = {"hidden": 8, "steps": 5, "batch": 4, "progress": False}
    taught = nf.teach(bare, data, **options, out=tmp_path / "fast")
    assert bare.network is None
    loaded = nf.Run.load(tmp_path / "fast")
    assert_same_bits(
        nf.infer(loaded, data, search="network").probability, nf.infer(taught, data, search="network").probability
    )
    assert_same_bits(nf.infer(loaded, data).probability, nf.infer(bare, data).probability)
    with pytest.raises(FileExistsError, match="not empty; pass another, or resume"):
        nf.teach(bare, data, **options, out=tmp_path / "fast")
    nf.teach(bare, data, **options, out=tmp_path / "fast", resume=True)
    with pytest.raises(ValueError, match=r"network: expected one of mlp, cnn, mlp\+structure, cnn\+structure, got"):
        nf.teach(bare, data, network="structure")


def test_teaching_from_the_command_line(trained, tmp_path, capsys):
    run, data = trained
    dataclasses.replace(run, network=None, settings=dataclasses.replace(run.settings, network="none")).save(
        tmp_path / "run"
    )
    nf.save_trajectories(data, tmp_path / "data")
    paths = [str(tmp_path / "run"), str(tmp_path / "data")]
    small = ["--hidden", "8", "--steps", "4", "--batch", "4", "--out", str(tmp_path / "fast")]
    assert cli.main(["teach", *paths, *small]) == 0
    assert "next: nri-fast evaluate" in capsys.readouterr().out
    evaluated = ["evaluate", str(tmp_path / "fast"), paths[1], "--split", "train", "--json", "--search"]
    for search in ("network", "learned"):
        assert cli.main([*evaluated, search]) == 0
        assert 0.5 <= json.loads(capsys.readouterr().out)["edge_accuracy"] <= 1.0
    assert cli.main([*evaluated, "learned", "--chains", "2"]) == 0
    assert cli.main(["evaluate", *paths, "--split", "train", "--search", "network"]) == 2
    assert "needs a run with a proposal network" in capsys.readouterr().err
