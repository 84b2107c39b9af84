"""hetsp.plan: what it accepts, what it returns, and the balance that it promises."""

import json
import pickle
import random
import signal
import subprocess
import sys
import threading
import time

import numpy as np
import pytest
import torch

import hetsp_ext as hetsp
from hetsp_ext.errors import InvalidArgument, PlanInfeasible
from hetsp_ext.planner import default_cost_model, visible_pairs

LENGTHS = [9000, 4000, 4000, 700, 300, 120, 5, 0]
CLUSTER = hetsp.Cluster(4, 8000)
# A small decoder on processors: computing is slow, links are not.
SHAPE = hetsp.ModelShape(layers=2, hidden=128, intermediate=344, heads=4, kv_heads=2, head_dim=32, vocabulary=256, bytes=4)
PROCESSORS = hetsp.cost_model_from_model(SHAPE, 3e9, 8e9, 5e8, 2e-4)


def held(plan: hetsp.Plan) -> list[int]:
    return sorted(s for micro_batch in plan.micro_batches for group in micro_batch.groups for s in group.sequences)


@pytest.mark.parametrize("strategy", ["auto", "static", "data-parallel"])
def test_every_sequence_once_within_memory(strategy: str) -> None:
    cluster = hetsp.Cluster(4, 9000)
    plan = hetsp.plan(LENGTHS, cluster, strategy=strategy)
    assert held(plan) == list(range(len(LENGTHS)))
    plan.check(cluster)
    tokens = np.sum([plan.rank_tokens(m) for m in range(len(plan.micro_batches))], axis=0)
    assert tokens.sum() == sum(LENGTHS)
    assert plan.strategy == strategy
    assert [s.tokens for s in plan.sequences] == LENGTHS


@pytest.mark.parametrize(
    "lengths", [tuple(LENGTHS), np.array(LENGTHS), np.array(LENGTHS, np.uint32), torch.tensor(LENGTHS), iter(LENGTHS)]
)
def test_any_iterable_of_integers_gives_the_same_plan(lengths: object) -> None:
    assert hetsp.plan(lengths, CLUSTER).digest == hetsp.plan(LENGTHS, CLUSTER).digest


def test_times_are_those_of_the_cost_model() -> None:
    cost = hetsp.CostModel(2e-6, 1e-3, [(2, 1e-5), (3, 3e-5)], hop_seconds=0.01, micro_batch_seconds=0.5)
    plan = hetsp.plan(LENGTHS, CLUSTER, cost)
    expected = [0.5 * len(plan.micro_batches)] * 4
    for micro_batch in plan.micro_batches:
        for group in micro_batch.groups:
            for rank in group.ranks:
                expected[rank] += sum(cost.seconds(plan.sequences[s], group.degree) for s in group.sequences)
    assert plan.rank_seconds == pytest.approx(expected, rel=1e-12)
    assert plan.makespan == max(plan.rank_seconds)
    assert plan.gap == pytest.approx(plan.makespan / plan.lower_bound - 1)
    assert plan.balance == pytest.approx(max(expected) / np.mean(expected))
    assert 0 < plan.lower_bound <= plan.makespan


def test_dictionary_survives_json_and_keeps_the_digest() -> None:
    plan = hetsp.plan(LENGTHS, CLUSTER, synchronisation="micro_batch")
    data = plan.to_dict()
    again = hetsp.Plan.from_dict(json.loads(json.dumps(data)))
    assert again.digest == plan.digest == pickle.loads(pickle.dumps(plan)).digest
    assert again.to_dict() == data
    assert str(again) == str(plan)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"version": 2}, "version 2, this library reads 1"),
        ({"ranks": None}, '"ranks" is None, of the wrong type'),
        ({"digest": "0" * 16}, "says digest 0000000000000000"),
        ({"synchronisation": "never"}, "allowed: layer, micro_batch, step"),
        ({"rank_seconds": [1.0]}, "times of 1 and 4 ranks for 4"),
        ({"sequences": [[1, 1]]}, r"a sequence is \[1, 1\], must be"),
        ({"sequences": [["x", 1, 0.0]]}, "must be .tokens, visible_pairs, fixed_cost"),
        ({"micro_batches": [[{}]]}, 'no "sequences"'),
    ],
)
def test_a_damaged_dictionary_is_refused(change: dict[str, object], message: str) -> None:
    data = hetsp.plan(LENGTHS, CLUSTER).to_dict()
    with pytest.raises(InvalidArgument, match=message):
        hetsp.Plan.from_dict({**data, **change})
    optional = {
        "digest",
        "exclusive",
        "offloadable",
        "status",
        "solve_seconds",
        "first_incumbent_seconds",
        "micro_batch_seconds",
        "placeholders",
    }
    for field in data.keys() - optional:
        with pytest.raises(InvalidArgument, match=f'no "{field}"'):
            hetsp.Plan.from_dict({key: value for key, value in data.items() if key != field})


