"""Why a command dies of a signal: its stack in C, the libraries it had loaded, and which simpler program dies too.

python3 bench/support/crash_report.py [--modules DIR] [--probes] -- COMMAND...

The stack comes from gdb where there is one, else from crash_handler.cc, compiled here and preloaded. --modules names the
folder of an installed package, whose native modules are read: compiler, needed libraries, sections of the CUDA run time.
--probes builds runtime_probe.cu in several ways and runs each; where a GPU is, the simplest that dies is the cause's neighbour.
Needs no package. Exit status 0: it reports, whatever it finds.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

HERE = Path(__file__).resolve().parent
OF_INTEREST = re.compile(r"cuda|cudart|nvidia|hetsp|torch|c10|stdc\+\+|gcc_s|libc\.so|libc-|ld-linux|_ctypes|python3")
FRAMES = 30
# As the package is built (cmake/HetspCuda.cmake, csrc/torch_ops/CMakeLists.txt).
CODE = ["-gencode", "arch=compute_90a,code=sm_90a", "-gencode", "arch=compute_80,code=compute_80"]
RUNTIME = ["-lcudadevrt", "-lcudart_static", "-lrt", "-lpthread", "-ldl"]


def ran(command: Sequence[str], seconds: float, **more: str) -> tuple[str, str]:
    """How a command ended, in words, and all that it said."""
    try:
        done = subprocess.run(
            command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace", timeout=seconds,
            check=False, env={**os.environ, **more},
        )  # fmt: skip
    except subprocess.TimeoutExpired as late:
        said = late.stdout or b""
        return f"no end after {seconds:g} s", said.decode(errors="replace") if isinstance(said, bytes) else said
    except OSError as error:
        return f"does not start: {error}", ""
    if done.returncode < 0:
        return signal.Signals(-done.returncode).name, done.stdout
    return ("all right" if done.returncode == 0 else f"exit status {done.returncode}"), done.stdout


def by_gdb(command: Sequence[str], seconds: float) -> tuple[list[str], list[str]]:
    """Frames and libraries, innermost first; nothing where gdb is absent or shows none."""
    if not shutil.which("gdb"):
        return [], []
    asked = ["set pagination off", "set debuginfod enabled off", "set print thread-events off", "run",
             f"bt {FRAMES}", "info registers rip rsp", "x/6i $pc", "info sharedlibrary"]  # fmt: skip
    _, said = ran(["gdb", "-batch", "-nx", *(word for each in asked for word in ("-ex", each)), "--args", *command], seconds)
    lines = said.splitlines()
    stopped = [line for line in lines if line.startswith("Program terminated") or " received signal " in line]
    frames = [line for line in lines if re.match(r"#\d+ |rip |rsp |=> | +0x[0-9a-f]+.*:\t", line)]
    libraries = [line for line in lines if re.match(r"0x[0-9a-f]+ +0x[0-9a-f]+ .*/", line)]
    return (stopped + frames, libraries) if any(line.startswith("#0") for line in frames) else ([], [])


def by_handler(command: Sequence[str], seconds: float, folder: Path) -> tuple[list[str], list[str]]:
    """The same by our own handler; one line that says why where it cannot be built."""
    library = folder / "crash_handler.so"
    compiler = os.environ.get("CXX") or shutil.which("c++") or shutil.which("g++") or "c++"
    how, said = ran([compiler, "-shared", "-fPIC", "-O1", "-o", str(library), str(HERE / "crash_handler.cc")], 60)
    if how != "all right":
        return [f"no stack: {compiler} {how}: {said.strip()[-300:]}"], []
    # Python's own handler would take the signals over.
    plain = [
        word for at, word in enumerate(command) if word != "faulthandler" and command[at : at + 2] != ["-X", "faulthandler"]
    ]
    _, said = ran(plain, seconds, LD_PRELOAD=str(library), PYTHONFAULTHANDLER="")
    lines = said.splitlines()
    begin = next((at for at, line in enumerate(lines) if line.startswith("crash: signal ")), None)
    if begin is None:
        return [f"no stack: under the handler the command ended without a signal: {' | '.join(lines[-3:])}"], []
    libraries = [line for line in lines[begin:] if line.startswith("library ")]
    return [line for line in lines[begin:] if not line.startswith("library ")][: FRAMES + 1], libraries


def modules(folder: Path) -> list[str]:
    """What stands in the native modules of an installed package."""
    found = []
    for path in sorted(folder.rglob("*.so")):
        found.append(f"{path.name}: {path.stat().st_size} bytes")
        for options, wanted in ((["-d"], r"NEEDED|RPATH|RUNPATH|FLAGS"), (["-p", ".comment"], r"GCC|clang|LLD"),
                                (["-lW"], r"TLS|RELRO"), (["-SW"], r"fatbin|nvFat|tbss|init_array")):  # fmt: skip
            _, said = ran(["readelf", *options, str(path)], 20)
            found += [f"  {' '.join(line.split())}" for line in said.splitlines() if re.search(wanted, line)]
    return found


def build_probes(folder: Path) -> dict[str, list[str]]:
    """Commands to run, by what they are; what cannot be built is told."""
    nvcc = shutil.which("nvcc") or "/usr/local/cuda/bin/nvcc"
    source, compiled = str(HERE / "runtime_probe.cu"), str(folder / "probe.o")
    _, plan = ran([nvcc, "--dryrun", source], 20)
    libraries = re.findall(r'"(-L[^"]+)"', next((line for line in plan.splitlines() if "LIBRARIES=" in line), ""))
    _, where = ran([sys.executable, "-c", "import torch; print(torch.__path__[0] + '/lib')"], 60)
    torch = where.strip().splitlines()[-1] if where.strip() else ""
    linked = ["-Wl,--no-as-needed", f"{torch}/libtorch.so", f"{torch}/libtorch_cpu.so", "-Wl,--as-needed",
              "-Wl,--unresolved-symbols=ignore-in-shared-libs"]  # fmt: skip
    how, said = ran([nvcc, "-O2", *CODE, "-Xcompiler=-fPIC", "-c", source, "-o", compiled], 60)
    if how != "all right":
        print(f"no probes: {nvcc} {how}: {said.strip()[-300:]}")
        return {}
    made = {}
    for name, options in {"program": [], "library": ["-shared"], "library_torch": ["-shared", *linked]}.items():
        out = str(folder / f"{name}.so")
        how, said = ran(["g++", "-fPIC", *options, "-o", out, compiled, *libraries, *RUNTIME], 60)
        if how == "all right":
            made[name] = out
        else:
            print(f"{name} is not linked: {how}: {said.strip()[-300:]}")
    call = "import ctypes, sys; {}; sys.exit(ctypes.CDLL({!r}).probe())"
    python = [sys.executable, "-c"]
    commands = {"the run time in a program": [made["program"]]} if "program" in made else {}
    before = {"Python": "pass", "torch": "import torch", "torch's CUDA": "import torch; torch.zeros(1, device='cuda')",
              "hetsp_ext": "import hetsp_ext"}  # fmt: skip
    for name in ("library", "library_torch"):
        for what, code in before.items():
            if name in made and (name == "library" or what != "Python"):
                how = "linked as _torch_ops is, " if name == "library_torch" else ""
                commands[f"the run time in a library, {how}after {what}"] = [*python, call.format(code, made[name])]
    return commands


def probed(commands: dict[str, list[str]], seconds: float) -> list[str]:
    """A line for each: how it ended, and its last words."""

    def line(item: tuple[str, list[str]]) -> str:
        how, said = ran(item[1], seconds)
        words = [text for text in said.splitlines() if text.strip()]
        return f"probe: {item[0]}: {how}{': ' + words[-1].strip()[:120] if words else ''}"

    with ThreadPoolExecutor(4) as pool:
        return list(pool.map(line, commands.items()))


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--modules", type=Path, help="folder of the package")
    parser.add_argument("--probes", action="store_true", help="build and run runtime_probe.cu")
    parser.add_argument("--seconds", type=float, default=40.0, help="for each command")
    parser.add_argument("command", nargs="+")
    options = parser.parse_args(argv)
    ended, said = ran(options.command, options.seconds)
    print(*said.splitlines()[-60:], sep="\n")
    with tempfile.TemporaryDirectory() as folder:
        frames, libraries = by_gdb(options.command, options.seconds)
        if not frames and ended != "all right" and not ended.startswith("exit"):
            frames, libraries = by_handler(options.command, options.seconds, Path(folder))
        print(*(line for line in libraries if OF_INTEREST.search(line)), sep="\n")
        if options.modules:
            print(*modules(options.modules), sep="\n")
        results = probed(build_probes(Path(folder)), options.seconds) if options.probes else []
    print(*frames, *results, f"{ended}: {' '.join(options.command)}", sep="\n", flush=True)


if __name__ == "__main__":
    main()
