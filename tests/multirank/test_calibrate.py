"""`hetsp calibrate` end to end, and the commands that read its file: one calibration that all tests share."""

import json
import math
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("transformers", reason="transformers is not installed")

from hetsp_ext import cli
from hetsp_ext.calibration import PARTS, read_cost_model
from tests.support.train_runs import MODEL

LENGTHS = "300,120,64,30,7"


def hetsp(place: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "hetsp_ext", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=240, cwd=place)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with documents, a small model, and its cost model on two ranks."""
    place = tmp_path_factory.mktemp("calibrate")
    (place / "data").mkdir()
    for index, size in enumerate([3, 30, 64, 100, 250, 300]):
        (place / "data" / f"{index}.txt").write_bytes(bytes(32 + position % 90 for position in range(size)))
    (place / "model.json").write_text(json.dumps(MODEL))
    return place


@pytest.fixture(scope="module")
def calibration(place: Path) -> dict:
    sizes = ["--max-length", "300", "--batch-tokens", "1200"]
    run = hetsp(place, "calibrate", "--quick", "--model", "model.json", *sizes, "--json", "--out", "cost.json")
    assert run.returncode == 0, run.stderr
    (line,) = run.stdout.splitlines()
    return json.loads(line)


def test_the_file_holds_what_was_measured_and_on_what(place: Path, calibration: dict) -> None:
    cost = read_cost_model(place / "cost.json")
    assert {name: set(counts) for name, counts in cost.parts.items()} == {name: set(counts) for name, counts in PARTS.items()}
    setting = cost.setting
    assert (setting.device, setting.ranks, setting.dtype) == ("cpu", 2, "float32")
    assert setting.model == {
        "layers": 2, "hidden": 16, "intermediate": 24, "heads": 2, "kv_heads": 1, "head_dim": 8, "vocabulary": 256
    }  # fmt: skip
    written = json.loads((place / "cost.json").read_text())
    assert {"date", "command", "machine", "versions", "rounds", "delayed", "probes", "points"} <= set(written)
    assert written["command"].startswith("hetsp calibrate --quick --model model.json")
    assert calibration["parts"] == written["parts"]
    assert calibration["out"] == "cost.json"
    names = {probe["probe"] for probe in written["probes"]}
    assert {"whole 1 x 300", "shared 1 x 300"} <= names
    for point in written["points"]:
        assert point["part"] in PARTS
        assert point["probe"] in names
        assert point["measured"] > 0
        predicted = sum(count * cost.parts[point["part"]][name] for name, count in point["counts"].items())
        assert point["error"] == pytest.approx(predicted / point["measured"] - 1)
    for probe in written["probes"]:
        assert probe["measured"] > 0
        assert probe["predicted"] > 0
        assert probe["spread"] >= 0


def test_the_table_has_a_line_per_probe(place: Path, calibration: dict) -> None:
    from hetsp_ext.train.calibrate import calibration_table

    text = calibration_table(read_cost_model(place / "cost.json"))
    for probe in calibration["probes"]:
        assert sum(line.startswith(f"{probe['probe']} ") for line in text.splitlines()) == 1
    assert "error of the fit median" in text
    assert "s per pair" in text


def test_plan_and_simulate_agree_on_what_was_measured(
    place: Path, calibration: dict, capsys: pytest.CaptureFixture[str]
) -> None:
    path = str(place / "cost.json")
    plans = str(place / "plans.jsonl")
    assert cli.main(["plan", "--ranks", "2", "--lengths", LENGTHS, "--cost-model", path, "--json", "--out", plans]) == 0
    planned = json.loads(capsys.readouterr().out)
    rest = read_cost_model(path).step_seconds
    assert planned["predicted_step_seconds"] == pytest.approx(planned["predicted_seconds"] + rest)
    assert 0 < planned["predicted_seconds"] <= planned["makespan"] * (1 + 1e-9)
    for work in (["--plans", plans], ["--gpus", "2", "--lengths", LENGTHS]):
        assert cli.main(["simulate", "--cost-model", path, *work, "--json"]) == 0
        simulated = json.loads(capsys.readouterr().out)
        assert simulated["makespan"] == pytest.approx(planned["predicted_seconds"])
        assert simulated["step_seconds"] == pytest.approx(planned["predicted_step_seconds"])
        assert simulated["digest"] == planned["digest"]
    assert cli.main(["plan", "--ranks", "2", "--lengths", LENGTHS, "--cost-model", path, "--window", "9", "--json"]) == 0
    assert (
        json.loads(capsys.readouterr().out)["makespan"] < planned["makespan"] or read_cost_model(path).seconds_per("pairs") == 0
    )


def test_training_predicts_with_it(place: Path, calibration: dict) -> None:
    job = ["--model", "model.json", "--data", "data", "--max-length", "300", "--batch-tokens", "600", "--steps", "1"]
    run = hetsp(place, "train", "--ranks", "2", *job, "--cost-model", "cost.json", "--json", "--out", "out")
    assert run.returncode == 0, run.stderr
    steps = [record for record in map(json.loads, run.stdout.splitlines()) if "step" in record]
    assert [step["plan"] for step in steps] == ["auto", "static"]
    for step in steps:
        assert step["predicted_seconds"] > 0
        assert step["predicted_step_seconds"] == pytest.approx(
            step["predicted_seconds"] + read_cost_model(place / "cost.json").step_seconds
        )
        assert math.isfinite(step["measured_seconds"])
        assert len(step["rank_delay_seconds"]) == 2
    # Other steps would have another factor; these have none.
    assert steps[0]["predicted_seconds"] != steps[0]["measured_seconds"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--dtype", "float64", "--model", "model.json"], "dtype is float32, not float64"),
        (["--model", "tiny"], "the model's head_dim is 8, not 16"),
    ],
)
def test_another_job_is_refused(arguments: list[str], message: str, place: Path, calibration: dict) -> None:
    job = ["--data", "data", "--max-length", "300", "--batch-tokens", "600", "--steps", "1", "--ranks", "1"]
    run = hetsp(place, "train", *job, *arguments, "--cost-model", "cost.json", "--out", "refused")
    assert run.returncode == 2
    assert message in run.stderr
    assert "cost.json was measured for another job" in run.stderr


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["plan", "--ranks", "2", "--lengths", "9", "--preset", "llama-7b"], "--preset llama-7b are both given"),
        (["simulate", "--gpus", "2", "--lengths", "9", "--preset", "llama-7b"], "--preset llama-7b are both given"),
        (["simulate", "--gpus", "2", "--lengths", "9", "--degrees", "any"], "--degrees is for --preset"),
        (["simulate", "--gpus", "2", "--lengths", "9", "--max-length", "1K"], "--max-length is for --preset"),
        (["simulate", "--gpus", "2", "--lengths", "9", "--no-overlap"], "--no-overlap is for --preset"),
        (["simulate", "--gpus", "2", "--lengths", "9", "--routing", "all-nics"], "--routing all-nics is for --preset"),
        (["simulate", "--lengths", "9"], "--lengths needs --gpus"),
    ],
)
def test_options_that_contradict_are_refused(
    arguments: list[str], message: str, place: Path, calibration: dict, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main([*arguments, "--cost-model", str(place / "cost.json")]) == 2
    captured = capsys.readouterr()
    assert message in captured.err
    assert not captured.out


@pytest.mark.parametrize("command", [["plan", "--ranks", "2", "--lengths", "9"], ["simulate", "--lengths", "9"], ["train"]])
def test_a_malformed_file_is_one_line(command: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "cost.json").write_text('{"format": "hetsp cost model", "version": 99}')
    assert cli.main([*command, "--cost-model", str(tmp_path / "cost.json")]) == 2
    assert "version is 99, this library reads 1" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--out", "no/such/folder/cost.json"], "its folder does not exist"),
        (["--ranks", "0"], "--ranks is 0"),
        (["--max-length", "0"], "--max-length is 0"),
        (["--model", "huge"], "--model is 'huge'"),
    ],
)
def test_a_wrong_request_is_told_before_any_rank_starts(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def launch(*_: object) -> int:
        raise AssertionError("ranks were started")

    monkeypatch.setattr("hetsp_ext.train.launcher.launch", launch)
    monkeypatch.delenv("RANK", raising=False)
    assert cli.main(["calibrate", *arguments]) == 2
    captured = capsys.readouterr()
    assert message in captured.err
    assert not captured.out
