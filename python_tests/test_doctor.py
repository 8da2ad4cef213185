"""What the doctor says for machines that we have and machines that we make up."""

import importlib
import json
import subprocess
import sys
import types

import pytest

from nri_fast import doctor

FACE = {
    "__file__": "_core.so",
    "built_variants": lambda: ["avx512", "avx2", "generic"],
    "chosen_variant": lambda: "avx2",
    "hardware_threads": lambda: 2,
    "cuda_build": lambda: "device",
    "cuda_architectures": lambda: ["80", "90-real"],
    "cuda_device_count": lambda: 0,
    "cuda_device_problem": lambda: "no CUDA driver is installed",
}


def pretend(monkeypatch, **changes):
    core = types.SimpleNamespace(**{**FACE, **changes})
    monkeypatch.setattr(doctor, "_load_core", lambda: (core, None))


def pretend_torch(monkeypatch, *, cuda_available, threads=2):
    facts = {"version": "2.13.0", "threads": threads, "cuda": None, "cuda_available": cuda_available, "problem": None}
    monkeypatch.setattr(doctor, "_torch_facts", lambda: facts)


def test_this_build():
    core = pytest.importorskip("nri_fast._core")
    facts = doctor.collect()
    assert facts["native"]["built"]
    assert facts["cpu"]["chosen_variant"] in facts["cpu"]["built_variants"]
    assert "generic" in facts["cpu"]["built_variants"]
    assert facts["cpu"]["hardware_threads"] >= 1
    assert facts["cuda"]["build"] == core.cuda_build()
    assert facts["cuda"]["build"] in {"none", "device", "emulated"}
    assert bool(facts["cuda"]["architectures"]) == (facts["cuda"]["build"] == "device")
    assert (facts["cuda"]["device_count"] > 0) == (not facts["cuda"]["problem"])
    assert json.loads(json.dumps(facts)) == facts


def test_text_shows_every_fact_of_this_build():
    facts = doctor.collect()
    text = doctor.render(facts)
    for expected in (facts["python"], facts["torch"]["version"], *facts["cpu"]["built_variants"], *facts["advice"]):
        assert expected in text


def test_a_module_that_cannot_be_imported(monkeypatch):
    def fail(name):
        raise ImportError(f"{name}: undefined symbol\nmore")

    monkeypatch.setattr(importlib, "import_module", fail)
    facts = doctor.collect()
    assert facts["native"] == {"built": False, "file": None, "problem": "nri_fast._core: undefined symbol"}
    assert facts["paths"]["cpu"].startswith("unavailable")
    assert "pip install" in facts["advice"][0]
    assert "undefined symbol" in doctor.render(facts)


def test_the_package_can_be_asked_when_its_module_is_missing():
    """In a process of its own: importing the doctor must not need what the doctor reports on."""
    script = "import sys; sys.modules['nri_fast._core'] = None\nfrom nri_fast import doctor; print(doctor.collect())"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "'built': False" in done.stdout


def test_a_module_left_from_another_version(monkeypatch):
    stale = types.SimpleNamespace(__file__="_core.so", built_variants=list)
    monkeypatch.setattr(importlib, "import_module", lambda name: stale)
    facts = doctor.collect()
    assert facts["native"]["problem"] == "_core.so is of another version than the Python files"
    assert "pip install" in facts["advice"][0]


def test_cuda_kernels_without_a_device(monkeypatch):
    pretend(monkeypatch)
    pretend_torch(monkeypatch, cuda_available=False)
    facts = doctor.collect()
    assert facts["paths"]["cpu"] == "avx2 kernels on up to 2 threads"
    assert facts["paths"]["cuda"] == "unavailable: no CUDA driver is installed"
    assert "built for 80, 90-real" in doctor.render(facts)


def test_cuda_kernels_with_a_device(monkeypatch):
    pretend(monkeypatch, cuda_device_count=lambda: 1, cuda_device_problem=lambda: "")
    pretend_torch(monkeypatch, cuda_available=True)
    monkeypatch.setattr(doctor, "_device_names", lambda count: ["cuda:0 Example (9.0, 80 GiB)"] * count)
    facts = doctor.collect()
    assert facts["paths"]["cuda"] == "CUDA kernels"
    assert "cuda:0 Example" in doctor.render(facts)


def test_a_device_that_torch_cannot_use(monkeypatch):
    pretend(monkeypatch, cuda_device_count=lambda: 1, cuda_device_problem=lambda: "")
    pretend_torch(monkeypatch, cuda_available=False)
    facts = doctor.collect()
    assert facts["paths"]["cuda"].startswith("unavailable")
    assert any("install a CUDA build of torch" in line for line in facts["advice"])


@pytest.mark.parametrize("build", ["none", "emulated"])
def test_a_device_without_kernels_for_it(monkeypatch, build):
    pretend(monkeypatch, cuda_build=lambda: build, cuda_device_problem=lambda: "built without CUDA")
    pretend_torch(monkeypatch, cuda_available=True)
    facts = doctor.collect()
    assert facts["paths"]["cuda"].startswith("unavailable")
    assert any("NRI_FAST_CUDA=on" in line for line in facts["advice"])


def test_too_many_threads(monkeypatch):
    pretend(monkeypatch)
    pretend_torch(monkeypatch, cuda_available=False, threads=64)
    assert any("OMP_NUM_THREADS=2" in line for line in doctor.collect()["advice"])


def test_nothing_to_improve(monkeypatch):
    pretend(monkeypatch, chosen_variant=lambda: "avx512")
    pretend_torch(monkeypatch, cuda_available=False)
    facts = doctor.collect()
    assert facts["advice"] == []
    assert doctor.render(facts).endswith("Nothing to improve.")
