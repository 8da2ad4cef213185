"""Works an experiment's parts off, each once, and writes table, figure and result file."""

from __future__ import annotations

import hashlib
import importlib
import io
import json
import shutil
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from nri_fast import __version__
from nri_fast.checkpoint import CheckpointError, write_atomically
from nri_fast.experiments import EXPERIMENTS
from nri_fast.experiments.experiment import Experiment, Figures, Part, Report, Scale, Workplace
from nri_fast.record import commit, provenance
from nri_fast.report import json_text

PLAN_FILE, TABLE_FILE, FIGURE_FILE, RESULT_FILE = "plan.json", "table.md", "figure.png", "result.json"


def load_experiment(name: str) -> Experiment:
    """The experiment of this name.

    Raises
    ------
    ValueError
        There is none.
    """
    if name not in EXPERIMENTS:
        raise ValueError(f"experiment: expected one of {', '.join(EXPERIMENTS)}, got {name!r}")
    module = importlib.import_module(f"nri_fast.experiments.{name.replace('-', '_')}")
    experiment: Experiment = module.EXPERIMENT
    return experiment


def run_experiment(
    name: str,
    scale: Scale = "small",
    out: Path | None = None,
    resume: bool = False,
    seed: int = 1,
    device: str = "cpu",
    progress: bool = True,
    say: Callable[[str], None] = print,
    data: Sequence[Path] = (),
    test: Sequence[Path] = (),
) -> dict[str, Any]:
    """Runs an experiment, or what is left of it.

    Parameters
    ----------
    name : str
        One of :data:`nri_fast.experiments.EXPERIMENTS`.
    scale : {'small', 'full'}
        A minute or so, which shows that it works, or the full size.
    out : Path, optional
        Folder for everything; by default ``nri-fast-NAME`` in the working directory. New or empty, unless `resume`.
    resume : bool
        Go on in a folder that was begun with the same name, scale and seed. Parts that are finished are not repeated,
        and training inside a part goes on from its last checkpoint.
    seed : int
        Names all random numbers; repetitions use the seeds behind it.
    device : str
        Where to compute.
    progress : bool
        Show progress bars on terminals.
    say : callable
        Takes each line of text.
    data : sequence of Path
        Files with recordings, for the experiments that need some.
    test : sequence of Path
        Files to judge by, none of which is learned from, for the experiments that take some.

    Returns
    -------
    dict
        What the result file holds: ``experiment``, ``scale``, ``seed``, ``table`` (title, columns, rows, notes) and
        ``parts``, each with its ``figures``, ``seconds``, ``date``, ``commit`` and ``machine``.

    Raises
    ------
    FileExistsError
        The folder is there and not empty, without `resume`.
    ValueError
        No such experiment; it needs data, or takes none; a file is to be learned from and judged by; the folder was
        begun with something else.
    FileNotFoundError
        No such data.
    CheckpointError
        A file of the folder is damaged.
    """
    commit()  # is remembered: later changes of the files do not count
    experiment = load_experiment(name)
    if bool(data) != bool(experiment.data):
        raise ValueError(f"--data: {name} needs {experiment.data}" if experiment.data else f"--data: {name} takes none")
    if test and not experiment.takes_test:
        raise ValueError(f"--test: {name} divides its recordings by itself, and takes none")
    hashes = {option: _hashes(files) for option, files in (("data", data), ("test", test)) if files}
    both = set(hashes.get("data", {}).values()) & set(hashes.get("test", {}).values())
    if both:
        file = next(file for file, digest in hashes["test"].items() if digest in both)
        raise ValueError(f"--test: expected files that are not learned from, got {file}, which --data has too")
    files = [tuple(data)] * bool(experiment.data) + [tuple(test)] * experiment.takes_test
    parts = experiment.parts(scale, seed, *files)
    folder = Path(f"nri-fast-{name}") if out is None else out
    plan = {"experiment": name, "scale": scale, "seed": seed, "nri_fast": __version__, "parts": [p.name for p in parts]}
    plan |= hashes
    _begin(folder, plan, resume)
    done = {}
    for number, part in enumerate(parts, 1):
        done[part.name] = _worked_off(part, f"[{number}/{len(parts)}] {part.name}", folder, device, progress, say)
    report = experiment.report({part: result["figures"] for part, result in done.items()})
    return _write(folder, plan, report, done, say)


def _hashes(given: Sequence[Path]) -> dict[str, str]:
    files = [file for path in given for file in (sorted(path.rglob("*")) if path.is_dir() else [path])]
    return {file.name: hashlib.sha256(file.read_bytes()).hexdigest() for file in files if not file.is_dir()}


def _begin(folder: Path, plan: dict[str, Any], resume: bool) -> None:
    file = folder / PLAN_FILE
    if resume and file.exists():
        begun = _read(file)
        for key in sorted({*begun, *plan}):
            if begun.get(key) != plan.get(key):
                raise ValueError(
                    f"{folder}: was begun with {key} {begun.get(key)}, got {plan.get(key)}; pass another folder"
                )
        return
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise FileExistsError(f"{folder}: already there and not empty; pass another --out, or --resume to go on")
    (folder / "parts").mkdir(parents=True)
    write_atomically(file, (json.dumps(plan, indent=1) + "\n").encode())


def _worked_off(
    part: Part, title: str, folder: Path, device: str, progress: bool, say: Callable[[str], None]
) -> dict[str, Any]:
    """What the part's file holds; it is made if it is not there."""
    file = folder / "parts" / f"{part.name}.json"
    if file.exists():
        say(f"{title}: done before")
        return _read(file)
    place = Workplace(folder / "work" / part.name, device, progress)
    say(f"{title} ...")
    place.folder.mkdir(parents=True, exist_ok=True)
    started = time.monotonic()
    figures: Figures = part.work(place)
    seconds = round(time.monotonic() - started, 2)
    (folder / "parts").mkdir(exist_ok=True)
    content = json_text({"figures": figures, "seconds": seconds, **provenance()})
    write_atomically(file, (content + "\n").encode())
    for checkpoints in list(place.folder.rglob("checkpoints")):  # of no more use, and large
        shutil.rmtree(checkpoints)
    return _read(file)  # as a later process will find it


def _read(file: Path) -> dict[str, Any]:
    try:
        values = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{file}: damaged ({error}); remove it to have it made again") from error
    if not isinstance(values, dict):
        raise CheckpointError(f"{file}: damaged (no object); remove it to have it made again")
    return values


def _write(
    folder: Path, plan: dict[str, Any], report: Report, done: dict[str, Any], say: Callable[[str], None]
) -> dict[str, Any]:
    text = report.markdown()
    table = {"title": report.title, "columns": report.columns, "rows": report.rows, "notes": report.notes}
    facts = {"experiment": plan["experiment"], "scale": plan["scale"], "seed": plan["seed"]}
    facts |= {key: plan[key] for key in ("data", "test") if key in plan}
    result = json_text({**facts, "table": table, "parts": done})
    picture = io.BytesIO()
    report.figure.savefig(picture, format="png", dpi=150)
    for name, content in ((TABLE_FILE, text.encode()), (FIGURE_FILE, picture.getvalue())):
        write_atomically(folder / name, content)
    write_atomically(folder / RESULT_FILE, (result + "\n").encode())
    say("")
    say(text)
    say(f"wrote {', '.join((TABLE_FILE, FIGURE_FILE, RESULT_FILE))} to {folder}/")
    values: dict[str, Any] = json.loads(result)
    return values
