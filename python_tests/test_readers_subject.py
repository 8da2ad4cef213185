"""Motion capture as files, folders and archives."""

from __future__ import annotations

import io
import tarfile
import zipfile
from pathlib import Path

import numpy as np
import pytest
from test_readers_mocap import MOTION, SKELETON

from nri_fast import cli
from nri_fast.experiments import mocap
from nri_fast.experiments.runner import run_experiment
from nri_fast.readers.recording import DataError, Source
from nri_fast.readers.subject import read_subject


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two trials of a subject, the skeleton in a folder above, and something else."""
    (tmp_path / "subject" / "trials").mkdir(parents=True)
    (tmp_path / "subject" / "body.asf").write_text(SKELETON)
    for name in ("walk_02.amc", "walk_01.amc"):
        (tmp_path / "subject" / "trials" / name).write_text(MOTION)
    (tmp_path / "subject" / "README.txt").write_text("thanks")
    return tmp_path / "subject"


def states(source: Source) -> list[tuple[str, np.ndarray]]:
    return [(r.name, np.concatenate(list(r.pieces()))) for r in source.recordings]


def packed(folder: Path, name: str) -> Path:
    archive = folder.parent / name
    if name.endswith(".zip"):
        with zipfile.ZipFile(archive, "w") as file:
            for path in folder.rglob("*"):
                file.write(path, path.relative_to(folder.parent))
    else:
        with tarfile.open(archive, "w:gz" if name.endswith("gz") else "w") as file:
            file.add(folder, folder.name)
    return archive


@pytest.mark.parametrize("name", ["", "all.tar.gz", "all.tgz", "all.tar", "all.zip"])
def test_all_ways_give_the_same(folder: Path, name: str) -> None:
    files = [folder / "body.asf", *sorted(folder.rglob("*.amc"))]
    expected = states(read_subject(files))
    assert [trial for trial, _ in expected] == ["walk_01", "walk_02"]
    found = states(read_subject([folder if name == "" else packed(folder, name)]))
    for (trial, a), (other, b) in zip(found, expected, strict=True):
        assert trial == other
        assert np.array_equal(a, b)


def test_the_pieces_may_come_from_several_places(folder: Path) -> None:
    source = read_subject([folder / "trials", folder / "body.asf"])
    assert [recording.name for recording in source.recordings] == ["walk_01", "walk_02"]


def test_nothing_is_written_outside(folder: Path, tmp_path: Path) -> None:
    archive = tmp_path / "evil.tar"
    with tarfile.open(archive, "w") as file:
        member = tarfile.TarInfo("../../outside.amc")
        member.size = len(MOTION)
        file.addfile(member, io.BytesIO(MOTION.encode()))
    with pytest.raises(DataError, match=r"evil\.tar: cannot be unpacked: .*outside"):
        read_subject([archive])
    assert not list(tmp_path.parent.rglob("outside.amc"))


def test_what_is_wrong_is_named(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"nowhere: no such file or folder"):
        read_subject([tmp_path / "nowhere"])
    with pytest.raises(DataError, match=r"README\.txt: expected \.asf, \.amc, a folder, or an archive"):
        read_subject([folder / "README.txt"])
    with pytest.raises(DataError, match=r"expected one skeleton \(\.asf\) and motions .*, got 0 and 2"):
        read_subject([folder / "trials"])
    broken = packed(folder, "all.tar.gz")
    broken.write_bytes(broken.read_bytes()[:200])
    with pytest.raises(DataError, match=r"all\.tar\.gz: cannot be unpacked"):
        read_subject([broken])
    (folder / "again").mkdir()
    (folder / "again" / "walk_01.amc").write_text(MOTION)
    with pytest.raises(DataError, match=r"expected different motions, got walk_01\.amc twice"):
        read_subject([folder])


def test_commands_take_a_folder_and_an_archive(folder: Path, tmp_path: Path, monkeypatch, capsys) -> None:
    archive = packed(folder, "all.tar.gz")
    assert cli.main(["convert", "mocap", str(archive), "--out", str(tmp_path / "data")]) == 0
    assert "from 2 recordings" in capsys.readouterr().out
    monkeypatch.setattr(mocap, "parts", lambda scale, seed, files: pytest.fail(str(mocap.trials(files)[0])))
    monkeypatch.setattr(mocap, "EXPERIMENT", mocap.Experiment(mocap.parts, mocap.report, "trials"))
    monkeypatch.setattr(mocap, "BURN_IN", 1)
    monkeypatch.setattr(mocap, "AHEAD", 1)
    for given in (folder, archive):
        with pytest.raises(pytest.fail.Exception, match="walk_01"):
            run_experiment("mocap", out=tmp_path / "x", data=[given])
