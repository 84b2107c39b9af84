#!/usr/bin/env bash
# Installs hetsp_ext and all that it needs into .venv of this clone; run again after a change, it takes seconds.
#
#   tools/install.sh [--editable]
#
# An existing .venv is kept and completed. Environment: PYTHON (default python3) makes the .venv, MAX_JOBS bounds the
# compiler's jobs, CMAKE_ARGS goes to CMake (such as -DHETSP_CUDA=OFF). CUDA kernels are compiled where nvcc is found.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

editable=()
case "${1:-}" in
  "") ;;
  --editable) editable=(-e) ;;
  *) echo "tools/install.sh: unknown option $1; allowed: --editable" >&2; exit 2 ;;
esac

python="${PYTHON:-python3}"
if [ ! -x .venv/bin/python ]; then
  "$python" -c 'import sys; sys.exit(sys.version_info < (3, 10))' || {
    echo "tools/install.sh: $("$python" --version) is too old: hetsp_ext needs Python 3.10 or later; set PYTHON" >&2
    exit 1
  }
  "$python" -m venv .venv || {
    echo "tools/install.sh: could not make .venv; on Debian and Ubuntu: apt-get install python3-venv" >&2
    exit 1
  }
fi
export PATH="$PWD/.venv/bin:$PATH"  # setup.py takes CMake and ninja from here

echo "installing the requirements into .venv"
python -m pip install -q -r requirements.txt
echo "building hetsp_ext"
rm -rf build/lib.* build/bdist.*  # setuptools would install modules that are long gone from the sources
python -m pip install -q --no-build-isolation --no-deps --force-reinstall "${editable[@]}" .
python -c '
import torch, hetsp_ext
compiled, _, devices = torch.ops.hetsp.cuda_info()
cuda = f"compiled in, {devices} devices" if compiled else "not compiled (no nvcc)"
print(f"hetsp_ext {hetsp_ext.__version__} installed: torch {torch.__version__}, CUDA kernels {cuda}")'
