"""Files: what is written is read back, real files are read, and damaged ones are refused by name."""

from __future__ import annotations

import os
import pickle
from pathlib import Path

import hypothesis.strategies as st
import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis.extra import numpy as hnp

from nri_fast.formats import KURAMOTO_FEATURES, TrajectoryData, hold_out, load_trajectories, save_trajectories
from nri_fast.normalisation import Normalisation
from nri_fast.simulate import simulate

REAL = Path(__file__).resolve().parents[2] / "shared" / "data"
BODIES = ("x", "y", "vx", "vy")


def example(
    systems=4, steps=3, entities=3, names=BODIES, edges=True, name="springs3", split="train", seed=0, nodes=False
):
    random = np.random.default_rng(seed)
    states = torch.from_numpy(random.normal(size=(systems, steps, entities, len(names))))
    types = None
    if edges:
        types = torch.from_numpy(random.integers(0, 2, size=(systems, entities, entities), dtype=np.uint8))
        types *= 1 - torch.eye(entities, dtype=torch.uint8)
    node_types = torch.from_numpy(random.integers(0, 3, size=(systems, entities), dtype=np.uint8)) if nodes else None
    return TrajectoryData(states, types, names, name=name, split=split, node_types=node_types)


def assert_same(a, b):
    assert torch.equal(a.states, b.states)
    assert (a.edges is None) == (b.edges is None)
    if a.edges is not None:
        assert torch.equal(a.edges, b.edges)
    assert (a.node_types is None) == (b.node_types is None)
    if a.node_types is not None:
        assert torch.equal(a.node_types, b.node_types)
    assert (a.feature_names, a.name, a.split) == (b.feature_names, b.name, b.split)


@pytest.mark.parametrize("names", [("x", "vx"), BODIES, ("x", "y", "z", "vx", "vy", "vz"), KURAMOTO_FEATURES, ("a",)])
@pytest.mark.parametrize("edges", [True, False])
def test_folder_round_trip(tmp_path, names, edges):
    data = example(names=names, edges=edges, split="valid")
    files = save_trajectories(data, tmp_path / "new")
    assert all(file.exists() for file in files)
    assert sorted(os.listdir(tmp_path / "new")) == sorted(file.name for file in files)  # nothing left lying about
    assert_same(load_trajectories(tmp_path / "new", "valid"), data)


@pytest.mark.parametrize("names", [BODIES, KURAMOTO_FEATURES, ("a",)])
def test_entity_types_go_through_files_selections_and_splits(tmp_path, names):
    data = example(names=names, nodes=True)
    save_trajectories(data, tmp_path)
    assert_same(load_trajectories(tmp_path), data)
    save_trajectories(data, tmp_path / "one.npz")
    assert torch.equal(load_trajectories(tmp_path / "one.npz").node_types, data.node_types)
    assert torch.equal(data.select(torch.tensor([2, 0])).node_types, data.node_types[[2, 0]])
    kept, held_out = hold_out(data, count=1)
    assert torch.equal(torch.cat([kept.node_types, held_out.node_types]).sort(0).values, data.node_types.sort(0).values)


