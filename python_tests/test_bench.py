"""The benchmarks' own arithmetic: counts, turns, agreement of the peers. No time is asserted."""

import dataclasses
import functools
import importlib.util
import json
import sys

import pytest
import torch

import nri_fast as nf
from bench import __main__ as command
from bench import cases, heat_bath, limits, rows, summary, time_to_accuracy
from bench.agreement import accepted, agreement, near_ties
from bench.anneal import Chain
from bench.flops import Shape, body_step, perceptron
from bench.peers.bodies import Bodies
from bench.peers.bucketed import Bucketed
from bench.peers.dense_heat_bath import DenseHeatBath
from bench.peers.geometric import WAYS, Geometric
from bench.peers.masked import Masked
from bench.peers.one_at_a_time import OneAtATime
from bench.peers.trainer_script import watch_script
from bench.timer import TURN, Times, interleaved
from nri_fast import _core, ops

TINY = cases.Effort("tiny", 0.0, 0.01, (8,), (3,), (1, 5), (1,), least=2)


@pytest.fixture(autouse=True)
def _threads_as_before():
    before = ops.get_threads(), torch.get_num_threads()
    yield
    ops.set_threads(before[0])
    torch.set_num_threads(before[1])


def test_a_graph_step_of_the_papers_size():
    shape = cases.Case(256, 5, 1, 1).shape
    assert perceptron(shape.edge_sizes) == 266_240
    assert perceptron(shape.node_sizes) == 397_312
    assert shape.graph_step() == 20 * 266_240 + 5 * 397_312
    assert shape.energy(48) == 48 * shape.graph_step()


def test_a_gradient_is_three_passes_but_for_recorded_states():
    # Two entities, two edges; modules 4-3-5 and 7-6-2 with two features.
    shape = Shape((4, 3, 5), (7, 6, 2), 2)
    edge, node = 2 * (4 * 3 + 3 * 5), 2 * (7 * 6 + 6 * 2)
    assert shape.graph_step() == 2 * edge + 2 * node
    into_recorded = 2 * (2 * 4 * 3) + 2 * (2 * 2 * 6)
    assert shape.energy_gradient(1, 1) == 3 * (2 * edge + 2 * node) - into_recorded
    assert shape.energy_gradient(10, 5) == 10 * 3 * (2 * edge + 2 * node) - 5 * into_recorded


def test_heat_bath_operations_by_hand():
    # Three entities, two types: 6 edges, 12 messages, 4 assignments a receiver, 12 rows.
    shape = Shape((4, 3, 5), (7, 6, 8, 2), 3)
    messages = 12 * (2 * (4 * 3 + 3 * 5) + 2 * 5 * 6)
    own, node_rows = 3 * 2 * 2 * 6, 12 * 2 * (6 * 8 + 8 * 2)
    assert shape.heat_bath_scores() == messages + own + node_rows
    everything = shape.heat_bath_gradient(12, 12)
    assert everything == 2 * messages - 12 * 2 * 4 * 3 + own + 2 * node_rows
    assert shape.heat_bath_gradient(3, 6) == messages - 6 * 2 * 4 * 3 + own + node_rows / 2


def test_body_steps_by_hand():
    assert body_step(2, charged=False) == 8 + 16
    assert body_step(3, charged=True) == 3 * 13 + 24


def test_cases_are_cut_down_to_the_work_allowed():
    case = cases.Case(64, 5, 100, 1)
    assert case.fitted(1e9) == case
    step = case.systems * case.shape.graph_step() / 1e9
    assert case.fitted(10.5 * step) == dataclasses.replace(case, steps=11)
    assert case.fitted(2.5 * step) == dataclasses.replace(case, steps=3, rollout=2)
    assert case.fitted(2.5 * step, passes=3).systems == 41
    assert case.fitted(1e-12).systems == 1


def test_competitors_take_turns():
    order = []
    times = interleaved({"a": lambda: order.append("a"), "b": lambda: order.append("b")}, 0.0, least=3)
    turns = "".join(order)
    assert turns.startswith("ab")
    squeezed = "".join(x for x, before in zip(turns, " " + turns, strict=False) if x != before)
    assert squeezed == "ab" * 4  # warming up, and three rounds
    # The first of every short turn is not measured, nor is warming up.
    assert len(times["a"].seconds) == turns.count("a") - 4
    assert TURN > 0


def test_the_median_and_the_quartiles():
    figures = Times([1.0, 2.0, 3.0, 4.0, 100.0]).figures()
    assert figures["median_ms"] == 3000.0
    assert (figures["lower_quartile_ms"], figures["upper_quartile_ms"]) == (2000.0, 4000.0)
    assert (figures["fastest_ms"], figures["slowest_ms"], figures["repetitions"]) == (1000.0, 100_000.0, 5)


def test_multiply_adds_are_counted():
    one = _core.fma_operations(1, 1)
    assert one > 0
    assert _core.fma_operations(2, 5) == 5 * one


