"""Writes figures into README, docs/speed.md and docs/experiments.md from the result files, and draws."""

from __future__ import annotations

import json
from pathlib import Path
from statistics import mean
from typing import Any

from bench.figures import draw_peak, draw_scaling
from bench.record import RESULTS
from bench.rows import OURS

README = Path(__file__).parent.parent / "README.md"
PEAK_SUBJECTS = ("energy", "gradient", "heat_bath")
PLAIN_TORCH = ("bucketed", "masked", "dense")
EXPERIMENTS = README.parent / "docs" / "experiments.md"
SPEED = README.parent / "docs" / "speed.md"
# README has room for what a step of training and a proposal cost in batches; docs/speed.md has everything.
IN_README = ("energy", "energy and gradient", "hot heat-bath step")
BATCHES = "128 systems and more"
TORCHS = "torch's layers"
SETS = {"avx512": "AVX-512", "avx2": "AVX2", "generic": "generic C++"}

Row = tuple[str, str, str]


def load(name: str) -> dict[str, Any] | None:
    """A result file, or None where it has not been made."""
    path = RESULTS / f"{name}.json"
    return json.loads(path.read_text()) if path.exists() else None


def machine(result: dict[str, Any]) -> str:
    """The machine in a few words."""
    facts = result["machine"]
    cores = "1 core" if facts["cores"] == 1 else f"{facts['cores']} cores"
    instructions = SETS.get(facts["cpu_variant"], facts["cpu_variant"])
    return facts["gpu"] or f"{facts['processor'].split(' @')[0]}, {instructions}, {cores}"


def accuracy_rows() -> list[Row]:
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


def speed_rows() -> list[Row]:
    """What, figure, machine."""
    rows = [row for _, row in contest_rows()] + special_rows() + accuracy_time_rows()
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


def contest_rows() -> list[tuple[str, Row]]:
    """The work; share of the peak, and how many times faster than the best plain PyTorch, over all widths and sizes."""
    found = []
    for name in PEAK_SUBJECTS:
        result = load(name)
        works: dict[tuple[str, bool], list[dict[str, Any]]] = {}
        for row in [] if result is None else result["rows"]:
            works.setdefault((row["work"], row["asked_systems"] == 1), []).append(row)
        for (work, single), rows in works.items():
            assert result is not None
            # With more threads, one that comes and goes makes the peak of a moment another than the work's.
            fewest = min(row["case"]["threads"] for row in rows)
            peak = [100 * row["runs"][OURS]["of_peak"] for row in rows if row["case"]["threads"] == fewest]
            ratios = [
                min(run["times_slower"] for peer, run in row["runs"].items() if peer in PLAIN_TORCH) for row in rows
            ]
            widths = " to ".join(str(end(row["case"]["width"] for row in rows)) for end in (min, max))
            threads = "one thread" if fewest == 1 else f"{fewest} threads"
            figure = f"{min(peak):.0f} to {max(peak):.0f}% of the FMA peak ({threads}), "
            figure += f"{min(ratios):.1f} to {max(ratios):.1f} times the best plain PyTorch"
            batch = "one system" if single else BATCHES
            found.append((work, (f"{work}, {batch}, widths {widths}", figure, machine(result))))
    return found


