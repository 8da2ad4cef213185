"""Vehicle tracks: CommonRoad scenarios (``.xml``), and flat rows of scenario, track and step in an ``.npz`` file.

Vehicles enter and leave; a scenario is a recording. Speed along the heading becomes the velocity vx, vy.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np

from nri_fast.readers.npz_arrays import open_npz, time_step_of
from nri_fast.readers.recording import Array, DataError, Recording, Source, whole

MOVING, STILL = ("x", "y", "vx", "vy"), ("x", "y")
ROWS = ("scenario", "track", "step", "x_y_heading_speed")
MOST_NUMBERS = 1 << 28  # of a scenario: more means that steps or tracks are damaged


def read_vehicles(files: Sequence[str | os.PathLike[str]]) -> Source:
    """Read scenarios.

    Parameters
    ----------
    files : sequence of path
        ``.xml`` (CommonRoad: the dynamic obstacles' trajectories) or ``.npz`` (arrays scenario, track, step [rows] and
        x_y_heading_speed [rows, 4]; optional: ``dt`` in seconds, scenario_names).

    Returns
    -------
    Source
        Features x, y, vx, vy; only x, y where a CommonRoad file does not give every velocity and orientation.

    Raises
    ------
    FileNotFoundError
    DataError
        Damage, a state without an exact position or time, two states of a vehicle at one step: file and vehicle are
        named.
    """
    paths = [Path(file) for file in files]
    recordings: list[tuple[Recording, Array]] = []
    for path in paths:
        recordings += _npz_scenarios(path) if path.suffix == ".npz" else [_commonroad(path)]
    moving = all(states.shape[2] == len(MOVING) for _, states in recordings)
    names = MOVING if moving else STILL
    found = [
        Recording(r.name, r.steps, r.entities, r.time_step, whole(states[..., : len(names)]), step_name=r.step_name)
        for r, states in recordings
    ]
    notes = {"velocities in the source": "speed along the heading"} if moving else {}
    return Source(", ".join(map(str, paths)), names, found, notes)


def _recording(where: str, name: str, step: Array, track: Array, values: Array, dt: float) -> tuple[Recording, Array]:
    """One scenario from rows in any order."""
    tracks, place = np.unique(track, return_inverse=True)
    first = int(step.min())
    steps = int(step.max()) - first + 1
    if steps * len(tracks) * values.shape[1] > MOST_NUMBERS:
        raise DataError(f"{where}: scenario {name!r}: expected steps close together, got {first} to {int(step.max())}")
    index = (step - first) * len(tracks) + place
    unique, counts = np.unique(index, return_counts=True)
    if len(unique) != len(index):
        twice = int(unique[counts > 1][0])
        raise DataError(
            f"{where}: scenario {name!r}, vehicle {tracks[twice % len(tracks)]}: expected one state at step "
            f"{first + twice // len(tracks)}, got {int(counts.max())}"
        )
    states = np.full((steps * len(tracks), values.shape[1]), np.nan)
    states[index] = values
    states = states.reshape(steps, len(tracks), values.shape[1])
    entities = tuple(str(t) for t in tracks.tolist())
    return Recording(name, steps, entities, dt, whole(states), step_name=lambda k: str(first + k)), states


def _moving(x: Array, y: Array, heading: Array, speed: Array) -> Array:
    return np.stack([x, y, speed * np.cos(heading), speed * np.sin(heading)], axis=-1)


def _npz_scenarios(path: Path) -> list[tuple[Recording, Array]]:
    arrays = open_npz(path)
    for key in ROWS:
        if key not in arrays:
            raise DataError(f"{path}: expected arrays {', '.join(ROWS)}, {key!r} is missing")
    scenario, track, step, values = (arrays[key] for key in ROWS)
    for key, array in zip(ROWS[:3], (scenario, track, step), strict=True):
        if array.ndim != 1 or array.dtype.kind not in "iu" or len(array) != len(scenario):
            raise DataError(
                f"{path}: {key}: expected whole numbers [{len(scenario)}], got {array.dtype} {list(array.shape)}"
            )
    if values.shape != (len(scenario), 4) or values.dtype.kind not in "fiu":
        raise DataError(
            f"{path}: {ROWS[3]}: expected numbers [{len(scenario)}, 4], got {values.dtype} {list(values.shape)}"
        )
    bad = ~np.isfinite(values).all(axis=1)
    if bad.any():
        raise DataError(f"{path}: {ROWS[3]}: row {int(bad.argmax())}: expected finite numbers, got {values[bad][0]}")
    dt = time_step_of(path, arrays)
    names = arrays.get("scenario_names", np.array([], dtype=np.str_))
    values = values.astype(np.float64)
    found = []
    for number in np.unique(scenario).tolist():
        rows = scenario == number
        name = str(names[number]) if names.ndim == 1 and 0 <= number < len(names) else str(number)
        moving = _moving(*values[rows].T)
        found.append(_recording(str(path), name, step[rows].astype(np.int64), track[rows], moving, dt))
    if not found:
        raise DataError(f"{path}: expected rows, got none")
    return found


def _commonroad(path: Path) -> tuple[Recording, Array]:
    if not path.exists():
        raise FileNotFoundError(f"{path}: no such file")
    content = path.read_bytes()
    if b"<!DOCTYPE" in content or b"<!ENTITY" in content:
        raise DataError(
            f"{path}: documents with a DOCTYPE could grow without bound when they are read, and are refused"
        )
    try:
        root = ElementTree.fromstring(content)
    except ElementTree.ParseError as problem:
        raise DataError(f"{path}: damaged or no XML ({problem})") from problem
    if root.tag != "commonRoad":
        raise DataError(f"{path}: expected the root element commonRoad, got {root.tag}")
    try:
        dt = float(root.get("timeStepSize", "nan"))
    except ValueError:
        dt = float("nan")
    if not 0 < dt < float("inf"):
        raise DataError(f"{path}: timeStepSize: expected a positive number, got {root.get('timeStepSize')!r}")
    steps: list[int] = []
    tracks: list[str] = []
    rows: list[list[float | None]] = []
    # Version 2018b and 2020a; before that, obstacles with a role.
    obstacles = root.findall("dynamicObstacle")
    obstacles += [o for o in root.findall("obstacle") if o.findtext("role", "").strip() == "dynamic"]
    for obstacle in obstacles:
        vehicle = obstacle.get("id", "")
        where = f"{path}: dynamicObstacle {vehicle!r}"
        for state in [*obstacle.findall("initialState"), *obstacle.findall("trajectory/state")]:
            time = _exact(where, state, "time/exact")
            if time is None or time != int(time):
                raise DataError(f"{where}: expected a state at an exact step, got {_text(state, 'time')}")
            x, y = (_exact(where, state, f"position/point/{axis}") for axis in "xy")
            if x is None or y is None:
                raise DataError(f"{where}, step {int(time)}: expected a position that is a point with x and y")
            steps.append(int(time))
            tracks.append(vehicle)
            rows.append([x, y, _exact(where, state, "orientation/exact"), _exact(where, state, "velocity/exact")])
    if not rows:
        raise DataError(f"{path}: expected dynamic obstacles with states, got none")
    moving = all(value is not None for row in rows for value in row)
    values = np.array([row if moving else row[:2] for row in rows], dtype=np.float64)
    name = root.get("benchmarkID") or path.stem
    ids: Any = np.array(tracks)
    if all(track.lstrip("-").isdigit() for track in tracks):
        ids = ids.astype(np.int64)
    return _recording(str(path), name, np.array(steps), ids, _moving(*values.T) if moving else values, dt)


def _text(state: ElementTree.Element, tag: str) -> str:
    found = state.find(tag)
    return "nothing" if found is None else " ".join("".join(found.itertext()).split()) or "nothing"


def _exact(where: str, state: ElementTree.Element, tag: str) -> float | None:
    text = state.findtext(tag)
    if text is None:
        return None
    try:
        value = float(text)
    except ValueError:
        value = float("nan")
    if not np.isfinite(value):
        raise DataError(f"{where}: {tag}: expected a finite number, got {text.strip()!r}")
    return value
