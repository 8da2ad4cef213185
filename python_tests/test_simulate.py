"""Simulators against slow, independent NumPy and SciPy integrators, and against files of the original simulator."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.integrate import solve_ivp
from scipy.stats import kstest

from nri_fast import _core
from nri_fast.formats import load_trajectories, save_trajectories
from nri_fast.simulate import KINDS, NODE_TYPES, SPLITS, simulate, spread

REAL = Path(__file__).resolve().parents[2] / "shared" / "data"
HALF_WIDTH, TIME_STEP, STEPS_PER_FRAME = 5.0, 0.001, 100
HEAVY, DRAG = 3.0, 0.1
FRAME = 0.1  # time units


def body_force(kind, position, edges):
    """Force on every body, from the formulas: position [..., N, 2], edges [..., N, N] -> [..., N, 2]."""
    difference = position[..., :, None, :] - position[..., None, :, :]
    if kind == "springs3":
        strength = -0.1 * np.array([0.0, 0.5, 1.0])[edges.astype(int)]
    elif kind.startswith("springs"):
        strength = -0.1 * edges
    else:
        distance = np.sqrt((difference**2).sum(-1)) + np.eye(position.shape[-2])
        strength = np.where(np.eye(position.shape[-2], dtype=bool), 0.0, 2.0 * edges - 1.0) / distance**3
    return (strength[..., None] * difference).sum(-2)


def advance_one_frame(kind, position, velocity, edges, mass=None):
    """From one recorded frame to the next; also counts wall hits and clipped force components.

    mass: [..., N], in a viscous medium; without it all masses are 1, and nothing rubs.
    """
    position, velocity = position.copy(), velocity.copy()
    hits = clipped = 0
    for _ in range(STEPS_PER_FRAME):
        force = body_force(kind, position, edges)
        clipped += int((np.abs(force) > 100).sum())
        force = np.clip(force, -100, 100)
        velocity += TIME_STEP * (force if mass is None else (force - DRAG * velocity) / mass[..., None])
        position += TIME_STEP * velocity
        over, under = position > HALF_WIDTH, position < -HALF_WIDTH
        hits += int(over.sum() + under.sum())
        position = np.where(over, 2 * HALF_WIDTH - position, np.where(under, -2 * HALF_WIDTH - position, position))
        velocity = np.where(over, -np.abs(velocity), np.where(under, np.abs(velocity), velocity))
    return position, velocity, hits, clipped


def rewind_one_frame(kind, position, velocity, edges):
    """Back to the state before the first step: the integrator's own inverse, away from the walls."""
    position, velocity = position.copy(), velocity.copy()
    for _ in range(STEPS_PER_FRAME):
        position -= TIME_STEP * velocity
        velocity -= TIME_STEP * np.clip(body_force(kind, position, edges), -100, 100)
    return position, velocity


def bodies(kind, systems, seed=1, **options):
    data = simulate(kind, systems, seed=seed, **options)
    states, edges = data.states.numpy(), data.edges.numpy().astype(float)
    return states[..., :2], states[..., 2:], edges


@pytest.mark.parametrize("entities", [3, 5, 10])
@pytest.mark.parametrize("kind", ["springs", "springs3", "springs_mass"])
def test_springs_follow_the_oracle_and_never_touch_the_wall(kind, entities):
    data = simulate(kind, 30, entities, steps=20, seed=1)
    states, edges = data.states.numpy(), data.edges.numpy().astype(float)
    position, velocity = states[..., :2], states[..., 2:]
    mass = None if data.node_types is None else np.where(data.node_types.numpy() == 1, HEAVY, 1.0)
    assert (mass is None) == (kind != "springs_mass")
    p, v = position[:, 0], velocity[:, 0]
    for frame in range(1, 20):
        p, v, hits, clipped = advance_one_frame(kind, p, v, edges, mass)
        assert (hits, clipped) == (0, 0)
        np.testing.assert_allclose(position[:, frame], p, rtol=0, atol=1e-9)
        np.testing.assert_allclose(velocity[:, frame], v, rtol=0, atol=1e-9)


