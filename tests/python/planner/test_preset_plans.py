"""`hetsp plan --preset`: the format that scripts read, strategies by name, and what it says to input it cannot plan."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import hetsp_ext as hetsp
from hetsp_ext import cli
from hetsp_ext.errors import InvalidArgument, PlanInfeasible
from hetsp_ext.planner import plan_record, preset, strategy_names

LENGTHS = [130_000, 60_000, 31_000, 9_000, 8_000, 4_000, 4_000, 900, 300, 20] * 3
CAPACITY = 6407  # tokens of a rank: FlexSP's 7B at 384K on 64 GPUs


def hetsp_plan(lengths: Path, *options: str, gpus: int = 64, name: str = "flexsp-7b") -> list[str]:
    return ["plan", "--lengths", str(lengths), "--preset", name, "--max-length", "384K", "--gpus", str(gpus), *options]


def write(folder: Path, lengths: list[int]) -> Path:
    path = folder / "lengths.npy"
    np.save(path, np.array(lengths, np.int64))
    return path


def record_of(capsys: pytest.CaptureFixture[str]) -> dict[str, Any]:
    record: dict[str, Any] = json.loads(capsys.readouterr().out)
    return record


def group_seconds(degree: int, lengths: list[int]) -> float:
    """t_d of FlexSP's 7B, written out: a1, a2, A = 2 MB a token and v_d as its release has them."""
    bandwidth = {2: 119.54, 4: 104.07, 8: 96.5, 16: 10.33, 32: 5.94, 64: 4.87}
    seconds = 0.0
    for s in lengths:
        seconds += (5.128e-6 * s * s + 0.1839576 * s) / degree / 1e3
        if degree > 1:
            seconds += 2.0 * s / (degree * bandwidth[degree]) / 1e3
    return seconds