def test_entity_types_that_do_not_fit(tmp_path):
    data = example(nodes=True)
    with pytest.raises(TypeError, match=r"node_types: expected a uint8 tensor, got torch.int64"):
        TrajectoryData(data.states, None, BODIES, node_types=data.node_types.long())
    with pytest.raises(ValueError, match=r"node_types: expected \[systems, entities\] = \[4, 3\], got \[4, 2\]"):
        TrajectoryData(data.states, None, BODIES, node_types=data.node_types[:, :2])
    save_trajectories(data, tmp_path)
    file = tmp_path / "nodes_train_springs3.npy"
    for bad, message in [
        (np.full((4, 3), -1), r"entity types to be whole numbers from 0 to 255, got -1 at \[0, 0\]"),
        (np.zeros((4, 2)), r"expected \[systems, entities\] = \[4, 3\], got \[4, 2\]"),
        (np.zeros(4), "expected 2 dimensions"),
    ]:
        np.save(file, bad)
        with pytest.raises(ValueError, match=message):
            load_trajectories(tmp_path)


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    states=hnp.arrays(
        np.float64,
        hnp.array_shapes(min_dims=4, max_dims=4, min_side=1, max_side=4),
        elements=st.floats(allow_nan=False, allow_infinity=False),
    ),
    seed=st.integers(0, 1000),
)
def test_npz_round_trip_keeps_every_bit(tmp_path, states, seed):
    systems, _, entities, features = states.shape
    types = np.random.default_rng(seed).integers(0, 256, size=(systems, entities, entities), dtype=np.uint8)
    types[:, np.arange(entities), np.arange(entities)] = 0
    names = tuple(f"f{d}" for d in range(features))
    data = TrajectoryData(torch.from_numpy(states), torch.from_numpy(types), names, name="any", split="test")
    file = tmp_path / "any.npz"
    file.unlink(missing_ok=True)
    save_trajectories(data, file)
    assert_same(load_trajectories(file, "test"), data)


def test_npy_edges_are_receiver_by_sender(tmp_path):
    data = example(systems=1)
    edges = torch.zeros(1, 3, 3, dtype=torch.uint8)
    edges[0, 0, 2] = 1  # from 0 to 2
    data = TrajectoryData(data.states, edges, data.feature_names, name="one", split="train")
    save_trajectories(data, tmp_path)
    in_file = np.load(tmp_path / "edges_train_one.npy")
    assert in_file[0, 2, 0] == 1
    assert in_file.sum() == 1


def test_real_springs():
    folder = REAL / "nri_springs5"
    if not folder.exists():
        pytest.skip(f"{folder.name} is not beside the project")
    data = load_trajectories(folder)
    assert data.states.shape == (500, 49, 5, 4)
    assert data.name == "springs5"
    loc = np.load(folder / "loc_train_springs5.npy")
    vel = np.load(folder / "vel_train_springs5.npy")
    assert data.states[7, 11, 3].tolist() == [*loc[7, 11, :, 3], *vel[7, 11, :, 3]]
    assert set(data.edges.unique().tolist()) == {0, 1}
    normal = Normalisation.learn(data).apply(data.states)
    assert normal.dtype == torch.float32
    assert (float(normal[..., :2].min()), float(normal[..., :2].max())) == (-1.0, 1.0)
    assert (float(normal[..., 2:].min()), float(normal[..., 2:].max())) == (-1.0, 1.0)


def test_real_charged_signs_become_types():
    folder = REAL / "nri_charged5_short"
    if not folder.exists():
        pytest.skip(f"{folder.name} is not beside the project")
    data = load_trajectories(folder, "valid")
    assert data.states.shape == (1000, 7, 5, 4)
    signs = np.load(folder / "edges_valid_charged5.npy")
    expected = (signs > 0) & ~np.eye(5, dtype=bool)
    assert np.array_equal(data.edges.numpy(), expected.astype(np.uint8))


def test_npz_with_other_keys_and_names(tmp_path):
    states, edges = np.zeros((2, 3, 2, 2), np.float32), np.zeros((2, 2, 2), bool)
    np.savez(tmp_path / "train.npz", trajectories=states, adjacency=edges)
    data = load_trajectories(tmp_path)
    assert data.feature_names == ("f0", "f1")
    assert data.edges is not None
    assert load_trajectories(tmp_path / "train.npz", feature_names=("x", "vx")).feature_names == ("x", "vx")


def test_names_choose_between_data_sets(tmp_path):
    one, two = example(name="one", seed=1), example(name="two", seed=2)
    save_trajectories(one, tmp_path)
    save_trajectories(two, tmp_path)
    with pytest.raises(ValueError, match=r"several data sets.*loc_train_one\.npy, loc_train_two\.npy"):
        load_trajectories(tmp_path)
    assert_same(load_trajectories(tmp_path, name="two"), two)
    assert_same(load_trajectories(tmp_path, name="_one"), one)
    with pytest.raises(FileNotFoundError, match="'three'"):
        load_trajectories(tmp_path, name="three")


