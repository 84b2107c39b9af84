"""Builds the native parts with CMake (see CMakeLists.txt); the metadata is in pyproject.toml.

Environment: CMAKE_ARGS is passed to CMake, MAX_JOBS bounds its jobs, HETSP_BUILD_DIR names the build tree (default build/).
"""

import importlib.util
import os
import shlex
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

from setuptools import Extension, find_packages, setup
from setuptools.command.build_ext import build_ext

ROOT = Path(__file__).resolve().parent


def torch_include() -> Path | None:
    """Headers of the torch that the package will run with.

    Under pip's build isolation `import torch` fails, but sysconfig still names the target environment, and the stable ABI
    needs headers only.
    """
    spec = importlib.util.find_spec("torch")
    roots = list(spec.submodule_search_locations or []) if spec else []
    roots += [os.path.join(sysconfig.get_path(key), "torch") for key in ("platlib", "purelib")]
    includes = (Path(root) / "include" for root in roots)
    return next((path for path in includes if (path / "torch/csrc/stable/library.h").is_file()), None)


class CMakeBuild(build_ext):
    """Configures, builds, and installs the component `python` where setuptools expects the modules."""

    def run(self) -> None:
        include = torch_include()
        if include is None:
            raise SystemExit(
                "hetsp_ext: building needs torch>=2.10: pip install torch, then pip install --no-build-isolation ."
            )
        import nanobind

        build = Path(os.environ.get("HETSP_BUILD_DIR", ROOT / "build")).resolve()
        cmake = shutil.which("cmake") or "cmake"
        configure = [cmake, "-S", str(ROOT), "-B", str(build), f"-DPython_EXECUTABLE={sys.executable}"]
        configure += [f"-DHETSP_TORCH_INCLUDE={include}", f"-Dnanobind_DIR={nanobind.cmake_dir()}"]
        if ninja := shutil.which("ninja"):
            configure += ["-G", "Ninja", f"-DCMAKE_MAKE_PROGRAM={ninja}"]
        configure += shlex.split(os.environ.get("CMAKE_ARGS", ""))
        jobs = os.environ.get("MAX_JOBS", str(os.cpu_count() or 1))
        destination = ROOT / "python" if self.inplace or self.editable_mode else Path(self.build_lib).resolve()
        subprocess.run(configure, check=True)
        # The modules alone: who installs need not wait for the C++ tests and benchmarks (tools/test.sh builds those).
        subprocess.run([cmake, "--build", str(build), "-j", jobs, "--target", "python_modules"], check=True)
        subprocess.run([cmake, "--install", str(build), "--component", "python", "--prefix", str(destination)], check=True)

    def get_source_files(self) -> list[str]:
        return []

    def get_outputs(self) -> list[str]:
        return []


SPLIT_NANOBIND = importlib.util.find_spec("nanobind_backend") is not None

setup(
    options={"bdist_wheel": {"py_limited_api": "cp310"}} if SPLIT_NANOBIND else {},
    install_requires=["torch>=2.10", "numpy", *(["nanobind-backend>=1.0,<2"] if SPLIT_NANOBIND else [])],
    packages=find_packages("python"),
    package_dir={"": "python"},
    package_data={"hetsp_ext": ["py.typed"]},
    ext_modules=[Extension("hetsp_ext._core", [])],  # marks the wheel as platform-specific
    cmdclass={"build_ext": CMakeBuild},
)