@pytest.mark.parametrize("strategy", [name for name in strategy_names() if name != "data-parallel"])
def test_the_record_is_a_sound_plan_at_the_published_cost(
    strategy: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(hetsp_plan(write(tmp_path, LENGTHS), "--strategy", strategy, "--json")) == 0
    record = record_of(capsys)
    assert record["gap"] == pytest.approx(record["makespan_s"] / record["lower_bound_s"] - 1)
    assert record["lower_bound_s"] <= record["makespan_s"]
    assert 0 < record["first_incumbent_seconds"] <= record["solve_seconds"]
    assert record["status"] in ("optimal", "target", "limit")
    for key in ("makespan_s", "lower_bound_s"):
        assert record[key] == pytest.approx(sum(micro_batch[key] for micro_batch in record["micro_batches"]))
    seen: list[int] = []
    for micro_batch in record["micro_batches"]:
        ranks = [rank for group in micro_batch["groups"] for rank in group["ranks"]]
        assert len(set(ranks)) == len(ranks) <= 64
        assert set(ranks) <= set(range(64))
        assert sorted(ranks + micro_batch["placeholder"]["ranks"]) == list(range(64))  # sharded parameters
        assert micro_batch["placeholder"]["seconds"] == 0.0  # of FlexSP's model inside b1
        times = []
        for group in micro_batch["groups"]:
            degree, lengths = len(group["ranks"]), [LENGTHS[s] for s in group["sequences"]]
            assert degree & (degree - 1) == 0
            assert sum(lengths) <= degree * CAPACITY
            assert group["offload_ratio"] == 0
            assert group["strategy"] in ("whole", "ulysses", "ring", "gather")
            times.append(group_seconds(degree, lengths))
            seen += group["sequences"]
        assert micro_batch["makespan_s"] == pytest.approx(0.6293563 + max(times), rel=1e-9)
    assert sorted(seen) == list(range(len(LENGTHS)))


def test_one_micro_batch_and_any_degree(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = write(tmp_path, LENGTHS[:10])
    makespans = {}
    for degrees in ("pow2", "any"):
        assert cli.main(hetsp_plan(path, "--one-micro-batch", "--degrees", degrees, "--json")) == 0
        record = record_of(capsys)
        assert len(record["micro_batches"]) == 1
        makespans[degrees] = record["makespan_s"]
    assert makespans["any"] <= makespans["pow2"] * (1 + 1e-9)


def test_equal_arguments_give_equal_plans(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = []
    for _ in range(2):
        assert cli.main(hetsp_plan(write(tmp_path, LENGTHS), "--seed", "5", "--json")) == 0
        record = record_of(capsys)
        found.append([record["makespan_s"], record["micro_batches"]])
    assert found[0] == found[1]


def test_the_plan_can_be_written_and_read_back(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "plans.jsonl"
    assert cli.main(hetsp_plan(write(tmp_path, LENGTHS), "--out", str(out))) == 0
    assert "plan auto: 30 sequences" in capsys.readouterr().out
    (plan,) = hetsp.read_plans(out)
    plan.check(preset("flexsp-7b").cluster(64, 384 * 1024))
    assert plan.exclusive
    assert hetsp.write_plans(out, [plan, plan]) == 2
    assert [again.to_dict() for again in hetsp.read_plans(out)] == [plan.to_dict()] * 2
    assert plan_record(plan)["makespan_s"] == plan.makespan
    damaged = out.read_text().replace('"ranks": [0, 1', '"ranks": [1, 0', 1)
    out.write_text(damaged)
    with pytest.raises(InvalidArgument, match=r"line 1: .*digest"):
        list(hetsp.read_plans(out))
    out.write_text("{\n")
    with pytest.raises(InvalidArgument, match="line 1 is no JSON"):
        list(hetsp.read_plans(out))
    with pytest.raises(InvalidArgument, match="item 1 is 3"):
        hetsp.write_plans(out, [plan, 3])
    assert out.read_text() == "{\n"  # untouched
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []


@pytest.mark.parametrize(
    ("lengths", "options", "message"),
    [
        (
            [500_000],
            [],
            "sequence 0 has 500000 tokens; the largest group allowed, 64 ranks with room for 6407 tokens each, holds",
        ),
        ([10, -3], [], "-3"),
        ([300_000, 300_000], ["--one-micro-batch"], "600000 tokens"),
        ([10], ["--gpus", "1", "--max-length", "384K"], "the model's state fills the memory"),
        ([10], ["--time-limit", "-1"], "time_limit is -1"),
        ([10], ["--target-gap", "nan"], "target_gap is nan"),
        ([10], ["--one-micro-batch", "--micro-batches", "2"], "contradicts"),
        ([10], ["--memory-tokens", "5"], "--memory-tokens"),
    ],
)
def test_what_cannot_be_planned_exits_with_2(
    lengths: list[int], options: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(hetsp_plan(write(tmp_path, lengths), *options, "--json")) == 2
    captured = capsys.readouterr()
    assert message in captured.err
    assert captured.err.count("\n") == 1
    assert not captured.out


def test_options_of_presets_need_one(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["plan", "--lengths", "5", "--gpus", "2", "--degrees", "any"]) == 2
    assert "--degrees needs --preset" in capsys.readouterr().err
    assert cli.main(["plan", "--lengths", "5", "--gpus", "2", "--preset", "flexsp-7b"]) == 2
    assert "--max-length is missing" in capsys.readouterr().err
    assert cli.main(["plan", "--lengths", "5", "--gpus", "2", "--preset", "gpt-2", "--max-length", "4K"]) == 2
    assert "flexsp-7b" in capsys.readouterr().err


def test_replicated_parameters_leave_ranks_counts_of_their_own(capsys: pytest.CaptureFixture[str]) -> None:
    lengths = ",".join(["60000", "60000"] + ["9000"] * 30 + ["500"] * 50)
    arguments = ["plan", "--preset", "zeppelin-a-7b", "--max-length", "64K", "--gpus", "16", "--lengths", lengths]
    assert cli.main([*arguments, "--strategy", "bytescale", "--json"]) == 0
    record = record_of(capsys)
    counts = [0] * 16
    for micro_batch in record["micro_batches"]:
        assert micro_batch["placeholder"] == {"ranks": [], "seconds": 0.0}
        for group in micro_batch["groups"]:
            for rank in group["ranks"]:
                counts[rank] += 1
    assert min(counts) < max(counts) <= len(record["micro_batches"])
    assert record["makespan_s"] <= sum(micro_batch["makespan_s"] for micro_batch in record["micro_batches"])
    assert cli.main([*arguments, "--strategy", "bytescale", "--synchronisation", "layer", "--json"]) == 0
    waiting = record_of(capsys)
    assert any(micro_batch["placeholder"]["seconds"] > 0 for micro_batch in waiting["micro_batches"])
    assert record["makespan_s"] < waiting["makespan_s"]


def exclusive(lengths: list[int], cluster: hetsp.Cluster, cost: Any = None) -> hetsp.Plan:
    return hetsp.plan(lengths, cluster, cost, exclusive=True, degrees="pow2", synchronisation="layer")


def test_one_rank_one_sequence_and_empty_ones() -> None:
    assert exclusive([100, 0, 7], hetsp.Cluster(1, 100)).one_line() == "3x1"
    assert exclusive([5], hetsp.Cluster(64, 100)).one_line().startswith("1x")
    assert exclusive([0, 0], hetsp.Cluster(4, 100)).one_line().startswith("2x")


def test_a_hundred_thousand_equal_sequences_are_balanced() -> None:
    plan = exclusive([1000] * 100_000, hetsp.Cluster(64, 100_000))
    assert plan.gap <= 0.03


def test_a_sequence_of_two_million_tokens() -> None:
    llama = preset("llama-7b")
    lengths = [2 * 1024 * 1024, 4000, 3000]
    plan = hetsp.plan(
        llama.sequences(lengths),
        llama.cluster(256, 2 * 1024 * 1024),
        llama.cost_model,
        executable=("whole", "ulysses", "ring"),
        exclusive=True,
        degrees="pow2",
        synchronisation="layer",
    )
    (group,) = [g for m in plan.micro_batches for g in m.groups if 0 in g.sequences]
    assert len(group.ranks) >= 128
    llama_64 = llama.cluster(64, 2 * 1024 * 1024)
    with pytest.raises(PlanInfeasible, match="2097152 tokens"):
        hetsp.plan(llama.sequences(lengths), llama_64, llama.cost_model, exclusive=True, synchronisation="layer")


def test_memory_beyond_any_machine_and_nan_costs_are_refused() -> None:
    with pytest.raises(InvalidArgument, match="tokens_per_rank"):
        hetsp.Cluster(4, 2**50)
    with pytest.raises(InvalidArgument, match="seconds_per_pair is nan"):
        exclusive([5], hetsp.Cluster(4, 100), hetsp.CostModel(float("nan"), 1.0))
