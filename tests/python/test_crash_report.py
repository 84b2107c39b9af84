"""What is told of a command that dies of a signal: by a debugger, by our own handler, and of the native modules."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from bench.support import crash_report

DYING = [sys.executable, "-X", "faulthandler", "-c", "import ctypes; ctypes.string_at(0)"]
PROBES = {
    "one that is right": [sys.executable, "-c", "print('fine')"],
    "one that dies": [sys.executable, "-c", "import os; print('> here', flush=True); os.abort()"],
    "one that hangs": [sys.executable, "-c", "import time; time.sleep(60)"],
    "one that is not there": ["/nowhere/probe"],
}

needs_compiler = pytest.mark.skipif(not shutil.which("c++"), reason="no c++ on PATH")
needs_gdb = pytest.mark.skipif(not shutil.which("gdb"), reason="no gdb on PATH")


@needs_compiler
def test_the_handler_tells_signal_stack_and_libraries(tmp_path: Path) -> None:
    frames, libraries = crash_report.by_handler(DYING, 60, tmp_path)
    assert frames[0].startswith("crash: signal 11, address (nil), code at 0x"), frames
    assert any("_ctypes" in line for line in frames[1:10])
    assert any("libc" in line for line in libraries)
    assert all(line.startswith("library ") for line in libraries)


@needs_compiler
def test_the_handler_lets_the_program_die_as_it_would_have(tmp_path: Path) -> None:
    crash_report.by_handler(DYING, 60, tmp_path)
    preload = {"LD_PRELOAD": str(tmp_path / "crash_handler.so")}
    assert subprocess.run(["sh", "-c", "kill -SEGV $$"], env=preload, capture_output=True, check=False).returncode == -11
    assert subprocess.run(["sh", "-c", "exit 3"], env=preload, capture_output=True, check=False).returncode == 3
    frames, _ = crash_report.by_handler([sys.executable, "-c", "print('well')"], 60, tmp_path)
    assert frames == ["no stack: under the handler the command ended without a signal: well"]


@needs_gdb
def test_a_debugger_tells_the_same() -> None:
    frames, libraries = crash_report.by_gdb(DYING, 120)
    assert any("SIGSEGV" in line for line in frames)
    assert any(line.startswith("#0 ") for line in frames)
    assert any("_ctypes" in line for line in [*frames, *libraries])
    assert crash_report.by_gdb([sys.executable, "-c", "pass"], 120) == ([], [])


def test_each_probe_has_one_line() -> None:
    right, dies, hangs, absent = crash_report.probed(PROBES, 5)
    assert right == "probe: one that is right: all right: fine"
    assert dies == "probe: one that dies: SIGABRT: > here"
    assert hangs == "probe: one that hangs: no end after 5 s"
    assert absent.startswith("probe: one that is not there: does not start: ")


def test_the_report_ends_with_how_it_ended(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    crash_report.main(["--modules", str(tmp_path), "--", sys.executable, "-c", "print('well')"])
    out = capsys.readouterr().out.splitlines()
    assert out[0] == "well"
    assert out[-1].startswith("all right: ")
    crash_report.main(["--", *DYING])
    out = capsys.readouterr().out.splitlines()
    assert any("Segmentation fault" in line for line in out[:5])
    assert out[-1].startswith("SIGSEGV: ")


@pytest.mark.skipif(not (shutil.which("nvcc") and shutil.which("readelf")), reason="no nvcc or no readelf on PATH")
def test_the_probes_are_built_with_the_run_time_inside(tmp_path: Path) -> None:
    commands = crash_report.build_probes(tmp_path)
    assert "the run time in a program" in commands
    assert "the run time in a library, linked as _torch_ops is, after torch" in commands
    _, needed = crash_report.ran(["readelf", "-d", str(tmp_path / "library_torch.so")], 20)
    assert "libtorch.so" in needed
    assert "cudart" not in needed
    _, told = crash_report.ran(commands["the run time in a program"], 60)
    assert told.startswith("> cudaGetDeviceCount(&count)\ncudaGetDeviceCount(&count): ")
    assert any("fatbin" in line for line in crash_report.modules(tmp_path))
