#!/usr/bin/env bash
# Builds, tests, sanitizes and measures nri_fast on a machine with an NVIDIA GPU, in the repository's root:
#   OUT=build/device STAGES="build tests sanitizer bench" MINUTES=9 bash bench/device_check.sh
# The machine has python3 with torch, cmake, ninja, pybind11, setuptools and pytest, and nvcc; it needs no network. Wheels
# of what it lacks (tyro with docstring_parser and typeguard, for the command line's tests) may lie in build/wheels/.
#
# OUT gets at most eight files: summary.txt, summary.json, machine_and_build.log, tests.log, tests.xml, sanitizer.log,
# bench.json, bench.log. A step that fails stops no other, unless it makes them senseless; each has a limit of its own,
# and all of them end within MINUTES. The summary is written anew after every step, so a run that is cut off is of use.
# Exit status: 0 if every step passed, 1 if not, 2 for wrong arguments.
#
# Further variables: PYTHON (python3), CUDAARCHS (the GPU's own, 90-real), WORKERS (of the tests; 8).
set -uo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.." || exit 2

OUT=${OUT:-build/device}
STAGES=${STAGES:-build tests sanitizer bench}
MINUTES=${MINUTES:-9}
PYTHON=${PYTHON:-python3}

for stage in $STAGES; do
  case $stage in
    build | tests | sanitizer | bench) ;;
    *)
      echo "STAGES: expected build, tests, sanitizer, bench, got '$stage'" >&2
      exit 2
      ;;
  esac
done
if [[ ! $MINUTES =~ ^[1-9][0-9]*$ ]]; then
  echo "MINUTES: expected a whole number, at least 1, got '$MINUTES'" >&2
  exit 2
fi
mkdir -p "$OUT" || exit 2
OUT=$(cd "$OUT" && pwd)
SCRATCH=$(mktemp -d) || exit 2
trap 'rm -rf "$SCRATCH"' EXIT
DEADLINE=$((SECONDS + MINUTES * 60 - 15)) # what is left is for the summary
LOGS=("$OUT/machine_and_build.log" "$OUT/tests.log" "$OUT/sanitizer.log" "$OUT/bench.log")
rm -f "$OUT/summary.txt" "$OUT/summary.json" "${LOGS[0]}"
BUILD_LOG=${LOGS[0]} TEST_LOG=${LOGS[1]} SANITIZER_LOG=${LOGS[2]} BENCH_LOG=${LOGS[3]}
LARGEST_LOG=$((8 << 20))

for folder in "${CUDA_HOME:-/usr/local/cuda}/bin" /usr/local/cuda/bin /usr/local/cuda/compute-sanitizer; do
  [[ -d $folder && :$PATH: != *:$folder:* ]] && PATH=$PATH:$folder
done
# A library folder of the repository's own first: the package as it is built in place.
export PATH PYTHONPATH="$PWD${PYTHONPATH:+:$PYTHONPATH}" PYTHONUNBUFFERED=1 MPLBACKEND=Agg LC_ALL=C.UTF-8
export PYTEST_DISABLE_PLUGIN_AUTOLOAD=1 # other people's plugins warn, and a warning is an error in our tests

wanted() { [[ " $STAGES " == *" $1 "* ]]; }

now() { date -u +%H:%M:%S; }

