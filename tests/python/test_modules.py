"""The native modules beside torch's: the C++ libraries of two toolchains must not mix."""

import shutil
import subprocess
from pathlib import Path

import pytest

import hetsp_ext

MODULES = sorted(Path(hetsp_ext.__file__).parent.glob("*.so"))
pytestmark = pytest.mark.skipif(shutil.which("readelf") is None, reason="readelf is absent (binutils)")


def read(option: str, library: Path) -> list[list[str]]:
    said = subprocess.run(["readelf", "--wide", option, library], capture_output=True, text=True, check=True).stdout
    return [line.split() for line in said.splitlines()]


def exported(library: Path) -> set[str]:
    symbols = (line for line in read("--dyn-syms", library) if len(line) == 8 and line[0].rstrip(":").isdigit())
    return {name.partition("@")[0] for *_, binding, _, section, name in symbols if section != "UND" and binding != "LOCAL"}


def process_library(name: str) -> Path:
    mapped = {line.split()[-1] for line in Path("/proc/self/maps").read_text().splitlines()}
    return next(Path(path) for path in sorted(mapped) if Path(path).name.startswith(name))


@pytest.mark.parametrize("module", MODULES, ids=lambda module: module.name.partition(".")[0])
def test_a_module_offers_no_cpp_library(module: Path) -> None:
    """One that is linked statically stays hidden; a shared one is the process's."""
    assert exported(module) & exported(process_library("libstdc++.so.6")) == set()


def test_modules_were_found() -> None:
    assert {"_core", "_torch_ops"} <= {module.name.partition(".")[0] for module in MODULES}