def test_nothing_is_overwritten(tmp_path):
    data = example()
    (tmp_path / "edges_train_springs3.npy").write_text("mine")
    with pytest.raises(FileExistsError, match=r"edges_train_springs3\.npy"):
        save_trajectories(data, tmp_path)
    assert os.listdir(tmp_path) == ["edges_train_springs3.npy"]
    assert (tmp_path / "edges_train_springs3.npy").read_text() == "mine"
    save_trajectories(data, tmp_path / "a.npz")
    with pytest.raises(FileExistsError, match=r"a\.npz"):
        save_trajectories(data, tmp_path / "a.npz")


def test_missing(tmp_path):
    with pytest.raises(FileNotFoundError, match="nowhere"):
        load_trajectories(tmp_path / "nowhere")
    with pytest.raises(FileNotFoundError, match=r"'train' split.*data files there: none"):
        load_trajectories(tmp_path)
    save_trajectories(example(), tmp_path)
    with pytest.raises(FileNotFoundError, match=r"'test' split.*loc_train_springs3\.npy"):
        load_trajectories(tmp_path, "test")
    (tmp_path / "vel_train_springs3.npy").unlink()
    with pytest.raises(FileNotFoundError, match=r"vel_train_springs3\.npy"):
        load_trajectories(tmp_path)
    with pytest.raises(ValueError, match=r"loc_train_springs3\.npy: expected a folder or an \.npz file"):
        load_trajectories(tmp_path / "loc_train_springs3.npy")


def test_other_splits_are_named(tmp_path):
    save_trajectories(simulate("springs", 2, steps=3, split="valid"), tmp_path)
    with pytest.raises(
        FileNotFoundError, match=r"but one with 'valid': name it as the split \(--split valid\); data files"
    ):
        load_trajectories(tmp_path)


@pytest.mark.parametrize("file", ["loc_train_springs3.npy", "vel_train_springs3.npy", "edges_train_springs3.npy"])
@pytest.mark.parametrize("share", [0.0, 0.02, 0.5, 0.99])
def test_truncated_npy(tmp_path, file, share):
    save_trajectories(example(), tmp_path)
    whole = (tmp_path / file).read_bytes()
    (tmp_path / file).write_bytes(whole[: int(share * len(whole))])
    with pytest.raises(ValueError, match=file.replace(".", r"\.")):
        load_trajectories(tmp_path)


@pytest.mark.parametrize("share", [0.0, 0.02, 0.5, 0.99])
def test_truncated_npz(tmp_path, share):
    save_trajectories(example(), tmp_path / "a.npz")
    whole = (tmp_path / "a.npz").read_bytes()
    (tmp_path / "a.npz").write_bytes(whole[: int(share * len(whole))])
    with pytest.raises(ValueError, match=r"a\.npz"):
        load_trajectories(tmp_path / "a.npz")


def test_npz_with_a_flipped_byte(tmp_path):
    save_trajectories(example(), tmp_path / "a.npz")
    damaged = bytearray((tmp_path / "a.npz").read_bytes())
    damaged[300] ^= 0xFF
    (tmp_path / "a.npz").write_bytes(damaged)
    with pytest.raises(ValueError, match=r"a\.npz: states: damaged"):
        load_trajectories(tmp_path / "a.npz")


class Trap:
    """Leaves a file behind if it is ever unpickled."""

    def __init__(self, mark):
        self.mark = mark

    def __reduce__(self):
        return (open, (self.mark, "w"))


