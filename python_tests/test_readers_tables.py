"""Tables: rows in any order become systems, and every row that is wrong is named."""

import csv
import random
import sys
import tracemalloc

import numpy as np
import pytest
import torch

from nri_fast.readers import csv_columns, external_sort, systems_file, table, table_rows
from nri_fast.readers.convert import Cut, convert, to_trajectories
from nri_fast.readers.recording import DataError
from nri_fast.readers.table import Columns, read_csv, read_parquet

COLUMNS = Columns("who", "t", ("x", "y"), "sys")
HEADER = ("sys", "t", "who", "x", "y")


def write(file, rows, header=HEADER, delimiter=","):
    with open(file, "w", newline="", encoding="utf-8") as opened:
        writer = csv.writer(opened, delimiter=delimiter)
        writer.writerow(header)
        writer.writerows(rows)
    return file


def rows_of(states, dt=0.1, system="s{}", entity="e{}"):
    return [
        (system.format(s), k * dt, entity.format(e), *states[s, k, e].tolist())
        for s in range(states.shape[0])
        for k in range(states.shape[1])
        for e in range(states.shape[2])
    ]


@pytest.fixture
def states():
    return np.random.default_rng(0).normal(size=(4, 9, 3, 2))


@pytest.fixture
def small_chunks(monkeypatch):
    """Chunks, sorted runs and pieces so small that a small table needs many of each."""
    monkeypatch.setattr(csv_columns, "ROWS", 7)
    monkeypatch.setattr(external_sort, "RUN", 11)
    monkeypatch.setattr(table, "RUN", 11)
    monkeypatch.setattr(table, "PIECE", 16)
    monkeypatch.setattr(systems_file, "BLOCK", 16)


def complaint(file, columns=COLUMNS, cut=None, **more):
    with pytest.raises(DataError) as problem, read_csv([file], columns, **more) as source:
        to_trajectories(source, cut)
    assert str(file) in str(problem.value)
    return str(problem.value)


@pytest.mark.parametrize("order", ["sorted", "shuffled", "backwards"])
@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
def test_rows_in_any_order_become_systems(tmp_path, states, small_chunks, order, delimiter):
    rows = rows_of(states)
    if order == "shuffled":
        random.Random(1).shuffle(rows)
    file = write(tmp_path / "t.csv", rows if order != "backwards" else rows[::-1], delimiter=delimiter)
    with read_csv([file], COLUMNS) as source:
        data = to_trajectories(source, Cut(velocities="none"))
    assert np.array_equal(data.states.numpy(), states)
    assert data.feature_names == ("x", "y")
    assert data.origin.recording_names == ("s0", "s1", "s2", "s3")
    assert data.origin.entity_names[3].tolist() == ["e0", "e1", "e2"]
    assert torch.allclose(data.origin.time_step, torch.tensor(0.1, dtype=torch.float64))
    assert data.edges is None


def test_numbers_as_names_are_ordered_by_value_and_columns_renamed(tmp_path):
    rows = [(s, t, e, 10 * s + e, t) for t in range(3) for e in (10, 9) for s in (11, 2)]
    file = write(tmp_path / "t.csv", rows)
    with read_csv([file], Columns("who", "t", ("east=x", "speed=y"), "sys"), time_unit=0.5) as source:
        data = to_trajectories(source)
    assert data.origin.recording_names == ("2", "11")
    assert data.origin.entity_names[0].tolist() == ["9", "10"]
    assert data.feature_names == ("east", "speed")
    assert data.states[:, 0, :, 0].tolist() == [[29, 30], [119, 120]]
    assert data.origin.time_step.tolist() == [0.5, 0.5]


def test_files_are_recordings_where_there_is_no_system_column(tmp_path, states):
    files = [write(tmp_path / f"day{s}.csv", rows_of(states[s : s + 1])) for s in range(2)]
    with read_csv(files, Columns("who", "t", ("x", "y"))) as source:
        assert to_trajectories(source).origin.recording_names == ("day0", "day1")
    with read_csv(files, COLUMNS) as source:  # the same name in two files is not the same system
        assert to_trajectories(source).origin.recording_names == ("day0/s0", "day1/s0")


def test_systems_of_different_sizes_and_times(tmp_path, states, small_chunks):
    rows = [row for row in rows_of(states) if not (row[0] == "s1" and row[2] == "e1")]
    rows = [(s, 2 * t if s == "s2" else t, e, x, y) for s, t, e, x, y in rows]
    random.Random(2).shuffle(rows)
    file = write(tmp_path / "t.csv", rows)
    with read_csv([file], COLUMNS) as source:
        data = to_trajectories(source, Cut(velocities="none"))
    assert data.sizes.tolist() == [3, 2, 3, 3]
    assert data.origin.entity_names[1].tolist() == ["e0", "e2", ""]
    assert np.array_equal(data.states[1, :, :2].numpy(), states[1][:, [0, 2]])
    assert not data.states[1, :, 2].any()
    assert data.origin.time_step.numpy() == pytest.approx([0.1, 0.1, 0.2, 0.1])