@pytest.mark.parametrize("entities", [4, 5, 10])
def test_charged_follow_the_oracle_from_every_frame(entities):
    """Charged bodies are chaotic: the oracle starts anew from each recorded frame and must reach the next one."""
    systems = 300 if entities == 5 else 40
    position, velocity, edges = bodies("charged", systems, entities=entities)
    every = np.broadcast_to(edges[:, None], (systems, 48, entities, entities))
    p, v, hits, clipped = advance_one_frame("charged", position[:, :-1], velocity[:, :-1], every)
    error = np.maximum(np.abs(p - position[:, 1:]), np.abs(v - velocity[:, 1:])).max(axis=(2, 3))
    assert np.quantile(error, 0.99) < 1e-9
    assert error.max() < 1e-3  # the closest encounters multiply the last bit
    if entities == 5:
        # Systems differ much: 0.1 hits and 0.2 per cent are the standard errors of a mean of 300.
        assert abs(hits / systems - 1.6) < 0.4
        assert abs(clipped / (p.size * STEPS_PER_FRAME) - 0.018) < 0.008


@pytest.mark.parametrize(("kind", "spread"), [("springs", 0.5), ("charged", 1.0)])
def test_initial_states(kind, spread):
    position, velocity, edges = bodies(kind, 2000, steps=1)
    p, v = rewind_one_frame(kind, position[:, 0], velocity[:, 0], edges)
    inside = np.abs(p).max(axis=(1, 2)) < 4.5  # nothing can have met the wall in the first frame
    speed = np.sqrt((v[inside] ** 2).sum(-1))
    assert np.quantile(np.abs(speed - 0.5), 0.99) < 1e-9
    assert inside.mean() > 0.99
    # Kolmogorov and Smirnov at one in a million; the seed is fixed.
    assert kstest(p.ravel() / spread, "norm").pvalue > 1e-6
    angle = np.arctan2(v[..., 1], v[..., 0]).ravel()
    assert kstest(angle, "uniform", args=(-np.pi, 2 * np.pi)).pvalue > 1e-6
    assert abs(np.corrcoef(p[..., 0].ravel(), p[..., 1].ravel())[0, 1]) < 5 / np.sqrt(p[..., 0].size)


@pytest.mark.parametrize("kind", KINDS)
def test_edges(kind):
    edges = simulate(kind, 4000, steps=1, seed=3).edges.numpy().astype(int)
    assert not edges[:, np.arange(5), np.arange(5)].any()
    first, second = np.triu_indices(5, 1)
    upper, lower = edges[:, first, second], edges[:, second, first]
    types = 3 if kind == "springs3" else 2
    for k in range(types):
        assert abs((upper == k).mean() - 1 / types) < 5 * 0.5 / np.sqrt(upper.size)
    if kind == "kuramoto_directed":  # each way is drawn for itself
        assert abs((upper == lower).mean() - 0.5) < 5 * 0.5 / np.sqrt(upper.size)
    else:
        assert np.array_equal(upper, lower)
    products = np.where(np.eye(5, dtype=bool), 1, 2 * (edges > 0) - 1)
    triangles = products[:, 0, 1] * products[:, 1, 2] * products[:, 0, 2]
    if kind == "charged":  # q_0 q_1 q_1 q_2 q_0 q_2 = 1
        assert (triangles == 1).all()
    else:  # pairs are independent
        expected = (2 * (types - 1) / types - 1) ** 3
        assert abs(triangles.mean() - expected) < 5 / np.sqrt(len(triangles))


def test_bodies_are_light_or_heavy_independently_of_their_springs():
    data = simulate("springs_mass", 4000, steps=1, seed=3)
    assert data.node_types.unique().tolist() == [0, 1]
    heavy, springs = data.node_types.double(), data.edges.sum(1).double()
    assert abs(float(heavy.mean()) - 0.5) < 5 * 0.5 / np.sqrt(heavy.numel())
    assert abs(np.corrcoef(heavy.flatten(), springs.flatten())[0, 1]) < 5 / np.sqrt(heavy.numel())
    assert abs(np.corrcoef(heavy[:, 0], heavy[:, 1])[0, 1]) < 5 / np.sqrt(len(heavy))


def test_what_a_lone_body_is_shows_in_its_velocity():
    data = simulate("springs_mass", 200, entities=1, steps=30)
    speed = data.states[..., 2:].norm(dim=-1)[..., 0]
    rate = torch.where(data.node_types == 1, DRAG / HEAVY, DRAG)[:, 0]
    torch.testing.assert_close(speed[:, 29] / speed[:, 0], torch.exp(-2.9 * rate.double()), rtol=1e-4, atol=0)


