"""Motion capture: forward kinematics against a skeleton worked out by hand, and damaged files by line."""

import math
import re

import numpy as np
import pytest

from nri_fast.readers.convert import Cut, to_trajectories
from nri_fast.readers.mocap import read_mocap
from nri_fast.readers.recording import DataError
from nri_fast.readers.skeleton import INCH, read_skeleton

# A hip 3 to the side, a thigh of 4 down whose axes are turned by 90 degrees about z, a foot of 1 to the front.
SKELETON = """# comment
:version 1.10
:units
  mass 1.0
  length 0.5
  angle deg
:root
   order TX TY TZ RX RY RZ
   axis XYZ
   position 0 0 0
   orientation 0 0 0
:bonedata
  begin
    id 1
    name hip
    direction 1 0 0
    length 3
    axis 0 0 0 XYZ
  end
  begin
    id 2
    name thigh
    direction 0 -2 0
    length 4
    axis 0 0 90 XYZ
    dof rx rz
    limits (-160.0 20.0)
           (-70.0 70.0)
  end
  begin
    id 3
    name foot
    direction 0 0 1
    length 1
    axis 0 0 0 XYZ
    dof ry
    limits (-160.0 20.0)
  end
:hierarchy
  begin
    root hip
    hip thigh
    thigh foot
  end
"""
MOTION = """#!OML:ASF
:FULLY-SPECIFIED
:DEGREES
1
root 0 5 0 0 0 0
thigh 0 0
foot 0
2
root 1 5 2 0 90 0
thigh 0 0
foot 0
3
root 0 5 0 0 0 0
thigh 90 0
foot 0
4
root 0 5 0 90 0 90
thigh 0 30
foot 90
"""


@pytest.fixture
def files(tmp_path):
    (tmp_path / "a.asf").write_text(SKELETON)
    (tmp_path / "a.amc").write_text(MOTION)
    return tmp_path / "a.asf", tmp_path / "a.amc"


def test_positions_of_a_skeleton_worked_out_by_hand(files):
    source = read_mocap(files[0], [files[1]])
    (recording,) = source.recordings
    assert recording.entities == ("root", "hip", "thigh", "foot")
    assert recording.time_step == 1 / 120
    found = next(recording.pieces()) / (INCH / 0.5)
    rest = [[0, 5, 0], [3, 5, 0], [3, 1, 0], [3, 1, 1]]
    # The whole body turns by 90 degrees about y: x to -z, z to x.
    turned = [[1, 5, 2], [1, 5, -1], [1, 1, -1], [2, 1, -1]]
    # The thigh turns by 90 degrees about its own x, which is the world's y: it still points down; the foot, on its end,
    # turns with it, from z to x.
    bent = [[0, 5, 0], [3, 5, 0], [3, 1, 0], [4, 1, 0]]
    assert np.allclose(found[0], rest)
    assert np.allclose(found[1], turned)
    assert np.allclose(found[2], bent)
    # First about x by 90 degrees, then about z by 90: x to y, -y to -z to -z, z to -y to x. The thigh turns by 30 about
    # z before that, the foot by 90 about y before all.
    a = math.radians(30)

    def world(v):
        x, y, z = v[0], -v[2], v[1]
        return np.array([-y, x, z])

    def about_z(v):
        return np.array([math.cos(a) * v[0] - math.sin(a) * v[1], math.sin(a) * v[0] + math.cos(a) * v[1], v[2]])

    hip = np.array([0, 5, 0]) + world([3, 0, 0])
    thigh = hip + world(about_z([0, -4, 0]))
    foot = thigh + world(about_z([1, 0, 0]))  # z turned by 90 about y is x
    assert np.allclose(found[3], [[0, 5, 0], hip, thigh, foot])


def test_bones_keep_their_lengths(tmp_path, files):
    random = np.random.default_rng(0)
    frames = "".join(
        f"{k}\nroot {' '.join(map(str, random.normal(size=6) * 50))}\n"
        f"thigh {random.normal() * 90} {random.normal() * 90}\nfoot {random.normal() * 90}\n"
        for k in range(1, 40)
    )
    files[1].write_text(":DEGREES\n" + frames)
    states = next(read_mocap(files[0], [files[1]]).recordings[0].pieces()) / read_skeleton(files[0]).metres
    lengths = np.linalg.norm(np.diff(states, axis=1), axis=-1)
    assert np.allclose(lengths, [3, 4, 1], atol=1e-9)


