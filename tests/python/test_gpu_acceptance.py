"""The acceptance of a GPU machine where there is no GPU: its record, its options, and that no stage hides the next."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from bench.support import stages
from tests.architecture.tree import ROOT

SCRIPT = ROOT / "bench/gpu_acceptance.sh"
JUNIT = '<testsuites><testsuite tests="9" failures="1" errors="1" skipped="3"/></testsuites>'


def test_a_record_is_complete_after_every_stage(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file, log, junit = tmp_path / "acceptance.json", tmp_path / "log", tmp_path / "junit.xml"
    log.write_text("one\n\ntwo\n")
    junit.write_text(JUNIT)
    common = ["--seconds", "3", "--limit", "9", "--log", str(log), "--junit"]
    for name, status, xml in (("contract", "1", junit), ("table", "0", tmp_path / "none"), ("slow", "124", tmp_path / "none")):
        stages.main([str(file), name, "--status", status, *common, str(xml)])
        assert json.loads(file.read_text())["stages"][-1]["stage"] == name
    stages.main([str(file), "racecheck", "--left-out", "no such tool"])
    contract, table, slow, left_out = json.loads(file.read_text())["stages"]
    assert contract["verdict"] == "failed"
    assert contract["tests"] == {"passed": 4, "failed": 2, "skipped": 3}
    assert contract["said"] == ["one", "two"]
    assert table == {"stage": "table", "verdict": "ok", "status": 0, "seconds": 3, "limit": 9, "said": ["two"]}
    assert slow["verdict"] == "timed out"
    assert left_out["verdict"] == "left out: no such tool"
    capsys.readouterr()
    stages.main([str(file), "--show"])
    assert len(capsys.readouterr().out.splitlines()) == 4


def test_stages_that_end_together_are_all_recorded(tmp_path: Path) -> None:
    file = tmp_path / "acceptance.json"
    command = [sys.executable, str(ROOT / "bench/support/stages.py"), str(file)]
    running = [subprocess.Popen([*command, f"stage {i}", "--left-out", "nothing"]) for i in range(8)]
    assert [process.wait(60) for process in running] == [0] * 8
    assert {each["stage"] for each in json.loads(file.read_text())["stages"]} == {f"stage {i}" for i in range(8)}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--budget", "5"], "--budget is 5, must be 60 seconds or more"),
        (["--budget"], "--budget needs a value"),
        (["--device", "tpu"], "--device is tpu, must be cuda or cpu"),
        (["--fast"], "unknown option --fast"),
    ],
)
def test_bad_options_are_named(arguments: list[str], message: str) -> None:
    done = subprocess.run(["bash", str(SCRIPT), *arguments], capture_output=True, text=True, timeout=60)
    assert done.returncode == 2
    assert message in done.stderr


def test_a_stage_that_fails_does_not_hide_the_next(tmp_path: Path) -> None:
    # A package that cannot be imported: all that needs it fails at once, and each says so.
    site = tmp_path / "site"
    (site / "hetsp_ext").mkdir(parents=True)
    (site / "hetsp_ext/__init__.py").write_text("raise ImportError('a broken package')\n")
    tools = tmp_path / "tools"
    tools.mkdir()
    (tools / "python3").write_text(f'#!/bin/sh\nexec "{sys.executable}" "$@"\n')
    (tools / "python3").chmod(0o755)
    done = subprocess.run(
        ["bash", str(SCRIPT), "--device", "cpu", "--site", str(site), "--budget", "90", "--out", str(tmp_path / "out")],
        capture_output=True, text=True, timeout=200, env={**os.environ, "PATH": f"{tools}:{os.environ['PATH']}"},
    )  # fmt: skip
    found = {each["stage"]: each for each in json.loads((tmp_path / "out/acceptance.json").read_text())["stages"]}
    assert set(found) == {
        "machine", "doctor", "crash", "small_set", "contract", "gpu_lanes", "train", "memcheck", "racecheck", "table",
    }  # fmt: skip
    assert {name for name, each in found.items() if each["verdict"] == "failed"} >= {"doctor", "small_set", "contract", "table"}
    assert any("a broken package" in line for line in found["small_set"]["said"])
    assert found["memcheck"]["verdict"] == "left out: no GPU to watch"
    assert any(line.startswith("exit status 1: ") for line in found["crash"]["said"])  # an exception is no signal
    assert done.returncode >= 4


def package(folder: Path, main: str) -> None:
    """A package of our name whose command is `main`."""
    (folder / "hetsp_ext").mkdir(parents=True)
    (folder / "hetsp_ext/__init__.py").write_text("")
    (folder / "hetsp_ext/__main__.py").write_text(main)


def test_wheels_that_crash_are_asked_why_and_a_build_takes_their_place(tmp_path: Path) -> None:
    package(tmp_path / "dying", "import os, signal\nos.kill(os.getpid(), signal.SIGSEGV)\n")
    package(tmp_path / "sound", "print('all is well')\n")
    tools = tmp_path / "tools"
    tools.mkdir()
    # pip, for which the last word says what is installed: the wheels, or what is built here.
    (tools / "python3").write_text(
        f"""#!/bin/bash
if [ "$1 $2 $3" != "-m pip install" ]; then exec "{sys.executable}" "$@"; fi
while [ "$1" != --target ]; do shift; done
if [ "${{@: -1}}" = . ]; then cp -r "{tmp_path}/sound" "$2"; else cp -r "{tmp_path}/dying" "$2"; fi
"""
    )
    (tools / "python3").chmod(0o755)
    options = ["--device", "cpu", "--wheels", str(tmp_path), "--build", "--budget", "90", "--out", str(tmp_path / "out")]
    done = subprocess.run(
        ["bash", str(SCRIPT), *options],
        capture_output=True, text=True, timeout=200, env={**os.environ, "PATH": f"{tools}:{os.environ['PATH']}"},
    )  # fmt: skip
    stages = json.loads((tmp_path / "out/acceptance.json").read_text())["stages"]
    found = {each["stage"]: each for each in stages}
    assert [each["stage"] for each in stages[1:6]] == ["install", "doctor", "crash", "build", "doctor_built"], done.stdout
    assert found["doctor"]["status"] in (139, -11)
    assert found["doctor_built"]["said"] == ["all is well"]
    log = (tmp_path / "out/crash.log").read_text()
    assert log.splitlines()[-1].startswith("SIGSEGV: python3 -X faulthandler -m hetsp_ext doctor")
    assert "kill" in log  # the frame that did it
