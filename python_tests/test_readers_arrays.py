"""Array files of the field: read in either order of axes, and refused by file and key where they are damaged."""

import pickle

import numpy as np
import pytest
import torch

import nri_fast
from nri_fast.readers.convert import Cut, to_trajectories
from nri_fast.readers.npy_family import read_fmml, read_kuramoto, read_nri
from nri_fast.readers.npz_arrays import read_npz, read_npz_recordings
from nri_fast.readers.platoons import read_platoons
from nri_fast.readers.recording import DataError


@pytest.fixture
def random():
    return np.random.default_rng(0)


def directed(systems, n):
    """Edges that are not symmetric, [systems, from, to]."""
    edges = np.random.default_rng(1).integers(0, 2, (systems, n, n))
    edges[:, 0, 1:], edges[:, 1:, 0] = 1, 0
    edges[:, np.arange(n), np.arange(n)] = 0
    return edges


# NRI ----------------------------------------------------------------------------------------------------------------


def nri(folder, loc, vel=None, edges=None, split="train", name="springs5"):
    folder.mkdir(exist_ok=True)
    for kind, array in (("loc", loc), ("vel", vel), ("edges", edges)):
        if array is not None:
            np.save(folder / f"{kind}_{split}_{name}.npy", array)
    return folder


@pytest.mark.parametrize("own_order", [True, False])
@pytest.mark.parametrize("labels", [True, False])
def test_nri_in_both_orders_of_axes(tmp_path, random, own_order, labels):
    loc, vel = random.normal(size=(2, 4, 6, 5, 2))
    edges = directed(4, 5)
    swap = (lambda a: a.transpose(0, 1, 3, 2)) if own_order else (lambda a: a)
    folder = nri(tmp_path, swap(loc), swap(vel), edges.transpose(0, 2, 1) if labels else None)
    data = to_trajectories(read_nri(folder, time_step=0.1))
    assert np.array_equal(data.states.numpy(), np.concatenate([loc, vel], -1))
    assert data.feature_names == ("x", "y", "vx", "vy")
    assert data.origin.time_step.tolist() == [0.1] * 4
    assert (data.edges is not None) == labels
    if labels:
        assert np.array_equal(data.edges.numpy(), edges)
    if own_order:  # the package's own reader says the same
        assert torch.equal(nri_fast.load_trajectories(folder).states, data.states)


def test_nri_axes_that_cannot_be_told_must_be_named(tmp_path, random):
    loc = random.normal(size=(3, 6, 2, 3))
    folder = nri(tmp_path, loc)
    with pytest.raises(DataError, match=r"loc_train_springs5\.npy.*name the order of the axes \(--axes\)"):
        read_nri(folder)
    named = to_trajectories(read_nri(folder, axes="systems-steps-entities-dimensions"))
    assert named.entities == 2
    assert named.feature_names == ("x", "y", "z", "vx", "vy", "vz")  # velocities estimated
    nri(folder, loc, edges=directed(3, 3))
    assert to_trajectories(read_nri(folder)).entities == 3  # the labels tell
    with pytest.raises(DataError, match="with 3 entities, as the labels have"):
        read_nri(folder, axes="systems-steps-entities-dimensions")


def test_nri_keeps_its_splits(tmp_path, random):
    for split, count in (("train", 3), ("test", 2)):
        nri(tmp_path, random.normal(size=(count, 6, 2, 5)), split=split)
    source = read_nri(tmp_path)
    assert [r.split for r in source.recordings].count("test") == 2
    assert to_trajectories(source, split="test").systems == 2
    with pytest.raises(ValueError, match=r"split: expected one of test, train"):
        to_trajectories(source)