@pytest.mark.parametrize("kind", ["kuramoto", "kuramoto_directed"])
def test_kuramoto_follows_an_adaptive_integrator(kind):
    data = simulate(kind, 12, entities=6, steps=30, seed=2)
    rate, sine, phase, frequency = (data.states[..., d].numpy() for d in range(4))
    edges = data.edges.numpy().astype(float).transpose(0, 2, 1)  # k[i, j]: i is pulled by j

    def slope(k, w, phi):
        return w + (k * np.sin(phi[None, :] - phi[:, None])).sum(1)

    for s in range(12):
        w, k = frequency[s, 0], edges[s]
        times = FRAME * np.arange(30)
        exact = solve_ivp(
            lambda _, phi, w=w, k=k: slope(k, w, phi), (0, times[-1]), phase[s, 0], t_eval=times, rtol=1e-11, atol=1e-11
        ).y.T
        np.testing.assert_allclose(phase[s], exact, rtol=0, atol=1e-5)
        np.testing.assert_allclose(rate[s], [slope(k, w, phi) for phi in phase[s]], rtol=0, atol=1e-12)
    np.testing.assert_allclose(sine, np.sin(phase), rtol=0, atol=1e-14)
    assert (frequency == frequency[:, :1]).all()


def test_kuramoto_draws():
    # A pair alone and unrelated turns at its own frequency: phase and frequency at time 0 can be read off.
    data = simulate("kuramoto", 20_000, entities=1, steps=1)
    _, _, phase, frequency = (data.states[..., d].numpy().ravel() for d in range(4))
    assert kstest(frequency, "uniform", args=(1, 9)).pvalue > 1e-6
    assert kstest(phase - FRAME * frequency, "uniform", args=(0, 2 * np.pi)).pvalue > 1e-6


def squared_displacement(states, horizon):
    """Mean over bodies of each system's squared displacement from frame 0: [systems, 2], positions and velocities."""
    moved = (states[:, horizon] - states[:, 0]) ** 2
    return np.stack([moved[..., :2].mean(axis=(1, 2)), moved[..., 2:].mean(axis=(1, 2))], axis=1)


@pytest.mark.parametrize(
    ("kind", "folder", "split", "horizons"),
    [("springs", "nri_springs5", "train", (1, 10, 20, 48)), ("charged", "nri_charged5_short", "valid", (1, 3, 6))],
)
def test_statistics_of_the_original_simulator(kind, folder, split, horizons):
    if not (REAL / folder).exists():
        pytest.skip(f"{folder} is not beside the project")
    real = load_trajectories(REAL / folder, split).states.numpy()
    ours = simulate(kind, 5000, steps=real.shape[1], seed=11).states.numpy()
    for horizon in horizons:
        a, b = squared_displacement(real, horizon), squared_displacement(ours, horizon)
        error = np.sqrt(a.var(axis=0) / len(a) + b.var(axis=0) / len(b))
        assert (np.abs(a.mean(axis=0) - b.mean(axis=0)) < 4 * error).all()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kind", "published"), [("springs", (7.5e-5, 7.3e-3, 2.7e-2)), ("charged", (4.8e-3, 2.3e-2, 5.5e-2))]
)
def test_error_of_nothing_moves(kind, published):
    """The baseline's error over all starts, in units normalised to [-1, 1] by the extremes of a full training set."""
    states = simulate(kind, 50_000, seed=5).states.numpy()
    widths = np.array([np.ptp(states[..., :2])] * 2 + [np.ptp(states[..., 2:])] * 2) / 2
    for horizon, expected in zip((1, 10, 20), published, strict=True):
        moved = (states[:, horizon:] - states[:, :-horizon]) ** 2
        # The extremes themselves vary by some per cent from set to set, and enter squared.
        assert np.mean(moved.mean(axis=(0, 1, 2)) / widths**2) == pytest.approx(expected, rel=0.15)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("entities", [1, 2, 5, 7, 10])