@pytest.mark.parametrize("kind", ["object array", "bare pickle", "npz"])
def test_pickled_objects_are_refused_and_never_run(tmp_path, kind):
    mark = tmp_path / "mark"
    save_trajectories(example(), tmp_path / "data")
    trap = np.array([Trap(str(mark))], dtype=object)
    path = tmp_path / "data"
    if kind == "object array":
        np.save(path / "loc_train_springs3.npy", trap, allow_pickle=True)
    elif kind == "bare pickle":
        (path / "loc_train_springs3.npy").write_bytes(pickle.dumps(Trap(str(mark))))
    else:
        path = tmp_path / "trap.npz"
        np.savez(path, states=trap)
    with pytest.raises(ValueError, match=r"pickled objects could run code and are refused"):
        load_trajectories(path)
    assert not mark.exists()


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"states": np.zeros((3, 2, 2))}, r"states: expected 4 dimensions .*got 3 with shape \[3, 2, 2\]"),
        ({"states": np.zeros((1, 3, 2, 2), complex)}, "expected real numbers, got dtype complex128"),
        ({"states": np.array([[[["a"]]]])}, "expected real numbers"),
        ({"other": np.zeros((1, 3, 2, 2))}, r"expected an array 'states' or 'trajectories', got \['other'\]"),
        ({"states": np.zeros((1, 3, 2, 2)), "trajectories": np.zeros(1)}, "got both"),
        ({"states": np.zeros((0, 3, 2, 2))}, "at least one system"),
        ({"states": np.zeros((1, 3, 2, 2)), "feature_names": np.array(["x"])}, "expected 2 different names"),
        ({"states": np.zeros((1, 3, 2, 2)), "feature_names": np.array(["x", "x"])}, "expected 2 different names"),
        ({"states": np.zeros((1, 3, 2, 2)), "edges": np.zeros((2, 2))}, r"edges: expected 3 dimensions"),
        ({"states": np.zeros((1, 3, 2, 2)), "edges": np.zeros((2, 2, 2))}, r"= \[1, 2, 2\], got \[2, 2, 2\]"),
        ({"states": np.zeros((1, 3, 2, 2)), "edges": np.full((1, 2, 2), 0.5)}, r"got 0.5 at \[0, 0, 1\]"),
        ({"states": np.zeros((1, 3, 2, 2)), "edges": np.full((1, 2, 2), 256)}, r"got 256 at \[0, 0, 1\]"),
        ({"states": np.zeros((1, 3, 2, 2)), "edges": np.full((1, 2, 2), -2)}, r"got -2 at \[0, 0, 1\]"),
        ({"states": np.zeros((1, 3, 2, 2)), "edges": np.full((1, 2, 2), np.nan)}, r"got nan at \[0, 0, 1\]"),
        ({"states": np.zeros((1, 3, 2, 2)), "edges": np.array([[[0, -1], [0, 0]]])}, r"got 0 at \[0, 1, 0\]"),
    ],
)
def test_npz_that_does_not_fit(tmp_path, arrays, message):
    np.savez(tmp_path / "bad.npz", **arrays)
    with pytest.raises(ValueError, match=rf"bad\.npz.*{message}"):
        load_trajectories(tmp_path / "bad.npz")


def test_npy_family_that_does_not_fit(tmp_path):
    save_trajectories(example(), tmp_path)
    np.save(tmp_path / "vel_train_springs3.npy", np.zeros((4, 3, 2, 2)))
    with pytest.raises(ValueError, match=r"vel_train_springs3\.npy: expected the shape of loc_train_springs3\.npy"):
        load_trajectories(tmp_path)
    for prefix in ("loc", "vel"):
        np.save(tmp_path / f"{prefix}_train_springs3.npy", np.zeros((4, 3, 4, 3)))
    with pytest.raises(ValueError, match=r"loc_train_springs3\.npy: expected 1 to 3 dimensions"):
        load_trajectories(tmp_path)
    np.save(tmp_path / "loc_train_springs3.npy", np.zeros((4, 3, 2)))
    with pytest.raises(ValueError, match=r"loc_train_springs3\.npy: expected 4 dimensions"):
        load_trajectories(tmp_path)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_bad_numbers_are_named(tmp_path, value):
    data = example()
    loc_file = save_trajectories(data, tmp_path)[0]
    loc = np.load(loc_file)
    loc[2, 1, 1, 0] = value  # system 2, step 1, dimension y, entity 0
    np.save(loc_file, loc)
    message = rf"loc_train_springs3\.npy.*got {value} at system 2, step 1, entity 0, feature 'y' \(1 bad"
    with pytest.raises(ValueError, match=message):
        load_trajectories(tmp_path)


