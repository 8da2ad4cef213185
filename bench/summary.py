"""Writes the figures in README and docs/experiments.md from the result files: ``python -m bench.summary``."""

from __future__ import annotations

import json
from pathlib import Path
from statistics import mean
from typing import Any

from bench.record import RESULTS

README = Path(__file__).parent.parent / "README.md"
EXPERIMENTS = README.parent / "docs" / "experiments.md"


def load(name: str) -> dict[str, Any] | None:
    """A result file, or None where it has not been made."""
    path = RESULTS / f"{name}.json"
    return json.loads(path.read_text()) if path.exists() else None


def machine(result: dict[str, Any]) -> str:
    """The machine in a few words."""
    facts = result["machine"]
    cores = "1 core" if facts["cores"] == 1 else f"{facts['cores']} cores"
    return facts["gpu"] or f"{facts['processor'].split(' @')[0]}, {cores}"


def accuracy_rows() -> list[tuple[str, str, str]]:
    """What, figure, machine."""
    names = {
        "springs20": "springs, 20 simulated systems to learn from",
        "springs_file": "springs, NRI's own files, 400 systems",
    }
    rows = []
    for name, title in names.items():
        result = load(name)
        if result is None:
            continue
        runs = result["runs"]
        edges = 100 * mean(run["edge_accuracy"] for run in runs)
        seconds = mean(run["seconds"]["train"] for run in runs)
        rows.append((title, f"{accuracy(edges, seconds, len(runs))}; {forecasts(runs)}", machine(result)))
    result = load("experiments/accuracy/result")
    lessons: dict[tuple[str, int], list[dict[str, Any]]] = {}
    for part in [] if result is None else result["parts"].values():
        lesson = part["figures"]["lesson"]
        lessons.setdefault((lesson["title"], lesson["systems"]), []).append(part)
    for (title, systems), parts in lessons.items():
        found = [part["figures"] for part in parts]
        directed, undirected = (
            100 * mean(one[way]["edge_accuracy"] for one in found) for way in ("directed", "undirected")
        )
        seconds = mean(one["train_seconds"] for one in found)
        figure = f"{accuracy(directed, seconds, len(found))}, undirected {undirected:.2f}%"
        figure += f"; {forecasts([one['undirected'] for one in found])}"
        rows.append((f"{title}, {systems:,} simulated systems", figure, machine(parts[0])))
    return rows


def accuracy(edges: float, seconds: float, seeds: int) -> str:
    """In words."""
    repeated = f", mean of {seeds} seeds" if seeds > 1 else ""
    return f"**{edges:.2f}%** of held-out edges after {seconds:.0f} s of training{repeated}"


def forecasts(runs: list[dict[str, Any]]) -> str:
    """In words."""
    gain = mean(run["mse_10_nothing_moves"] / run["mse_10"] for run in runs)
    return f'error at 10 steps {gain:,.{0 if gain >= 10 else 1}f} times below "nothing moves"'


def speed_rows() -> list[tuple[str, str, str]]:
    """What, figure, machine."""
    rows = []
    heat_bath = load("heat_bath")
    if heat_bath is not None:
        for work in ("scores", "hot step", "cold step"):
            ratios = [row["times_faster"] for row in heat_bath["rows"] if row["work"] == work]
            title = {"scores": "heat-bath scores", "hot step": "heat-bath training step, first of a run"}
            name = title.get(work, "heat-bath training step, last of a run")
            figure = f"{min(ratios):.1f} to {max(ratios):.1f} times plain PyTorch (widths 32 and 64, 1 and all threads)"
            rows.append((name, figure, machine(heat_bath)))
    simulator = load("simulator")
    if simulator is not None:
        seconds = simulator["seconds"]["springs"]
        rows.append(("50,000 springs systems simulated", f"{seconds:.1f} s", machine(simulator)))
    bounces = load("bounces")
    if bounces is not None:
        curves = bounces["curves"]
        seconds = min(points[-1]["seconds"] for points in curves.values())
        at_equal_time = {n: [p for p in points if p["seconds"] <= seconds][-1] for n, points in curves.items()}
        right = [f"{name} {100 * p['accuracy']:.1f}%" for name, p in at_equal_time.items()]
        right += [f"{n} {100 * p[-1]['accuracy']:.1f}% after {p[-1]['seconds']:.0f} s" for n, p in curves.items()][1:]
        label = f"edges right in training after {seconds:.0f} s, 200 springs systems"
        rows.append((label, ", ".join(right), machine(bounces)))
    return rows


def experiment_tables() -> str:
    """Tables of the experiments whose results are kept, as the command leaves them, in `bench/results/experiments/`."""
    tables = []
    for path in sorted((RESULTS / "experiments").glob("*/result.json")):
        result = json.loads(path.read_text())
        table = result["table"]
        machines = {machine(part) for part in result["parts"].values()}
        where = f"../bench/results/experiments/{path.parent.name}"
        lines = [
            f"**{table['title']}** ([figure]({where}/figure.png), [all figures]({where}/result.json); "
            f"{' and '.join(sorted(machines))})",
            "",
            "| " + " | ".join(table["columns"]) + " |",
            "| --- " * len(table["columns"]) + "|",
            *("| " + " | ".join(row) + " |" for row in table["rows"]),
            "",
            " ".join(table["notes"]),
        ]
        tables.append("\n".join(lines))
    return "\n\n".join(tables)


def replace(text: str, marker: str, content: str) -> str:
    """The text with what stands between a marker's comments exchanged."""
    begin, end = f"<!-- {marker} -->", f"<!-- /{marker} -->"
    head, rest = text.split(begin)
    return f"{head}{begin}\n{content}\n{end}{rest.split(end)[1]}"


def main() -> None:
    """Rewrites README's table."""
    rows = accuracy_rows() + speed_rows()
    table = ["| what | figure | machine |", "| --- | --- | --- |", *(f"| {a} | {b} | {c} |" for a, b, c in rows)]
    text = replace(README.read_text(), "results", "\n".join(table))
    README.write_text(text)
    EXPERIMENTS.write_text(replace(EXPERIMENTS.read_text(), "results", experiment_tables()))
    print(f"wrote {len(rows)} rows to {README}")


if __name__ == "__main__":
    main()