def test_nri_refuses_what_does_not_fit(tmp_path, random):
    loc = random.normal(size=(3, 6, 2, 5))
    nri(tmp_path, loc, loc[:, :5])
    with pytest.raises(DataError, match=r"vel_train_springs5\.npy: expected the shape of loc_train_springs5\.npy"):
        read_nri(tmp_path)
    nri(tmp_path, loc, loc, np.zeros((3, 4, 5)))
    with pytest.raises(DataError, match=r"edges_train_springs5\.npy: expected \[systems, N, N\]"):
        read_nri(tmp_path)
    nri(tmp_path, loc, loc, np.full((3, 5, 5), 0.5))
    with pytest.raises(ValueError, match=r"edges_train_springs5\.npy.*got 0\.5 at \[0, 0, 1\]"):
        read_nri(tmp_path)
    nri(tmp_path, loc, loc, np.zeros((3, 5, 5)))
    nri(tmp_path, loc, loc, name="other")
    with pytest.raises(FileNotFoundError, match="found other, springs5"):
        read_nri(tmp_path)
    assert len(read_nri(tmp_path, "other").recordings) == 3
    bad = loc.copy()
    bad[1, 2, 0, 3] = np.inf
    nri(tmp_path, bad, loc)
    with pytest.raises(DataError, match=r"recording 'train 1', entity '3', step 2, feature 'x'.*got inf"):
        to_trajectories(read_nri(tmp_path, "springs5"))
    with pytest.raises(FileNotFoundError, match="no such folder"):
        read_nri(tmp_path / "nowhere")


# FMML and Kuramoto --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("layout", ["without diagonal", "flat", "square", "signs"])
@pytest.mark.parametrize("steps_first", [True, False])
def test_fmml(tmp_path, random, layout, steps_first):
    states, edges = random.normal(size=(3, 7, 4, 4)), directed(3, 4)
    stored = edges.transpose(0, 2, 1)
    off = ~np.eye(4, dtype=bool)
    if layout == "without diagonal":
        stored = stored[:, off]
    elif layout == "flat":
        stored = stored.reshape(3, 16)
    elif layout == "signs":
        stored = 2 * stored[:, off] - 1
    np.save(tmp_path / "state_springs_val.npy", states if steps_first else states.transpose(0, 2, 1, 3))
    np.save(tmp_path / "edges_springs_val.npy", stored)
    data = to_trajectories(read_fmml(tmp_path))
    assert np.array_equal(data.states.numpy(), states)
    assert np.array_equal(data.edges.numpy(), edges)
    assert (data.split, data.feature_names) == ("valid", ("x", "y", "vx", "vy"))


def test_fmml_without_labels_needs_its_axes_named(tmp_path, random):
    np.save(tmp_path / "state_charged5_train.npy", random.normal(size=(3, 7, 4, 4)))
    with pytest.raises(DataError, match="name the order of the axes"):
        read_fmml(tmp_path)
    data = to_trajectories(read_fmml(tmp_path, "charged5", "systems-steps-entities-features"))
    assert (data.steps, data.entities) == (7, 4)


def test_kuramoto_is_what_the_packages_own_reader_says(tmp_path):
    data = nri_fast.simulate("kuramoto_directed", 3, entities=4, steps=6, seed=1)
    nri_fast.save_trajectories(data, tmp_path)
    read = to_trajectories(read_kuramoto(tmp_path, time_step=0.1), Cut(velocities="none"))
    assert torch.equal(read.states, data.states)
    assert torch.equal(read.edges, data.edges)
    assert read.feature_names == data.feature_names


# .npz ---------------------------------------------------------------------------------------------------------------


def test_npz_with_named_arrays_and_axes(tmp_path, random):
    states, edges = random.normal(size=(3, 7, 4, 2)), directed(3, 4)
    np.savez(tmp_path / "a.npz", traj=states.transpose(2, 0, 3, 1), graph=edges, dt=0.5, other=np.array("text"))
    source = read_npz(tmp_path / "a.npz", "traj", "graph", "entities-systems-features-steps", ("x", "y"))
    data = to_trajectories(source, Cut(velocities="backward"))
    assert np.array_equal(data.states[..., :2].numpy(), states[:, 1:])
    assert np.allclose(data.states[..., 2:].numpy(), np.diff(states, axis=1) / 0.5)
    assert np.array_equal(data.edges.numpy(), edges)
    np.savez(tmp_path / "b.npz", states=states[0], edges=edges[0])
    one = to_trajectories(read_npz(tmp_path / "b.npz", axes="steps-entities-features"))
    assert (one.systems, one.steps, one.entities) == (1, 7, 4)
    assert one.feature_names == ("f0", "f1")
    with pytest.raises(ValueError, match="axes: expected the words"):
        read_npz(tmp_path / "a.npz", "traj", axes="steps-entities")
    with pytest.raises(DataError, match=r"a\.npz: expected one array called states or trajectories, got"):
        read_npz(tmp_path / "a.npz")
    with pytest.raises(DataError, match=r"traj: expected 1 features \(x\), got 2"):
        read_npz(tmp_path / "a.npz", "traj", axes="entities-systems-features-steps", feature_names=("x",))


