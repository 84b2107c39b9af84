"""What the compiler made of a build tree's CUDA kernels: no spills, no serialised wgmma, tensor cores where they should be.

    python tools/cuda_report.py BUILD_TREE [--most-seconds S]

Every build leaves OBJECT.ptxas beside an object (cmake/ptxas_report.sh). Read from it: registers, stack and spills of each
kernel, and the remarks by which ptxas says that it serialised wgmma. From the machine code, where a disassembler is at hand
(nvidia-cuda-cuobjdump and nvidia-cuda-nvdisasm of requirements-dev.txt, or CUDA's own): HGMMA in the forward and backward
objects of hopper/, HMMA in those of mma/. A kernel whose body is guarded for sm_90a and compiled for plain sm_90 becomes
nothing, without a word: only the machine code shows it. Exits 1 if anything is amiss.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from dataclasses import dataclass, field
from pathlib import Path

# C7510: a function boundary, C7511: too few registers, C7515: an accumulator that other code defines; other numbers of the
# family are reported alike: what is not known to be harmless is looked at.
SERIALISED = re.compile(r"\bC75\d\d\b")
HARMLESS = {"C7519"}  # an arrive that ptxas puts in by itself
ENTRY = re.compile(r"Compiling entry function '(\S+)' for '(\S+)'")
STACK = re.compile(r"(\d+) bytes stack frame, (\d+) bytes spill stores, (\d+) bytes spill loads")
TOOK = re.compile(r"took (\d+)m([\d.]+)s (\d+)m([\d.]+)s")
REGISTERS = re.compile(r"Used (\d+) registers")
WIDEST = 110  # of a name in the table
# Source -> the instruction that its machine code must hold.
TENSOR_CORES = {r"/hopper/(for|back)ward\w*\.cu$": "HGMMA", r"/mma/(for|back)ward\w*\.cu$": "HMMA"}


@dataclass
class Kernel:
    """One entry function for one architecture."""

    name: str
    target: str
    registers: int = 0
    stack: int = 0
    spilled: int = 0  # bytes stored and loaded


@dataclass
class Report:
    """What ptxas said of one object."""

    kernels: list[Kernel] = field(default_factory=list)
    serialised: list[str] = field(default_factory=list)
    seconds: float = 0.0  # of CPU time


def read_report(text: str) -> Report:
    """Parses the output of `ptxas -v`."""
    report = Report()
    for line in text.splitlines():
        if any(code not in HARMLESS for code in SERIALISED.findall(line)):
            report.serialised.append(line.strip())
        if match := ENTRY.search(line):
            report.kernels.append(Kernel(match[1], match[2]))
        elif report.kernels and (match := STACK.search(line)):
            report.kernels[-1].stack = int(match[1])
            report.kernels[-1].spilled = int(match[2]) + int(match[3])
        elif report.kernels and (match := REGISTERS.search(line)):
            report.kernels[-1].registers = int(match[1])
        elif match := TOOK.match(line):
            user, user_rest, system, system_rest = (float(number) for number in match.groups())
            report.seconds = 60 * (user + system) + user_rest + system_rest
    return report


def problems(source: str, report: Report, has_kernels: bool = True) -> list[str]:
    """What is amiss in the report of an object, whose source has kernels or is the host's alone."""
    found = [f"{source}: wgmma is serialised: {line}" for line in report.serialised]
    found += [f"{source}: {k.name} for {k.target} spills {k.spilled} bytes" for k in report.kernels if k.spilled]
    if has_kernels and not report.kernels:
        found.append(f"{source}: no kernel in its report")
    return found


