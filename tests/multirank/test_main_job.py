"""The main job end to end, in few runs that many assertions share: starting processes is what takes time."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.train_runs import MODEL

transformers = pytest.importorskip("transformers", reason="transformers is not installed")


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with documents of 1 ... 300 tokens and a model that is smaller than tiny."""
    place = tmp_path_factory.mktemp("train")
    (place / "data").mkdir()
    for index, size in enumerate([1, 2, 3, 30, 31, 64, 100, 250, 300, 900]):
        text = bytes(32 + (position * (index + 3) + position // 7) % 90 for position in range(size))
        (place / "data" / f"{index}.txt").write_bytes(text)
    (place / "model.json").write_text(json.dumps(MODEL))
    return place


def command(place: Path, *arguments: str) -> list[str]:
    fixed = [
        "--data",
        str(place / "data"),
        "--model",
        str(place / "model.json"),
        "--max-length",
        "300",
        "--batch-tokens",
        "500",
    ]
    return ["-m", "hetsp_ext", "train", *fixed, *arguments]


@pytest.fixture(scope="module")
def auto(place: Path) -> tuple[subprocess.CompletedProcess[str], list[dict], Path]:
    """Three ranks under a user's torchrun, float64, checked; the run, its records and its folder."""
    out = place / "auto"
    torchrun = ["-m", "torch.distributed.run", "--standalone", "--local-addr", "127.0.0.1", "--nproc-per-node", "3"]
    arguments = command(place, "--steps", "2", "--dtype", "float64", "--verify", "--json", "--out", str(out))
    environment = os.environ | {"GLOO_SOCKET_IFNAME": "lo"}
    run = subprocess.run(
        [sys.executable, *torchrun, *arguments], capture_output=True, text=True, timeout=240, cwd=place, env=environment
    )
    assert run.returncode == 0, run.stderr
    return run, [json.loads(line) for line in run.stdout.splitlines()], out


def test_one_gradient_whatever_the_plan(auto) -> None:
    _, records, _ = auto
    (record,) = [record for record in records if "verify" in record]
    assert set(record) == {"verify"}
    found = record["verify"]
    assert set(found) == {"loss_relative_difference", "max_gradient_relative_difference", "degrees", "gradients_compared"}
    assert 0 <= found["loss_relative_difference"] <= 1e-10
    assert 0 <= found["max_gradient_relative_difference"] <= 1e-10
    assert found["gradients_compared"] == 21  # embedding, head, last norm, and 9 in each of 2 layers
    assert max(found["degrees"]) > 1, "one document of 300 of 500 tokens deserves more than one rank"


def test_every_line_of_output_is_a_record(auto) -> None:
    run, records, out = auto
    steps = [record for record in records if "step" in record]
    assert [(record["plan"], record["step"]) for record in steps] == [("auto", 1), ("auto", 2), ("static", 1), ("static", 2)]
    assert [record["summary"] for record in records if "summary" in record] == ["auto", "static"]
    for record in steps:
        assert sum(record["rank_tokens"]) == record["tokens"] <= 500
        assert 0 <= record["busy_least"] <= record["busy_most"] <= 1
    assert (out / "metrics.jsonl").read_text() == run.stdout


def test_the_static_plan_has_the_same_losses(auto) -> None:
    _, records, _ = auto
    losses = {(record["plan"], record["step"]): record["loss"] for record in records if "step" in record}
    for step in (1, 2):
        assert losses["static", step] == pytest.approx(losses["auto", step], rel=1e-10)
    assert losses["auto", 1] == pytest.approx(5.545, abs=0.1)  # ln 256: nothing is known yet
    assert losses["auto", 2] < losses["auto", 1]


def test_both_plans_do_the_same_work(auto) -> None:
    _, records, _ = auto
    steps = [record for record in records if "step" in record]
    for auto_step, static_step in zip(steps[:2], steps[2:], strict=True):
        assert sum(auto_step["rank_pairs"]) == sum(static_step["rank_pairs"]) > 0


def test_the_folder_holds_model_and_timeline(auto) -> None:
    _, _, out = auto
    model = transformers.AutoModelForCausalLM.from_pretrained(out / "model", dtype="auto")
    assert model.lm_head.weight.shape == (256, 16)
    events = json.loads((out / "timeline.json").read_text())["traceEvents"]
    assert {event["tid"] for event in events} == {0, 1, 2}
    names = {event["name"] for event in events if event["ph"] == "X"}
    assert {"plan", "read", "forward 0", "backward 0", "gradient sum"} <= names
    assert {"attend", "wait"} <= {event.get("cat") for event in events}
    assert (out / "timeline.svg").read_text().count("rank ") >= 3


def test_a_plan_that_cannot_be_is_told_once(place: Path) -> None:
    impossible = ["--ranks", "2", "--plan", "data-parallel", "--memory-tokens", "200", "--steps", "2"]
    arguments = command(place, *impossible, "--out", str(place / "no"))
    run = subprocess.run([sys.executable, *arguments], capture_output=True, text=True, timeout=240)
    assert run.returncode == 2, run.stderr
    errors = [line for line in run.stderr.splitlines() if "error" in line]
    assert len(errors) == 1, run.stderr
    assert "300" in errors[0]
    assert "200" in errors[0]
    assert "Traceback" not in run.stderr


def ranks_of(parent: int) -> Iterator[tuple[int, int]]:
    """(rank, process id) of the processes that a launcher has started."""
    for pid in Path(f"/proc/{parent}/task/{parent}/children").read_text().split():
        environment = Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
        for entry in environment:
            if entry.startswith(b"RANK="):
                yield int(entry[5:]), int(pid)


@pytest.mark.skipif(not Path("/proc/self/task").is_dir(), reason="finds the ranks' process ids in /proc, which is not here")
def test_a_static_run_tells_people_its_steps_and_names_the_rank_that_dies(place: Path) -> None:
    # Until the kill: the static plan by itself, with lines for people.
    arguments = command(
        place, "--ranks", "2", "--plan", "static", "--steps", "100000", "--verify", "--out", str(place / "killed")
    )
    lines = []
    with subprocess.Popen([sys.executable, *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as run:
        for line in run.stdout:
            lines.append(line)
            if line.startswith("step 1 "):
                break
        ranks = dict(ranks_of(run.pid))
        assert set(ranks) == {0, 1}, run.communicate()
        os.kill(ranks[1], signal.SIGKILL)
        rest, errors = run.communicate(timeout=60)
    assert run.returncode == 1
    assert [line for line in errors.splitlines() if "error" in line] == [
        "hetsp train: error: rank 1 died: killed by SIGKILL; the other ranks were stopped"
    ]
    for pid in ranks.values():
        assert not Path(f"/proc/{pid}").exists()
    assert lines[-1].startswith("step 1  static  ")
    assert "tokens/s" in lines[-1]
    assert [line for line in lines if line.startswith("verify  degrees [2] ")] != []
    assert "{" not in "".join(lines) + rest
