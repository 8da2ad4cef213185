"""Files of tensors and facts: whole, or not taken; and the last two checkpoints of a run."""

from __future__ import annotations

import json
import os
import struct
from pathlib import Path

import pytest
import torch
from safetensors.torch import save as save_tensors

import nri_fast as nf
from nri_fast import checkpoint
from nri_fast.checkpoint import CheckpointError, Checkpoints, load, named, part, save, write_atomically

TENSORS = {"a": torch.randn(5, 3), "b": torch.arange(7, dtype=torch.uint8), "none": torch.zeros(0, 2)}
FACTS = {"name": "ü", "list": [1, 2.5, None], "step": 7}


def refused_or_not(attempt):
    """The CheckpointError that an attempt ended in, or its result; any other error passes through."""
    try:
        return attempt()
    except CheckpointError as error:
        return error


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "file.safetensors"
    save(path, TENSORS, FACTS)
    return path


def test_round_trip(file):
    tensors, facts = load(file)
    assert facts == FACTS
    assert tensors.keys() == TENSORS.keys()
    for name, value in TENSORS.items():
        assert tensors[name].dtype == value.dtype
        assert torch.equal(tensors[name], value)
    assert os.listdir(file.parent) == [file.name]  # nothing is left beside it


def test_strided_tensors_and_shared_memory_are_saved(tmp_path):
    value = torch.randn(4, 6)
    save(tmp_path / "x", {"transposed": value.T, "part": value[1:3, ::2], "expanded": value[:1].expand(3, 6)}, {})
    tensors, _ = load(tmp_path / "x")
    assert torch.equal(tensors["transposed"], value.T)
    assert torch.equal(tensors["part"], value[1:3, ::2])
    assert torch.equal(tensors["expanded"], value[:1].expand(3, 6))


def test_owners_get_back_what_they_gave():
    ours, theirs = {"edge.0.weight": torch.ones(2), "scale": torch.zeros(1)}, {"scale": torch.ones(1)}
    tensors = named("first", ours) | named("first_step", theirs)
    assert [*tensors] == ["first.edge.0.weight", "first.scale", "first_step.scale"]
    assert part("first", tensors) == ours
    assert part("first_step", tensors) == theirs
    assert part("library", tensors) == {}


def test_every_truncation_is_noticed(file):
    content = file.read_bytes()
    header = 8 + struct.unpack("<Q", content[:8])[0]
    places = sorted({*range(0, header + 4, 3), *range(header, len(content), 5), len(content) - 1})
    for length in places:
        file.write_bytes(content[:length])
        with pytest.raises(CheckpointError, match=r"file\.safetensors: damaged"):
            load(file)


def test_every_flipped_bit_is_noticed_or_harmless(file):
    content = file.read_bytes()
    for place in range(len(content)):
        broken = bytearray(content)
        broken[place] ^= 1 << (place % 8)
        file.write_bytes(broken)
        found = refused_or_not(lambda: load(file))
        if isinstance(found, CheckpointError):
            assert "file.safetensors" in str(found)
        else:  # such as white space that pads the header
            tensors, facts = found
            assert facts == FACTS
            assert all(torch.equal(tensors[name], value) for name, value in TENSORS.items())
            assert tensors.keys() == TENSORS.keys()


def test_a_flipped_bit_of_a_weight_is_noticed(file):
    content = bytearray(file.read_bytes())
    content[-9] ^= 1
    file.write_bytes(content)
    with pytest.raises(CheckpointError, match="damaged"):
        load(file)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\0" * 100,
        b"\xff" * 100,
        b"not a checkpoint",
        save_tensors(TENSORS),
        save_tensors(TENSORS, {"other": "facts"}),
        save_tensors(TENSORS, {"facts": "{"}),
        save_tensors(TENSORS, {"facts": "{}"}),
        save_tensors(TENSORS, {"facts": "{}", "sha256": "0" * 64}),
    ],
)
def test_other_files_are_refused(content, tmp_path):
    (tmp_path / "x").write_bytes(content)
    with pytest.raises(CheckpointError, match="x: damaged or not a file of nri_fast"):
        load(tmp_path / "x")


def test_a_missing_file_and_a_folder(tmp_path):
    with pytest.raises(CheckpointError, match="gone: no such file"):
        load(tmp_path / "gone")
    with pytest.raises(CheckpointError, match="damaged or not a file"):
        load(tmp_path)


def test_nothing_is_unpickled(tmp_path):
    class Trap:
        def __reduce__(self):
            return (pytest.fail, ("a file was unpickled",))

    torch.save(Trap(), tmp_path / "x")
    with pytest.raises(CheckpointError):
        load(tmp_path / "x")


# ---- atomic writes ----


