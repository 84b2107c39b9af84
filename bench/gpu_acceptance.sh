#!/usr/bin/env bash
# What a machine with a GPU has to show, in one command: the contract on CUDA, the sanitizer, the table beside torch's kernels.
#
#   bench/gpu_acceptance.sh [--budget SECONDS] [--site DIR | --wheels DIR [--build]] [--out DIR] [--device cuda|cpu]
#
# --site: a folder that holds the installed package; --wheels: wheels to install (ours, and nanobind-backend's where it was built
# in split mode). Without both it builds here, with no network: torch, CMake, ninja, nanobind and nvcc must be there. With
# --wheels and --build it builds only if the doctor finds the wheels broken. A package that the doctor finds broken, or that
# breaks the doctor, is asked why (stage crash: C stack, libraries, simpler programs) before the next is tried; the last is gone
# on with whatever the doctor says. Stages run under limits, together at most the budget (540 s), and none hides the next; what
# no longer fits is left out and listed.
# DIR/acceptance.json is complete after every stage, DIR/table.json after every row, and logs lie beside them. Exit status: the
# number of stages that failed. --device cpu shows that the script runs where there is no GPU.
set -uo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

budget=540 site="" wheels="" out="" device=cuda build_too=""
while [ $# -gt 0 ]; do
  case "$1" in
    --budget | --site | --wheels | --out | --device)
      [ $# -gt 1 ] || { echo "gpu_acceptance.sh: $1 needs a value" >&2; exit 2; }
      printf -v "${1#--}" '%s' "$2"; shift 2 ;;
    --build) build_too=yes; shift ;;
    *) echo "gpu_acceptance.sh: unknown option $1; allowed: --budget, --site, --wheels, --build, --out, --device" >&2; exit 2 ;;
  esac
