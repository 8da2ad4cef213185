"""What was built, what this machine offers, and which path a call will take.

Works with a native module that is missing or broken: saying so is what it is for.
"""

from __future__ import annotations

import importlib
import importlib.metadata
import os
import platform
from types import ModuleType
from typing import Any

REQUIRED = ("matplotlib", "numpy", "safetensors", "scipy", "torch", "tqdm", "tyro")
OPTIONAL = ("networkx", "pyarrow", "tensorboard", "torch_geometric")
FACE = (
    "built_variants",
    "chosen_variant",
    "hardware_threads",
    "cuda_build",
    "cuda_architectures",
    "cuda_device_count",
    "cuda_device_problem",
)
REBUILD = "pip install --force-reinstall --no-deps ."


def collect() -> dict[str, Any]:
    """Facts about the build and the machine.

    Returns
    -------
    dict
        Plain values that JSON can hold: ``version``, ``python``, ``platform``, ``native`` (``built``, ``problem``),
        ``cpu`` (``built_variants``, ``chosen_variant``, ``hardware_threads``), ``cuda`` (``build``: ``"none"``,
        ``"device"`` or ``"emulated"``, ``architectures``, ``device_count``, ``problem``), ``torch``, ``packages``
        (version of each, or None), ``paths`` (what computes for tensors on ``cpu`` and on ``cuda``) and ``advice``.
    """
    core, problem = _load_core()
    facts: dict[str, Any] = {
        "version": _version("nri_fast"),
        "python": platform.python_version(),
        "platform": platform.platform(),
        "native": {"built": core is not None, "file": getattr(core, "__file__", None), "problem": problem},
        "cpu": _cpu_facts(core),
        "cuda": _cuda_facts(core),
        "torch": _torch_facts(),
        "packages": {name: _version(name) for name in REQUIRED + OPTIONAL},
    }
    facts["paths"] = {"cpu": _cpu_path(facts), "cuda": _cuda_path(facts)}
    facts["advice"] = _advice(facts)
    return facts


def render(facts: dict[str, Any]) -> str:
    """Text of `collect`'s facts, for people.

    Parameters
    ----------
    facts : dict
        What `collect` returned.

    Returns
    -------
    str
        Several lines, without a line feed at the end.
    """
    cpu, cuda, torch = facts["cpu"], facts["cuda"], facts["torch"]
    if cuda["devices"]:
        devices = ", ".join(cuda["devices"])
    else:
        devices = str(cuda["device_count"]) if cuda["device_count"] else f"none ({cuda['problem']})"
    rows = [
        ("nri_fast", f"{facts['version'] or 'not installed'}, Python {facts['python']}, {facts['platform']}"),
        ("native module", facts["native"]["file"] or f"missing: {facts['native']['problem']}"),
        ("CPU kernels", _variants_text(cpu)),
        ("processors", f"{cpu['hardware_threads']} usable of {cpu['processors']}"),
        ("CUDA kernels", _cuda_text(cuda)),
        ("CUDA devices", devices),
        ("torch", _torch_text(torch)),
        ("CPU tensors", facts["paths"]["cpu"]),
        ("CUDA tensors", facts["paths"]["cuda"]),
        ("packages", ", ".join(f"{name} {version}" for name, version in facts["packages"].items() if version)),
        ("not installed", ", ".join(name for name, version in facts["packages"].items() if not version) or "nothing"),
    ]
    lines = [f"{name:<14} {text}" for name, text in rows]
    lines += ["", *(f"* {line}" for line in facts["advice"])] if facts["advice"] else ["", "Nothing to improve."]
    return "\n".join(lines)


def _load_core() -> tuple[ModuleType | None, str | None]:
    """Load the native module, or tell in one line why it cannot be loaded."""
    try:
        core = importlib.import_module("nri_fast._core")
    except ImportError as error:
        return None, str(error).partition("\n")[0]
    if any(not hasattr(core, name) for name in FACE):
        return None, f"{core.__file__} is of another version than the Python files"
    return core, None


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _usable_processors() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _cpu_facts(core: ModuleType | None) -> dict[str, Any]:
    return {
        "processors": os.cpu_count() or 1,
        "hardware_threads": core.hardware_threads() if core else _usable_processors(),
        "built_variants": list(core.built_variants()) if core else [],
        "chosen_variant": core.chosen_variant() if core else None,
    }


def _cuda_facts(core: ModuleType | None) -> dict[str, Any]:
    if core is None:
        return {
            "build": "none",
            "architectures": [],
            "device_count": 0,
            "devices": [],
            "problem": "the native module is missing",
        }
    return {
        "build": str(core.cuda_build()),
        "architectures": list(core.cuda_architectures()),
        "device_count": core.cuda_device_count(),
        "devices": _device_names(core.cuda_device_count()),
        "problem": core.cuda_device_problem() or None,
    }