def test_npz_with_an_array_a_recording(tmp_path, random):
    runs = {"first": random.normal(size=(12, 3, 2)), "second": random.normal(size=(9, 4, 2))}
    np.savez(tmp_path / "a.npz", **runs, dt=0.1, notes=np.array("hello"))
    source = read_npz_recordings(tmp_path / "a.npz", ("x", "speed"))
    assert [(r.name, r.steps, len(r.entities), r.time_step) for r in source.recordings] == [
        ("first", 12, 3, 0.1),
        ("second", 9, 4, 0.1),
    ]
    data = to_trajectories(source, Cut(window=5, velocities="none"))
    assert data.sizes.tolist() == [3, 3, 4]
    assert np.array_equal(data.states[1, :, :3].numpy(), runs["first"][5:10])
    np.savez(tmp_path / "b.npz", **runs, third=random.normal(size=(9, 4, 3)))
    with pytest.raises(DataError, match=r"b\.npz: third: expected 2 features"):
        read_npz_recordings(tmp_path / "b.npz")
    np.savez(tmp_path / "c.npz", **runs, dt=0.0)
    with pytest.raises(DataError, match=r"c\.npz: dt: expected one positive number"):
        read_npz_recordings(tmp_path / "c.npz")
    np.savez(tmp_path / "d.npz", dt=0.1)
    with pytest.raises(DataError, match=r"d\.npz: expected arrays \[steps, entities, features\]"):
        read_npz_recordings(tmp_path / "d.npz")


def test_platoons_are_chains(tmp_path, random):
    np.savez(
        tmp_path / "p.npz", run0=random.normal(size=(9, 4, 3)).astype(np.float32), dt=0.1, run_meta=np.array(["{}"])
    )
    data = to_trajectories(read_platoons(tmp_path / "p.npz"), Cut(velocities="none"))
    assert data.feature_names == ("x", "y", "speed")
    assert data.edges[0].tolist() == np.eye(4, k=1, dtype=int).tolist()
    np.savez(tmp_path / "q.npz", run0=np.zeros((9, 4, 2)))
    with pytest.raises(DataError, match=r"q\.npz: run0: expected 3 features \(x, y, speed\), got 2"):
        read_platoons(tmp_path / "q.npz")


# Damage -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("share", [0.0, 0.02, 0.5, 0.99])
def test_truncated_arrays(tmp_path, random, share):
    folder = nri(tmp_path, random.normal(size=(3, 6, 2, 5)))
    file = folder / "loc_train_springs5.npy"
    file.write_bytes(file.read_bytes()[: int(share * file.stat().st_size)])
    with pytest.raises(ValueError, match=r"loc_train_springs5\.npy"):
        read_nri(folder)
    archive = tmp_path / "a.npz"
    np.savez(archive, run=np.zeros((9, 4, 2)))
    archive.write_bytes(archive.read_bytes()[: int(share * archive.stat().st_size)])
    with pytest.raises(DataError, match=r"a\.npz"):
        read_npz_recordings(archive)


def test_nothing_is_unpickled(tmp_path):
    file = tmp_path / "state_a_train.npy"
    file.write_bytes(pickle.dumps([1, 2]))
    with pytest.raises(ValueError, match=r"state_a_train\.npy: not a plain numeric array; pickled objects"):
        read_fmml(tmp_path)
    np.savez(tmp_path / "a.npz", run=np.array([{}], dtype=object))
    with pytest.raises(DataError, match=r"a\.npz: run: not a plain numeric array; pickled objects"):
        read_platoons(tmp_path / "a.npz")
