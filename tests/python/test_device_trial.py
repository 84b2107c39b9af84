"""A trial of the device in a process of its own: what it tells, and how each way to die is told."""

import json
import signal
import sys

import pytest

from hetsp_ext import cli, doctor
from hetsp_ext.device_trial import Trial, attempt, read

TOLD = """
import json, os, signal, sys, time
found = [{"compiled": 1, "counted": 2}, {"device": "A (mma)"}, {"family": "scalar"}]
for line in ({"step": "the start"}, *found, {"step": "the end"}):
    print(json.dumps(line), flush=True)
"""


def died(how: str, seconds: float = 60.0) -> Trial:
    """A trial of a process that ends as the code `how` says, after some steps."""
    return attempt(seconds=seconds, command=[sys.executable, "-c", TOLD + how])


def test_a_call_on_the_cpu_is_right_and_told_step_by_step() -> None:
    trial = attempt("cpu")
    assert trial.death == ""
    assert trial.families == ["cpu"]
    assert trial.compiled is not None
    assert trial.steps == [
        "the core's count of devices", "the copies to the device for cpu", "the forward by cpu", "the backward by cpu",
    ]  # fmt: skip


@pytest.mark.parametrize("number", [signal.SIGSEGV, signal.SIGBUS, signal.SIGABRT, signal.SIGKILL], ids=lambda n: n.name)
def test_a_signal_is_named_with_the_step_that_met_it(number: signal.Signals) -> None:
    trial = died(f"os.kill(os.getpid(), {int(number)})")
    assert trial.death == f"{number.name} ({signal.strsignal(number)}) in the end"
    assert (trial.compiled, trial.counted, trial.devices, trial.families) == (True, 2, ["A (mma)"], ["scalar"])


def test_an_exception_a_silence_and_a_program_that_is_not_there() -> None:
    assert died("raise RuntimeError('dq is off')").death == "exit status 1 in the end: RuntimeError: dq is off"
    assert died("sys.exit(3)").death == "exit status 3 in the end: without a word"
    late = died("time.sleep(60)", seconds=3)
    assert late.death == "no end after 3 s of the end"
    assert late.steps == ["the start", "the end"]
    assert "does not start" in attempt(command=["/nowhere/python"]).death
    assert attempt(command=[sys.executable, "-c", "import os; os.abort()"]).death.endswith(
        "starting Python and importing hetsp_ext"
    )


def test_what_is_no_record_counts_for_nothing() -> None:
    assert read('a warning\n[1]\n"text"\n{"step": "one"}\n{"step": "tw') == Trial(steps=["one"])


def test_the_doctor_tells_the_death_and_its_exit_status(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setattr(doctor, "attempt", lambda: died("os.kill(os.getpid(), 11)"))
    *_, devices, call = doctor.cuda()
    assert devices == doctor.Finding("CUDA devices", True, "1: A (mma); the core counts 2")
    assert call.broken
    assert not call.present
    assert call.detail.startswith(
        "SIGSEGV (Segmentation fault) in the end; forward and backward by scalar agree with the CPU; again"
    )
    monkeypatch.setattr(doctor, "examine", lambda: [devices, call])
    monkeypatch.setattr("hetsp_ext.cli.doctor.examine", doctor.examine)
    assert cli.main(["doctor"]) == 1
    assert [line[0] for line in capsys.readouterr().out.splitlines()] == ["+", "!"]
    assert cli.main(["doctor", "--json"]) == 1
    assert [json.loads(line)["broken"] for line in capsys.readouterr().out.splitlines()] == [False, True]


def test_the_doctor_tells_a_call_that_is_right(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setattr(doctor, "attempt", lambda: attempt("cpu"))
    assert doctor.cuda()[-1] == doctor.Finding("CUDA call", True, "forward and backward by cpu agree with the CPU")