def test_holes_are_kept_or_cut_around(tmp_path, states, small_chunks):
    rows = [row for row in rows_of(states) if not (row[0] == "s2" and row[2] == "e1" and row[1] > 0.55)]
    file = write(tmp_path / "t.csv", rows)
    with read_csv([file], COLUMNS) as source:
        kept = to_trajectories(source, Cut(velocities="none"))
        data = to_trajectories(source, Cut(window=4, stride=3, velocities="none", min_presence=1))
    assert (~kept.present).nonzero().tolist() == [[2, step, 1] for step in (6, 7, 8)]
    assert data.origin.first_step.tolist() == [0, 3] * 4
    assert data.sizes.tolist() == [3, 3, 3, 3, 3, 2, 3, 3]
    assert np.array_equal(data.states[5, :, :2].numpy(), states[2, 3:7][:, [0, 2]])


def test_an_empty_cell_is_a_missing_row(tmp_path, states):
    rows = [list(row) for row in rows_of(states)]
    rows[5][3] = ""
    with read_csv([write(tmp_path / "t.csv", rows)], COLUMNS) as source:
        data = to_trajectories(source, Cut(velocities="none"))
    assert (~data.present).nonzero().tolist() == [[0, 1, 2]]


def test_lengths_may_differ(tmp_path, states):
    rows = [row for row in rows_of(states) if not (row[0] == "s2" and row[1] > 0.55)]
    with read_csv([write(tmp_path / "t.csv", rows)], COLUMNS) as source:
        assert to_trajectories(source).lengths.tolist() == [9, 9, 6, 9]
        with pytest.raises(DataError, match="windows of 10 steps"):
            to_trajectories(source, Cut(window=10))


def test_rounded_times_are_steps_and_gaps_are_counted(tmp_path):
    times = [round(k / 30, 3) for k in range(400) if k != 200]
    rows = [("s", t, e, t, 0.0) for t in times for e in "ab"]
    with read_csv([write(tmp_path / "t.csv", rows)], COLUMNS) as source:
        assert source.recordings[0].steps == 400
        assert source.recordings[0].time_step == pytest.approx(1 / 30, rel=1e-4)
        data = to_trajectories(source, Cut(window=200, velocities="none"))
    assert data.origin.first_step.tolist() == [0, 200]
    assert (~data.present).nonzero().tolist() == [[1, 0, 0], [1, 0, 1]]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda rows: rows[4].__setitem__(3, "abc"), "row 6, column 'x': expected a number, got 'abc'"),
        (lambda rows: rows[4].__setitem__(3, "inf"), "row 6, column 'x': expected a finite number, got inf"),
        (lambda rows: rows[4].__setitem__(1, ""), "row 6, column 't': expected a number, got nothing"),
        (lambda rows: rows[4].__setitem__(2, " "), "row 6, column 'who': expected a name or number, got nothing"),
        (lambda rows: rows[4].pop(), "row 6: expected 5 cells, got 4"),
        (lambda rows: rows[4].append(1), "row 6: expected 5 cells, got 6"),
        (
            lambda rows: rows.append(rows[4]),
            "rows 6 and 110: expected one row, got both about system 's0', entity 'e1'",
        ),
        (lambda rows: rows.append(["s0", 0.85, "e1", 0, 0]), "expected steps at equal distances (about 0.1"),
        (lambda rows: rows.append(["s0", 1e9, "e1", 0, 0]), "expected steps at equal distances"),
        (lambda rows: rows.clear(), "expected rows, got none"),
    ],
)
def test_damaged_tables_are_refused_by_row(tmp_path, states, small_chunks, change, said):
    rows = [list(row) for row in rows_of(states)]
    change(rows)
    assert said in complaint(write(tmp_path / "t.csv", rows))


def test_damaged_headers_and_files(tmp_path, states):
    assert "expected one column 'x', it is not there; columns: sys, t, who, a, y" in complaint(
        write(tmp_path / "a.csv", [], ("sys", "t", "who", "a", "y"))
    )
    assert "it is there 2 times" in complaint(write(tmp_path / "b.csv", [], ("sys", "t", "who", "x", "x", "y")))
    (tmp_path / "c.csv").write_text("")
    assert "row 1: expected a header" in complaint(tmp_path / "c.csv")
    (tmp_path / "d.csv").write_bytes(b"sys,t,who,x,y\n\xff\xfe,0,a,1,2\n")
    assert "expected UTF-8 text, got byte 0xff" in complaint(tmp_path / "d.csv")
    (tmp_path / "e.csv").write_text('sys,t,who,x,y\n"s0,0,a,1,2\n')
    assert "damaged" in complaint(tmp_path / "e.csv")
    with pytest.raises(FileNotFoundError, match="nowhere"), read_csv([tmp_path / "nowhere.csv"], COLUMNS):
        pass
    with pytest.raises(ValueError, match="time_unit"), read_csv([tmp_path / "a.csv"], COLUMNS, time_unit=0):
        pass


