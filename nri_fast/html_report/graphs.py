"""Section: the graphs over the trajectories, for the page's script to draw and step through."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from nri_fast.html_report.material import Material
from nri_fast.html_report.page import Section, colour_name, embedded
from nri_fast.metrics import Array
from nri_fast.normalisation import POSITION_NAMES

TITLE = "Graphs over the trajectories"
SAYS = "Who acts on whom in single systems: step through time, choose types, and hide what the run is unsure of."
SYSTEMS = 12  # shown
NUMBERS = 120_000  # of states, in all
EDGES = 2_000  # of a system
STEPS = 200  # of a system
FEATURES = 3  # curves, where nothing is a position
CROWDED = 30  # edges of a system, above which types that act little are hidden at first


def graphs(material: Material) -> Section:
    """The viewer and the data that it shows."""
    if not len(material.edge_types):
        return Section("graphs", TITLE, SAYS, left_out="no system has two entities, so there are no edges")
    shown = _shown_systems(material)
    names = material.data.feature_names
    places = [names.index(name) for name in POSITION_NAMES if name in names]
    plane = len(places) > 1
    kept = places if plane else list(range(min(FEATURES, len(names))))
    systems = [_system(material, s, kept, NUMBERS // len(shown), unsure) for s, unsure in shown]
    values = {
        "types": _types(material),
        "features": [names[d] for d in kept],
        "plane": plane,
        "even": 1 / material.types,
        "labelled": material.data.edges is not None,
        "systems": systems,
    }
    return Section(
        "graphs", TITLE, SAYS, _VIEWER.format(turn=_TURN if len(places) == 3 else "") + embedded("graph-data", values)
    )


def _shown_systems(material: Material) -> list[tuple[int, bool]]:
    """The first systems, and those that the run is least sure of: place, and whether it is one of the latter."""
    count = material.data.systems
    if count <= SYSTEMS:
        return [(s, False) for s in range(count)]
    probability = material.found.probability.max(-1).values
    pairs = torch.tensor([n * (n - 1) for n in material.size_of]).clamp(min=1)
    unsure = (probability.flatten(1).sum(1) / pairs).argsort()[: SYSTEMS // 3].tolist()
    first = [s for s in range(count) if s not in unsure][: SYSTEMS - len(unsure)]
    return [(s, False) for s in first] + [(s, True) for s in unsure]


def _types(material: Material) -> list[dict[str, Any]]:
    strength = np.zeros(0) if material.influence is None else material.influence.strength
    pairs = max(material.size_of) * (max(material.size_of) - 1)
    crowded = len(strength) > 0 and pairs > CROWDED
    return [
        {
            "name": name,
            "colour": colour_name(k, material.silent is not None),
            "shown": bool(k != material.silent and not (crowded and strength[k] < 0.5 * strength.max())),
        }
        for k, name in enumerate(material.type_names)
    ]


def _system(material: Material, s: int, kept: list[int], numbers: int, unsure: bool) -> dict[str, Any]:
    n, steps = material.size_of[s], material.data.steps
    every = max(1, -(-steps // min(STEPS, max(2, numbers // (n * len(kept))))))
    moments = range(0, steps, every)
    states = material.data.states[s, list(moments), :n][..., kept].numpy()
    types = material.found.adjacency[s, :n, :n].numpy()
    sure = material.found.probability[s, :n, :n].max(-1).values.numpy()
    pairs = np.argwhere(~np.eye(n, dtype=bool))
    sureness = sure[pairs[:, 0], pairs[:, 1]]
    if len(pairs) > EDGES:
        pairs = pairs[np.sort(np.argsort(-sureness, kind="stable")[:EDGES])]
    wrong = _wrong(material, s, n)
    columns: dict[str, Any] = {
        "from": pairs[:, 0].tolist(),
        "to": pairs[:, 1].tolist(),
        "type": types[pairs[:, 0], pairs[:, 1]].tolist(),
        "p": [round(float(p), 3) for p in sure[pairs[:, 0], pairs[:, 1]]],
    }
    if wrong is not None:
        columns["wrong"] = wrong[pairs[:, 0], pairs[:, 1]].astype(int).tolist()
    return {
        "name": material.system_name(s) + (", among the least sure" if unsure else ""),
        "entities": _entities(material, s),
        "moments": list(moments),
        "states": _rounded(states, material.data.there[s, list(moments), :n].numpy()),
        "edges": columns,
        "edgesLeftOut": n * (n - 1) - len(pairs),
    }


def _entities(material: Material, s: int) -> list[str]:
    """Names, with types where the run tells entities apart."""
    names = material.entity_names(s)
    if material.run.settings.node_types < 2:
        return names
    kinds = material.found.node_types[s].tolist()
    return [f"{name} (type {kind})" for name, kind in zip(names, kinds, strict=False)]


def _wrong(material: Material, s: int, n: int) -> Array | None:
    if material.data.edges is None:
        return None
    named = np.asarray(material.figures["relabelling"])[material.found.adjacency[s, :n, :n].numpy()]
    return np.asarray(named != material.data.edges[s, :n, :n].numpy())


def _rounded(states: Array, there: Array) -> list[Any]:
    """[features][entities][steps], finer than a picture shows; None where an entity is absent."""
    spread = float(np.ptp(states.reshape(-1, states.shape[-1]), axis=0).max()) or 1.0
    digits = max(0, 4 - int(np.floor(np.log10(spread))))
    rounded = np.round(states.transpose(2, 1, 0), digits).astype(object)
    rounded[:, ~there.T] = None
    return rounded.tolist()


_TURN = '<label>Turn <input type="range" id="turn" min="0" max="360" value="30"></label>'
_VIEWER = """<noscript><p>This part needs JavaScript; all else on the page does not.</p></noscript>
<div class="viewer" id="viewer">
<div class="controls">
<label>System <select id="system"></select></label>
<button type="button" id="previous" aria-label="Previous system">&#8592;</button>
<button type="button" id="next" aria-label="Next system">&#8594;</button>
</div>
<svg id="stage" role="img" viewBox="0 0 640 480" aria-label="Trajectories of a system with its edges"></svg>
<svg id="series" role="img" viewBox="0 0 640 200" aria-label="A feature of every entity over the steps" hidden></svg>
<div class="controls">
<button type="button" id="play">Play</button>
<label class="grow">Step <output id="moment"></output><input type="range" id="step" min="0" value="0"></label>
</div>
<div class="controls">
<fieldset id="types"><legend>Edge types</legend></fieldset>
<label class="grow">Only edges surer than <output id="least-shown"></output>
<input type="range" id="least" min="0" max="100" value="0"></label>
<label id="feature-choice" hidden>Feature <select id="feature"></select></label>
<label id="wrong-choice" hidden><input type="checkbox" id="wrong" checked> cross out wrong edges</label>
{turn}
</div>
<p class="note" id="told" aria-live="polite"></p>
<p class="note">An arrow points at the receiver; the fainter it is, the less sure the run is of its type.</p>
<details id="edges"><summary>Edges shown, as a table</summary><div class="wide"><table><thead><tr>
<th scope="col">sender</th><th scope="col">receiver</th><th scope="col">type</th><th scope="col">probability</th>
</tr></thead><tbody></tbody></table></div></details>
</div>
"""
