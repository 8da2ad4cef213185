"""What bench/device_check.sh relies on, as far as it can be tried without a GPU."""

import importlib.util
import itertools
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from bench import cases, device_report, pytest_device, time_to_accuracy
from bench.device import __main__ as device
from bench.device.contest import Round
from bench.rows import OURS, use_threads
from nri_fast import ops

ROOT = Path(__file__).resolve().parents[1]
CPU = torch.device("cpu")
MACHINE_TESTS = ROOT / "bench" / "sanitizer_tests.txt"


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    """The file that the command writes, one subject after the other."""
    out = tmp_path_factory.mktemp("device") / "bench.json"
    before = ops.get_threads(), torch.get_num_threads()
    use_threads(1)
    try:
        for name in device.SUBJECTS:
            if name != "compiled":  # takes a minute
                assert device.measure_subject(name, CPU, cases.tiny(), out, "test")
    finally:
        ops.set_threads(before[0])
        torch.set_num_threads(before[1])
    return json.loads(out.read_text())


@pytest.mark.parametrize("name", ["energy", "gradient", "heat_bath", "anneal", "simulate"])
def test_rows_of_the_operations(tiny, name):
    assert tiny[name]["finished"]
    assert tiny[name]["limits"]["copy_gb_per_s"] > 0
    assert tiny[name]["rows"]
    for row in tiny[name]["rows"]:
        assert row["subject"] == name
        for peer, run in row["runs"].items():
            assert run["tflops"] == pytest.approx(row["gflop"] / run["median_ms"], rel=1e-2)
            assert run["graph_steps_per_s"] == pytest.approx(1e3 * row["graph_steps"] / run["median_ms"], rel=1e-2)
            assert run["host_ms"] > 0
            assert (peer == OURS) == ("differs_by" not in run)


def test_peers_take_part(tiny):
    peers = {name: {*tiny[name]["rows"][0]["runs"]} - {OURS} for name in ("energy", "gradient", "heat_bath")}
    geometric = {"HeteroLinear"} if importlib.util.find_spec("torch_geometric") else set()
    assert peers == {
        "energy": {"bucketed", "masked"} | geometric,
        "gradient": {"bucketed", "masked"},
        "heat_bath": {"dense"},
    }


def test_rows_of_runs_and_of_mega_graphs(tiny):
    [run] = tiny["training"]["rows"]
    assert run["runs"][OURS]["curve"][0][1] == 1
    assert all(row["figures"]["same_bits"] for row in tiny["mega_graph"]["rows"])


def test_a_row_that_fails_stops_no_other(tmp_path, monkeypatch, capsys):
    def broken():
        raise RuntimeError("no such\nluck")

    def one_and_another(*_):
        yield broken
        yield lambda: {
            "subject": "training",
            "work": "w",
            "case": {},
            "runs": {OURS: time_to_accuracy.Watch((), 1.0).figures()},
        }

    monkeypatch.setitem(device.SUBJECTS, "training", one_and_another)
    out = tmp_path / "new" / "bench.json"
    assert not device.measure_subject("training", CPU, cases.tiny(), out, "test")
    first, second = json.loads(out.read_text())["training"]["rows"]
    assert first["problem"] == "RuntimeError: no such"
    assert second["work"] == "w"
    assert "FAILED: RuntimeError" in capsys.readouterr().out


