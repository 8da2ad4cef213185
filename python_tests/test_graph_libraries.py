"""PyTorch Geometric in and out, NetworkX out, and tables of edges."""

import csv
import sys

import pytest
import torch

import nri_fast
from nri_fast import Inference, TrajectoryData
from nri_fast.edge_table import edge_table
from nri_fast.origin import Origin, named_entities


@pytest.fixture
def data():
    """Two systems, of three and of two entities, with names."""
    states = torch.randn(2, 4, 3, 2, dtype=torch.float64)
    edges = torch.zeros(2, 3, 3, dtype=torch.uint8)
    states[1, :, 2], edges[0, 0, 2], edges[1, 1, 0] = 0, 1, 2
    names = named_entities(2, 3, ["ann", "bob", "cy"]).copy()
    names[1, 2] = ""
    origin = Origin(torch.tensor([0, 1]), ("a", "b"), torch.tensor([0, 5]), torch.ones(2, dtype=torch.float64), names)
    return TrajectoryData(states, edges, ("x", "vx"), sizes=torch.tensor([3, 2]), origin=origin)


@pytest.fixture
def found(data):
    probability = torch.full((2, 3, 3, 3), 0.05)
    probability.scatter_(3, data.edges.long()[..., None], 0.9)
    return Inference(data.edges, probability, torch.zeros(2), torch.zeros(2, 3, dtype=torch.uint8), torch.ones(2, 3, 1))


def test_networkx(data, found):
    graph = nri_fast.to_networkx(data, found)
    assert list(graph.nodes) == ["ann", "bob", "cy"]
    assert [(i, j, facts["type"]) for i, j, facts in graph.edges(data=True)] == [("ann", "cy", 1)]
    assert graph.edges["ann", "cy"]["probability"] == pytest.approx(0.9)
    assert list(nri_fast.to_networkx(data, system=1).edges(data=True)) == [("bob", "ann", {"type": 2})]
    with pytest.raises(ValueError, match="system: expected 0 to 1, got 2"):
        nri_fast.to_networkx(data, found, 2)
    unlabelled = TrajectoryData(data.states[:1], None, ("x", "vx"))
    with pytest.raises(ValueError, match="expected true edges"):
        nri_fast.to_networkx(unlabelled)
    assert list(nri_fast.to_networkx(TrajectoryData(data.states[:1], data.edges[:1], ("x", "vx"))).nodes) == [0, 1, 2]


def test_tables_of_edges_name_everything(data, found):
    rows = list(csv.DictReader(edge_table(found, data).splitlines()))
    assert len(rows) == 6 + 2
    acting = [row for row in rows if row["type"] != "0"]
    assert [(r["system"], r["recording"], r["first_step"], r["sender"], r["receiver"]) for r in acting] == [
        ("0", "a", "0", "ann", "cy"),
        ("1", "b", "5", "bob", "ann"),
    ]
    assert float(acting[0]["probability"]) == pytest.approx(0.9)


def test_pytorch_geometric_round_trip(data):
    pyg = pytest.importorskip("torch_geometric.data", reason="PyTorch Geometric is not installed")
    graphs = nri_fast.to_pyg(data)
    assert [graph.num_nodes for graph in graphs] == [3, 2]
    sender, receiver = graphs[0].edge_index
    assert int(graphs[0].edge_type[(sender == 0) & (receiver == 2)]) == 1
    for given in (graphs, pyg.Batch.from_data_list(graphs)):
        back = nri_fast.from_pyg(given, data.feature_names)
        assert torch.equal(back.states, data.states)
        assert torch.equal(back.edges, data.edges)
        assert torch.equal(back.sizes, data.sizes)
    bare = nri_fast.from_pyg(pyg.Data(x=torch.randn(3, 4, 2)), ("a", "b"))
    assert bare.edges is None
    assert bare.states.shape == (1, 4, 3, 2)


def test_inferred_edges_go_to_pytorch_geometric(data, found):
    pytest.importorskip("torch_geometric.data", reason="PyTorch Geometric is not installed")
    graph = nri_fast.to_pyg(data, found)[0]
    assert graph.edge_probability.shape == (6, 3)
    assert torch.equal(graph.edge_probability.argmax(1), graph.edge_type)


def test_graphs_that_do_not_fit():
    pyg = pytest.importorskip("torch_geometric.data", reason="PyTorch Geometric is not installed")
    good = pyg.Data(x=torch.randn(3, 4, 2))

    def labelled(index, types):
        return pyg.Data(x=torch.randn(3, 4, 2), edge_index=torch.tensor(index), edge_type=torch.tensor(types))

    for graphs, said in [
        ([], "expected at least one"),
        ([good, pyg.Data(x=torch.randn(3, 5, 2))], r"graphs\[1\]\.x: expected \[entities, 4, 2\], got \[3, 5, 2\]"),
        ([pyg.Data(x=torch.randn(3, 4))], r"graphs\[0\]\.x: expected floating-point \[entities, steps, features\]"),
        ([pyg.Data()], r"graphs\[0\]\.x: .* got nothing"),
        ([good, labelled([[0], [1]], [1])], r"graphs\[0\]: expected edge_type in all graphs"),
        ([labelled([[0], [3]], [1])], r"edge_index: expected 0 to 2, got up to 3"),
        ([labelled([[0], [0]], [1])], "from an entity to itself"),
        ([labelled([[0, 0], [1, 1]], [1, 1])], "given twice"),
        ([labelled([[0], [1]], [300])], "expected whole numbers from 0 to 255"),
        ([labelled([[0], [1]], [1, 2])], r"expected edge_index \[2, edges\] beside edge_type"),
    ]:
        with pytest.raises(ValueError, match=said):
            nri_fast.from_pyg(graphs, ("a", "b"))
    with pytest.raises(TypeError, match=r"graphs\[0\]: expected torch_geometric\.data\.Data, got int"):
        nri_fast.from_pyg([3], ("a",))


def test_without_pytorch_geometric_it_says_what_to_install(data, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch_geometric.data", None)
    with pytest.raises(ImportError, match=r"pip install 'nri_fast\[graphs\]'"):
        nri_fast.to_pyg(data)
