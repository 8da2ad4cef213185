"""Vehicle tracks: CommonRoad scenarios and flat rows; vehicles enter and leave."""

import numpy as np
import pytest

from nri_fast.readers.convert import Cut, to_trajectories
from nri_fast.readers.recording import DataError
from nri_fast.readers.vehicles import read_vehicles


def state(tag, step, x, y, heading=0.5, speed=2.0):
    more = "" if heading is None else f"<orientation><exact>{heading}</exact></orientation>"
    more += "" if speed is None else f"<velocity><exact>{speed}</exact></velocity>"
    at = f"<position><point><x>{x}</x><y>{y}</y></point></position><time><exact>{step}</exact></time>"
    return f"<{tag}>{at}{more}</{tag}>"


def scenario(vehicles, extra="", dt="0.1"):
    """`vehicles` gives a list of states (step, x, y, ...) by id."""
    body = "".join(
        f'<dynamicObstacle id="{name}"><type>car</type>{state("initialState", *states[0])}<trajectory>'
        + "".join(state("state", *s) for s in states[1:])
        + "</trajectory></dynamicObstacle>"
        for name, states in vehicles.items()
    )
    return (
        f'<?xml version="1.0"?><commonRoad commonRoadVersion="2020a" benchmarkID="USA_Test-1" timeStepSize="{dt}">'
        f'<lanelet id="1"><leftBound/></lanelet>{extra}{body}</commonRoad>'
    )


def drive(first, last, x=0.0):
    return [(k, x + 0.2 * k, 1.0) for k in range(first, last + 1)]


def test_commonroad(tmp_path):
    file = tmp_path / "a.xml"
    file.write_text(scenario({"10": drive(0, 9), "9": drive(0, 5, 7.0), "12": drive(3, 9, 3.0)}))
    source = read_vehicles([file])
    (recording,) = source.recordings
    assert (recording.name, recording.steps, recording.entities) == ("USA_Test-1", 10, ("9", "10", "12"))
    assert recording.time_step == 0.1
    states = next(recording.pieces())
    assert np.isnan(states[6:, 0]).all()
    assert np.isnan(states[:3, 2]).all()
    assert np.allclose(states[3, 2], [3.6, 1.0, 2 * np.cos(0.5), 2 * np.sin(0.5)])
    assert to_trajectories(source).present.sum(1).tolist() == [[6, 10, 7]]
    for least, second in ((0.5, ["9", "10", "12"]), (1.0, ["10", "12"])):
        data = to_trajectories(source, Cut(window=4, stride=3, min_presence=least))
        assert data.origin.first_step.tolist() == [0, 3, 6]
        names = [names[names != ""].tolist() for names in data.origin.entity_names]
        assert names == [["9", "10"], second, ["10", "12"]]
    assert data.feature_names == ("x", "y", "vx", "vy")


def test_commonroad_without_velocities_has_them_estimated(tmp_path):
    file = tmp_path / "a.xml"
    file.write_text(scenario({"1": [(k, k, 0, None, None) for k in range(5)], "2": drive(0, 4)}))
    data = to_trajectories(read_vehicles([file]))
    assert data.feature_names == ("x", "y", "vx", "vy")
    assert data.states[0, 2, 0].tolist() == pytest.approx([2, 0, 10, 0])
    assert "estimated" in data.origin.notes["velocities"]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("<commonRoad", "damaged or no XML"),
        ("<road/>", "expected the root element commonRoad, got road"),
        (scenario({}), "expected dynamic obstacles with states, got none"),
        (scenario({"1": drive(0, 3)}, dt="x"), "timeStepSize: expected a positive number, got 'x'"),
        (scenario({"1": [(0, 0, 0), (0.5, 0, 0)]}), "dynamicObstacle '1': expected a state at an exact step, got 0.5"),
        (scenario({"1": [(0, 0, 0), (0, 1, 0)]}), "vehicle 1: expected one state at step 0, got 2"),
        (scenario({"1": [(0, 0, "?")]}), "position/point/y: expected a finite number, got '?'"),
        (scenario({"1": [(0, 0, 0)], "2": [(10**9, 0, 0)]}), "expected steps close together, got 0 to 1000000000"),
        (
            scenario({"1": drive(0, 1)}).replace("<point>", "<circle>").replace("</point>", "</circle>"),
            "a point with x",
        ),
        ('<!DOCTYPE a [<!ENTITY b "c">]>' + scenario({"1": drive(0, 1)}), "are refused"),
    ],
)
def test_damaged_scenarios(tmp_path, text, said):
    file = tmp_path / "a.xml"
    file.write_text(text)
    with pytest.raises(DataError, match=r"a\.xml") as problem:
        read_vehicles([file])
    assert said in str(problem.value)


def flat(**changes):
    rows = [(s, t, k) for s in (3, 1) for t in (7, 5) for k in range(4)]
    scenario_, track, step = (np.array(column) for column in zip(*rows, strict=True))
    values = np.stack([step * 1.0, track * 1.0, np.zeros(len(step)), np.ones(len(step))], axis=-1).astype(np.float32)
    names = np.array(["a", "b", "c", "d"])
    arrays = {"scenario": scenario_, "track": track, "step": step, "x_y_heading_speed": values, "scenario_names": names}
    return {key: array for key, array in (arrays | {"dt": np.array(0.1)} | changes).items() if array is not None}


def test_flat_rows(tmp_path):
    np.savez(tmp_path / "a.npz", **flat())
    data = to_trajectories(read_vehicles([tmp_path / "a.npz"]))
    assert data.origin.recording_names == ("b", "d")
    assert data.origin.entity_names[0].tolist() == ["5", "7"]
    assert data.states[0, 2].tolist() == [[2, 5, 1, 0], [2, 7, 1, 0]]
    assert data.origin.time_step.tolist() == [0.1, 0.1]


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"track": None}, "expected arrays scenario, track, step, x_y_heading_speed, 'track' is missing"),
        ({"track": np.zeros(3, int)}, "track: expected whole numbers [16], got int64 [3]"),
        ({"step": np.zeros(16)}, "step: expected whole numbers [16], got float64 [16]"),
        ({"step": np.zeros(16, int)}, "scenario 'b', vehicle 5: expected one state at step 0, got 4"),
        ({"x_y_heading_speed": np.zeros((16, 3))}, "expected numbers [16, 4], got float64 [16, 3]"),
        ({"x_y_heading_speed": np.full((16, 4), np.nan)}, "row 0: expected finite numbers"),
        ({"dt": np.array(-1.0)}, "dt: expected one positive number"),
    ],
)
def test_damaged_rows(tmp_path, changes, said):
    np.savez(tmp_path / "a.npz", **flat(**changes))
    with pytest.raises(DataError, match=r"a\.npz") as problem:
        read_vehicles([tmp_path / "a.npz"])
    assert said in str(problem.value)