def test_labels(tmp_path, states):
    file = write(tmp_path / "t.csv", rows_of(states))
    labels = write(
        tmp_path / "e.csv", [("s1", "e0", "e2", 1), ("s2", "e1", "e0", 3)], ("sys", "sender", "receiver", "type")
    )
    with read_csv([file], COLUMNS, edges=labels) as source:
        data = to_trajectories(source)
    expected = torch.zeros(4, 3, 3, dtype=torch.uint8)
    expected[1, 0, 2], expected[2, 1, 0] = 1, 3
    assert torch.equal(data.edges, expected)
    for row, said in [
        (("s9", "e0", "e2", 1), "row 2, column 'sys': no system 's9'"),
        (("s1", "e0", "e9", 1), "row 2, column 'receiver': no entity 'e9' in system 's1'"),
        (("s1", "e0", "e0", 1), "expected an edge between two entities"),
        (("s1", "e0", "e1", 0.5), "column 'type': expected a whole number from 0 to 255, got 0.5"),
        (("s1", "e0", "e1", ""), "column 'type': expected a whole number"),
    ]:
        write(labels, [row], ("sys", "sender", "receiver", "type"))
        with pytest.raises(DataError, match=r"e\.csv") as problem, read_csv([file], COLUMNS, edges=labels):
            pass
        assert said in str(problem.value)


def peak(tmp_path, systems):
    """Most memory that Python and NumPy hold while a table in no order is converted."""
    states = np.random.default_rng(0).normal(size=(systems, 20, 5, 2))
    rows = rows_of(states)
    random.Random(0).shuffle(rows)
    file = write(tmp_path / f"{systems}.csv", rows)
    del rows
    tracemalloc.start()
    try:
        with read_csv([file], COLUMNS) as source:
            convert(source, tmp_path / f"{systems}")
        return tracemalloc.get_traced_memory()[1], states.nbytes
    finally:
        tracemalloc.stop()


def test_memory_does_not_grow_with_the_table(tmp_path, monkeypatch):
    monkeypatch.setattr(csv_columns, "ROWS", 1 << 9)
    monkeypatch.setattr(external_sort, "RUN", 1 << 10)
    monkeypatch.setattr(table, "RUN", 1 << 10)
    monkeypatch.setattr(table, "PIECE", 1 << 10)
    monkeypatch.setattr(systems_file, "BLOCK", 1 << 12)
    small, _ = peak(tmp_path, 50)
    large, states = peak(tmp_path, 400)
    # Names and places of systems are kept, numbers are not: 40,000 rows of 2 numbers each are 640 kB.
    assert large - small < states


# Parquet ------------------------------------------------------------------------------------------------------------


def test_parquet_reads_as_csv_does(tmp_path, states, monkeypatch):
    pa = pytest.importorskip("pyarrow", reason="pyarrow is not installed")
    import pyarrow.parquet as pq

    monkeypatch.setattr(csv_columns, "ROWS", 7)
    rows = rows_of(states, entity="{}")
    random.Random(3).shuffle(rows)
    columns = dict(zip(HEADER, zip(*rows, strict=True), strict=True))
    columns["who"] = [int(e) for e in columns["who"]]
    pq.write_table(pa.table(columns), tmp_path / "t.parquet")
    with read_parquet([tmp_path / "t.parquet"], COLUMNS) as source:
        data = to_trajectories(source, Cut(velocities="none"))
    assert np.array_equal(data.states.numpy(), states)
    assert data.origin.entity_names[0].tolist() == ["0", "1", "2"]
    columns["x"] = [*columns["x"][:5], None, *columns["x"][6:]]
    pq.write_table(pa.table(columns), tmp_path / "hole.parquet")
    with read_parquet([tmp_path / "hole.parquet"], COLUMNS) as source:
        data = to_trajectories(source, Cut(velocities="none"))
    assert (~data.there).sum() == 1
    assert np.array_equal(data.states.numpy()[data.there], states[data.there])


