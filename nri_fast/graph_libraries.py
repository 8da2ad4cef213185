"""PyTorch Geometric in and out, and NetworkX out. Neither is needed by anything else here.

PyTorch Geometric: a ``Data`` object is one system, ``x`` [entities, steps, features], ``edge_index`` [2, edges] (row 0
senders) and ``edge_type`` [edges], its true or inferred types; a ``Batch`` is a list of those. Edges that are not in
``edge_index`` have type 0.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from nri_fast.infer import Inference
from nri_fast.trajectory_data import TrajectoryData


def from_pyg(graphs: Any, feature_names: Sequence[str], name: str = "", split: str = "train") -> TrajectoryData:
    """Systems from PyTorch Geometric.

    Parameters
    ----------
    graphs : Data, Batch or sequence of Data
        Each with ``x`` [entities, steps, features]; if all have ``edge_type``, also with true edges. ``present``
        [entities, steps] bool, where a graph has it, says which states there are.
    feature_names : sequence of str
        ``x, y, z`` are positions and ``vx, vy, vz`` velocities.
    name, split : str
        Of the data set.

    Returns
    -------
    TrajectoryData

    Raises
    ------
    ImportError
        PyTorch Geometric is not installed: ``pip install 'nri_fast[graphs]'``.
    TypeError, ValueError
        What is no graph, has no ``x`` of this shape, other numbers of steps or features than the first, or edges that
        are out of range, given twice, from an entity to itself or without a type: the graph's number is named.
    """
    data_class, batch_class = _pyg()
    if isinstance(graphs, batch_class):
        graphs = graphs.to_data_list()
    elif isinstance(graphs, data_class):
        graphs = [graphs]
    listed = list(graphs)
    if not listed:
        raise ValueError("graphs: expected at least one, got none")
    for g, graph in enumerate(listed):
        _check_graph(g, graph, data_class, listed[0])
    sizes = torch.tensor([graph.x.shape[0] for graph in listed])
    largest = int(sizes.max())
    states = torch.zeros(len(listed), listed[0].x.shape[1], largest, listed[0].x.shape[2], dtype=torch.float64)
    labelled = [graph.get("edge_type") is not None for graph in listed]
    if any(labelled) and not all(labelled):
        raise ValueError(f"graphs[{labelled.index(False)}]: expected edge_type in all graphs or in none")
    edges = torch.zeros(len(listed), largest, largest, dtype=torch.uint8) if all(labelled) else None
    present = torch.zeros(states.shape[:3], dtype=torch.bool)
    for g, graph in enumerate(listed):
        states[g, :, : graph.x.shape[0]] = graph.x.transpose(0, 1)
        flags = graph.get("present")
        present[g, :, : graph.x.shape[0]] = True if flags is None else flags.bool().T
        if edges is not None:
            edges[g, graph.edge_index[0], graph.edge_index[1]] = graph.edge_type.to(torch.uint8)
    return TrajectoryData(states, edges, tuple(feature_names), name, split, sizes=sizes, present=present)


def to_pyg(data: TrajectoryData, inference: Inference | None = None) -> list[Any]:
    """Systems as PyTorch Geometric's ``Data``; ``Batch.from_data_list`` puts them into one batch.

    Parameters
    ----------
    data : TrajectoryData
    inference : Inference, optional
        Its edges are then the graphs' edges, with ``edge_probability`` [edges, types] beside ``edge_type``; otherwise
        the true edges are, if there are any.

    Returns
    -------
    list of Data
        Complete graphs, edges by receiver and then by sender: ``x`` [entities, steps, features] float64,
        ``edge_index`` and, where types are known, ``edge_type`` int64. Where states are absent (zero in ``x``),
        ``present`` [entities, steps] bool.

    Raises
    ------
    ImportError
        PyTorch Geometric is not installed.
    """
    data_class, _ = _pyg()
    adjacency = data.edges if inference is None else inference.adjacency
    graphs = []
    for s in range(data.systems):
        n = data.entities if data.sizes is None else int(data.sizes[s])
        receiver, sender = (~torch.eye(n, dtype=torch.bool)).nonzero().unbind(1)
        graph = data_class(
            x=data.states[s, :, :n].transpose(0, 1).contiguous(), edge_index=torch.stack([sender, receiver])
        )
        if data.present is not None:
            graph.present = data.present[s, :, :n].T.contiguous()
        if adjacency is not None:
            graph.edge_type = adjacency[s, sender, receiver].long()
        if inference is not None:
            graph.edge_probability = inference.probability[s, sender, receiver]
        graphs.append(graph)
    return graphs


def to_networkx(data: TrajectoryData, inference: Inference | None = None, system: int = 0) -> Any:
    """One system's graph for NetworkX.

    Parameters
    ----------
    data : TrajectoryData
        Names the nodes, where it has an origin; otherwise they are 0, 1, ...
    inference : Inference, optional
        Inferred edges; by default the true ones.
    system : int

    Returns
    -------
    networkx.DiGraph
        An edge from sender to receiver for every pair whose type is not 0, with ``type``, and with ``probability`` (of
        that type) if it was inferred.

    Raises
    ------
    ValueError
        Neither true nor inferred edges, or no such system.
    """
    import networkx as nx

    if inference is None and data.edges is None:
        raise ValueError("data: expected true edges where none were inferred, got none")
    if not 0 <= system < data.systems:
        raise ValueError(f"system: expected 0 to {data.systems - 1}, got {system}")
    n = data.entities if data.sizes is None else int(data.sizes[system])
    names: list[Any] = list(range(n)) if data.origin is None else data.origin.entity_names[system, :n].tolist()
    graph = nx.DiGraph()
    graph.add_nodes_from(names)
    adjacency = data.edges if inference is None else inference.adjacency
    assert adjacency is not None
    for i, j in adjacency[system].nonzero().tolist():
        facts: dict[str, Any] = {"type": int(adjacency[system, i, j])}
        if inference is not None:
            facts["probability"] = float(inference.probability[system, i, j].max())
        graph.add_edge(names[i], names[j], **facts)
    return graph


def _pyg() -> tuple[Any, Any]:
    try:
        from torch_geometric.data import Batch, Data
    except ImportError as problem:
        raise ImportError(
            f"PyTorch Geometric is not installed: pip install 'nri_fast[graphs]' ({problem})"
        ) from problem
    return Data, Batch


def _check_graph(g: int, graph: Any, data_class: Any, first: Any) -> None:
    if not isinstance(graph, data_class):
        raise TypeError(f"graphs[{g}]: expected torch_geometric.data.Data, got {type(graph).__name__}")
    x = graph.get("x")
    if not isinstance(x, torch.Tensor) or x.ndim != 3 or not x.is_floating_point():
        found = "nothing" if x is None else f"{getattr(x, 'dtype', type(x))} {list(getattr(x, 'shape', []))}"
        raise ValueError(f"graphs[{g}].x: expected floating-point [entities, steps, features], got {found}")
    if x.shape[1:] != first.x.shape[1:] or x.shape[0] < 1:
        expected = [*first.x.shape[1:]]
        raise ValueError(f"graphs[{g}].x: expected [entities, {expected[0]}, {expected[1]}], got {list(x.shape)}")
    types, index = graph.get("edge_type"), graph.get("edge_index")
    if types is None:
        return
    if index is None or index.ndim != 2 or index.shape[0] != 2 or types.shape != (index.shape[1],):
        raise ValueError(f"graphs[{g}]: expected edge_index [2, edges] beside edge_type [edges]")
    if index.numel() and (int(index.min()) < 0 or int(index.max()) >= x.shape[0]):
        raise ValueError(f"graphs[{g}].edge_index: expected 0 to {x.shape[0] - 1}, got up to {int(index.max())}")
    if bool((index[0] == index[1]).any()):
        raise ValueError(f"graphs[{g}].edge_index: an edge from an entity to itself")
    if len(torch.unique(index, dim=1).T) != index.shape[1]:
        raise ValueError(f"graphs[{g}].edge_index: an edge is given twice")
    if types.numel() and (int(types.min()) < 0 or int(types.max()) > 255 or types.is_floating_point()):
        raise ValueError(f"graphs[{g}].edge_type: expected whole numbers from 0 to 255")
