#!/usr/bin/env bash
# Every test: the C++ ones, built first (CTest), then the Python ones against the package installed in .venv.
#
#   tools/test.sh [pytest options]        after tools/install.sh
#
# Both always run; the exit status is non-zero if any failed. pytest comes last, so that its summary closes the output.
set -uo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
export PATH="$PWD/.venv/bin:$PATH"

cmake --build build -j "${MAX_JOBS:-$(nproc)}" >build/tests.log || { cat build/tests.log; echo "the C++ tests do not compile" >&2; }
ctest --test-dir build --output-on-failure --no-tests=error --timeout 300
cpp=$?
python -m pytest -q "$@"
py=$?
[ "$cpp" -eq 0 ] || echo "C++ tests failed: see above" >&2
exit "$((cpp != 0 ? 1 : py))"
