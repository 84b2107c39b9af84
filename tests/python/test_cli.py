"""The command line: one line for a wrong request, exit status 2, never a traceback."""

import os
import socket
import subprocess
import sys
import types

import pytest

import hetsp_ext
from hetsp_ext import cli
from hetsp_ext.errors import HetspError, InvalidArgument, PeerLost, PlanInfeasible


def test_version_and_help(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        cli.main(["--version"])
    assert stop.value.code == 0
    assert capsys.readouterr().out == f"hetsp_ext {hetsp_ext.__version__}\n"
    with pytest.raises(SystemExit):
        cli.main(["--help"])
    assert "doctor" in capsys.readouterr().out


@pytest.mark.parametrize("arguments", [[], ["trian"], ["doctor", "--colour"]])
def test_a_wrong_request_exits_with_2(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        cli.main(arguments)
    assert stop.value.code == 2
    captured = capsys.readouterr()
    assert not captured.out
    assert "error:" in captured.err


@pytest.mark.parametrize(
    ("failure", "status", "line"),
    [
        (PlanInfeasible("sequence 3 of 9 tokens\n needs more"), 2, "hetsp doctor: error: sequence 3 of 9 tokens needs more\n"),
        (InvalidArgument("x is 3"), 2, "hetsp doctor: error: x is 3\n"),
        (PeerLost("rank 1 is gone"), 1, "hetsp doctor: error: rank 1 is gone\n"),
        (HetspError("of any kind"), 1, "hetsp doctor: error: of any kind\n"),
        (
            OSError(28, "No space left on device", "a/file"),
            1,
            "hetsp doctor: error: [Errno 28] No space left on device: 'a/file'\n",
        ),
        (
            ModuleNotFoundError("", name="transformers"),
            1,
            "hetsp doctor: error: transformers is not installed: pip install 'hetsp_ext[train]'\n",
        ),
        (KeyboardInterrupt(), 130, "hetsp doctor: interrupted\n"),
    ],
)
def test_failures_become_one_line(
    failure: BaseException, status: int, line: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def run(args: object) -> int:
        raise failure

    monkeypatch.setattr("hetsp_ext.cli.doctor.run", run)
    assert cli.main(["doctor"]) == status
    captured = capsys.readouterr()
    assert captured.err == line
    assert not captured.out


def test_a_defect_keeps_its_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    def run(args: types.SimpleNamespace) -> int:
        raise ZeroDivisionError

    monkeypatch.setattr("hetsp_ext.cli.doctor.run", run)
    with pytest.raises(ZeroDivisionError):
        cli.main(["doctor"])


def test_a_missing_package_that_is_no_option_is_a_defect(monkeypatch: pytest.MonkeyPatch) -> None:
    def run(args: types.SimpleNamespace) -> int:
        raise ModuleNotFoundError("no hetsp_ext.nothing", name="hetsp_ext.nothing")

    monkeypatch.setattr("hetsp_ext.cli.doctor.run", run)
    with pytest.raises(ModuleNotFoundError):
        cli.main(["doctor"])


@pytest.mark.parametrize("command", [["plan", "--ranks", "2", "--lengths", "100,200"], ["doctor"]])
@pytest.mark.parametrize("output", ["unread", "full"])
def test_output_that_cannot_be_written_is_no_traceback(command: list[str], output: str) -> None:
    if output == "full":
        descriptor, status, line = os.open("/dev/full", os.O_WRONLY), 1, f"hetsp {command[0]}: error: [Errno 28]"
    else:
        reader, descriptor = os.pipe()
        os.close(reader)
        status, line = cli.OUTPUT_CLOSED, ""
    run = subprocess.run([sys.executable, "-m", "hetsp_ext", *command], stdout=descriptor, stderr=subprocess.PIPE, text=True)
    os.close(descriptor)
    assert run.returncode == status, run.stderr
    assert run.stderr.startswith(line)
    assert run.stderr.count("\n") == bool(line)


@pytest.mark.parametrize(
    ("changed", "line"),
    [
        ({"RANK": "x"}, "the environment's RANK is 'x'; with RANK and WORLD_SIZE set, a whole number is needed"),
        ({"WORLD_SIZE": "-1"}, "the environment's WORLD_SIZE is '-1'; "),
        ({"MASTER_PORT": ""}, "the environment's MASTER_PORT is ''; "),
        ({"MASTER_ADDR": ""}, "the environment's MASTER_ADDR is not set; "),
    ],
)
def test_half_of_what_torchrun_sets_is_named(
    changed: dict[str, str], line: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = {"RANK": "0", "WORLD_SIZE": "1", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "1"}
    for name, value in (whole | changed).items():
        monkeypatch.setenv(name, value)
    assert cli.main(["comm", "topology"]) == 2
    assert line in capsys.readouterr().err


def test_a_port_that_is_taken_is_one_line() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        whole = {"RANK": "0", "WORLD_SIZE": "1", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
        command = [sys.executable, "-m", "hetsp_ext", "comm", "topology", "--timeout", "5"]
        run = subprocess.run(command, capture_output=True, text=True, env={**os.environ, **whole})
    assert run.returncode == 1
    assert "Traceback" not in run.stderr
    assert "hetsp comm: error: the ranks do not meet: The server socket has failed to listen" in run.stderr


def test_the_module_runs_as_the_command() -> None:
    run = subprocess.run([sys.executable, "-m", "hetsp_ext", "--version"], capture_output=True, text=True, check=True)
    assert run.stdout == f"hetsp_ext {hetsp_ext.__version__}\n"
