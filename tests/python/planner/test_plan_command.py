"""`hetsp plan`: a table, or JSON, from lengths in whatever form they come."""

import json
import os
from pathlib import Path

import numpy as np
import pytest

from hetsp_ext import Plan, cli

LENGTHS = [5000, 1200, 800, 64]


def write(folder: Path, form: str) -> str:
    path = folder / f"lengths.{form}"
    if form == "txt":
        path.write_text("5000\n1200 800,\n64\n")
    elif form == "json":
        path.write_text(json.dumps(LENGTHS))
    elif form == "npz":
        np.savez(path, lengths=np.array(LENGTHS, np.uint32), other=np.zeros(2))
    elif form == "npy":
        np.save(path, np.array(LENGTHS))
    else:
        return ",".join(map(str, LENGTHS))
    return str(path)


@pytest.mark.parametrize("form", ["list", "txt", "json", "npz", "npy"])
def test_json_is_one_plan_from_any_form(form: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["plan", "--ranks", "3", "--lengths", write(tmp_path, form), "--memory-tokens", "4000", "--json"]) == 0
    record = json.loads(capsys.readouterr().out)
    plan = Plan.from_dict(record)
    assert [s.tokens for s in plan.sequences] == LENGTHS
    assert record["one_line"] == plan.one_line()
    assert record["gap"] == plan.gap


def test_table_and_options(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["plan", "--ranks", "4", "--lengths", "9,8,7,6,5", "--first", "3", "--strategy", "data-parallel"]) == 0
    assert "plan data-parallel: 3 sequences, 24 tokens on 4 ranks, 1 micro-batch; 3x1" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--lengths", "1,x"], "'x' is none"),
        (["--lengths", ""], "'' is none"),
        (["--lengths", "no/such/file.txt"], "is no file"),
        (["--lengths", "10", "--first", "0"], "--first is 0"),
        (["--lengths", "100", "--memory-tokens", "10"], "sequence 0 has 100 tokens"),
        (["--lengths", "10", "--work-limit", "0"], "work_limit is 0"),
        (["--lengths", "10,99999999999999999999"], "a length is 99999999999999999999, must be in 0..1099511627776"),
        (["--lengths", "10", "--preset", "none"], "unknown; allowed: flexsp-7b"),
    ],
)
def test_a_wrong_request_is_one_line_and_status_2(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["plan", "--ranks", "2", *arguments]) == 2
    captured = capsys.readouterr()
    assert message in captured.err
    assert captured.err.count("\n") == 1
    assert not captured.out


def test_a_place_that_cannot_be_written_is_one_line_and_stays_what_it_is(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").write_text("kept")
    for place, message in (
        (os.devnull, f"{os.devnull} is no regular file"),
        (str(tmp_path), "is no regular file"),
        (str(tmp_path / "no" / "folder"), "cannot be written"),
        (str(tmp_path / "file" / "inside"), "cannot be written"),
    ):
        assert cli.main(["plan", "--ranks", "2", "--lengths", "5,6", "--out", place]) == 2
        captured = capsys.readouterr()
        assert message in captured.err
        assert captured.err.count("\n") == 1
        assert not captured.out, "a plan that was not written is not shown as if it were"
    assert Path(os.devnull).is_char_device()
    assert [path.name for path in tmp_path.iterdir()] == ["file"], "nothing half written is left"
    assert (tmp_path / "file").read_text() == "kept"


def test_files_without_lengths_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    np.savez(tmp_path / "two.npz", a=np.zeros(2, int), b=np.zeros(2, int))
    (tmp_path / "broken.json").write_text("[1, 2")
    (tmp_path / "object.json").write_text("{}")
    (tmp_path / "floats.json").write_text("[1.5]")
    (tmp_path / "deep.json").write_text("[" * 100_000)
    (tmp_path / "empty.npy").write_bytes(b"")
    (tmp_path / "cut.npz").write_bytes(b"PK\3\4 and no more")
    (tmp_path / "latin.txt").write_bytes(b"12 \xe9")
    for name, message in [
        ("two.npz", "holds a, b; none is called 'lengths'"),
        ("broken.json", "cannot be read"),
        ("object.json", "one array of integers, it holds a dict"),
        ("floats.json", "1.5 is none"),
        ("deep.json", "deep.json cannot be read"),
        ("empty.npy", "empty.npy cannot be read"),
        ("cut.npz", "cut.npz cannot be read"),
        ("latin.txt", "latin.txt cannot be read"),
    ]:
        assert cli.main(["plan", "--ranks", "2", "--lengths", str(tmp_path / name)]) == 2
        error = capsys.readouterr().err
        assert message in error
        assert error.count("\n") == error.count("--lengths") == 1


def test_lengths_come_from_a_pipe_too(capsys: pytest.CaptureFixture[str]) -> None:
    reader, writer = os.pipe()
    os.write(writer, b"100 200\n")
    os.close(writer)
    assert cli.main(["plan", "--ranks", "2", "--lengths", f"/dev/fd/{reader}"]) == 0
    os.close(reader)
    assert "2 sequences, 300 tokens" in capsys.readouterr().out


@pytest.mark.parametrize("ranks", ["0", "-1", "2147483648", "99999999999999999999", "x"])
def test_ranks_that_no_cluster_has_are_named(ranks: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        cli.main(["plan", f"--ranks={ranks}", "--lengths", "10"])
    assert stop.value.code == 2
    error = capsys.readouterr().err.splitlines()[-1]
    assert f"{ranks} must be in 1..1048576" in error or f"{ranks!r} is no whole number" in error


def test_an_unknown_strategy_lists_the_allowed(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        cli.main(["plan", "--ranks", "2", "--lengths", "10", "--strategy", "fast"])
    assert stop.value.code == 2
    assert "'auto', 'static', 'data-parallel'" in capsys.readouterr().err
