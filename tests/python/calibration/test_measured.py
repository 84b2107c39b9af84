"""From probes to predictions, with a synthetic clock in the place of a machine."""

import random

import pytest

import hetsp_ext
from hetsp_ext.calibration import PARTS, MeasuredCost, Measurement, Setting, measured_cost
from hetsp_ext.errors import InvalidArgument
from hetsp_ext.train.probe import Probe, probes

SETTING = Setting(device="cpu", ranks=2, threads=1, dtype="float32", model={})
SECONDS = {
    "attention": {"pairs": 2e-8, "tokens": 1e-6, "sequences": 5e-5, "micro_batches": 4e-4},
    "linear": {"tokens": 1.4e-5, "sequences": 3e-5, "micro_batches": 3e-3},
    "exchange": {"hops": 1e-3, "hop_tokens": 2e-6},
    "step": {"steps": 6e-3},
}


def measured(probe: Probe, ranks: int, repetitions: int, draw: random.Random, noise: float) -> Measurement:
    """What a machine with SECONDS would show, each part of each repetition off by at most `noise`, one of them wildly."""
    share = 1 / ranks if probe.shared else 1.0
    hops = ranks - 1 if probe.shared else 0
    tokens = probe.count * probe.length * share
    counts = {
        "pairs": probe.count * probe.length * (probe.length + 1) / 2 * share,
        "tokens": tokens,
        "sequences": probe.count,
        "micro_batches": 1,
        "hops": hops,
        "hop_tokens": hops * tokens,
        "steps": 1,
    }
    samples = []
    for repetition in range(repetitions):
        burst = 5.0 if repetition == 1 else 1.0
        samples.append(
            {
                part: sum(SECONDS[part][count] * counts[count] for count in names) * burst * (1 + draw.uniform(-noise, noise))
                for part, names in PARTS.items()
                if part != "exchange" or probe.shared
            }
        )
    return Measurement(probe.name, counts, samples)


def calibrated(ranks: int, seed: int, noise: float) -> MeasuredCost:
    draw = random.Random(seed)
    return measured_cost(
        [measured(probe, ranks, 5, draw, noise) for probe in probes(ranks, 8192, 8192)], SETTING, {"date": "x"}
    )


@pytest.mark.parametrize("ranks", [2, 3, 5])
@pytest.mark.parametrize("seed", range(4))
def test_the_machine_is_found_again(ranks: int, seed: int) -> None:
    exact = calibrated(ranks, seed, 0.0)
    for part, counts in PARTS.items():
        assert exact.parts[part] == pytest.approx({count: SECONDS[part][count] for count in counts}, rel=1e-6)
    assert exact.record["date"] == "x"
    noisy = calibrated(ranks, seed, 0.05)
    for probe in noisy.record["probes"]:
        assert probe["predicted"] == pytest.approx(probe["measured"], rel=0.15), probe["probe"]
    assert {point["part"] for point in noisy.record["points"]} == set(PARTS)


def test_the_repetitions_that_others_disturbed_least_count() -> None:
    samples = [{"linear": seconds, "attention": 1.0, "step": 1.0} for seconds in (5.0, 1.0, 9.0, 2.0, 3.0)]
    disturbed = Measurement("p", {"tokens": 1, "steps": 1}, samples, delays=[0.3, 0.1, 0.5, 0.0, 0.2])
    assert disturbed.least_disturbed().seconds("linear") == 2.0  # of 2, 1 and 3
    assert disturbed.seconds("linear") == 3.0
    (probe,) = measured_cost([disturbed], SETTING, {}).record["probes"]
    assert probe["measured"] == 3.0
    assert probe["spread"] == 10.0 / 2.0 - 1.0  # of all of them
    unknown = Measurement("p", {"tokens": 1, "steps": 1}, samples)
    assert unknown.least_disturbed() == unknown