def disassembler() -> Path | None:
    """A folder with cuobjdump and nvdisasm that run; the packages' files lack the right to."""
    places = [Path(sysconfig.get_path("purelib")) / "nvidia/cu13/bin", Path("/usr/local/cuda/bin")]
    if on_path := shutil.which("cuobjdump"):
        places.append(Path(on_path).parent)
    for place in places:
        tools = [place / "cuobjdump", place / "nvdisasm"]
        if not all(tool.is_file() for tool in tools):
            continue
        if all(os.access(tool, os.X_OK) for tool in tools):
            return place
        copied = Path(tempfile.mkdtemp(prefix="cuobjdump-"))
        for tool in tools:
            shutil.copy(tool, copied)
            (copied / tool.name).chmod(0o755)
        return copied
    return None


def count(tools: Path, what: Path, instruction: str) -> int:
    """How often the machine code of an object holds the instruction."""
    path = f"{tools}{os.pathsep}{os.environ['PATH']}"
    done = subprocess.run(
        [str(tools / "cuobjdump"), "--dump-sass", str(what)], capture_output=True, text=True, env={**os.environ, "PATH": path}
    )
    if done.returncode != 0:
        raise RuntimeError(f"cuobjdump fails on {what}: {done.stderr.strip()}")
    return len(re.findall(rf"\b{instruction}\b", done.stdout))


def source_of(report: Path) -> str:
    """The path of the source below csrc/, from <...>/csrc/hetsp/<room>/CMakeFiles/<target>.dir/<path>.o.ptxas."""
    room, _, rest = report.as_posix().partition("/CMakeFiles/")
    return f"{room.rpartition('/csrc/')[2]}/{rest.partition('/')[2].removesuffix('.o.ptxas')}"


def with_headers(path: Path, root: Path, seen: set[Path]) -> str:
    """A source and the headers of the project that it includes, as text."""
    if path in seen or not path.is_file():
        return ""
    seen.add(path)
    text = path.read_text(encoding="utf-8")
    return text + "".join(with_headers(root / name, root, seen) for name in re.findall(r'#include "([^"]+)"', text))


def missing_instructions(tools: Path, source: str, what: Path) -> tuple[str, list[str]]:
    """What the machine code of an object for tensor cores holds, in words; and what it lacks."""
    for pattern, instruction in TENSOR_CORES.items():
        if re.search(pattern, source):
            found = count(tools, what, instruction)
            return f"{found} {instruction}", [] if found else [f"{source}: no {instruction} in its machine code"]
    return "", []


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("tree", type=Path)
    parser.add_argument("--most-seconds", type=float, default=480.0, help="CPU time of all CUDA objects: 4 minutes on 2 cores")
    options = parser.parse_args(argv)
    root = Path(__file__).resolve().parents[1] / "csrc"
    reports = sorted(options.tree.rglob("*.cu.o.ptxas"))
    if not reports:
        sys.exit(f"cuda_report.py: no *.cu.o.ptxas below {options.tree}: not a build tree with CUDA kernels")
    tools, amiss, took = disassembler(), [], 0.0
    for path in reports:
        source, report = source_of(path), read_report(path.read_text(encoding="utf-8", errors="replace"))
        amiss += problems(source, report, "__global__" in with_headers(root / source, root, set()))
        took += report.seconds
        note = ""
        if tools is not None:
            note, lacking = missing_instructions(tools, source, path.with_suffix(""))
            amiss += lacking
        registers, stack = (max((getattr(k, key) for k in report.kernels), default=0) for key in ("registers", "stack"))
        print(
            f"{source:<64} {len(report.kernels):>3} kernels, at most {registers:>3} registers, stack {stack:>3} bytes  {note}"
        )
    if tools is None:
        print("machine code is not looked at: no cuobjdump and nvdisasm (pip install -r requirements-dev.txt)")
    print(f"{len(reports)} CUDA objects, {took:.0f} CPU-seconds of nvcc (ccache may have served some)")
    if took > options.most_seconds:
        amiss.append(f"nvcc took {took:.0f} CPU-seconds, {options.most_seconds:g} are allowed")
    if amiss:
        sys.exit("\n".join(["", *amiss]))


if __name__ == "__main__":
    main()