record() { # name, status, seconds, limit, note
  local note=${5//[$'\t\n\r']/ }
  printf '%s\t%s\t%s\t%s\t%s\n' "$1" "$2" "$3" "$4" "${note:0:400}" >>"$SCRATCH/steps.tsv"
  printf '%s  %-20s %-10s %4s s  %s\n' "$(now)" "$1" "$2" "$3" "${note:0:200}"
  summarize
}

summarize() {
  if ! "$PYTHON" -m bench.device_report "$OUT" "$SCRATCH" 2>"$SCRATCH/report.err" && [[ -s $SCRATCH/report.err ]]; then
    { # no JSON without a Python: the steps at least
      cat "$SCRATCH/facts.txt" 2>/dev/null
      cat "$SCRATCH/steps.tsv"
      cat "$SCRATCH/report.err"
    } >"$OUT/summary.txt"
  fi
}

# Runs a command as a step, its output appended to a log. Sets STATUS and leaves the output of this step in STEP_LOG; the
# function that `verdict` names, if any, may still change STATUS and NOTE.
step() { # name, limit, log, command...
  local name=$1 limit=$2 log=$3 started=$SECONDS left=$((DEADLINE - SECONDS)) code
  shift 3
  STATUS=passed NOTE=
  ((limit > left)) && limit=$left
  if ((limit < 5)); then
    STATUS="not run"
    record "$name" "$STATUS" 0 0 "no time left of $MINUTES minutes"
    return
  fi
  printf '\n=== %s, %s UTC, at most %d s: %s\n' "$name" "$(now)" "$limit" "$*" >>"$log"
  STEP_LOG=$SCRATCH/$name.out
  # SIGTERM first, which pytest answers with a summary; whatever is left of the group is killed.
  timeout --signal=TERM --kill-after=12 "$limit" "$@" >"$STEP_LOG" 2>&1 </dev/null
  code=$?
  head -c "$LARGEST_LOG" "$STEP_LOG" >>"$log"
  (($(wc -c <"$STEP_LOG") > LARGEST_LOG)) && printf '\n[the rest is left out]\n' >>"$log"
  if ((code == 124 || code == 137)); then
    STATUS="timed out"
  elif ((code != 0)); then
    STATUS=failed NOTE="exit status $code"
  fi
  if [[ -n ${VERDICT:-} ]]; then
    "$VERDICT" "$code"
  elif ((code != 0)); then
    NOTE="${NOTE:+$NOTE: }$(tail -1 "$STEP_LOG")"
  fi
  printf -- '--- %s: %s, %d s\n' "$name" "$STATUS" $((SECONDS - started)) >>"$log"
  record "$name" "$STATUS" $((SECONDS - started)) "$limit" "$NOTE"
}

not_run() { # name, why
  STATUS="not run"
  record "$1" "not run" 0 0 "$2"
}

# ---- What is there --------------------------------------------------------------------------------------------------

what_is_there() {
  uname -a
  nproc
  free -g
  nvidia-smi
  nvidia-smi -q -d CLOCK,POWER,PERFORMANCE | head -60
  nvcc --version
  command -v compute-sanitizer && compute-sanitizer --version
  "$PYTHON" --version
  command -v "$PYTHON" cmake ninja c++ git
  cmake --version
  c++ --version
  "$PYTHON" -m pip list --disable-pip-version-check 2>/dev/null |
    grep -iE '^(torch|triton|numpy|scipy|pybind11|setuptools|cmake|ninja|pytest|xdist|hypothesis|tyro|safetensors|matplotlib|tqdm)'
  "$PYTHON" - <<'PYTHON_END'
import torch

print("torch", torch.__version__, "CUDA", torch.version.cuda, "available", torch.cuda.is_available())
print(torch.cuda.get_device_properties(0))
a = torch.randn(256, 256, device="cuda")
print("a product on the device:", float((a @ a).abs().mean()))
PYTHON_END
}

facts() { # a few lines for the head of the summary
  date -u '+%Y-%m-%d %H:%M UTC'
  printf 'commit %s, sources %s\n' \
    "$(git rev-parse --short HEAD 2>/dev/null || echo "unknown (no git folder here)")" \
    "$(find csrc nri_fast bench python_tests CMakeLists.txt setup.py pyproject.toml -type f \
      ! -name '*.so' ! -name '*.pyc' ! -path 'bench/results/*' -print0 | LC_ALL=C sort -z | xargs -0 sha256sum |
      sha256sum | cut -c1-16)"
  if command -v nvidia-smi >/dev/null; then
    nvidia-smi --query-gpu=name,driver_version,memory.total,compute_cap --format=csv,noheader 2>&1 | head -1
  else
    echo "no nvidia-smi"
  fi
  nvcc --version 2>/dev/null | sed -n 's/^Cuda compilation tools, /nvcc /p'
  "$PYTHON" -c 'import sys, torch; print("Python", sys.version.split()[0], "torch", torch.__version__)' 2>&1 | tail -1
  printf '%s processors\n' "$(nproc)"
}

