#!/usr/bin/env bash
# Formatter, linter and types, one command: what CI runs, in the same order.
#
#   tools/check.sh [--all | --fix]
#
# clang-tidy reads the C++ files that differ from the merge base with main (HETSP_BASE names another base) and the
# sources whose headers do; --all reads every one (CI). --fix lets the formatters rewrite files, then checks.
# The tools come from requirements-dev.txt and are installed into .venv when missing. Nothing needs to be built.
set -uo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

mode="${1:-changed}"
case "$mode" in
  changed | --all | --fix) ;;
  *) echo "tools/check.sh: unknown option $mode; allowed: --all, --fix" >&2; exit 2 ;;
esac

[ -x .venv/bin/python ] || "${PYTHON:-python3}" -m venv .venv || exit 1
export PATH="$PWD/.venv/bin:$PATH"
for tool in clang-format clang-tidy ruff mypy cmake; do
  if [ ! -x ".venv/bin/$tool" ]; then
    echo "installing requirements-dev.txt into .venv ($tool is missing)"
    python -m pip install -q -r requirements-dev.txt || exit 1
    break
  fi
done

# Tracked files and new ones that git does not ignore.
files() { git ls-files --cached --others --exclude-standard -- "$@" | while read -r file; do [ -f "$file" ] && echo "$file"; done; }
cpp=('*.cc' '*.h' '*.cu' '*.cuh')

failed=()
part() {  # part NAME COMMAND...: runs one check; all run even if one fails
  local name="$1" begin=$SECONDS
  shift
  if "$@"; then echo "ok    $name ($((SECONDS - begin)) s)"; else echo "FAIL  $name"; failed+=("$name"); fi
}

shell_syntax() {
  local status=0
  while read -r script; do bash -n "$script" || status=1; done < <(files '*.sh' .ci/run)
  return $status
}

# Sources to read: changed ones, and for a changed header every source that includes it by its path under csrc/ or tests/cpp/.
tidy_sources() {
  if [ "$mode" = --all ]; then files '*.cc'; return; fi
  local base changed header
  base="$(git merge-base HEAD "${HETSP_BASE:-$(git rev-parse -q --verify origin/main >/dev/null && echo origin/main || echo main)}")" || base=HEAD
  changed="$({ git diff --name-only "$base" -- "${cpp[@]}"; git ls-files --others --exclude-standard -- "${cpp[@]}"; } | sort -u)"
  {
    grep '\.cc$' <<<"$changed"
    grep -E '\.(h|cuh)$' <<<"$changed" | sed -E 's,^(csrc|tests/cpp)/,,' | while read -r header; do
      git grep -l --untracked -F "#include \"$header\"" -- '*.cc'
    done
  } | sort -u | while read -r file; do [ -f "$file" ] && echo "$file"; done
}

tidy() {
  # Without CUDA: clang-tidy cannot read nvcc's commands; .cuh bodies are seen through the tests that run them on the CPU.
  local configure=(-S . -B build-check -DHETSP_CUDA=OFF -DHETSP_BENCH=OFF -DPython_EXECUTABLE="$PWD/.venv/bin/python")
  if ! python -c 'import importlib.util as u, sys; sys.exit(not (u.find_spec("torch") and u.find_spec("nanobind")))'; then
    configure+=(-DHETSP_PYTHON=OFF)
    echo "      clang-tidy leaves out csrc/torch_ops and csrc/bindings: torch or nanobind is not installed in .venv"
  fi
  mkdir -p build-check
  cmake "${configure[@]}" >build-check/configure.log 2>&1 || { cat build-check/configure.log; return 1; }
  local sources known
  known="$(python -c 'import json, os; print("\n".join(os.path.relpath(c["file"]) for c in json.load(open("build-check/compile_commands.json"))))' | sort -u)"
  sources="$(comm -12 <(tidy_sources | sort -u) <(echo "$known"))"
  if [ -z "$sources" ]; then echo "      clang-tidy: no C++ source differs from the base"; return 0; fi
  xargs -P "${MAX_JOBS:-$(nproc)}" -n 1 clang-tidy -p build-check --quiet --warnings-as-errors='*' <<<"$sources" 2> >(grep -vE '^[0-9]+ warnings? (generated|treated)|^Suppressed|^Use ' >&2)
}

if [ "$mode" = --fix ]; then
  files "${cpp[@]}" | xargs clang-format -i
  ruff check -q --fix . || true
  ruff format -q .
fi
part "shell syntax" shell_syntax
part "clang-format" bash -c 'xargs clang-format --dry-run -Werror' < <(files "${cpp[@]}")
part "ruff check" ruff check -q .
part "ruff format" ruff format -q --check .
part "mypy" mypy
part "clang-tidy" tidy

if [ "${#failed[@]}" -gt 0 ]; then
  echo "checks failed: ${failed[*]} (tools/check.sh --fix repairs the formatting)" >&2
  exit 1
fi
echo "all checks passed"