def test_limits_are_rates():
    floor = limits.limits(1)
    times = {name: Times([2.0, 2.0]) for name in floor}
    assert limits.figures(floor, times)["copy_gb_per_s"] == round(floor["copy_gb_per_s"].amount / 2, 1)


@pytest.mark.parametrize("case", [cases.Case(8, 3, 7, 1, steps=8, rollout=3), cases.Case(6, 4, 2, 1, edge_types=3)])
@pytest.mark.parametrize("form", [Bucketed, Masked, OneAtATime])
def test_plain_torch_agrees(case, form):
    problem = cases.RolloutProblem.of(case)
    expected = problem.energies(problem.library.flat_parameters().detach())
    peer = form(problem)
    rows.check_close("energies", peer.energies(), expected)
    rows.check_close("energies with gradient", peer.gradient(), expected)
    theirs = [value.grad.clone() for value in problem.library.parameters()]
    problem.library.zero_grad()
    problem.gradient()
    for got, value in zip(theirs, problem.library.parameters(), strict=True):
        rows.check_close("gradient", got, value.grad)


@pytest.mark.skipif(importlib.util.find_spec("torch_geometric") is None, reason="torch_geometric is not installed")
@pytest.mark.parametrize("way", WAYS)
def test_pytorch_geometric_agrees(way):
    problem = cases.RolloutProblem.of(cases.Case(8, 3, 7, 1, steps=8, rollout=3))
    expected = problem.energies(problem.library.flat_parameters().detach())
    rows.check_close(way, Geometric(problem, way).energies(), expected)


def test_a_peer_that_differs_is_refused():
    with pytest.raises(RuntimeError, match="wrong: differs"):
        rows.check_close("wrong", torch.tensor([1.0, 2.1]), torch.tensor([1.0, 2.0]))
    with pytest.raises(RuntimeError, match="wrong: differs"):
        rows.check_close("wrong", torch.tensor([1.0, torch.nan]), torch.tensor([1.0, 2.0]))


@pytest.mark.parametrize("factor", [heat_bath.HOT, heat_bath.COLD])
def test_the_dense_heat_bath_agrees(factor):
    case = cases.Case(8, 4, 3, 1, steps=6)
    problem = heat_bath.HeatBathStep.of(case)
    peer = DenseHeatBath(problem.library, case.entities, heat_bath.SCALE_SQUARED)
    rows.check_close("scores", peer.scores(problem.states).flatten(), problem.scores())
    theirs = heat_bath.gradient_of(problem, functools.partial(peer.step, problem.states, factor))
    ours = heat_bath.gradient_of(problem, functools.partial(problem.step, factor))
    rows.check_close("gradient", theirs, ours)


def test_live_rows_and_messages():
    problem = heat_bath.HeatBathStep.of(cases.Case(8, 4, 3, 1, steps=6))
    assert problem.live(1e6) == (4 * 8, 4 * 3 * 2)  # hot: everything
    assert problem.live(1e-9) == (4, 4 * 3)  # cold: one assignment a receiver


@pytest.mark.parametrize("kind", ["springs", "charged"])
def test_simulated_bodies_agree(kind):
    data = nf.simulate(kind, 20, seed=3, steps=20 if kind == "springs" else 3)
    peer = Bodies(kind, data.edges.numpy(), data.states[:, 0].numpy())
    rows.check_close(kind, torch.from_numpy(peer.frames(data.steps)), data.states)


@pytest.mark.parametrize("name", [name for name in command.subjects_with(limit=1.0) if name != "time_to_accuracy"])
def test_every_subject_gives_whole_rows(name):
    found = list(command.subjects_with(limit=1.0)[name](TINY))
    if name == "bf16" and not _core.bf16_available():
        assert not found
        pytest.skip("no AVX-512 BF16 here")
    assert found
    for row in found:
        assert row["subject"] == name
        assert {"width", "entities", "systems", "threads", "steps", "rollout"} <= set(row["case"])
        assert row["limits"]["peak_gflops"] > 0
        assert row["gflop"] > 0
        for peer, run in row["runs"].items():
            assert run["repetitions"] >= TINY.least
            assert run["lower_quartile_ms"] <= run["median_ms"] <= run["upper_quartile_ms"]
            assert run["gflops"] == pytest.approx(row["gflop"] / run["median_ms"] * 1e3, rel=1e-3)
            assert run["of_peak"] == pytest.approx(run["gflops"] / row["limits"]["peak_gflops"], rel=1e-2)
            assert ("times_slower" in run) == (peer != rows.OURS)
        json.dumps(row)
        assert rows.describe(row).startswith(row["work"])


def test_time_to_accuracy_gives_rows():
    found = list(time_to_accuracy.rows(TINY, limit=100.0))
    assert len(found) == 1
    for run in found[0]["runs"].values():
        assert run["curve"][0][1] == 1  # looks at the first step
        assert set(run["reached_s"]) == {"0.99"}
    json.dumps(found[0])
    assert "99%" in rows.describe(found[0])