def test_same_bits_for_any_threads_and_pieces(kind, entities):
    whole = simulate(kind, 9, entities, steps=4, seed=8, threads=1)
    assert whole.states.shape == (9, 4, entities, 4)
    assert bool(torch.isfinite(whole.states).all())
    assert (whole.node_types is not None) == (kind in NODE_TYPES)
    many = simulate(kind, 9, entities, steps=4, seed=8, threads=5)
    assert torch.equal(whole.states, many.states)
    assert torch.equal(whole.edges, many.edges)
    for first in (0, 4, 8):
        piece = simulate(kind, 1, entities, steps=4, seed=8, first_system=first)
        assert torch.equal(piece.states[0], whole.states[first])
        assert torch.equal(piece.edges[0], whole.edges[first])
        if kind in NODE_TYPES:
            assert torch.equal(many.node_types, whole.node_types)
            assert torch.equal(piece.node_types[0], whole.node_types[first])
    longer = simulate(kind, 2, entities, steps=6, seed=8)
    assert torch.equal(longer.states[:, :4], whole.states[:2])


# The first 64 bits of SHA-256 over states and edges. Saved data sets can be simulated again only while these stand.
KNOWN_BITS = {
    ("springs", 1): "ef7b3260d03f937a",
    ("springs", 2): "22c82d1fd2717e53",
    ("springs", 5): "5d12fde99613123c",
    ("springs", 7): "62fcd32ac5d2f2b8",
    ("springs", 10): "3745e70d087cb438",
    ("charged", 1): "eac99d991c6b9652",
    ("charged", 2): "af9219e77e332dc4",
    ("charged", 5): "aa7908c2a92eb0d4",
    ("charged", 7): "c36dbdd378579c83",
    ("charged", 10): "89bd9b29879e1c77",
    ("kuramoto", 1): "b05157f75ebf8999",
    ("kuramoto", 2): "24a71384b880802a",
    ("kuramoto", 5): "fb92974208965666",
    ("kuramoto", 7): "42cf7853c248d274",
    ("kuramoto", 10): "acc12ea528fd4337",
    ("springs3", 2): "354109e0f5ad161c",
    ("springs3", 5): "d0a88d7ff38d0752",
    ("springs3", 7): "1263d893ce0dbe71",
    ("springs3", 10): "6e9e3b78a29c3d48",
    ("springs_mass", 1): "4dd18453522c6975",
    ("springs_mass", 2): "3ddf0e42c1527fb4",
    ("springs_mass", 5): "14e5dad05a20b7aa",
    ("springs_mass", 7): "bea92c99e5f4ad57",
    ("springs_mass", 10): "deeef62072f553e8",
    ("kuramoto_directed", 2): "a825b74f1c0837af",
    ("kuramoto_directed", 5): "67a484cbd38339cc",
    ("kuramoto_directed", 7): "1e0a610bee31247d",
    ("kuramoto_directed", 10): "f45588bbae3b840a",
}


@pytest.mark.parametrize(("kind", "entities"), KNOWN_BITS)
def test_every_machine_and_device_gives_the_same_bits(backend, kind, entities):
    data = simulate(kind, 3, entities, steps=6, seed=123, split="test", first_system=2**33, device=backend)
    bits = data.states.numpy().tobytes() + data.edges.numpy().tobytes()
    if data.node_types is not None:
        bits += data.node_types.numpy().tobytes()
    assert hashlib.sha256(bits).hexdigest()[:16] == KNOWN_BITS[kind, entities]


def test_more_systems_than_a_block_of_threads(backend):
    many = simulate("springs", 300, 7, steps=1, seed=6, device=backend)
    for first in (0, 150, 299):
        one = simulate("springs", 1, 7, steps=1, seed=6, first_system=first, device=backend)
        assert torch.equal(one.states[0], many.states[first])
        assert torch.equal(one.edges[0], many.edges[first])


def test_splits_seeds_and_far_away_systems_differ():
    seen = [simulate("springs", 1, steps=1, seed=s, split=split).states for s in (0, 1) for split in SPLITS]
    seen += [simulate("springs", 1, steps=1, first_system=first).states for first in (1, 2**32, 2**40)]
    for i, a in enumerate(seen):
        for b in seen[:i]:
            assert not torch.equal(a, b)


def test_largest_seed():
    data = simulate("springs", 1, steps=2, seed=2**64 - 1, noise=0.1)
    assert bool(torch.isfinite(data.states).all())


