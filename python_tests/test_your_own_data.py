"""The walk-through of docs/your-own-data.md, command for command."""

import csv
import json
import re
import shlex
from pathlib import Path

import numpy as np
import pytest

import nri_fast
from nri_fast import cli

PAGE = Path(__file__).resolve().parents[1] / "docs" / "your-own-data.md"


def blocks(kind):
    return re.findall(rf"^```{kind}\n(.*?)^```$", PAGE.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)


def accuracy(capsys):
    capsys.readouterr()
    assert cli.main(["evaluate", "run", "labelled", "--json"]) == 0
    return json.loads(capsys.readouterr().out)["edge_accuracy"]


def test_the_walk_through_does_what_it_says(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    make_table, in_python = blocks("python")
    exec(compile(make_table, str(PAGE), "exec"), {})
    commands = [line for block in blocks("sh") for line in block.replace("\\\n", " ").splitlines()]
    assert [shlex.split(command)[1] for command in commands] == ["convert", "train", "report", "convert", "evaluate"]
    said = []
    for command in commands:
        assert cli.main(shlex.split(command)[1:]) == 0, command
        said.append(capsys.readouterr())
    page = PAGE.read_text(encoding="utf-8")
    for line in said[0].out.splitlines():
        assert f"    {line}\n" in page
    assert (tmp_path / "ants.csv").read_text().splitlines()[:3] == [
        line.strip() for line in re.findall(r"^    (day,second.*|0,0,[ab],.*)$", page, re.MULTILINE)
    ]
    rows = list(csv.DictReader((tmp_path / "graphs.csv").read_text().splitlines()))
    data = nri_fast.load_trajectories(tmp_path / "data", "test")
    assert {row["recording"] for row in rows} == set(data.origin.recording_names)
    assert {row["sender"] for row in rows} == set("abcd")
    # What the page promises: the graphs of days never seen are found, and the report shows them.
    assert accuracy(capsys) > 0.95
    assert said[2].err == ""  # no warning
    report = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert "No sign that training ended at chance" in report
    assert report.count('class="left-out"') == 0
    # And the law: one type does nothing; through the other, a receiver takes over 0.05 of the difference.
    learned = nri_fast.Run.load("run")
    measured = nri_fast.influence(learned, data, nri_fast.infer(learned, data))
    vx = data.feature_names.index("vx")
    slopes = [np.polyfit(measured.difference[:, vx], change[:, vx], 1)[0] for change in measured.change]
    assert min(slopes, key=abs) == pytest.approx(0, abs=0.005)
    assert max(slopes, key=abs) == pytest.approx(0.05, rel=0.2)
    exec(compile(in_python, str(PAGE), "exec"), {})
    assert "torch.Size([240, 20, 4, 4])" in capsys.readouterr().out


@pytest.mark.slow
@pytest.mark.parametrize("seed", [3, 6, 9, 12])
def test_the_walk_through_works_with_other_seeds(seed, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    exec(compile(blocks("python")[0], str(PAGE), "exec"), {})
    commands = [line for block in blocks("sh") for line in block.replace("\\\n", " ").splitlines()]
    for command in (commands[0], f"{commands[1]} --seed {seed}", commands[3]):
        assert cli.main(shlex.split(command)[1:]) == 0, command
    assert accuracy(capsys) > 0.95
