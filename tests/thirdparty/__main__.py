"""Runs another project's attention tests on hetsp_ext, from a checkout that you name.

    python -m tests.thirdparty flash-attention PATH --version 3 -k varlen_output --sample 100
    python -m tests.thirdparty torch PATH             # a checkout of pytorch, or its test_varlen_attention.py
    python -m tests.thirdparty ring-flash-attention PATH --ranks 4

What follows the options is passed to pytest. The tests' own imports (einops; expecttest for torch) must be installed.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import hetsp_ext

ROOT = Path(__file__).resolve().parents[2]


def run_pytest(plugin: str, folder: Path, files: list[str], options: list[str]) -> int:
    """In a process of its own, since the plugins replace modules; in `folder`, away from this repository's configuration."""
    (folder / "pytest.ini").write_text("[pytest]\naddopts = -ra -p no:cacheprovider\n")
    package = Path(hetsp_ext.__file__).parents[1]  # the one that runs this, in place or installed
    path = os.pathsep.join([str(package), str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
    command = [sys.executable, "-m", "pytest", "-p", "tests.thirdparty.selection", "-p", plugin, "--tb=short", "-q"]
    return subprocess.run([*command, *files, *options], cwd=folder, env={**os.environ, "PYTHONPATH": path}).returncode


def run(options: argparse.Namespace, folder: Path, rest: list[str]) -> int:
    """Prepares `folder` for the suite that options name, and runs it there."""
    path = options.path.resolve()
    if options.suite == "ring-flash-attention":
        from tests.thirdparty import ring_flash_attention

        return ring_flash_attention.run(path, folder, options.ranks)
    if options.suite == "torch":
        from tests.thirdparty import torch_varlen

        return run_pytest("tests.thirdparty.torch_varlen", folder, torch_varlen.prepare(path, folder, options.floor), rest)
    from tests.thirdparty import flash_attention

    files = flash_attention.prepare(path, folder, options.floor, options.version)
    return run_pytest("tests.thirdparty.flash_attention", folder, files, rest)


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.thirdparty", description=__doc__.splitlines()[0])
    suites = parser.add_subparsers(dest="suite", required=True)
    for name, checkout in (
        ("flash-attention", "checkout of Dao-AILab/flash-attention"),
        ("torch", "checkout of pytorch, or its test_varlen_attention.py"),
        ("ring-flash-attention", "checkout of zhuzilin/ring-flash-attention"),
    ):
        suite = suites.add_parser(name)
        suite.add_argument("path", type=Path, help=checkout)
        if name == "ring-flash-attention":
            suite.add_argument("--ranks", type=int, default=4, help="processes, over Gloo")
        else:
            suite.add_argument("--floor", type=float, default=0.0, help="least tolerance; 0 leaves theirs alone")
        if name == "flash-attention":
            suite.add_argument("--version", type=int, choices=(2, 3), default=3)
    options, rest = parser.parse_known_args(arguments)
    with tempfile.TemporaryDirectory() as name:
        try:
            return run(options, Path(name), rest)
        except FileNotFoundError as error:
            parser.error(str(error))


if __name__ == "__main__":
    sys.exit(main())