def test_joints_windows_and_frame_rate(files):
    last = MOTION[MOTION.index("root 0 5 0 90") :]
    files[1].write_text(MOTION + "".join(f"{k}\n{last}" for k in range(5, 9)))
    source = read_mocap(files[0], [files[1]], ["foot", "root"], rate=60)
    assert source.recordings[0].entities == ("foot", "root")
    assert source.recordings[0].steps == 8
    data = to_trajectories(source, Cut(window=2, every=2))
    assert data.states.shape == (2, 2, 2, 6)
    assert data.feature_names == ("x", "y", "z", "vx", "vy", "vz")
    assert data.origin.time_step.tolist() == [2 / 60] * 2
    assert data.origin.first_step.tolist() == [0, 4]
    with pytest.raises(DataError, match=r"joints: expected different ones of root, hip, thigh, foot, got 'nose'"):
        read_mocap(files[0], [files[1]], ["nose"])


def refused(file, text, old, new, said, read):
    """Reading complains about the file, and in these words, once `old` in its text has become `new`."""
    assert old in text
    file.write_text(text.replace(old, new, 1))
    with pytest.raises(DataError, match=re.escape(file.name)) as problem:
        read()
    assert said in str(problem.value)


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("direction 1 0 0", "direction 1 0 zero", "line 16: expected 3 numbers, got '1 0 zero'"),
        ("direction 1 0 0", "", "line 13: expected an entry 'direction'"),
        ("length 3", "length -3", "length of at least 0"),
        ("axis 0 0 90 XYZ", "axis 0 0 90 XYY", "line 25: axis: expected an order such as XYZ, got XYY"),
        ("dof rx rz", "dof rx tz", "line 26: dof: expected some of rx, ry and rz, got rx tz"),
        ("hip thigh\n", "hip shin\n", "line 20: bone 'thigh' is not in :hierarchy"),
        ("    hip thigh\n", "", "bone 'thigh' is not in :hierarchy"),
        ("root hip", "thigh hip", "expected every bone to hang on the root"),
        ("name foot", "name hip", "second bone 'hip'"),
        (SKELETON[SKELETON.index(":hierarchy") :], "", "expected a section :hierarchy"),
        (SKELETON[-8:], "", "the end is missing; is the file truncated?"),
        (SKELETON[SKELETON.index("    dof ry") :], "", "expected a section :hierarchy"),
        ("order TX TY TZ RX RY RZ", "order TX TY TZ", ":root order: expected TX TY TZ RX RY RZ"),
        ("length 0.5", "length 0", "expected a positive length"),
    ],
)
def test_damaged_skeletons(files, old, new, said):
    refused(files[0], SKELETON, old, new, said, lambda: read_skeleton(files[0]))


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("2\nroot 1 5 2 0 90 0", "2\nroot 1 5 2 0 90", "line 9: 'root': expected 6 finite numbers, got '1 5 2 0 90'"),
        ("root 1 5 2 0 90 0", "root 1 5 2 0 x 0", "line 9: expected numbers"),
        ("root 1 5 2 0 90 0", "root 1 5 2 0 nan 0", "expected 6 finite numbers"),
        ("\n3\n", "\n4\n", "line 12: expected frame 3, got 4"),
        ("thigh 90 0\n", "", "line 12: frame 3: expected values for thigh"),
        ("thigh 90 0\n", "arm 90 0\n", "line 14: 'arm' is no bone"),
        ("thigh 90 0\n", "thigh 90 0\nthigh 90 0\n", "'thigh' is there twice in frame 3"),
        ("thigh 0 30\nfoot 90\n", "", "frame 4: expected values for thigh, foot"),
        (MOTION, ":DEGREES\n", "expected frames, got none"),
        ("1\nroot 0", "root 0", "line 4: expected the number of a frame"),
        (":DEGREES", ":RADIANS", "the skeleton says otherwise"),
    ],
)
def test_damaged_motions(files, old, new, said):
    refused(files[1], MOTION, old, new, said, lambda: read_mocap(files[0], [files[1]]))


def test_files_that_are_not_there_or_no_text(files, tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no\.amc"):
        read_mocap(files[0], [tmp_path / "no.amc"])
    with pytest.raises(FileNotFoundError, match=r"no\.asf"):
        read_mocap(tmp_path / "no.asf", [files[1]])
    with pytest.raises(DataError, match="expected a file, got a folder"):
        read_mocap(tmp_path, [files[1]])
    files[1].write_bytes(b"\xff\xfe\x00")
    with pytest.raises(DataError, match=r"a\.amc: expected text"):
        read_mocap(files[0], [files[1]])
