"""The arithmetic of bench/train/prediction_bench.py: a wrong quantile would make a wrong claim."""

import random

import pytest

from bench.train.prediction_bench import errors_of, own_seconds, quantile, spread_of, summary_of


@pytest.mark.parametrize("seed", range(10))
def test_a_quantile_is_the_least_value_that_enough_do_not_exceed(seed: int) -> None:
    draw = random.Random(seed)
    values = [draw.choice([0.0, 1.0, draw.random()]) for _ in range(draw.randint(1, 40))]
    for share in (0.05, 0.5, 0.95, 1.0):
        found = quantile(values, share)
        assert found in values
        assert sum(value <= found for value in values) >= share * len(values) - 1e-9
        assert all(sum(value <= lower for value in values) < share * len(values) for lower in values if lower < found)


def step(number: int, predicted: float, measured: float, delayed: float) -> dict[str, object]:
    return {
        "step": number, "plan": "auto", "predicted": predicted, "measured": measured, "own": measured,
        "step_predicted": predicted, "step_measured": measured, "delayed": delayed,
    }  # fmt: skip


def test_first_and_disturbed_steps_are_counted_apart() -> None:
    steps = [step(1, 1.0, 9.0, 0.0), step(2, 1.1, 1.0, 0.01), step(3, 0.8, 1.0, 0.0), step(4, 1.0, 2.0, 0.5)]
    summary = summary_of(steps, steps)
    quiet = summary["undisturbed"]["forward and backward"]
    assert quiet["steps"] == 2
    assert quiet["median"] == pytest.approx(0.15)
    assert quiet["largest"] == pytest.approx(0.2)
    assert quiet["signed_median"] == pytest.approx(-0.05)
    assert summary["all"]["whole step"]["steps"] == 3
    assert summary["all"]["whole step"]["largest"] == pytest.approx(0.5)
    assert errors_of([], "whole step") is None
    assert spread_of(steps[1:3])["auto"]["largest"] == 0.0


def test_own_time_leaves_out_other_programs_turns_on_both_ranks() -> None:
    # Rank 0 computes 3 s, rank 1 2 s; rank 1 loses 1 s to others, and rank 0 waits 0.5 s of that and 0.1 s for the message.
    record = {"rank_work_seconds": [3.6, 3.6], "rank_delay_seconds": [0.0, 1.0], "rank_wait_seconds": [0.6, 0.1]}
    assert own_seconds(record) == pytest.approx(3.1)