install_wheels() {
  compgen -G 'build/wheels/*.whl' >/dev/null || return 0
  "$PYTHON" -m pip install --quiet --disable-pip-version-check --no-index --no-deps --no-compile --upgrade \
    --target "$SCRATCH/site" build/wheels/*.whl && export PYTHONPATH="$PYTHONPATH:$SCRATCH/site"
}

install_wheels >"$SCRATCH/wheels.out" 2>&1 || echo "the wheels could not be installed: $(tail -1 "$SCRATCH/wheels.out")"
facts >"$SCRATCH/facts.txt" 2>&1
cat "$SCRATCH/facts.txt"
export -f what_is_there
export PYTHON
step machine 60 "$BUILD_LOG" bash -c what_is_there
GPU=$STATUS
[[ $GPU == passed ]] || echo "no GPU can be used: see $BUILD_LOG"

# ---- Build ----------------------------------------------------------------------------------------------------------

capability=$(nvidia-smi --query-gpu=compute_cap --format=csv,noheader 2>/dev/null | head -1 | tr -d ' .')
[[ $capability =~ ^[0-9]+$ ]] || capability=90
unset CMAKE_CUDA_ARCHITECTURES
export CUDAARCHS=${CUDAARCHS:-$capability-real} NRI_FAST_CUDA=on
export NRI_FAST_BUILD_DIR="$PWD/build/cmake/device"
# Free memory grows with use on some machines, so it is no measure of how many compilers fit.
MAX_JOBS=${MAX_JOBS:-$(nproc)}
export MAX_JOBS CMAKE_ARGS="-DCMAKE_CUDA_FLAGS=-lineinfo ${CMAKE_ARGS:-}" # the sanitizers then tell lines
[[ -z ${CUDACXX:-} ]] && CUDACXX=$(command -v nvcc) && export CUDACXX

build_in_place() {
  "$PYTHON" setup.py build_ext --inplace && return
  echo "setup.py failed: CMake directly, with the objects that are there"
  local modules pybind11
  pybind11=$("$PYTHON" -m pybind11 --cmakedir 2>/dev/null)
  # shellcheck disable=SC2086
  cmake -G Ninja -S . -B "$NRI_FAST_BUILD_DIR" -DCMAKE_BUILD_TYPE=Release -DPython_EXECUTABLE="$(command -v "$PYTHON")" \
    ${pybind11:+-Dpybind11_DIR="$pybind11"} -DNRI_FAST_CUDA=on $CMAKE_ARGS &&
    cmake --build "$NRI_FAST_BUILD_DIR" --parallel "$MAX_JOBS" || return
  modules=("$NRI_FAST_BUILD_DIR"/_core.*.so)
  [[ -f ${modules[0]} ]] && cp "${modules[@]}" nri_fast/
}
export -f build_in_place

built() { # the module loads, and has kernels for a device
  "$PYTHON" - <<'PYTHON_END'
from nri_fast import _core, doctor

print(doctor.render(doctor.collect()))
assert _core.cuda_build() == "device", f"built as {_core.cuda_build()}, expected device"
PYTHON_END
}
export -f built

if wanted build; then
  rm -f nri_fast/_core.*.so # a module that was built before, or elsewhere, must not pass for this one
  step build 200 "$BUILD_LOG" bash -c build_in_place
fi
step load 60 "$BUILD_LOG" bash -c built
LOADS=$STATUS
can_go_on() { # name: or say why not
  if [[ $LOADS != passed ]]; then
    not_run "$1" "the native module does not load"
  elif [[ $GPU != passed ]]; then
    not_run "$1" "no GPU can be used"
  else
    return 0
  fi
  return 1
}

# ---- Tests ----------------------------------------------------------------------------------------------------------

PYTEST=("$PYTHON" -m pytest -p bench.pytest_device -p no:cacheprovider -W default --color=no)
export NRI_FAST_REQUIRE_GPU=1

spread=() # over processes, if that is installed
has() { "$PYTHON" -c "import $1" 2>/dev/null; }

prepare_tests() {
  rm -f "$TEST_LOG" "$OUT/tests.xml"
  if has xdist; then
    spread=(-p xdist.plugin --numprocesses="${WORKERS:-8}" --max-worker-restart=100)
    # Kills the worker, which a hanging kernel leaves no other way; another takes its place.
    has pytest_timeout && spread+=(-p pytest_timeout --timeout=100 --timeout-method=thread)
  fi
}

pytest_summary() { grep -E '(passed|failed|skipped|errors?|deselected|no tests ran).* in [0-9.]+s' "$STEP_LOG" | tail -1; }

tests_verdict() { # exit status
  local last
  last=$(pytest_summary)
  NOTE="${NOTE:+$NOTE; }${last:-no summary by pytest}"
  if (($1 == 5)); then STATUS=failed NOTE="no tests were found"; fi
}

run_tests() { # step, limit, marker expression
  can_go_on "$1" || return
  # The workers' own pools are small: processors are shared between them (bench/pytest_device.py).
  VERDICT=tests_verdict OMP_NUM_THREADS=2 step "$1" "$2" "$TEST_LOG" "${PYTEST[@]}" "${spread[@]}" -q --tb=short \
    --durations=15 -m "$3" --continue-on-collection-errors -o junit_logging=no --junitxml="$SCRATCH/$1.xml" python_tests
}

# ---- Benchmarks -----------------------------------------------------------------------------------------------------

bench_verdict() {
  local lines
  lines=$(grep -c 'FAILED:' "$STEP_LOG")
  ((lines > 0)) && NOTE="${NOTE:+$NOTE; }$lines rows failed: $(grep -m1 'FAILED:' "$STEP_LOG")"
}

run_bench() { # subject, limit
  can_go_on "bench_$1" || return
  VERDICT=bench_verdict step "bench_$1" "$2" "$BENCH_LOG" "$PYTHON" -m bench.device "$1" --device cuda \
    --out "$OUT/bench.json"
  rm -f "$OUT"/.bench.json.*.part # of a write that was cut off
}

# ---- compute-sanitizer ----------------------------------------------------------------------------------------------

FOUND=17 # exit status of a tool that found something
mapfile -t SANITIZED < <(grep -vE '^(#|$)' bench/sanitizer_tests.txt)

prepare_sanitizer() { # sets SANITIZER to a problem, or to nothing
  SANITIZER=
  rm -f "$SANITIZER_LOG"
  FILTER=()
  if ! command -v compute-sanitizer >/dev/null; then
    SANITIZER="compute-sanitizer is not installed: skipped"
    record sanitizer absent 0 0 "$SANITIZER"
    return
  fi
  can_go_on sanitizer || { SANITIZER=$STATUS && return; }
  step planted_faults 60 "$SANITIZER_LOG" nvcc -arch="sm_${CUDAARCHS%%[!0-9]*}" -lineinfo -o "$SCRATCH/planted_faults" \
    bench/planted_faults.cu
  [[ $STATUS == passed ]] || SANITIZER="the planted faults could not be compiled"
  # Only our kernels, so that torch's cost nothing. The option has had two names.
  local option help
  help=$(compute-sanitizer --help 2>&1)
  for option in --kernel-regex --kernel-name; do
    if [[ $help == *"$option "* ]]; then
      FILTER=("$option" kns=nri)
      break
    fi
  done
}

sanitizer_verdict() { # exit status
  local said ours
  said=$(grep -E '(ERROR|RACECHECK) SUMMARY:' "$STEP_LOG" | tail -1 | sed 's/^=* *//')
  ours=$(grep -c '========= .* at .*nri::cuda' "$STEP_LOG")
  NOTE="${NOTE:+$NOTE; }${said:-no summary by the tool}; $(pytest_summary)"
  if [[ $said != *" 0 errors"* && $said != *" 0 hazards"* ]]; then
    [[ $STATUS == passed ]] && STATUS=failed
    NOTE+="; $ours reports in our kernels"
  fi
}