def test_a_peer_that_is_wrong_or_broken_is_left_out():
    contest = Round(CPU, torch.ones(3))
    contest.peer("right", lambda: (list, lambda: torch.ones(3)))
    contest.peer("wrong", lambda: (list, lambda: torch.tensor([1.0, 1.0, 1.1])))
    contest.peer("mute", lambda: (list, lambda: torch.tensor([1.0, 1.0, torch.nan])))
    contest.peer("broken", lambda: 1 // 0)
    assert [*contest.competitors] == ["right"]
    assert contest.left_out["wrong"].startswith("differs by 0.1 ")
    assert contest.left_out["mute"].startswith("differs by nan")
    assert contest.left_out["broken"].startswith("ZeroDivisionError")


def test_the_command_needs_the_gpu_that_it_is_asked_for(monkeypatch):
    monkeypatch.setattr(sys, "argv", ["device", "energy"])
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(SystemExit, match="no GPU"):
        device.main()


def test_workers_share_the_processors():
    shares = [pytest_device.own_processors(f"gw{n}", 8, range(16)) for n in range(9)]
    assert sorted(itertools.chain(*shares[:8])) == [*range(16)]
    assert shares[8] == shares[0]  # one that took a lost worker's place
    assert pytest_device.own_processors("gw1", 8, range(4)) == [0, 1, 2, 3]
    assert pytest_device.own_processors("", 1, range(4)) == [0, 1, 2, 3]


def test_the_summary_counts_tests_and_steps(tmp_path, monkeypatch):
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    suite = (
        '<testsuites><testsuite name="pytest"><testcase classname="a" name="b" time="1.5"/>{}</testsuite></testsuites>'
    )
    (scratch / "tests.xml").write_text(
        suite.format('<testcase classname="c" name="d"><failure message="why"/></testcase>')
    )
    (scratch / "tests_slow.xml").write_text(suite.format('<testcase classname="e" name="f"><skipped/></testcase>'))
    (scratch / "cut_off.xml").write_text("<testsuites><testsu")
    (scratch / "facts.txt").write_text("a GPU\n")
    (scratch / "steps.tsv").write_text("build\tfailed\t3\t9\tno\nbuild\tpassed\t3\t9\t\ntests\tfailed\t4\t5\tone\n")
    monkeypatch.setattr(sys, "argv", ["device_report", str(tmp_path), str(scratch)])
    with pytest.raises(SystemExit) as exit_:
        device_report.main()
    assert exit_.value.code == 1
    summary = json.loads((tmp_path / "summary.json").read_text())
    assert [(step["name"], step["status"]) for step in summary["steps"]] == [("build", "passed"), ("tests", "failed")]
    counts = {name: summary["tests"][name] for name in ("tests", "passed", "failed", "errors", "skipped")}
    assert counts == {"tests": 4, "passed": 2, "failed": 1, "errors": 0, "skipped": 1}
    assert summary["tests"]["failures"] == [{"test": "c::d", "message": "why"}]
    assert (tmp_path / "summary.txt").read_text().startswith("a GPU\n")
    assert (tmp_path / "summary.txt").read_text().endswith("NOT everything passed\n")
    (scratch / "steps.tsv").write_text("build\tpassed\t3\t9\t\nsanitizer\tabsent\t0\t0\tnot installed\n")
    with pytest.raises(SystemExit) as exit_:
        device_report.main()
    assert exit_.value.code == 0


def test_the_sanitizers_tests_exist():
    names = [line for line in MACHINE_TESTS.read_text().splitlines() if line and not line.startswith("#")]
    assert all("[cuda-" in name or "[cuda]" in name for name in names)
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "--collect-only", "-q", *names], cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert sum("::" in line for line in done.stdout.splitlines()) == len(names)


@pytest.mark.parametrize(
    ("environment", "said"), [({"STAGES": "build lunch"}, "got 'lunch'"), ({"MINUTES": "ten"}, "got 'ten'")]
)
def test_the_script_refuses_nonsense(environment, said, tmp_path):
    script = ROOT / "bench" / "device_check.sh"
    environment = {**os.environ, "OUT": str(tmp_path / "out"), **environment}
    done = subprocess.run(["bash", script], env=environment, capture_output=True, text=True)
    assert done.returncode == 2
    assert said in done.stderr
    assert not (tmp_path / "out").exists()


def test_the_script_promises_as_many_files_as_may_come_back():
    text = (ROOT / "bench" / "device_check.sh").read_text()
    named = {*re.findall(r"\b[a-z_]+\.(?:txt|json|log|xml)\b", text.split("set -uo")[0])}
    assert len(named) == 8