def test_a_plan_written_by_hand_needs_no_digest() -> None:
    plan = hetsp.plan(LENGTHS, CLUSTER)
    data = plan.to_dict()
    del data["digest"]
    assert hetsp.Plan.from_dict(data).digest == plan.digest


def test_one_line_counts_sequences_by_degree() -> None:
    assert hetsp.plan([100] * 4, CLUSTER).one_line() == "4x1"
    assert hetsp.plan(LENGTHS, CLUSTER, strategy="static").one_line() == "8x4"
    mixed = hetsp.plan([7000, 100, 90, 80], CLUSTER, PROCESSORS).one_line()
    assert sum(int(part.split("x")[0]) for part in mixed.split()) == 4


def test_table_names_what_a_person_asks_for() -> None:
    text = str(hetsp.plan(LENGTHS, CLUSTER))
    for part in (
        "8 sequences, 18125 tokens on 4 ranks",
        "makespan",
        "lower bound",
        "gap",
        "micro-batch 0",
        "degree",
        "per rank",
    ):
        assert part in text
    assert len(str(hetsp.plan([1000] * 500, hetsp.Cluster(300, 10000))).splitlines()) < 60


def test_window_and_sequences_count_pairs() -> None:
    assert visible_pairs(10) == 55
    assert visible_pairs(10, 3) == 34
    windowed = hetsp.plan(LENGTHS, CLUSTER, window=100)
    assert [s.visible_pairs for s in windowed.sequences] == [visible_pairs(n, 100) for n in LENGTHS]
    own = hetsp.plan([hetsp.Sequence(10, visible_pairs=77, fixed_cost=0.5)], CLUSTER)
    assert (own.sequences[0].visible_pairs, own.sequences[0].fixed_cost) == (77, 0.5)


def test_same_seed_and_limit_same_plan_and_more_work_is_no_worse() -> None:
    lengths = [random.Random(3).randrange(1, 20000) for _ in range(60)]
    cluster = hetsp.Cluster(16, 1 << 20)
    short = [hetsp.plan(lengths, cluster, work_limit=3000, seed=5) for _ in range(2)]
    assert short[0].digest == short[1].digest
    assert hetsp.plan(lengths, cluster, work_limit=2_000_000).makespan <= short[0].makespan * 1.01


def test_time_limit_still_gives_a_checked_plan() -> None:
    lengths = [random.Random(4).randrange(1, 20000) for _ in range(300)]
    plan = hetsp.plan(lengths, hetsp.Cluster(128, 200_000), time_limit=1e-6)
    assert held(plan) == list(range(300))


def test_planning_does_not_hold_the_interpreter() -> None:
    """A thread that plans lets another one run: with the lock held, the counter could not move until the plan is done."""
    lengths = [random.Random(5).randrange(1, 20000) for _ in range(400)]
    started, counted = threading.Event(), 0

    def plan() -> None:
        started.set()
        hetsp.plan(lengths, hetsp.Cluster(64, 1 << 20), work_limit=20_000_000)

    worker = threading.Thread(target=plan)
    worker.start()
    started.wait()
    while worker.is_alive():
        worker.join(0.001)
        counted += 1
    assert counted > 3


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"lengths": []}, "no sequences"),
        ({"lengths": [3, -1]}, r"lengths\[1\] is -1"),
        ({"lengths": [3.5]}, r"lengths\[0\] is 3.5, must be an integer"),
        ({"lengths": [True]}, r"lengths\[0\] is True"),
        ({"lengths": "1,2"}, "must be an iterable of token counts"),
        ({"lengths": 5}, "must be an iterable of token counts"),
        ({"lengths": np.ones((2, 2), int)}, "one dimension"),
        ({"lengths": np.int64(3)}, "must be an iterable|one dimension"),
        ({"cluster": 4}, "cluster is 4, must be of type Cluster"),
        ({"cost_model": 1.0}, "cost_model is 1.0"),
        ({"strategy": "fast"}, 'strategy "fast" is unknown; allowed: auto, static, data-parallel'),
        ({"strategy": None}, "strategy is None"),
        ({"executable": ("whole", "gather_kv")}, '"gather_kv" is unknown; allowed: whole, ring, ulysses, gather'),
        ({"executable": ("whole", "gather")}, '"gather" is a kind of group that cannot be run yet; allowed: whole, ring'),
        ({"executable": {"ring"}}, 'must contain "whole"'),
        ({"strategy": "static", "executable": "whole"}, 'needs "ring"'),
        ({"work_limit": 0}, "work_limit is 0"),
        ({"time_limit": float("nan")}, "time_limit is nan"),
        ({"time_limit": "1"}, "time_limit is '1'"),
        ({"seed": -1}, "seed is -1"),
        ({"window": -1}, "window is -1"),
        ({"synchronisation": "never"}, "allowed: layer, micro_batch, step"),
    ],
)
def test_bad_arguments_are_named(arguments: dict[str, object], message: str) -> None:
    with pytest.raises(InvalidArgument, match=message):
        hetsp.plan(**{"lengths": LENGTHS, "cluster": CLUSTER, **arguments})


