"""Provenance of figures: machine, versions, commit."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import nri_fast
from nri_fast import record


def test_what_is_recorded():
    facts = record.provenance()
    assert json.loads(json.dumps(facts)) == facts
    assert facts["machine"]["nri_fast"] == nri_fast.__version__
    assert facts["machine"]["processor"]
    assert facts["machine"]["cores"] >= 1


def test_the_commit_is_that_of_the_code(tmp_path):
    """In a repository of its own: clean, then changed; result files and somebody else's repository do not count."""
    package = tmp_path / "nri_fast"
    package.mkdir()
    shutil.copy(Path(record.__file__), package / "record.py")
    (tmp_path / "bench" / "results").mkdir(parents=True)
    (tmp_path / "bench" / "results" / "a.json").write_text("{}")

    def git(*arguments):
        identity = ["-c", "user.name=a", "-c", "user.email=a@b.c"]
        return subprocess.run(["git", *identity, *arguments], cwd=tmp_path, check=True, capture_output=True, text=True)

    def commit():
        code = (
            "import importlib.util as u, sys; s = u.spec_from_file_location('copy', sys.argv[1]); "
            "m = u.module_from_spec(s); s.loader.exec_module(m); print(m.commit())"
        )
        command = [sys.executable, "-c", code, str(package / "record.py")]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()

    git("init")
    git("add", "bench")
    git("commit", "-m", "no code")
    assert commit() == "None"  # the package is not part of the repository that it lies in
    git("add", "nri_fast")
    git("commit", "-m", "code")
    head = git("rev-parse", "--short", "HEAD").stdout.strip()
    (tmp_path / "bench" / "results" / "a.json").write_text("[]")
    assert commit() == head
    with (package / "record.py").open("a") as file:
        file.write("# changed\n")
    assert commit() == f"{head}+changes"