done
[[ "$budget" =~ ^[0-9]+$ && "$budget" -ge 60 ]] || { echo "gpu_acceptance.sh: --budget is $budget, must be 60 seconds or more" >&2; exit 2; }
[[ "$device" =~ ^(cuda|cpu)$ ]] || { echo "gpu_acceptance.sh: --device is $device, must be cuda or cpu" >&2; exit 2; }
out="${out:-$PWD/build-acceptance}"
mkdir -p "$out"
rm -f "$out"/*.json "$out"/*.log "$out"/*.xml
began=$SECONDS failed=0
cores="$(env -u OMP_NUM_THREADS nproc)"  # nproc answers with OMP_NUM_THREADS where that is set
export OMP_NUM_THREADS=2 TORCHINDUCTOR_COMPILE_THREADS=1 PYTHONUNBUFFERED=1 TORCH_CPP_LOG_LEVEL=ERROR PATH="$PATH:/usr/local/cuda/bin"
workers="$((cores > 6 ? cores - 4 : 2))"

left() { echo $((budget - (SECONDS - began))); }
note() { python3 bench/support/stages.py "$out/acceptance.json" "$@" || failed=$((failed + 1)); }
trap 'kill $(jobs -p) 2>/dev/null' EXIT

# stage NAME LIMIT COMMAND...: at most LIMIT seconds and what is left; writes NAME.log; its record goes to acceptance.json.
stage() {
  local name="$1" limit="$2" at=$SECONDS status
  shift 2
  [ "$limit" -le "$(left)" ] || limit="$(left)"
  if [ "$limit" -lt 5 ]; then note "$name" --left-out "the budget of $budget s is over"; failed=$((failed + 1)); return 1; fi
  [ "$(type -t "$1")" != function ] || set -- bash -c "$1"
  timeout -s INT -k 3 "$limit" "$@" >"$out/$name.log" 2>&1
  status=$?
  note "$name" --status "$status" --seconds "$((SECONDS - at))" --limit "$limit" --log "$out/$name.log" --junit "$out/$name.xml"
  [ "$status" -eq 0 ] || failed=$((failed + 1))
  return "$status"
}

machine() {
  nvidia-smi --query-gpu=name,driver_version,memory.total,clocks.max.sm,power.limit --format=csv,noheader
  for tool in nvcc compute-sanitizer cmake ninja; do printf '%s: %s\n' "$tool" "$(command -v "$tool" || echo absent)"; done
  python3 -c 'import sys, torch; print(f"Python {sys.version.split()[0]}, torch {torch.__version__}")'
}

# Linked mode where nanobind-backend is missing (setup.py finds out); machine code for this GPU and PTX as everywhere.
build() {
  HETSP_BUILD_DIR="$out/tree" MAX_JOBS="$cores" python3 -m pip install -q --no-index --no-build-isolation --no-deps --no-compile --target "$site" .
}
install() { python3 -m pip install -q --no-index --no-deps --no-compile --target "$site" "$wheels"/*.whl; }
doctor() { python3 -X faulthandler -m hetsp_ext doctor; }
# Of the doctor where it died itself, else of the call that it tried.
crash() {
  local probes=(--probes) asked=(python3 -X faulthandler -m hetsp_ext doctor)
  [ "$device" = cuda ] || probes=()
  ! grep -q 'CUDA call' "$doctors_log" || asked=(python3 -X faulthandler -m hetsp_ext.device_trial)
  timeout -k 3 110 python3 bench/support/crash_report.py --seconds 30 --modules "$site/hetsp_ext" "${probes[@]}" -- "${asked[@]}"
}

# One CPU instruction set: the CPU's own suite is not this machine's question.
contract() {
  OMP_NUM_THREADS=1 HETSP_CPU_CAPABILITY=portable python3 -m pytest -v -rfE -n "$workers" --timeout 60 --tb=short -p no:cacheprovider -W ignore \
    --junitxml "$out/contract.xml" --durations=5 tests/python/attention tests/python/test_torch_attention.py tests/python/test_flash_attn.py -k "$chosen"
}

# Only our kernels: torch's are right, and many. What the machine refuses is a failed stage, with the tool's words in its log.
sanitized() {
  local option filter=()
  for option in --kernel-name --kernel-regex; do  # its name changed with the tool's version
    compute-sanitizer "$option" kernel_substring=hetsp true 2>&1 | grep -qiE 'unrecogni|unknown|invalid|usage' && continue
    filter=("$option" kernel_substring=hetsp)
    break
  done
  PYTORCH_NO_CUDA_MEMORY_CACHING=1 timeout -k 3 "$2" compute-sanitizer --tool "$1" "${filter[@]}" --error-exitcode 9 \
    --print-limit 20 python3 -m tests.python.attention.small_set --cases "$3"
}
memcheck() { sanitized memcheck 88 15; }
racecheck() { HETSP_CUDA_KERNELS=mma sanitized racecheck 88 15; }
# It does not know the barriers by which Hopper's producer hands shared memory to the consumers (docs/hopper_forward.md), and
# names each such hand-over. So its reports are kept, and only that it ran is asked.
racecheck_hopper() {
  local said
  said="$(sanitized racecheck 88 3 2>&1)"
  printf '%s\n' "$said"
  grep -aq 'RACECHECK SUMMARY' <<<"$said"
}
small_set() { python3 -m tests.python.attention.small_set --device "$device"; }
# Two ranks on this one GPU; which of the ways to have them work is what it finds out.
gpu_lanes() { python3 -m bench.comm.gpu_lanes_bench --device "$device" --limit 18 --out "$out/gpu_lanes.json"; }
# A model's steps with the fused ops and the loss, its first one computed again with torch's sdpa.
train() {
  local model=(--model small --dtype bfloat16)
  [ "$device" = cuda ] || model=()
  python3 -m hetsp_ext train --device "$device" --ranks 1 --steps 2 --verify --data docs --max-length 4096 --batch-tokens 8192 \
    --out "$out/train" "${model[@]}"
}
table() {
  local seconds=$(($(left) - 6)) quick=""
  [ "$device" = cuda ] || quick="--divide 512 --rounds 3 --row-seconds 1"
  python3 -m bench.attention.cuda_attention_bench --device "$device" $quick --budget "$seconds" --out "$out/table.json"
}

export -f machine build install doctor crash
export site wheels out device doctors_log cores
stage machine 30 machine

# examined SUFFIX: whether the doctor finds the package in $site sound; if not, why.
examined() {
  export PYTHONPATH="$site" doctors_log="$out/doctor$1.log"
  stage "doctor$1" 60 doctor && return
  stage "crash$1" 120 crash
  return 1
}
if [ -n "$site" ]; then
  examined ""
elif [ -n "$wheels" ]; then
  site="$out/site"; rm -rf "$site"
  stage install 40 install
  if ! examined "" && [ -n "$build_too" ]; then
    site="$out/site_built"; rm -rf "$site"
    if stage build 200 build; then examined _built; else site="$out/site"; fi
  fi
else
  site="$out/site"; rm -rf "$site"
  stage build 200 build
  examined ""
fi
export PYTHONPATH="$site" workers budget began
# Every family of kernels where there is time, else the one that calls have by themselves.
chosen="cuda"
[ "$budget" -ge 400 ] || chosen="cuda and not cuda_mma and not cuda_scalar"
[ "$device" = cuda ] || chosen="test_cuda or test_levels"
export chosen
export -f contract sanitized memcheck racecheck racecheck_hopper small_set gpu_lanes train table left

# Correctness measures nothing, so its stages share the time. Each writes its record as it ends; a lock keeps them apart.
part=$((budget / 3))
stage small_set $((part < 60 ? part : 60)) small_set &
stage contract $((part < 120 ? part : 120)) contract &
stage gpu_lanes $((part < 120 ? part : 120)) gpu_lanes &
stage train $((part < 90 ? part : 90)) train &
if [ "$device" = cpu ]; then
  note memcheck --left-out "no GPU to watch"; note racecheck --left-out "no GPU to watch"
elif command -v compute-sanitizer >/dev/null; then
  stage memcheck $((part < 90 ? part : 90)) memcheck &
  stage racecheck $((part < 90 ? part : 90)) racecheck &
  stage racecheck_hopper $((part < 90 ? part : 90)) racecheck_hopper &
else
  note memcheck --left-out "compute-sanitizer is absent"; note racecheck --left-out "compute-sanitizer is absent"
fi
for job in $(jobs -p); do wait "$job" || failed=$((failed + 1)); done
SECONDS_AT_TABLE=$SECONDS
stage table "$(left)" bash -c "SECONDS=$SECONDS_AT_TABLE; table"

sed -n '/^TFLOP\/s/,$p' "$out/table.log"
note --show
echo "acceptance: $failed stages failed, $((SECONDS - began)) s of $budget; $out/acceptance.json"
exit "$failed"