def test_damaged_parquet(tmp_path, states):
    pa = pytest.importorskip("pyarrow", reason="pyarrow is not installed")
    import pyarrow.parquet as pq

    columns = dict(zip(HEADER, zip(*rows_of(states), strict=True), strict=True))
    file = tmp_path / "t.parquet"
    pq.write_table(pa.table(columns), file)
    whole = file.read_bytes()
    for change, said in [
        ({"x": ["a"] * len(columns["x"])}, "column 'x': expected numbers, got string"),
        ({"who": [None, *columns["who"][1:]]}, "row 1, column 'who': expected a name"),
        ({"t": [None, *columns["t"][1:]]}, "row 1, column 't': expected a number, got nothing"),
        ({"y": [*columns["y"][:9], float("inf"), *columns["y"][10:]]}, "row 10, column 'y': expected a finite number"),
    ]:
        pq.write_table(pa.table(columns | change), file)
        with pytest.raises(DataError, match=r"t\.parquet") as problem, read_parquet([file], COLUMNS):
            pass
        assert said in str(problem.value)
    for share in (0.0, 0.5, 0.99):
        file.write_bytes(whole[: int(share * len(whole))])
        with pytest.raises(DataError, match=r"t\.parquet"), read_parquet([file], COLUMNS):
            pass
    with pytest.raises(FileNotFoundError), read_parquet([tmp_path / "nowhere.parquet"], COLUMNS):
        pass


def test_parquet_without_pyarrow_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(DataError, match=r"pip install 'nri_fast\[tables\]'"), read_parquet([tmp_path / "t"], COLUMNS):
        pass


@pytest.fixture(params=["pyarrow", "numpy"])
def plain_reader(request, monkeypatch):
    """What reads plain chunks, four rows at a time: pyarrow, or without it NumPy."""
    monkeypatch.setattr(csv_columns, "ROWS", 4)
    if request.param == "numpy":
        monkeypatch.setattr(csv_columns, "pa", None)
    else:
        pytest.importorskip("pyarrow")
    return request.param


def test_plain_chunks_are_read_by_the_fast_reader(plain_reader, tmp_path, monkeypatch):
    def never(*_):
        raise AssertionError("read by the csv module")

    monkeypatch.setattr(csv_columns, "_by_csv", never)
    file = tmp_path / "rows.csv"
    file.write_bytes(b"entity;step;x;y\r\n" + b"".join(f"\xe4 {k % 2};{k};{k / 7!r};?\r\n".encode() for k in range(9)))
    chunks = list(table_rows.csv_rows(file, ["entity"], ["step", "x"]))
    assert [len(chunk) for chunk in chunks] == [4, 4, 1]
    assert [name for chunk in chunks for name in chunk.text["entity"]] == [f"\xe4 {k % 2}" for k in range(9)]
    assert np.concatenate([chunk.numbers["x"] for chunk in chunks]).tolist() == [k / 7 for k in range(9)]


@pytest.mark.parametrize("odd", ['"quo\nted"', "", " 3 ", "1_0", "nan"])
def test_whatever_reads_a_chunk_the_rows_are_the_same(odd, plain_reader, tmp_path):
    """One odd cell makes the csv module read its chunk, or all from a quote on."""
    plain = [[f"ant {k % 3}", str(k), repr(k / 7), "unused"] for k in range(11)]
    column = 0 if odd.startswith('"') else 2
    mixed = [[odd if (k, c) == (6, column) else cell for c, cell in enumerate(row)] for k, row in enumerate(plain)]
    file = tmp_path / "rows.csv"
    file.write_text("entity,step,x,y\n" + "".join(",".join(row) + "\n" for row in mixed), newline="")
    chunks = list(table_rows.csv_rows(file, ["entity"], ["step", "x"]))
    assert chunks[0].first_row == 2
    assert [c.first_row for c in chunks[1:]] == [2 + sum(len(c.text["entity"]) for c in chunks[:k + 1])
                                                 for k in range(len(chunks) - 1)]  # fmt: skip
    names = [name for chunk in chunks for name in chunk.text["entity"]]
    values = np.concatenate([chunk.numbers["x"] for chunk in chunks])
    expected_names = [row[0] for row in plain]
    expected = np.array([float(row[2]) for row in plain])
    if column == 0:
        expected_names[6] = "quo\nted"
    else:
        expected[6] = float(odd.strip() or "nan")
    assert names == expected_names
    np.testing.assert_array_equal(values, expected)
    assert np.concatenate([chunk.numbers["step"] for chunk in chunks]).tolist() == list(range(11))


def test_a_mistake_is_named_by_its_row_in_whatever_chunk_it_is(plain_reader, tmp_path):
    good = [f"a,{k},{k}\n" for k in range(11)]
    mistakes = {
        "a,9\n": "row 11: expected 3 cells, got 2",
        "a,9,x\n": "row 11, column 'x': expected a number",
        'a,9,"9\n': r"line \d+: damaged",
        "\n": "row 11: expected 3 cells, got 0",
    }
    for line, message in mistakes.items():
        file = tmp_path / "rows.csv"
        file.write_text("entity,step,x\n" + "".join([*good[:9], line, *good[10:]]), newline="")
        with pytest.raises(DataError, match=message):
            list(table_rows.csv_rows(file, ["entity"], ["step", "x"]))
