"""`hetsp train` killed with SIGKILL at any moment goes on as if nothing had happened.

    pytest -m long tests/multirank/test_train_resume.py       # 20 more seeds, each killed several times

An unbroken run says what is right: the resumed one must have its losses bit for bit, every step once, and its model.
"""

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch

pytest.importorskip("transformers", reason="transformers is not installed")

from safetensors.torch import load_file

import hetsp_ext as hetsp
from hetsp_ext import cli
from hetsp_ext.calibration import MeasuredCost, Setting, write_cost_model
from hetsp_ext.checkpoint.store import list_checkpoints
from tests.support.train_runs import TrainRun, write_documents

STEPS = 8
RANKS = 2
FEW, MANY = range(3), range(3, 23)


@pytest.fixture(scope="module")
def documents(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    return write_documents(tmp_path_factory.mktemp("documents"))


def options(documents: list[str], place: Path, *more: str) -> list[str]:
    kept = ["--checkpoint-dir", str(place / "kept"), "--every", "1"]
    return [*documents, "--steps", str(STEPS), "--out", str(place / "out"), *kept, *more]


def metrics(place: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (place / "out" / "metrics.jsonl").read_text().splitlines()]


def losses(records: list[dict[str, Any]]) -> dict[tuple[str, int], float]:
    """By plan and step; no step may be told twice."""
    steps = [record for record in records if "step" in record]
    found = {(record["plan"], record["step"]): record["loss"] for record in steps}
    assert len(found) == len(steps), "a step is told twice"
    return found


def weights(place: Path) -> dict[str, torch.Tensor]:
    return load_file(place / "out" / "model" / "model.safetensors")


@pytest.fixture(scope="module")
def unbroken(documents: list[str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run without checkpoints, which nothing disturbs."""
    place = tmp_path_factory.mktemp("unbroken")
    arguments = [*documents, "--steps", str(STEPS), "--out", str(place / "out")]
    TrainRun(RANKS, arguments, place / "said").finish()
    assert len(losses(metrics(place))) == 2 * STEPS
    return place


def stop(run: TrainRun, place: Path, steps: int, checkpoints: int = 1) -> None:
    """Kills a run that has told so many steps and committed so many checkpoints."""
    run.wait_for_steps(steps)
    while run.alive() and len(list_checkpoints(place / "kept")) < checkpoints:
        time.sleep(0.005)
    run.kill()
    run.end()


def require_the_same(place: Path, unbroken: Path) -> None:
    assert losses(metrics(place)) == losses(metrics(unbroken)), "losses must be bit-identical"
    expected = weights(unbroken)
    found = weights(place)
    assert found.keys() == expected.keys()
    different = [name for name in expected if not torch.equal(found[name], expected[name])]
    assert different == []
    summaries = [[record["loss"] for record in metrics(each) if "summary" in record] for each in (place, unbroken)]
    assert summaries[0] == summaries[1]


def killed_and_resumed(seed: int, documents: list[str], place: Path, kills: int) -> list[str]:
    """Kills and resumes until the run is through; what was done, for the report of a failure."""
    draw = random.Random(seed)
    told = []
    for attempt in range(kills):
        resume = ["--resume"] if attempt or draw.random() < 0.5 else []
        run = TrainRun(RANKS, options(documents, place, *resume), place / f"said-{attempt}")
        after = draw.randrange(STEPS + 1)
        run.wait_for_steps(after)
        time.sleep(draw.choice([0.0, draw.uniform(0, 0.02), draw.uniform(0, 0.3)]))
        first = draw.sample(range(RANKS), draw.randint(1, RANKS))
        run.kill(first)
        time.sleep(draw.choice([0.0, draw.uniform(0, 0.3)]))  # the others notice meanwhile, or do not
        run.kill()
        run.end()
        names = [info.path.name for info in list_checkpoints(place / "kept")]
        told.append(f"{attempt}: {run.steps()} steps, ranks {first} first, then {names}")
    TrainRun(RANKS, options(documents, place, "--resume"), place / "said-last").finish()
    return told


@pytest.mark.parametrize("seed", [*FEW, *(pytest.param(seed, marks=pytest.mark.long) for seed in MANY)])
def test_a_killed_run_goes_on_bit_for_bit(seed: int, documents: list[str], unbroken: Path, tmp_path: Path) -> None:
    told = killed_and_resumed(seed, documents, tmp_path, kills=2 if seed in FEW else 4)
    try:
        require_the_same(tmp_path, unbroken)
    except AssertionError as error:
        raise AssertionError(f"{error}\nafter {told}") from error


@pytest.mark.parametrize("ranks", [1, 3])
def test_a_run_goes_on_with_other_ranks(ranks: int, documents: list[str], unbroken: Path, tmp_path: Path) -> None:
    run = TrainRun(RANKS, options(documents, tmp_path), tmp_path / "said")
    stop(run, tmp_path, 3)
    records = TrainRun(ranks, options(documents, tmp_path, "--resume"), tmp_path / "said-again").finish()
    (resumed,) = [record["resumed"] for record in records if "resumed" in record]
    assert resumed["ranks_before"] == RANKS
    assert 0 < resumed["step"] < STEPS
    expected, found = losses(metrics(unbroken)), losses(metrics(tmp_path))
    assert found.keys() == expected.keys()
    for key, loss in found.items():
        assert loss == pytest.approx(expected[key], rel=1e-5), key


@pytest.mark.parametrize("dtype", ["float64", "bfloat16"])
def test_every_precision_goes_on_bit_for_bit(dtype: str, documents: list[str], tmp_path: Path) -> None:
    places = tmp_path / "unbroken", tmp_path / "killed"
    arguments = [*documents, "--steps", str(STEPS), "--dtype", dtype, "--out", str(places[0] / "out")]
    TrainRun(RANKS, arguments, places[0] / "said").finish()
    stop(TrainRun(RANKS, options(documents, places[1], "--dtype", dtype), places[1] / "said"), places[1], 3)
    arguments = options(documents, places[1], "--dtype", dtype, "--resume")
    TrainRun(RANKS, arguments, places[1] / "said-again").finish()
    require_the_same(places[1], places[0])


def cost_model(path: Path, scale: float) -> Path:
    """A file as `hetsp calibrate` writes it, for the model of the documents."""
    sizes = {"layers": 2, "hidden": 16, "intermediate": 24, "heads": 2, "kv_heads": 1, "head_dim": 8, "vocabulary": 256}
    parts = {
        "attention": {"pairs": 2e-8 * scale, "tokens": 1e-6, "sequences": 5e-5, "micro_batches": 4e-4},
        "linear": {"tokens": 1.4e-5, "sequences": 3e-5, "micro_batches": 3e-3},
        "exchange": {"hops": 1e-4, "hop_tokens": 2e-7},
        "step": {"steps": 6e-3},
    }
    setting = Setting(device="cpu", ranks=RANKS, threads=1, dtype="float32", model=sizes)
    write_cost_model(path, MeasuredCost(parts, setting, {"points": [[1, 2.5]]}))
    return path


def test_a_measured_cost_model_goes_on_without_its_file(
    documents: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    file = cost_model(tmp_path / "cost.json", 1.0)
    unbroken, killed = tmp_path / "unbroken", tmp_path / "killed"
    arguments = [*documents, "--steps", str(STEPS), "--out", str(unbroken / "out"), "--cost-model", str(file)]
    TrainRun(RANKS, arguments, unbroken / "said").finish()
    arguments = options(documents, killed, "--cost-model", str(file))
    stop(TrainRun(RANKS, arguments, killed / "said"), killed, 3)
    file.rename(tmp_path / "moved.json")
    other = cost_model(tmp_path / "other.json", 2.0)
    with monkeypatch.context() as patch:
        refused(patch)
        assert cli.main(["train", *options(documents, killed, "--resume", "--cost-model", str(other))]) == 2
    assert "the checkpoint's run plans by another one" in capsys.readouterr().err
    TrainRun(RANKS, options(documents, killed, "--resume"), killed / "said-again").finish()
    require_the_same(killed, unbroken)
    for key in ("groups", "predicted_seconds", "predicted_step_seconds"):
        told = [[record[key] for record in metrics(place) if "step" in record] for place in (killed, unbroken)]
        assert told[0] == told[1], key


def test_both_phases_go_on_and_a_finished_run_only_concludes(documents: list[str], unbroken: Path, tmp_path: Path) -> None:
    run = TrainRun(RANKS, options(documents, tmp_path), tmp_path / "said")
    stop(run, tmp_path, STEPS + 2)
    records = TrainRun(RANKS, options(documents, tmp_path, "--resume"), tmp_path / "said-again").finish()
    (resumed,) = [record["resumed"] for record in records if "resumed" in record]
    assert resumed["plan"] == "static"
    assert 1 <= resumed["step"] < STEPS
    require_the_same(tmp_path, unbroken)
    records = TrainRun(RANKS, options(documents, tmp_path, "--resume"), tmp_path / "said-third").finish()
    assert [record for record in records if "step" in record] == []
    assert [record["summary"] for record in records if "summary" in record] == ["auto", "static"]
    require_the_same(tmp_path, unbroken)


def test_a_damaged_checkpoint_is_passed_over(documents: list[str], unbroken: Path, tmp_path: Path) -> None:
    run = TrainRun(RANKS, options(documents, tmp_path), tmp_path / "said")
    stop(run, tmp_path, 4, 2)
    newest, older, *_ = list_checkpoints(tmp_path / "kept")  # a third where it died before it removed the oldest
    file = next(newest.path.glob("rank-*.safetensors"))
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 1
    file.write_bytes(data)
    run = TrainRun(RANKS, options(documents, tmp_path, "--resume"), tmp_path / "said-again")
    (resumed,) = [record["resumed"] for record in run.finish() if "resumed" in record]
    assert resumed["step"] == older.step
    assert newest.path.name in run.output(), "what was skipped is said"
    require_the_same(tmp_path, unbroken)


def test_a_checkpoint_that_fails_costs_the_exit_status_and_no_step(
    documents: list[str], unbroken: Path, tmp_path: Path
) -> None:
    run = TrainRun(RANKS, options(documents, tmp_path, "--plan", "static", "--every", "100"), tmp_path / "said")
    run.wait_for_steps(2)
    (tmp_path / "kept").rename(tmp_path / "moved")  # before the only save, that of the last step
    statuses = run.end(120.0)
    assert statuses == [1, 0], run.output()
    assert "No such file or directory" in run.output().splitlines()[-1]
    (counts,) = [record["checkpoints"] for record in metrics(tmp_path) if "checkpoints" in record]
    assert (counts["committed"], counts["failed"]) == (0, 1)
    expected = {key: loss for key, loss in losses(metrics(unbroken)).items() if key[0] == "static"}
    assert losses(metrics(tmp_path)) == expected


@pytest.mark.skipif(sys.platform != "linux", reason="the kernel ends ranks with their launcher on Linux only")
def test_ranks_end_with_a_killed_launcher_and_the_run_goes_on(documents: list[str], unbroken: Path, tmp_path: Path) -> None:
    arguments = [sys.executable, "-m", "hetsp_ext", "train", *options(documents, tmp_path, "--ranks", str(RANKS), "--json")]
    with (tmp_path / "said").open("w") as said:
        launcher = subprocess.Popen(arguments, stdout=said, stderr=subprocess.STDOUT, cwd=tmp_path)
    deadline = time.monotonic() + 120
    while '"step": 2' not in (tmp_path / "said").read_text():
        assert launcher.poll() is None, (tmp_path / "said").read_text()
        assert time.monotonic() < deadline, (tmp_path / "said").read_text()
        time.sleep(0.02)
    ranks = [int(pid) for pid in Path(f"/proc/{launcher.pid}/task/{launcher.pid}/children").read_text().split()]
    assert len(ranks) >= RANKS
    launcher.send_signal(signal.SIGKILL)
    launcher.wait()
    while any(running(pid) for pid in ranks):
        assert time.monotonic() < deadline, "ranks outlive their launcher"
        time.sleep(0.02)
    run = subprocess.run([*arguments, "--resume"], capture_output=True, text=True, timeout=240, cwd=tmp_path)
    assert run.returncode == 0, run.stderr
    require_the_same(tmp_path, unbroken)


def running(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state != "Z"


@pytest.fixture(scope="module")
def stopped(documents: list[str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that was killed under its chosen plan, on one rank."""
    place = tmp_path_factory.mktemp("stopped")
    run = TrainRun(1, options(documents, place), place / "said")
    stop(run, place, 3, 2)  # a commit follows its step by a while: two of them are of steps 1 and 2 at least
    assert max(info.step or 0 for info in list_checkpoints(place / "kept")) >= 2
    return place


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (["--dtype", "float64"], "--dtype is 'float64', the checkpoint's 'float32'"),
        (["--seed", "5"], "--seed is 5, the checkpoint's 0"),
        (["--learning-rate", "0.5"], "--learning-rate is 0.5, the checkpoint's 0.001"),
        (["--model", "tiny"], "hidden_size 64, the checkpoint's 16"),
        (["--plan", "static"], "--plan is 'static', the checkpoint's 'auto'"),
        (["--max-length", "200"], "--max-length is 200, the checkpoint's 300"),
        (["--batch-tokens", "600"], "--batch-tokens is 600, the checkpoint's 500"),
        (["--pattern", "[0-8].txt"], "--data differs: files 9, the checkpoint's 10"),
        (["--steps", "1"], "--steps is 1, and the checkpoint is of step"),
        (["--verify"], "--verify checks step 1, and the checkpoint is of step"),
    ],
)
def test_another_run_is_refused_by_name(
    change: list[str],
    message: str,
    documents: list[str],
    stopped: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    refused(monkeypatch)
    before = sorted(path.name for path in (stopped / "kept").iterdir())
    assert cli.main(["train", *options(documents, stopped, "--resume"), *change]) == 2
    said = capsys.readouterr().err
    assert message in said
    assert said.count("\n") == 1
    assert sorted(path.name for path in (stopped / "kept").iterdir()) == before


def refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """No rank may be started."""

    def launch(*_: object) -> int:
        raise AssertionError("ranks were started")

    monkeypatch.setattr("hetsp_ext.train.launcher.launch", launch)
    monkeypatch.delenv("RANK", raising=False)


def test_a_changed_document_is_another_run(
    documents: list[str], stopped: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    refused(monkeypatch)
    data = tmp_path / "data"
    shutil.copytree(documents[documents.index("--data") + 1], data)
    with (data / "4.txt").open("ab") as file:
        file.write(b"more")
    assert cli.main(["train", *options(documents, stopped, "--resume"), "--data", str(data)]) == 2
    assert "--data differs: tokens" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("place", "message"),
    [
        ("kept/latest", "latest is not a folder"),
        ("kept/step", "is itself a checkpoint; name the folder that holds it"),
        ("foreign", "is no checkpoint of `hetsp train`"),
    ],
)
@pytest.mark.parametrize("resume", [[], ["--resume"]], ids=["anew", "resume"])
def test_what_is_no_folder_of_a_run_is_refused(
    place: str,
    message: str,
    resume: list[str],
    documents: list[str],
    stopped: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    refused(monkeypatch)
    folder = list_checkpoints(stopped / "kept")[0].path if place == "kept/step" else stopped / place
    if place == "foreign":
        folder = tmp_path / "foreign"
        with hetsp.LazyCheckpointer(folder, torch.nn.Linear(2, 2)) as other:
            other.save(1)
        message = message if resume else "holds 1 checkpoints"
    assert cli.main(["train", *options(documents, stopped, *resume), "--checkpoint-dir", str(folder)]) == 2
    assert message in capsys.readouterr().err


def test_a_folder_with_checkpoints_is_not_begun_over(
    documents: list[str], stopped: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    refused(monkeypatch)
    assert cli.main(["train", *options(documents, stopped)]) == 2
    assert "--resume goes on from them, another folder begins anew" in capsys.readouterr().err


def test_more_steps_may_be_asked_for(documents: list[str], stopped: Path, unbroken: Path, tmp_path: Path) -> None:
    shutil.copytree(stopped, tmp_path, dirs_exist_ok=True)
    arguments = [*options(documents, tmp_path, "--resume"), "--steps", str(STEPS + 1)]
    TrainRun(1, arguments, tmp_path / "said-again").finish()
    found = losses(metrics(tmp_path))
    assert len(found) == 2 * (STEPS + 1)
    for key, loss in losses(metrics(unbroken)).items():
        assert found[key] == pytest.approx(loss, rel=1e-5), key
    assert os.path.samefile(metrics(tmp_path)[-1]["out"], tmp_path / "out")
