"""From recordings to files: windows, velocities, splits by recording, and the command."""

import numpy as np
import pytest
import torch

import nri_fast
from nri_fast import cli
from nri_fast.commands.convert import SOURCES
from nri_fast.readers.convert import Cut, convert, to_trajectories
from nri_fast.readers.recording import DataError, Recording, Source, every_kth, whole
from nri_fast.readers.splits import split_recordings
from nri_fast.readers.velocities import with_velocities
from nri_fast.readers.windows import cut_windows


def source_of(*states, names=("x", "y"), dt=0.5, **more):
    recordings = [
        Recording(f"r{k}", len(s), tuple(f"e{i}" for i in range(s.shape[1])), dt, whole(s), **more)
        for k, s in enumerate(states)
    ]
    return Source("here", names, recordings)


def noise(*shape):
    return np.random.default_rng(0).normal(size=shape)


def in_pieces(states, *ends):
    return np.split(states, ends)


# Velocities ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("ends", [(), (1,), (3, 4), (1, 2, 3, 4, 5, 6)])
def test_central_differences_are_numpys(ends):
    states = noise(7, 3, 2)
    found = np.concatenate(list(with_velocities(in_pieces(states, *ends), [0, 1], 0.5, "central")))
    assert np.array_equal(found[..., :2], states)
    assert np.allclose(found[..., 2:], np.gradient(states, 0.5, axis=0))


@pytest.mark.parametrize("ends", [(), (1,), (3, 4)])
def test_backward_differences_know_nothing_of_the_next_step(ends):
    states = noise(7, 3, 2)
    found = np.concatenate(list(with_velocities(in_pieces(states, *ends), [1], 0.5, "backward")))
    assert np.isnan(found[0, :, 2]).all()
    assert np.allclose(found[1:, :, 2], np.diff(states[..., 1], axis=0) / 0.5)


def test_differences_are_one_sided_where_an_entity_appears_or_disappears():
    states = np.arange(7.0)[:, None, None] ** 2 + np.zeros((1, 2, 1))
    states[[0, 1, 5], 0] = np.nan
    found = np.concatenate(list(with_velocities([states], [0], 1.0, "central")))
    assert np.isnan(found[[0, 1, 5], 0, 1]).all()
    assert found[2:5, 0, 1].tolist() == [5, 6, 7]  # 9 - 4; (16 - 4) / 2; 16 - 9
    assert np.isnan(found[6, 0, 1])  # alone: nothing to tell a velocity from


def test_only_velocities_that_lack_are_estimated():
    states = noise(6, 3, 3)
    data = to_trajectories(source_of(states, names=("x", "vx", "y")))
    assert data.feature_names == ("x", "vx", "y", "vy")
    assert np.allclose(data.states[0, ..., 3].numpy(), np.gradient(states[..., 2], 0.5, axis=0))
    assert "central differences" in data.origin.notes["velocities"]
    assert to_trajectories(source_of(states, names=("x", "vx", "y")), Cut(velocities="none")).features == 3
    late = to_trajectories(source_of(states, names=("x", "vx", "y")), Cut(velocities="backward"))
    assert late.steps == 5
    assert late.origin.first_step.tolist() == [1]


# Windows ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("length", [2, 3, 5])
@pytest.mark.parametrize("stride", [1, 2, 5, 7])
@pytest.mark.parametrize("ends", [(), (4,), (1, 2, 9)])
def test_windows_are_slices_however_the_pieces_come(length, stride, ends):
    states = noise(16, 3, 2)
    found = list(cut_windows(in_pieces(states, *ends), length, stride))
    starts = range(0, 16 - length + 1, stride)
    assert [w.first_step for w in found] == list(starts)
    for window, start in zip(found, starts, strict=True):
        assert np.array_equal(window.states, states[start : start + length])


def test_windows_keep_who_is_there_throughout_and_need_two():
    states = noise(9, 3, 1)
    states[4, 0] = states[7:, 1] = np.nan
    found = list(cut_windows([states], 3, 3))
    assert [(w.first_step, w.kept.tolist()) for w in found] == [(0, [0, 1, 2]), (3, [1, 2]), (6, [0, 2])]
    states[:, 1] = np.nan
    assert [w.first_step for w in cut_windows([states], 3, 3)] == [0, 6]