def test_data_checks_its_arguments():
    states = torch.zeros(2, 3, 2, 1)
    diagonal = torch.zeros(2, 2, 2, dtype=torch.uint8)
    diagonal[1, 1, 1] = 1
    with pytest.raises(TypeError, match="expected a floating-point tensor"):
        TrajectoryData(states.int(), None, ("a",))
    with pytest.raises(TypeError, match="expected a uint8 tensor"):
        TrajectoryData(states, torch.zeros(2, 2, 2), ("a",))
    with pytest.raises(ValueError, match="expected 4 dimensions"):
        TrajectoryData(states[0], None, ("a",))
    with pytest.raises(ValueError, match="zero diagonal"):
        TrajectoryData(states, diagonal, ("a",))
    assert TrajectoryData(states, None, ("a",)).states.dtype == torch.float64


@settings(max_examples=50, deadline=None)
@given(systems=st.integers(2, 40), seed=st.integers(0, 10**6), data=st.data())
def test_hold_out_never_shares_a_system(systems, seed, data):
    count = data.draw(st.integers(1, systems - 1))
    states = torch.arange(systems, dtype=torch.float64).reshape(systems, 1, 1, 1)
    kept, held = hold_out(TrajectoryData(states, None, ("a",)), count=count, seed=seed)
    assert held.systems == count
    assert sorted(kept.states.flatten().tolist() + held.states.flatten().tolist()) == list(range(systems))


def test_hold_out_arguments():
    data = example(systems=10)
    assert hold_out(data, fraction=0.25)[1].systems == 2
    assert_same(hold_out(data, count=3, seed=5)[1], hold_out(data, count=3, seed=5)[1])
    for arguments in ({}, {"count": 1, "fraction": 0.1}, {"count": 10}, {"count": 0}, {"fraction": 1.5}):
        with pytest.raises(ValueError):
            hold_out(data, **arguments)


def test_normalisation_shares_ranges_within_groups():
    data = example(names=("x", "y", "vx", "vy", "charge"))
    learned = Normalisation.learn(data)
    assert learned.low[0] == learned.low[1] == float(data.states[..., :2].min())
    assert learned.high[2] == learned.high[3] == float(data.states[..., 2:4].max())
    assert learned.high[4] == float(data.states[..., 4].max())
    assert Normalisation.from_dict(learned.to_dict()) == learned


@settings(max_examples=100, deadline=None)
@given(
    states=hnp.arrays(
        np.float64, (1, 3, 2, 2), elements=st.floats(-1e300, 1e300, allow_nan=False, allow_subnormal=True)
    )
)
def test_normalisation_range_and_inverse(states):
    data = TrajectoryData(torch.from_numpy(states), None, ("a", "b"))
    learned = Normalisation.learn(data)
    normal = learned.apply(data.states, torch.float64)
    assert torch.isfinite(normal).all()
    assert normal.abs().max() <= 1 + 1e-12
    scale = data.states.abs().amax(dim=(0, 1, 2))
    assert ((learned.undo(normal) - data.states).abs() <= 4e-12 * scale).all()


def test_normalisation_of_a_constant():
    states = torch.full((1, 3, 2, 1), 7.0)
    learned = Normalisation.learn(TrajectoryData(states, None, ("a",)))
    assert torch.equal(learned.apply(states), torch.zeros(1, 3, 2, 1))
    assert torch.equal(learned.undo(learned.apply(states)), states.double())


def test_normalisation_refuses_what_does_not_fit():
    learned = Normalisation(("a",), (0.0,), (1.0,))
    with pytest.raises(ValueError, match="expected 1 features"):
        learned.apply(torch.zeros(3, 2))
    with pytest.raises(ValueError, match="finite low <= high"):
        Normalisation(("a",), (float("nan"),), (1.0,))
    with pytest.raises(ValueError, match="as many feature names"):
        Normalisation(("a",), (0.0, 1.0), (1.0,))
    with pytest.raises(ValueError, match="feature_names, low and high"):
        Normalisation.from_dict({"low": [0]})
