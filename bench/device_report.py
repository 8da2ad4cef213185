"""What became of the steps of ``bench/device_check.sh``: ``python -m bench.device_report OUT SCRATCH``.

Reads ``SCRATCH/steps.tsv`` (name, status, seconds, limit, note) and the JUnit files in SCRATCH, and writes
``tests.xml``, ``summary.json`` and ``summary.txt`` into OUT. The standard library is enough for it, and it can be run
after every step.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

STATUSES = ("passed", "failed", "timed out", "not run", "absent")
GOOD = ("passed", "absent")  # absent: the machine lacks a tool that is optional
MOST_FAILURES = 200
LONGEST_MESSAGE = 400


def read_steps(file: Path) -> list[dict[str, Any]]:
    """One entry a step, in order; a name that comes again replaces the earlier one."""
    steps: dict[str, dict[str, Any]] = {}
    for line in file.read_text(encoding="utf-8", errors="replace").splitlines():
        name, status, seconds, limit, note = line.split("\t", 4)
        if status not in STATUSES:
            raise ValueError(f"{file}: expected one of {', '.join(STATUSES)}, got {status!r}")
        steps[name] = {"name": name, "status": status, "seconds": int(seconds), "limit_s": int(limit), "note": note}
    return list(steps.values())


def merge_junit(files: list[Path], target: Path) -> dict[str, Any]:
    """Puts the test suites of several JUnit files into one and counts them.

    Returns
    -------
    dict
        ``tests``, ``passed``, ``failed``, ``errors``, ``skipped``, ``seconds`` (of all tests, one after the other),
        ``failures``: names and first lines; ``slowest``: the ten longest.
    """
    whole = ElementTree.Element("testsuites")
    for file in sorted(files):
        try:
            root = ElementTree.parse(file).getroot()
        except (OSError, ElementTree.ParseError):
            continue  # a run that was killed while it wrote
        for suite in [root] if root.tag == "testsuite" else root.iter("testsuite"):
            suite.set("name", file.stem)
            whole.append(suite)
    counts = dict.fromkeys(("passed", "failed", "errors", "skipped"), 0)
    failures, times = [], []
    kinds = {"failure": "failed", "error": "errors", "skipped": "skipped"}
    for case in whole.iter("testcase"):
        name = f"{case.get('classname', '')}::{case.get('name', '')}"
        times.append((float(case.get("time", 0.0)), name))
        found = [child for child in case if child.tag in kinds]
        counts[kinds[found[0].tag] if found else "passed"] += 1
        if found and found[0].tag != "skipped":
            failures.append({"test": name, "message": (found[0].get("message") or "")[:LONGEST_MESSAGE]})
    if len(whole):
        ElementTree.ElementTree(whole).write(target, encoding="utf-8", xml_declaration=True)
    slowest = [{"test": name, "seconds": seconds} for seconds, name in sorted(times, reverse=True)[:10]]
    return {
        "tests": len(times),
        **counts,
        "seconds": round(sum(seconds for seconds, _ in times), 1),
        "failures": failures[:MOST_FAILURES],
        "failures_left_out": max(0, len(failures) - MOST_FAILURES),
        "slowest": slowest,
    }


def text(facts: list[str], steps: list[dict[str, Any]], tests: dict[str, Any], good: bool) -> str:
    """The summary for people."""
    lines = [*facts, "", f"{'step':<20} {'status':<10} {'s':>5} {'limit':>6}  note"]
    for step in steps:
        numbers = f"{step['seconds']:>5} {step['limit_s']:>6}"
        lines.append(f"{step['name']:<20} {step['status']:<10} {numbers}  {step['note']}".rstrip())
    if tests["tests"]:
        counts = ", ".join(f"{tests[name]} {name}" for name in ("passed", "failed", "errors", "skipped"))
        lines += ["", f"tests: {counts}"]
        lines += [f"  {failure['test']}" for failure in tests["failures"]]
    lines += ["", "everything passed" if good else "NOT everything passed"]
    return "\n".join(lines) + "\n"


def main() -> None:
    """Writes the summary; exit status 1 if a step failed."""
    out, scratch = Path(sys.argv[1]), Path(sys.argv[2])
    steps = read_steps(scratch / "steps.tsv")
    tests = merge_junit(list(scratch.glob("*.xml")), out / "tests.xml")
    facts_file = scratch / "facts.txt"
    facts = facts_file.read_text(encoding="utf-8", errors="replace").splitlines() if facts_file.exists() else []
    good = bool(steps) and all(step["status"] in GOOD for step in steps)
    summary = {"passed": good, "facts": facts, "steps": steps, "tests": tests}
    (out / "summary.json").write_text(json.dumps(summary, indent=1) + "\n", encoding="utf-8")
    (out / "summary.txt").write_text(text(facts, steps, tests, good), encoding="utf-8")
    sys.exit(0 if good else 1)


if __name__ == "__main__":
    main()