def test_bad_objects_are_named() -> None:
    with pytest.raises(InvalidArgument, match="ranks is 0"):
        hetsp.Cluster(0, 10)
    with pytest.raises(InvalidArgument, match="tokens_per_rank is -3"):
        hetsp.Cluster(1, -3)
    with pytest.raises(InvalidArgument, match="ranks_per_node is 0"):
        hetsp.Cluster(4, 10, 0)
    with pytest.raises(InvalidArgument, match="link degree 2 follows 3"):
        hetsp.CostModel(0.0, 1.0, [(3, 1.0), (2, 1.0)])
    with pytest.raises(InvalidArgument, match="attention_flops is 0"):
        hetsp.cost_model_from_model(SHAPE, 0.0, 1.0, 1.0)


def test_infeasible_says_which_sequence_and_how_much_memory() -> None:
    with pytest.raises(PlanInfeasible, match=r"sequence 2 has 9001 tokens; on 3 ranks.*each holds 3001 tokens.*room for 3000"):
        hetsp.plan([10, 9000, 9001], hetsp.Cluster(3, 3000))
    with pytest.raises(PlanInfeasible, match=r"sequence 1 has 9000 tokens; on 1 rank"):
        hetsp.plan([10, 9000], hetsp.Cluster(3, 3000), executable=["whole"])


def test_whole_only_keeps_every_sequence_on_one_rank() -> None:
    plan = hetsp.plan([500, 400, 300, 200, 100], hetsp.Cluster(2, 800), executable={"whole"})
    assert plan.one_line() == "5x1"


@pytest.mark.parametrize("seed", range(3))
def test_hundreds_of_sequences_on_64_ranks(seed: int) -> None:
    """Log-normal lengths (median 1600 tokens, sigma 1.5) of one micro-batch, as a web crawl has them."""
    lengths = np.random.default_rng(seed).lognormal(np.log(1600), 1.5, 512).astype(int).clip(1, 131072)
    cluster = hetsp.Cluster(64, 60000)
    made = {name: hetsp.plan(lengths, cluster, strategy=name) for name in ("auto", "static")}
    assert made["auto"].gap < 0.05
    assert made["auto"].makespan < made["static"].makespan
    ones = int(made["auto"].one_line().split()[0].removesuffix("x1"))
    assert ones > 400, "most sequences are short, and short ones stay whole"


def test_default_cost_model_is_a_model_of_eight_billion_parameters() -> None:
    cost = default_cost_model()
    assert cost.seconds_per_token == pytest.approx(6 * 7.5e9 / 400e12, rel=0.02)  # without the embedding table
    assert [degree for degree, _ in cost.links] == [2, 3]


def test_an_interrupt_ends_a_long_search() -> None:
    script = (
        "import signal\n"
        "import hetsp_ext as hetsp\n"
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"  # a shell's background jobs ignore it, and so would we
        "print('ready', flush=True)\n"
        "setting = hetsp.preset('llama-7b')\n"
        "lengths = setting.sequences(list(range(100, 3000)))\n"
        "hetsp.plan(lengths, setting.cluster(1024, 131072), setting.cost_model, exclusive=True, time_limit=3000.0)\n"
    )
    run = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert run.stdout is not None
    assert run.stdout.readline() == "ready\n"
    time.sleep(1.0)
    run.send_signal(signal.SIGINT)
    try:
        _, error = run.communicate(timeout=100)
    finally:
        run.kill()
    assert run.returncode == -signal.SIGINT, error
    assert error.rstrip().endswith("KeyboardInterrupt")