planted_verdict() { # exit status
  if (($1 == FOUND)); then
    STATUS=passed NOTE="the planted fault was caught"
  else
    [[ $STATUS == "timed out" ]] || STATUS=failed
    NOTE="exit status $1, expected $FOUND: the planted fault was not caught; $(tail -1 "$STEP_LOG")"
  fi
}

sanitize() { # tool, limit
  [[ -z $SANITIZER ]] || return 0
  local tool=$1 options
  # Failed calls that torch makes to find something out are no faults; ours raise errors by themselves.
  options=(--tool "$tool" --error-exitcode "$FOUND" --report-api-errors no --print-limit 30)
  # What a kernel that is left out has written would count as unwritten.
  [[ $tool == initcheck ]] || options+=("${FILTER[@]}")
  VERDICT=planted_verdict step "${tool}_planted" 40 "$SANITIZER_LOG" compute-sanitizer "${options[@]}" \
    "$SCRATCH/planted_faults" "$tool"
  if [[ $STATUS != passed ]]; then
    not_run "$tool" "a tool that misses a planted fault proves nothing"
    return
  fi
  # Every tensor is an allocation of its own: in torch's cache, what lies beyond one is another.
  PYTORCH_NO_CUDA_MEMORY_CACHING=1 OMP_NUM_THREADS=2 VERDICT=sanitizer_verdict step "$tool" "$2" "$SANITIZER_LOG" \
    compute-sanitizer "${options[@]}" "${PYTEST[@]}" -q --tb=line "${SANITIZED[@]}"
}

# ---- The most valuable first ----------------------------------------------------------------------------------------

if wanted tests; then
  prepare_tests
  run_tests tests 150 "not slow"
fi
if wanted bench; then
  rm -f "$BENCH_LOG" "$OUT/bench.json"
  run_bench energy 50
  run_bench gradient 50
  run_bench heat_bath 60
fi
if wanted sanitizer; then
  prepare_sanitizer
  sanitize memcheck 75
  sanitize racecheck 75
fi
if wanted bench; then
  run_bench training 130
  run_bench anneal 30
  run_bench simulate 30
fi
if wanted sanitizer; then
  sanitize synccheck 60
  sanitize initcheck 75
fi
if wanted tests; then
  run_tests tests_slow 60 slow
fi
if wanted bench; then
  run_bench mega_graph 40
  run_bench compiled 80
fi

summarize
cat "$OUT/summary.txt"
grep -q '^everything passed$' "$OUT/summary.txt"