def _device_names(count: int) -> list[str]:
    """Names and memory of the devices, as far as torch sees them."""
    if count == 0:
        return []
    try:
        import torch
    except ImportError:
        return []
    names = []
    for ordinal in range(min(count, torch.cuda.device_count())):
        properties = torch.cuda.get_device_properties(ordinal)
        capability = f"{properties.major}.{properties.minor}"
        names.append(f"cuda:{ordinal} {properties.name} ({capability}, {properties.total_memory / 2**30:.0f} GiB)")
    return names


def _torch_facts() -> dict[str, Any]:
    try:
        import torch
    except ImportError as error:
        return {"version": None, "threads": None, "cuda": None, "cuda_available": False, "problem": str(error)}
    return {
        "version": torch.__version__,
        "threads": torch.get_num_threads(),
        "cuda": torch.version.cuda,
        "cuda_available": torch.cuda.is_available(),
        "problem": None,
    }


def _cpu_path(facts: dict[str, Any]) -> str:
    if not facts["native"]["built"]:
        return "unavailable: the native module is missing"
    return f"{facts['cpu']['chosen_variant']} kernels on up to {facts['cpu']['hardware_threads']} threads"


def _cuda_path(facts: dict[str, Any]) -> str:
    if not facts["native"]["built"]:
        return "unavailable: the native module is missing"
    cuda = facts["cuda"]
    if cuda["build"] == "emulated":
        return "unavailable: the CUDA kernels were compiled for the host, for tests"
    if cuda["build"] == "none":
        return "unavailable: built without CUDA kernels"
    if cuda["device_count"] == 0:
        return f"unavailable: {cuda['problem']}"
    if not facts["torch"]["cuda_available"]:
        return "unavailable: this torch cannot use the device"
    return "CUDA kernels"


def _advice(facts: dict[str, Any]) -> list[str]:
    """What a user might do about it, most important first."""
    cpu, cuda, torch = facts["cpu"], facts["cuda"], facts["torch"]
    lines = []
    if not facts["native"]["built"]:
        lines.append(f"The native module did not load ({facts['native']['problem']}). Build it: {REBUILD}")
    if torch["version"] is None:
        lines.append("torch is not installed; nri_fast needs it to run: pip install torch")
    missing = [name for name in REQUIRED if name != "torch" and facts["packages"][name] is None]
    if missing:
        lines.append(f"Required packages are missing: pip install {' '.join(missing)}")
    if facts["native"]["built"]:
        if torch["cuda_available"] and cuda["build"] != "device":
            lines.append(
                "torch sees a CUDA device, but nri_fast has no kernels for it. "
                f"Put nvcc on PATH and rebuild: NRI_FAST_CUDA=on {REBUILD}"
            )
        elif cuda["build"] == "none":
            lines.append(f"No CUDA kernels: {cuda['problem']}. Nothing is lost on a machine without a GPU.")
        elif cuda["build"] == "device" and cuda["device_count"] > 0 and not torch["cuda_available"]:
            lines.append(
                "A CUDA device is there, but this torch was built without CUDA: install a CUDA build of torch."
            )
        if cpu["built_variants"] and cpu["chosen_variant"] != cpu["built_variants"][0]:
            lines.append(
                f"The {cpu['built_variants'][0]} kernels were built, but {cpu['chosen_variant']} is in use: "
                "this processor lacks the rest, or NRI_FAST_CPU_VARIANT says so."
            )
    if torch["threads"] is not None and torch["threads"] > cpu["hardware_threads"]:
        lines.append(
            f"torch uses {torch['threads']} threads on {cpu['hardware_threads']} processors: "
            f"OMP_NUM_THREADS={cpu['hardware_threads']} is faster."
        )
    return lines


def _variants_text(cpu: dict[str, Any]) -> str:
    if not cpu["built_variants"]:
        return "none"
    return f"{cpu['chosen_variant']} (built: {', '.join(cpu['built_variants'])})"


def _cuda_text(cuda: dict[str, Any]) -> str:
    if cuda["build"] == "device":
        return f"built for {', '.join(cuda['architectures'])}"
    return "compiled for the host, for tests" if cuda["build"] == "emulated" else "not built"


def _torch_text(torch: dict[str, Any]) -> str:
    if torch["version"] is None:
        return f"missing: {torch['problem']}"
    return f"{torch['version']}, {torch['threads']} threads, CUDA {torch['cuda'] or 'not built'}"