def test_a_script_is_watched_through_what_it_prints(tmp_path):
    script = tmp_path / "trainer.py"
    script.write_text(
        "import sys\n"
        "assert sys.argv[1] == 'springs' and '--systems=3' in sys.argv and '--threads=1' in sys.argv\n"
        "print('loading')\n"
        "for step in (5, 10): print(f'step {step}  loss -1.0  held-out edges 0.9{step}  {step / 4} s')\n"
    )
    found = list(time_to_accuracy.rows(TINY, limit=100.0, beside=script))
    run = found[0]["runs"]["trainer.py"]
    assert run["curve"] == [(1.25, 5, 0.95), (2.5, 10, 0.91)]
    assert run["last_accuracy"] == 0.91
    assert "trainer.py" in rows.describe(found[0])


def test_a_script_is_given_up_or_its_failure_told(tmp_path):
    script = tmp_path / "trainer.py"
    script.write_text("import time\nprint('step 1 held-out edges 0.5  1.0 s', flush=True)\ntime.sleep(600)\n")
    recipe = time_to_accuracy.Recipe(4, 3, 2, 0.1)
    assert watch_script(script, "springs", 3, recipe, 1, 1, limit=2.0) == [(1.0, 1, 0.5)]
    script.write_text("raise SystemExit('no such option')\n")
    with pytest.raises(RuntimeError, match="no such option"):
        watch_script(script, "springs", 3, recipe, 1, 1, limit=60.0)


def test_an_accuracy_is_reached_when_two_looks_see_it():
    watch = time_to_accuracy.Watch((0.9,), limit=100.0)
    watch.curve = [(1.0, 1, 0.95), (2.0, 2, 0.5), (3.0, 3, 0.91), (4.0, 4, 0.92)]
    watch.inference = 0.5
    assert watch.reached(0.9) == 3.5
    assert watch.reached(0.93) is None


def test_the_command_refuses_unknown_subjects(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["bench", "nonsense"])
    with pytest.raises(SystemExit):
        command.main()
    assert "time_to_accuracy" in capsys.readouterr().err


def test_the_summary_reads_what_the_command_writes(monkeypatch, tmp_path):
    names = ["energy", "anneal", "network", "ragged", "scaling", "time_to_accuracy"]
    # The summary tells batches from single systems, and of annealing those of 128 and more.
    effort = dataclasses.replace(TINY, systems=(1, 128))
    monkeypatch.setattr(command.cases, "quick", lambda: effort)
    monkeypatch.setattr(command, "QUICK_RESULTS", tmp_path)
    monkeypatch.setattr(sys, "argv", ["bench", *names])
    command.main()
    monkeypatch.setattr(summary, "RESULTS", tmp_path)
    titles = [title for title, _, _ in summary.speed_rows()]
    assert any(title.startswith("energy, 128 systems") for title in titles)
    for words in ("99% of held-out edges", "imitation step", "partly absent"):
        assert any(words in title for title in titles)
    assert {work for work, _ in summary.contest_rows()} == {"energy"}
    summary.draw()
    assert (tmp_path / "peak.png").exists()
    assert (tmp_path / "scaling.png").exists()


def test_sweeps_in_one_call_are_those_one_by_one():
    case = cases.Case(8, 3, 4, 1)
    together, apart = Chain(case), Chain(case)
    together.run()
    apart.run_one_by_one()
    assert torch.equal(together.types, apart.types)
    assert torch.equal(together.energy, apart.energy)
    assert torch.equal(together.counts, apart.counts)


def test_agreement_of_two_ways_to_decide():
    """Energies that are the same decide the same; a rise that is half of one decides some otherwise, no near-ties."""
    case = cases.Case(8, 4, 50, 1)
    same = Chain(case)
    alike = agreement(same, same.energies, 6)
    assert (alike.decisions, alike.differing, alike.largest_difference) == (300, 0, 0.0)
    other, calls = Chain(case), []

    def shifted(types):
        calls.append(None)
        return other.energies(types) * (1.5 if len(calls) % 2 else 1.0)

    apart = agreement(other, shifted, 6)
    assert apart.largest_difference == pytest.approx(0.5)
    assert 0 < apart.differing < 300
    assert apart.differing_near_ties <= min(apart.differing, apart.near_ties)
    for name in ("types", "energy", "counts"):  # the first way's decisions are kept
        assert torch.equal(getattr(same, name), getattr(other, name))


def test_near_ties_by_hand():
    """At temperature 0 the sign of the difference decides: a millionth is near, a percent is not."""
    graph = nf.MegaGraph.complete(4, 2)
    current = torch.tensor([1.0, 1.0, 1.0, 1.0], dtype=torch.float64)
    proposed = torch.tensor([1.0 + 1e-6, 1.0 - 1e-6, 1.01, 0.99], dtype=torch.float64)
    draws, cold = ops.Draws(0, 0, torch.arange(4)), torch.zeros(1, dtype=torch.float64)
    assert accepted(graph, draws, cold, current, proposed).tolist() == [False, True, False, True]
    assert near_ties(graph, draws, cold, current, proposed).tolist() == [True, True, False, False]