def special_rows() -> list[Row]:
    """Of the subjects that are about something else than the peak."""
    rows = []
    mega_graph = load("mega_graph")
    if mega_graph is not None:
        gains = [row["runs"]["nri_fast one at a time"]["times_slower"] for row in mega_graph["rows"]]
        torch = [row["runs"]["bucketed one at a time"]["times_slower"] for row in mega_graph["rows"]]
        figure = f"{min(gains):.1f} to {max(gains):.1f} times our own calls one system at a time, "
        figure += f"{min(torch):.0f} to {max(torch):.0f} times plain PyTorch's"
        rows.append(("128 systems in one mega-graph", figure, machine(mega_graph)))
    anneal = load("anneal")
    if anneal is not None:
        share = max(row["decisions"]["share_of_sweep"] for row in anneal["rows"] if row["asked_systems"] >= 128)
        title = f"accept or reject, with all random numbers, {BATCHES}"
        rows.append((title, f"at most {100 * share:.2g}% of a sweep", machine(anneal)))
    epoch = load("epoch")
    if epoch is not None:
        row = epoch["rows"][0]
        each = row["systems_per_s"]
        figure = f"{each[OURS]:.0f} systems a second; plain PyTorch, without a network, {each['bucketed']:.0f}"
        rows.append((f"an epoch of `fmml`, {row['case']['systems']} systems", figure, machine(epoch)))
    network = load("network")
    if network is not None:
        times = [f"{row['runs'][TORCHS]['times_slower']:.2f}" for row in network["rows"]]
        threads = [str(row["case"]["threads"]) for row in network["rows"]]
        figure = f"{' and '.join(times)} times as fast as with torch's layers"
        rows.append(
            (f"imitation step of a proposal network, {' and '.join(threads)} threads", figure, machine(network))
        )
    ragged = load("ragged")
    if ragged is not None:
        worst = max(ratio for row in ragged["rows"] for ratio in row["slowdown"].values())
        rows.append(("ragged or partly absent systems", f"at most {worst:.2f} times uniform ones", machine(ragged)))
    large = load("large_table")
    if large is not None:
        figure = f"{large['seconds']:.0f} s, {large['peak_memory_bytes'] / 1e6:.0f} MB at most"
        rows.append((f"a CSV table of {large['table_bytes'] / 1e9:.0f} GB converted", figure, machine(large)))
    simulated = load("simulate")
    if simulated is not None:
        for row in simulated["rows"]:
            if row["case"]["systems"] == 50_000 and row["case"]["threads"] == simulated["machine"]["cores"]:
                seconds = row["runs"][OURS]["median_ms"] / 1e3
                rows.append(("50,000 springs systems simulated", f"{seconds:.1f} s", machine(simulated)))
    scaling = load("scaling")
    if scaling is not None:
        many = max((row for row in scaling["rows"] if row["over"] == "systems"), key=lambda row: row["asked_systems"])
        case, seconds = many["case"], many["runs"][OURS]["median_ms"] / 1e3
        title = f"energies of {case['systems']:,} systems at once, two steps, width {case['width']}"
        rows.append((title, f"{seconds:.1f} s", machine(scaling)))
    return rows


def accuracy_time_rows() -> list[Row]:
    """Seconds from nothing to an accuracy."""
    result, rows = load("time_to_accuracy"), []
    works: dict[str, list[dict[str, Any]]] = {}
    for row in [] if result is None else result["rows"]:
        works.setdefault(row["work"], []).append(row)
    for work, repeated in works.items():
        assert result is not None
        for accuracy_wanted in repeated[0]["runs"][OURS]["reached_s"]:
            texts = []
            for name in repeated[0]["runs"]:
                runs = [row["runs"][name] for row in repeated]
                seconds = [run["reached_s"][accuracy_wanted] for run in runs]
                reached = [s for s in seconds if s is not None]
                if len(reached) == len(seconds):
                    texts.append(f"{name} {mean(reached):.1f} s")
                else:
                    texts.append(f"{name} not in {max(run['watched_s'] for run in runs):.0f} s")
            title = f"{work}: from nothing to {100 * float(accuracy_wanted):g}% of held-out edges"
            rows.append((title, ", ".join(texts), machine(result)))
    return rows


def draw() -> None:
    """The figures, beside the result files."""
    contests = [row for name in PEAK_SUBJECTS if (result := load(name)) is not None for row in result["rows"]]
    if contests:
        draw_peak(contests, RESULTS / "peak.png")
    scaling = load("scaling")
    if scaling is not None:
        draw_scaling(scaling["rows"], RESULTS / "scaling.png")


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
            *(f"- {note}" for note in table["notes"]),
        ]
        tables.append("\n".join(lines))
    return "\n\n".join(tables)


def replace(text: str, marker: str, content: str) -> str:
    """The text with what stands between a marker's comments exchanged."""
    begin, end = f"<!-- {marker} -->", f"<!-- /{marker} -->"
    head, rest = text.split(begin)
    return f"{head}{begin}\n{content}\n{end}{rest.split(end)[1]}"


def table(rows: list[Row]) -> str:
    """In Markdown."""
    head = ["| what | figure | machine |", "| --- | --- | --- |"]
    return "\n".join(head + [f"| {a} | {b} | {c} |" for a, b, c in rows])


def main() -> None:
    """Rewrites the tables, and draws the figures."""
    draw()
    main_rows = [row for work, row in contest_rows() if work in IN_README and BATCHES in row[0]]
    for path, content in (
        (README, table(accuracy_rows() + accuracy_time_rows() + main_rows)),
        (SPEED, table(speed_rows())),
        (EXPERIMENTS, experiment_tables()),
    ):
        path.write_text(replace(path.read_text(), "results", content))
        print(f"wrote {path}")


if __name__ == "__main__":
    main()