def test_noise_is_gaussian_and_belongs_to_the_system():
    clean, noisy = simulate("springs", 400, steps=5), simulate("springs", 400, steps=5, noise=0.2)
    noise = (noisy.states - clean.states).numpy()
    assert kstest(noise.ravel() / 0.2, "norm").pvalue > 1e-6
    piece = simulate("springs", 1, steps=5, noise=0.2, first_system=17)
    assert torch.equal(piece.states[0], noisy.states[17])
    assert not np.array_equal(noise[0], noise[1])


def test_names_of_data():
    assert simulate("springs", 1, 10, steps=1).name == "springs10"
    assert simulate("springs3", 1, 5, steps=1).name == "springs3_5"


@pytest.mark.parametrize("kind", ["springs", "kuramoto"])
def test_noise_as_a_share_of_the_spread(kind):
    clean, noisy = simulate(kind, 100, steps=5, seed=4), simulate(kind, 100, steps=5, seed=4, noise_share=0.01)
    added = (noisy.states - clean.states).numpy()
    reference = simulate(kind, 500, steps=5, seed=0).states.numpy()  # another seed than the noisy one's
    groups = [[0, 1], [2, 3]] if kind == "springs" else [[0], [1], [2], [3]]
    for group in groups:
        deviation = 0.01 * reference[..., group].std()
        assert kstest(added[..., group].ravel() / deviation, "norm").pvalue > 1e-6
        for d in group:
            assert spread(kind, 5, 5)[d] == pytest.approx(100 * deviation, rel=1e-5)
    piece = simulate(kind, 1, steps=5, seed=4, noise_share=0.01, first_system=17)
    assert torch.equal(piece.states[0], noisy.states[17])


def test_saved_as_the_original_saves(tmp_path):
    data = simulate("charged", 3, steps=4, split="valid")
    save_trajectories(data, tmp_path)
    assert np.load(tmp_path / "loc_valid_charged5.npy").shape == (3, 4, 2, 5)
    assert torch.equal(load_trajectories(tmp_path, "valid").states, data.states)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"kind": "gravity"}, "kind: expected one of springs, charged, kuramoto, .*, got 'gravity'"),
        ({"split": "tests"}, "split: expected one of train, valid, test"),
        ({"systems": 0}, "systems: expected 1 to .*, got 0"),
        ({"entities": 0}, "entities: expected 1 to 65535, got 0"),
        ({"steps": 0}, "steps: expected 1"),
        ({"seed": -1}, "seed: expected 0 to 18446744073709551615, got -1"),
        ({"first_system": -1}, "first_system: expected 0"),
        ({"noise": -0.1}, "noise: expected"),
        ({"noise": float("nan")}, "noise: expected"),
        ({"noise_share": float("inf")}, "noise_share: expected"),
        ({"noise": 0.1, "noise_share": 0.1}, "noise_share: expected noise or noise_share, got 0.1 and 0.1"),
    ],
)
def test_arguments_out_of_range(arguments, message):
    with pytest.raises(ValueError, match=message):
        simulate(**({"kind": "springs", "systems": 1} | arguments))


def test_portable_functions_are_near_the_library():
    random = np.random.default_rng(0)
    x = random.uniform(-700, 700, 20_000)
    np.testing.assert_allclose(_core.portable_exp(x), np.exp(x), rtol=1e-15)
    x = np.exp(random.uniform(-700, 700, 20_000))
    np.testing.assert_allclose(_core.portable_log(x), np.log(x), rtol=1e-15)
    x = 1 + random.uniform(-1e-3, 1e-3, 20_000)  # where the logarithm is small, its relative error counts
    np.testing.assert_allclose(_core.portable_log(x), np.log(x), rtol=1e-15)
    x = random.uniform(-1e5, 1e5, 20_000)
    np.testing.assert_allclose(_core.portable_sin(x), np.sin(x), rtol=0, atol=3e-16)
    np.testing.assert_allclose(_core.portable_cos(x), np.cos(x), rtol=0, atol=3e-16)


def test_portable_functions_at_the_ends():
    assert _core.portable_exp(0.0) == 1.0
    assert _core.portable_exp(-1000.0) == 0.0
    assert _core.portable_exp(float("-inf")) == 0.0
    assert _core.portable_exp(float("inf")) == float("inf")
    assert np.isnan(_core.portable_exp(float("nan")))
    assert _core.portable_log(1.0) == 0.0
    assert _core.portable_sin(0.0) == 0.0
    assert _core.portable_cos(0.0) == 1.0