def slowest_rank(plan: hetsp_ext.Plan) -> float:
    """Seconds of SECONDS, count by count and rank by rank."""
    cost = {count: sum(SECONDS[part].get(count, 0.0) for part in ("attention", "linear", "exchange")) for count in (
        "pairs", "tokens", "sequences", "micro_batches", "hops", "hop_tokens")}  # fmt: skip
    ranks = [0.0] * plan.ranks
    for micro_batch in plan.micro_batches:
        for group in micro_batch.groups:
            degree = len(group.ranks)
            tokens = sum(plan.sequences[index].tokens for index in group.sequences) / degree
            pairs = sum(plan.sequences[index].visible_pairs for index in group.sequences) / degree
            for rank in group.ranks:
                ranks[rank] += pairs * cost["pairs"] + tokens * cost["tokens"] + len(group.sequences) * cost["sequences"]
                ranks[rank] += (degree - 1) * (cost["hops"] + tokens * cost["hop_tokens"])
        ranks = [seconds + cost["micro_batches"] for seconds in ranks]
    return max(ranks)


@pytest.mark.parametrize("seed", range(12))
def test_a_step_is_predicted_as_the_engine_runs_it(seed: int) -> None:
    draw = random.Random(seed)
    cost = MeasuredCost(SECONDS, SETTING)
    lengths = [round(10 ** draw.uniform(1, 4)) for _ in range(draw.randint(1, 12))]
    for strategy in ("auto", "static", "data-parallel"):
        plan = hetsp_ext.plan(cost.sequences(lengths), hetsp_ext.Cluster(2, sum(lengths)), cost.cost_model, strategy)
        assert len(plan.micro_batches) == 1
        assert cost.seconds(plan) == pytest.approx(slowest_rank(plan), rel=1e-9), strategy
        # The planner's makespan charges start-ups to every sequence alone, and so is never below.
        assert cost.seconds(plan) <= plan.makespan * (1 + 1e-9)


def test_a_ring_makes_ranks_wait_for_each_other_in_every_micro_batch() -> None:
    cost = MeasuredCost(SECONDS, SETTING)
    plan = {
        "version": 1, "ranks": 2, "strategy": "by hand", "synchronisation": "step", "makespan": 0.0, "lower_bound": 0.0,
        "rank_seconds": [0.0, 0.0], "compute_seconds": [0.0, 0.0],
        "sequences": [[s.tokens, s.visible_pairs, s.fixed_cost] for s in cost.sequences([4096, 1000, 4096, 1000])],
        "micro_batches": [[group([1], [0, 1]), group([0], [rank])] for rank in (0, 1)],
    }  # fmt: skip
    for index, groups in enumerate(plan["micro_batches"]):
        for each in groups:
            each["sequences"] = [2 * index + sequence for sequence in each["sequences"]]
    made = hetsp_ext.Plan.from_dict(plan)
    alone = [hetsp_ext.Plan.from_dict(plan | {
        "sequences": plan["sequences"][:2], "micro_batches": [[group([1], [0, 1]), group([0], [0])]]})]  # fmt: skip
    # Each rank has one heavy and one light micro-batch, and neither gets past the second ring before the other.
    assert cost.seconds(made) == pytest.approx(2 * cost.seconds(alone[0]), rel=1e-9)
    assert cost.seconds(made) > slowest_rank(made) * 1.2


def group(sequences: list[int], ranks: list[int]) -> dict[str, object]:
    kind = {"head_degree": 1, "ring_degree": len(ranks), "gather_kv": False, "activations": "keep"}
    return {"sequences": sequences, "ranks": ranks, "cut": "zigzag" if len(ranks) > 1 else "whole", **kind}


def test_sequences_carry_their_window() -> None:
    (sequence,) = MeasuredCost(SECONDS, SETTING).sequences([10], window=3)
    assert sequence.visible_pairs == 1 + 2 + 3 + 7 * 4
    assert sequence.fixed_cost == pytest.approx(8e-5)


def test_nothing_measured_is_refused() -> None:
    with pytest.raises(InvalidArgument, match="no probe"):
        measured_cost([], SETTING, {})


@pytest.mark.parametrize("ranks", [1, 2, 7])
@pytest.mark.parametrize(("longest", "tokens"), [(1, 1), (64, 64), (1000, 300), (16384, 16384)])
def test_probes_cover_the_range(ranks: int, longest: int, tokens: int) -> None:
    chosen = probes(ranks, longest, tokens)
    assert len({probe.name for probe in chosen}) == len(chosen)
    assert max(probe.length for probe in chosen) == longest
    assert any(probe.shared for probe in chosen) == (ranks > 1)
    for probe in chosen:
        lengths = probe.lengths(ranks)
        assert sum(lengths) <= max(ranks * tokens, ranks * longest)
        assert len(lengths) == probe.count * (1 if probe.shared else ranks)