def test_windows_keep_who_is_there_for_long_enough():
    states = noise(10, 4, 1)
    states[5:, 0] = states[2:, 1] = states[1::2, 2] = np.nan  # half of the steps, two, every other one
    kept = {least: [w.kept.tolist() for w in cut_windows([states], 10, 10, least)] for least in (0.0, 0.5, 0.51)}
    assert kept == {0.0: [[0, 1, 3]], 0.5: [[0, 3]], 0.51: []}
    window = next(cut_windows([states], 10, 10, 0.5))
    assert np.array_equal(window.states, states[:, [0, 3]], equal_nan=True)


def test_systems_keep_lengths_and_who_is_there(tmp_path):
    late, whole = noise(9, 3, 2), noise(12, 4, 2)
    late[:4, 2] = late[6, 0] = np.nan
    done = convert(source_of(late, whole), tmp_path)
    assert "2 systems of 3 to 4 entities, 9 to 12 steps, 93.3% of their states there, from 2" in done.lines[0]
    data = nri_fast.load_trajectories(tmp_path)
    assert data.lengths.tolist() == [9, 12]
    assert data.present[0, :9, :3].equal(torch.from_numpy(~np.isnan(late).any(-1)))
    assert not data.present[0, :, 3].any()
    assert data.present[1].all()
    assert np.array_equal(data.states[1, ..., :2].numpy(), whole)
    backward = to_trajectories(source_of(late, whole), Cut(velocities="backward"))
    assert not backward.present[0, 3, 2]  # comes at step 4, from which its first velocity is told
    assert not backward.present[0, 6, 0]  # back at step 7: the step before is lost
    only = to_trajectories(source_of(late, whole), Cut(window=4, min_presence=1))
    assert only.present is None
    assert only.sizes.tolist() == [2, 2, 4, 4, 4]
    part = to_trajectories(source_of(late, whole), Cut(window=4))
    assert part.sizes.tolist() == [2, 3, 4, 4, 4]
    assert not part.present[1, 2, 0]


def test_large_systems_are_copied_in_blocks(tmp_path, monkeypatch):
    short, long = noise(5, 2, 3), noise(11, 3, 3)
    short[2, 0] = np.nan
    once = to_trajectories(source_of(short, long, names=("a", "b", "c")))
    monkeypatch.setattr("nri_fast.readers.systems_file.BLOCK", 20)
    blocks = to_trajectories(source_of(short, long, names=("a", "b", "c")))
    assert torch.equal(once.states, blocks.states)
    assert torch.equal(once.present, blocks.present)


@pytest.mark.parametrize("ends", [(), (1,), (4, 5, 6)])
def test_every_kth_step(ends):
    states = noise(11, 2, 1)
    for k in (1, 2, 3, 20):
        assert np.array_equal(np.concatenate(list(every_kth(in_pieces(states, *ends), k))), states[::k])


@pytest.mark.parametrize(
    "wrong",
    [
        {"window": 1},
        {"stride": 2},
        {"window": 3, "stride": 0},
        {"every": 0},
        {"velocities": "guess"},
        {"min_presence": 1.5},
    ],
)
def test_cuts_out_of_range(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong)) if "stride" not in wrong else "stride"):
        Cut(**wrong)


# Splits -------------------------------------------------------------------------------------------------------------


def test_splits_go_by_recording(tmp_path):
    source = source_of(*(noise(20, 3, 2) + k for k in range(10)))
    done = convert(source, tmp_path, Cut(window=5, stride=1), valid=0.1, test=0.25, seed=3)
    assert sorted(file.name for file in done.files) == ["test.npz", "train.npz", "valid.npz"]
    names = [set(nri_fast.load_trajectories(tmp_path, s).origin.recording_names) for s in ("train", "valid", "test")]
    assert [len(n) for n in names] == [7, 1, 2]
    assert set.union(*names) == {f"r{k}" for k in range(10)}
    assert split_recordings(10, 0.1, 0.25, 3) == split_recordings(10, 0.1, 0.25, 3)
    assert split_recordings(10, 0.1, 0.25, 3) != split_recordings(10, 0.1, 0.25, 4)
    assert split_recordings(3, 0.01, 0, 0).count("valid") == 1
    for valid, test, recordings in ((0.5, 0.5, 10), (0, 0.1, 1), (-0.1, 0, 5), (0, 1, 5)):
        with pytest.raises(ValueError, match="expected"):
            split_recordings(recordings, valid, test, 0)


# Files --------------------------------------------------------------------------------------------------------------


