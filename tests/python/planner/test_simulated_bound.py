"""bench/planner/simulated_bound.py: below every plan that any strategy makes, and tight where the best plan is known."""

import numpy as np
import pytest

import hetsp_ext as hetsp
from bench.planner.simulated_bound import SimulatedBound
from hetsp_ext.planner import preset, strategy_names

RANKS = 16


def simulated(setting: hetsp.Preset, lengths: list[int], strategy: str) -> float:
    made = hetsp.plan(
        setting.sequences(lengths),
        setting.cluster(RANKS, 384 * 1024),
        setting.cost_model,
        strategy,
        executable=setting.executable,
        exclusive=True,
        synchronisation=setting.synchronisation,
        simulated=strategy == "auto",
        overlap=setting.overlaps,
    )
    timeline = hetsp.simulate(made, setting.cost_model, ranks_per_node=setting.ranks_per_node, overlap=setting.overlaps)
    return float(timeline.makespan)


@pytest.mark.parametrize("name", ["zeppelin-a-3b", "llama-7b", "llama-13b", "bytescale-7b", "flexsp-7b"])
def test_no_strategy_is_faster(name: str) -> None:
    setting = preset(name)
    bound = SimulatedBound(setting, RANKS, 384 * 1024)
    room = setting.tokens_per_rank(RANKS, 384 * 1024)
    close = 0
    for seed in range(3):
        random = np.random.default_rng(seed)
        lengths = np.exp(random.normal(7.5, 1.5, 60)).astype(int).clip(1, 8 * room).tolist()
        lengths[: seed % 3] = [6 * room, 3 * room][: seed % 3]
        least = bound.seconds(lengths)
        tried = 0
        for strategy in strategy_names():
            try:
                seconds = simulated(setting, lengths, strategy)
            except hetsp.errors.PlanInfeasible:
                continue
            tried += 1
            assert seconds >= least * (1.0 - 1e-9), f"seed {seed}: {strategy} takes {seconds}, the bound is {least}"
            close += strategy == "auto" and seconds < 1.25 * least
        assert tried >= 8
    assert close >= 2


@pytest.mark.parametrize("name", ["zeppelin-b-3b", "llama-7b", "flexsp-13b"])
def test_equal_whole_sequences_meet_it(name: str) -> None:
    setting = preset(name)
    length = setting.tokens_per_rank(RANKS, 384 * 1024) // 2
    lengths = [length] * (2 * RANKS)
    assert simulated(setting, lengths, "auto") == pytest.approx(SimulatedBound(setting, RANKS, 384 * 1024).seconds(lengths))


def test_one_long_sequence_takes_what_its_best_group_takes() -> None:
    setting = preset("bytescale-7b")
    lengths = [60_000]
    bound = SimulatedBound(setting, RANKS, 384 * 1024).seconds(lengths)
    assert simulated(setting, lengths, "auto") == pytest.approx(bound, rel=1e-2)


def test_the_planners_bound_counts_only_where_nothing_is_hidden() -> None:
    lengths = [4000] * 20
    for name, counts in (("flexsp-7b", True), ("llama-7b", False), ("bytescale-7b", False)):
        bound = SimulatedBound(preset(name), RANKS, 384 * 1024)
        assert (bound.seconds(lengths, certified=1e3) == 1e3) == counts
