"""What the compiler gives every CUDA kernel: ``python -m bench.kernel_resources`` (nvcc, no GPU).

Compiles the CUDA sources of ``CMakeLists.txt`` for each architecture and writes ``results/kernel_resources.json``: for
every kernel its registers, shared memory and spilled bytes, as ptxas reports them, the threads of a block, as its
launch says, and the occupancy that follows (:mod:`bench.occupancy`). A test holds hot kernels to the table.
"""

from __future__ import annotations

import argparse
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from bench.occupancy import LIMITS, occupancy
from bench.record import RESULTS, write_result

ROOT = Path(__file__).parents[1]
NAME = "kernel_resources"
ARCHITECTURES = ("80", "90")
FLAGS = ("-std=c++17", "-O3", "-DNDEBUG", "-Icsrc", "-cubin", "-Xptxas", "-v")
EXACT = "-fmad=false"  # of the list CUDA_EXACT_SOURCES
ELEMENTS = 128  # threads of a block in launch_elements (csrc/cuda/launch.h)

_LIST = re.compile(r"set\((CUDA_(?:\w+_)?SOURCES)\s+([^)]*)\)")
_KERNEL = re.compile(r"__global__\s+void\s+(?:__launch_bounds__\((?:[^()]|\([^()]*\))*\)\s*)?(\w+)\s*\(")
_LAUNCH = re.compile(r"\blaunch(_elements)?\(\s*\"\w+\",\s*(\w+)(?:<[^()]*?>)?,\s*([^;]*);")
_CONSTANT = re.compile(r"constexpr int (\w+) = (\d+);")
_ENTRY = re.compile(r"Compiling entry function '(\w+)' for 'sm_(\w+)'")
_SPILLS = re.compile(r"(\d+) bytes spill stores, (\d+) bytes spill loads")
_USED = re.compile(r"Used (\d+) registers")
_SHARED = re.compile(r"(\d+) bytes smem")


def sources() -> dict[Path, tuple[str, ...]]:
    """CUDA files of the build, and the flags that are theirs."""
    found: dict[Path, tuple[str, ...]] = {}
    for name, files in _LIST.findall((ROOT / "CMakeLists.txt").read_text(encoding="utf-8")):
        for file in files.split():
            if file.endswith(".cu"):
                found[ROOT / file] = (EXACT,) if "EXACT" in name else ()
    return found


def kernels_in_source() -> dict[str, int | None]:
    """Names of all kernels, and the threads of a block where the launch says them in so many words."""
    texts = [path.read_text(encoding="utf-8") for path in sorted((ROOT / "csrc" / "cuda").glob("*.[ch]*"))]
    names = [name for text in texts for name in _KERNEL.findall(text)]
    threads: dict[str, int | None] = dict.fromkeys(names)
    for text in texts:
        constants = {name: int(value) for name, value in _CONSTANT.findall(text)}
        for elements, name, rest in _LAUNCH.findall(text):
            if name in threads:
                threads[name] = ELEMENTS if elements else _threads_of(rest, constants)
    return threads


def _threads_of(arguments: str, constants: dict[str, int]) -> int | None:
    """The second of a launch's arguments after the kernel, if it is a number or a constant of the file."""
    depth, parts = 0, [""]
    for character in arguments:
        depth += (character in "([{") - (character in ")]}")
        if character == "," and depth == 0:
            parts.append("")
        else:
            parts[-1] += character
    word = parts[1].strip() if len(parts) > 1 else ""
    return int(word) if word.isdigit() else constants.get(word)


def parse(report: str) -> Iterator[tuple[str, str, dict[str, int]]]:
    """Mangled name, architecture and resources of every kernel in ptxas's report."""
    entries = list(_ENTRY.finditer(report))
    for number, entry in enumerate(entries, 1):
        said = report[entry.end() : entries[number].start() if number < len(entries) else len(report)]
        spills, used, shared = _SPILLS.search(said), _USED.search(said), _SHARED.search(said)
        if spills is None or used is None:
            raise ValueError(f"ptxas: expected spills and registers of {entry[1]}, got {said[:200]!r}")
        yield (
            entry[1],
            entry[2],
            {
                "registers": int(used[1]),
                "shared_bytes": int(shared[1]) if shared else 0,
                "spilled_bytes": int(spills[1]) + int(spills[2]),
            },
        )


PRECISIONS = ("fp32", "tf32", "bf16")  # of csrc/common/views.h, in order


def short(demangled: str) -> str:
    """``linear_kernel<float, 8>`` of a whole signature."""
    text = re.sub(r"\((?:int|bool|long)\)", "", demangled.replace("(anonymous namespace)::", ""))
    text = re.sub(r"\(nri::Precision\)(\d)", lambda found: PRECISIONS[int(found[1])], text)
    found = re.search(r"(\w+(?:<[^()]*>)?)\(", text)
    if found is None:
        raise ValueError(f"kernel: expected a signature, got {demangled!r}")
    return found[1]


def demangle(names: list[str]) -> list[str]:
    """What c++filt makes of them."""
    output = subprocess.run(["c++filt"], input="\n".join(names), capture_output=True, text=True, check=True).stdout
    return [short(line) for line in output.splitlines()]


def measure(nvcc: str, architecture: str) -> list[dict[str, Any]]:
    """A row for every kernel."""
    rows = []
    threads = kernels_in_source()
    with tempfile.TemporaryDirectory() as folder:
        for path, flags in sources().items():
            command = [nvcc, *FLAGS, *flags, f"-arch=sm_{architecture}", "-o", f"{folder}/{path.stem}.cubin", str(path)]
            done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT)
            if done.returncode:
                sys.exit(f"{path.name}: nvcc failed: {done.stderr.strip().splitlines()[-1]}")
            found = list(parse(done.stderr + done.stdout))
            for name, (_, _, resources) in zip(demangle([f[0] for f in found]), found, strict=True):
                block = threads[name.partition("<")[0]]
                row: dict[str, Any] = {"file": path.name, "kernel": name, "architecture": architecture}
                row |= {"threads": block, **resources}
                if block is not None:
                    limits = LIMITS[architecture]
                    share = occupancy(limits, block, resources["registers"], resources["shared_bytes"])
                    row["occupancy"] = round(share, 4)
                rows.append(row)
            print(f"sm_{architecture} {path.name}: {len(found)} kernels", flush=True)
    return sorted(rows, key=lambda row: (row["file"], row["kernel"]))


def main() -> None:
    """Writes the table."""
    parser = argparse.ArgumentParser(
        "python -m bench.kernel_resources", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, default=RESULTS, help="folder (%(default)s)")
    arguments = parser.parse_args()
    nvcc = shutil.which("nvcc")
    if nvcc is None:
        sys.exit("nvcc: expected a CUDA compiler on the PATH, got none")
    version = subprocess.run([nvcc, "--version"], capture_output=True, text=True, check=True).stdout
    release = re.search(r"release [\d.]+, V([\d.]+)", version)
    rows = [row for architecture in ARCHITECTURES for row in measure(nvcc, architecture)]
    figures = {"nvcc": release[1] if release else "unknown", "rows": rows}
    write_result(NAME, "python -m bench.kernel_resources", figures, arguments.out)


if __name__ == "__main__":
    main()