def test_files_round_trip(tmp_path):
    edges = np.zeros((3, 3), np.uint8)
    edges[0, 2] = 2
    source = source_of(noise(8, 3, 2), noise(8, 3, 2) + 1, edges=edges, node_types=np.array([0, 1, 1], np.uint8))
    convert(source, tmp_path, Cut(window=4), name="mine")
    data = nri_fast.load_trajectories(tmp_path)
    assert (data.name, data.split, data.systems) == ("mine", "train", 4)
    assert data.edges[3].tolist() == edges.tolist()
    assert data.node_types[0].tolist() == [0, 1, 1]
    nri_fast.save_trajectories(data, tmp_path / "copy.npz")
    again = nri_fast.load_trajectories(tmp_path / "copy.npz")
    assert torch.equal(again.states, data.states)
    assert again.origin.recording_names == data.origin.recording_names
    assert np.array_equal(again.origin.entity_names, data.origin.entity_names)
    assert again.origin.notes == data.origin.notes
    assert torch.equal(again.origin.first_step, torch.tensor([0, 4, 0, 4]))
    chosen = again.select(torch.tensor([3, 0]))
    assert chosen.origin.recording.tolist() == [1, 0]


def test_nothing_is_overwritten_and_nothing_is_left_lying_about(tmp_path):
    source = source_of(noise(8, 3, 2))
    convert(source, tmp_path)
    before = (tmp_path / "train.npz").read_bytes()
    with pytest.raises(FileExistsError, match=r"train\.npz"):
        convert(source, tmp_path)
    holes = noise(8, 3, 2)
    holes[::2] = np.nan
    with pytest.raises(DataError, match="recording 'r0': expected an entity that is there at two steps in succession"):
        convert(source_of(holes), tmp_path, Cut(velocities="none"), name="other")
    assert [file.name for file in tmp_path.iterdir()] == ["train.npz"]
    assert (tmp_path / "train.npz").read_bytes() == before


def test_labels_of_some_recordings_only_contradict(tmp_path):
    one, two = source_of(noise(8, 3, 2), edges=np.zeros((3, 3), np.uint8)), source_of(noise(8, 3, 2))
    mixed = Source("here", ("x", "y"), [*one.recordings, *two.recordings])
    with pytest.raises(DataError, match=r"here: expected labels \(edges\) of all recordings or of none"):
        convert(mixed, tmp_path)


# The command --------------------------------------------------------------------------------------------------------


def call(*arguments):
    return cli.main([str(argument) for argument in arguments])


@pytest.mark.parametrize("source", SOURCES)
def test_every_source_explains_its_arguments(source, capsys):
    with pytest.raises(SystemExit) as ended:
        call("convert", source, "--help")
    assert ended.value.code == 0
    text = capsys.readouterr().out
    for argument in ("--out", "--window", "--stride", "--min-presence", "--every", "--velocities", "--valid", "--test"):
        assert argument in text


def test_convert_from_the_command_line(tmp_path, capsys):
    np.savez(tmp_path / "runs.npz", a=noise(30, 3, 3), b=noise(25, 4, 3), dt=0.1)
    arguments = ("convert", "npz", tmp_path / "runs.npz", "--recordings", "--features", "x", "y", "speed")
    assert call(*arguments, "--window", 10, "--test", 0.5, "--out", tmp_path / "data") == 0
    said = capsys.readouterr().out
    assert "train.npz: " in said
    assert "steps, from 1 recordings, features x, y, speed, vx, vy" in said
    assert nri_fast.load_trajectories(tmp_path / "data", "test").steps == 10
    assert call(*arguments, "--window", 10, "--out", tmp_path / "data") == 2
    assert "already there" in capsys.readouterr().err
    assert call(*arguments, "--out", tmp_path / "other") == 0
    assert "2 systems of 3 to 4 entities, 25 to 30 steps, from 2 recordings" in capsys.readouterr().out
    both = nri_fast.load_trajectories(tmp_path / "other")
    assert both.lengths.tolist() == [30, 25]
    assert both.sizes.tolist() == [3, 4]
    assert call("convert", "platoons", tmp_path / "runs.npz", "--window", 10, "--out", tmp_path / "cars") == 0


def test_every_source_is_reached_from_the_command_line(tmp_path, capsys):
    """A file that is not there: each source's reader says so, by name."""
    rest = {"csv": ("--features", "x"), "parquet": ("--features", "x")}
    for source in SOURCES:
        if source == "parquet":
            pytest.importorskip("pyarrow", reason="pyarrow is not installed")
        arguments = ("convert", source, tmp_path / "nowhere", *rest.get(source, ()), "--out", tmp_path / "out")
        assert call(*arguments) == 2, source
        assert "nowhere" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
