"""The two native modules load, and say what they know about CUDA."""

import importlib.metadata
import importlib.resources
import subprocess
import sys

import torch

import hetsp_ext
from hetsp_ext import _native


def test_both_modules_load():
    assert _native.core.__name__ == "hetsp_ext._core"
    assert hasattr(torch.ops.hetsp, "cuda_info")
    assert any("_torch_ops" in library for library in torch.ops.loaded_libraries)


def test_cuda_info_agrees_with_torch():
    compiled, torch_has_cuda, devices = torch.ops.hetsp.cuda_info()
    assert compiled in (0, 1)
    assert bool(torch_has_cuda) == (torch.version.cuda is not None)  # the weak symbol resolves in CUDA builds only
    assert devices == (torch.cuda.device_count() if compiled else 0)


def test_version_is_the_metadata_s():
    try:
        installed = importlib.metadata.version("hetsp_ext")
    except importlib.metadata.PackageNotFoundError:
        installed = hetsp_ext.__version__  # an in-place build on PYTHONPATH has no metadata to disagree with
    assert hetsp_ext.__version__ == installed


def test_importing_the_package_registers_the_ops_without_the_compiler():
    """torch._dynamo takes a second or two, which `hetsp plan` and every worker would pay."""
    code = "import sys, hetsp_ext, torch; torch.ops.hetsp.merge_attention; print('torch._dynamo' in sys.modules)"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=True)
    assert run.stdout.strip() == "False"


def test_a_missing_native_module_is_explained(tmp_path):
    package = tmp_path / "hetsp_ext"
    package.mkdir()
    for name in ("__init__.py", "_native.py", "errors.py"):
        source = importlib.resources.files("hetsp_ext").joinpath(name).read_text()
        (package / name).write_text(source)
    run = subprocess.run([sys.executable, "-c", "import hetsp_ext"], cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert run.returncode != 0
    assert "native module is missing or does not load" in run.stderr
    assert "pip install" in run.stderr