def test_a_write_that_fails_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "file"
    write_atomically(path, b"old")

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(checkpoint.os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        write_atomically(path, b"new")
    assert path.read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["file"]


def test_content_reaches_the_disk_before_its_name(tmp_path, monkeypatch):
    events = []
    real_fsync, real_replace = os.fsync, os.replace

    def fsync(descriptor: int) -> None:
        events.append(("fsync", os.readlink(f"/proc/self/fd/{descriptor}")))
        real_fsync(descriptor)

    def replace(source: Path, target: Path) -> None:
        assert Path(source).read_bytes() == b"content"
        events.append(("replace", str(target)))
        real_replace(source, target)

    monkeypatch.setattr(checkpoint.os, "fsync", fsync)
    monkeypatch.setattr(checkpoint.os, "replace", replace)
    write_atomically(tmp_path / "file", b"content")
    (first, aside), *rest = events
    assert first == "fsync"
    assert Path(aside).parent == tmp_path  # the same file system: a rename, not a copy
    assert rest == [("replace", str(tmp_path / "file")), ("fsync", str(tmp_path))]


# ---- a run's checkpoints ----


def test_the_last_two_are_kept(tmp_path):
    checkpoints = Checkpoints(tmp_path / "checkpoints")
    assert checkpoints.latest() is None
    assert not checkpoints.folder.exists()
    for step in (8, 9, 10, 100, 99_999):
        checkpoints.save(step, TENSORS, {})
    assert [p.name for p in checkpoints.paths()] == ["step-000000100.safetensors", "step-000099999.safetensors"]
    assert checkpoints.latest()[1] == {"step": 99_999}


def test_a_damaged_newest_falls_back_with_a_warning(tmp_path):
    checkpoints, said = Checkpoints(tmp_path), []
    for step in (1, 2):
        checkpoints.save(step, TENSORS, {})
    newest = checkpoints.paths()[-1]
    newest.write_bytes(newest.read_bytes()[:-5])
    assert checkpoints.latest(said.append)[1] == {"step": 1}
    assert len(said) == 1
    assert str(newest) in said[0]
    assert "falling back" in said[0]
    assert newest.exists()  # reading deletes nothing


def test_all_damaged_is_an_error_and_not_a_fresh_start(tmp_path):
    checkpoints, said = Checkpoints(tmp_path), []
    for step in (1, 2):
        checkpoints.save(step, TENSORS, {})
    for path in checkpoints.paths():
        path.write_bytes(b"")
    with pytest.raises(CheckpointError, match="damaged"):
        checkpoints.latest(said.append)
    assert len(checkpoints.paths()) == 2


def test_what_a_crash_leaves_behind_is_no_checkpoint(tmp_path):
    checkpoints = Checkpoints(tmp_path)
    checkpoints.save(1, TENSORS, {})
    whole = checkpoints.paths()[0].read_bytes()
    (tmp_path / ".step-000000002.safetensors.123.part").write_bytes(whole[:50])
    (tmp_path / ".step-000000003.safetensors.123.part").write_bytes(whole)
    assert checkpoints.latest()[1] == {"step": 1}


# ---- a run's folder ----


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    folder = tmp_path_factory.mktemp("finished") / "run"
    settings = nf.Settings(steps=2, batch=2, message=4, edge_hidden=(4,), node_hidden=(4,))
    data = nf.TrajectoryData(torch.randn(3, 4, 3, 2, generator=torch.Generator().manual_seed(0)), None, ("x", "vx"))
    return folder, nf.train(data, settings=settings, out=folder, progress=False), data


@pytest.fixture
def copied(finished, tmp_path):
    folder = tmp_path / "run"
    folder.mkdir()
    for name in ("run.json", "library.safetensors", "forecaster.safetensors", "history.json"):
        (folder / name).write_bytes((finished[0] / name).read_bytes())
    return folder


def test_a_loaded_run_is_the_run(finished, copied):
    _, run, data = finished
    again = nf.Run.load(copied)
    for name in ("normalisation", "settings", "seed", "trained_on", "history", "displacement_fit"):
        assert getattr(again, name) == getattr(run, name), name
    one, other = nf.infer(run, data), nf.infer(again, data)
    assert one.candidates is None
    assert other.candidates is None
    for name, value in vars(one).items():
        assert value is None or torch.equal(value, getattr(other, name)), name


@pytest.mark.parametrize("name", ["run.json", "library.safetensors", "forecaster.safetensors", "history.json"])
def test_missing_and_truncated_files_of_a_run_are_named(name, copied):
    content = (copied / name).read_bytes()
    (copied / name).unlink()
    with pytest.raises(CheckpointError, match=f"{name}: no such file"):
        nf.Run.load(copied)
    for length in {0, 1, 9, *range(0, len(content) - 2, max(1, len(content) // 23)), len(content) - 2}:
        (copied / name).write_bytes(content[:length])
        with pytest.raises(CheckpointError, match=str(copied)):
            nf.Run.load(copied)


def test_a_folder_that_is_no_run(tmp_path):
    for folder in (tmp_path, tmp_path / "missing"):
        with pytest.raises(CheckpointError, match=r"run.json: no such file"):
            nf.Run.load(folder)


@pytest.mark.parametrize("name", ["run.json", "history.json"])
def test_odd_json_in_a_run_is_damage(name, copied):
    facts = json.loads((copied / name).read_text())
    wrong = [None, 3, [], "word"]
    wrong += [{**facts, key: value} for key in facts for value in (None, "word", [1], {"a": 1})]
    wrong += [{k: v for k, v in facts.items() if k != key} for key in facts]
    # What only describes the run, and a seed or history entries of another type, harm nobody.
    harmless = {"seed", "trained_on"} | ({*facts} if name == "history.json" else set())
    for value in wrong:
        (copied / name).write_text(json.dumps(value))
        found = refused_or_not(lambda: nf.Run.load(copied))
        if isinstance(found, CheckpointError):
            assert str(copied) in str(found)
        else:
            assert isinstance(value, dict)
            changed = {key for key in facts if value.get(key) != facts[key]}
            assert changed <= harmless


def test_a_newer_format_is_refused(copied):
    facts = json.loads((copied / "run.json").read_text())
    (copied / "run.json").write_text(json.dumps(facts | {"format": facts["format"] + 1}))
    with pytest.raises(CheckpointError, match="format 3, expected 2"):
        nf.Run.load(copied)


def test_a_library_of_another_shape_is_refused(copied):
    tensors, shape = load(copied / "library.safetensors")
    shape["library"]["message"] += 1
    save(copied / "library.safetensors", tensors, shape)
    with pytest.raises(CheckpointError, match="damaged or not a run"):
        nf.Run.load(copied)
