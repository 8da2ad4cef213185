"""Section: what was trained on what."""

from __future__ import annotations

import dataclasses
from typing import Any

from nri_fast.html_report.material import Material
from nri_fast.html_report.page import Section, facts, folded, table
from nri_fast.settings import PRESETS


def training_facts(material: Material) -> Section:
    """Data, features and their ranges, settings, seed, versions."""
    run, data = material.run, material.data
    trained = run.trained_on
    rows = [
        ("Trained on", _data(trained)),
        ("Graphs and forecasts below", _shown(material)),
        ("Steps of training", _steps(material)),
        ("Types told apart", f"{run.settings.edge_types} of edges, {run.settings.node_types} of entities"),
        ("What is assumed", _assumed(material)),
        ("Seed", str(run.seed)),
        *_made(material.made),
    ]
    if run.started_from is not None:
        rows.append(("Began with", f"the modules of a run of seed {run.started_from['seed']}"))
    if run.starts:
        rows.append(("Chosen among", _starts(run.starts, run.seed)))
    if data.origin is not None:
        rows += [(f"Note on {name}", note) for name, note in sorted(data.origin.notes.items())]
    normalisation = run.normalisation
    ranges = zip(normalisation.feature_names, normalisation.low, normalisation.high, strict=True)
    features = table(
        ["feature", "lowest in training", "highest", "judged", "only relative to the receiver"],
        [
            [name, f"{low:.4g}", f"{high:.4g}", _yes(d in judged), _yes(name in run.settings.relative)]
            for judged in [run.settings.judged_places(normalisation.feature_names)]
            for d, (name, low, high) in enumerate(ranges)
        ],
        "Features, in recorded units; the modules see these ranges as -1 to 1",
    )
    settings = table(["setting", "value"], [[n, _value(v)] for n, v in dataclasses.asdict(run.settings).items()])
    return Section(
        "training-facts",
        "What was trained on what",
        "The data, the features and their units, and what training did.",
        facts(rows) + features + folded("All settings", settings),
    )


def _data(trained: dict[str, Any]) -> str:
    name = f"{trained['name']}, " if trained.get("name") else ""
    return (
        f"{name}split {trained['split']}: {trained['systems']} systems of up to {trained['entities']} entities, "
        f"{trained['steps']} recorded steps each; no labels were looked at"
    )


def _shown(material: Material) -> str:
    data = material.data
    fewest, most = min(material.size_of), max(material.size_of)
    entities = str(most) if fewest == most else f"{fewest} to {most}"
    labels = "with labels" if data.edges is not None else "without labels"
    between = ""
    if data.origin is not None:
        low, high = (float(f(data.origin.time_step)) for f in (min, max))
        between = f", {low:.4g} {'' if low == high else f'to {high:.4g} '}between two steps"
    return f"split {data.split}: {data.systems} systems of {entities} entities, {data.steps} steps{between}, {labels}"


def _steps(material: Material) -> str:
    s = material.run.settings
    same = [name for name, preset in PRESETS.items() if preset == s]
    preset = f" (preset {same[0]})" if same else ""
    search = {"soft": "heat bath", "sampled": "sampled heat bath", "metropolis": "Metropolis"}[s.bounce]
    polish = f", then {s.polish_steps:,} on forecasts" if s.polish_steps else ""
    return f"{s.steps:,} gradient steps with a search of graphs ({search}) in each{polish}{preset}"


def _assumed(material: Material) -> str:
    s = material.run.settings
    said = [
        "both directions of a pair have one type" if s.undirected else "both directions of a pair may differ",
        "all systems share one graph" if s.shared else "every system has a graph of its own",
        "type 0 means no interaction" if s.silent else "types have no names",
    ]
    return "; ".join(said)


def _made(made: dict[str, Any]) -> list[tuple[str, str]]:
    if not made:
        return []
    seconds = made.get("seconds")
    took = "" if seconds is None else f", in {seconds:.0f} s" + (" since it was resumed" if made.get("resumed") else "")
    commit = f", commit {made['commit']}" if made.get("commit") else ""
    return [
        ("Trained at", f"{made.get('finished', 'unknown')}{took}, on {made.get('device', 'unknown')}"),
        ("Trained by", f"nri_fast {made.get('nri_fast', 'unknown')}{commit}"),
    ]


def _starts(starts: list[dict[str, Any]], seed: int) -> str:
    told = [
        f"seed {s['seed']}: {'not finite' if s['error'] is None else format(s['error'], '.3f')}"
        + (" (kept)" if s["seed"] == seed else "")
        for s in starts
    ]
    return (
        f"{len(starts)} starts, by the error where it was not searched (log scale, lower is better): {', '.join(told)}"
    )


def _yes(value: bool) -> str:
    return "yes" if value else "no"


def _value(value: Any) -> str:
    return ", ".join(map(str, value)) or "none" if isinstance(value, tuple) else str(value)
