#!/usr/bin/env bash
# Every test: the C++ ones, built first (CTest), then the Python ones against the package installed in .venv.
#
#   tools/test.sh [pytest options]        after tools/install.sh
#
# Both always run; the exit status is non-zero if any failed. pytest comes last, so that its summary closes the output.
set -uo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
export PATH="$PWD/.venv/bin:$PATH"

# What does not compile fails here: CTest would run the program of the last build.
cmake --build build -j "${MAX_JOBS:-$(nproc)}" >build/tests.log 2>&1 || { cat build/tests.log; false; }
built=$?
ctest --test-dir build --output-on-failure --no-tests=error --timeout 300
cpp=$((built != 0 ? built : $?))
python -m pytest -q "$@"
py=$?
[ "$cpp" -eq 0 ] || echo "C++ tests failed: see above" >&2
exit "$((cpp != 0 ? 1 : py))"
