"""hetsp.remap as Python sees it, its sum against HiGHS; the proofs against our own solver are in C++."""

import numpy as np
import pytest

import hetsp_ext as hetsp
from hetsp_ext.errors import InvalidArgument
from tests.support.highs import highs_model, run_highs


@pytest.mark.parametrize("seed", range(12))
def test_the_sum_is_the_optimum_of_highs(seed: int) -> None:
    sparse = pytest.importorskip("scipy.sparse", reason="scipy is not installed: requirements-dev.txt has it")
    rng = np.random.default_rng(seed)
    ranks, per_node = [(1, 1), (7, 3), (16, 4), (24, 8)][seed % 4]
    tokens = rng.lognormal(7, 1.5, ranks).astype(int)
    intra, inter = 1.0, float(rng.choice([1.0, 2.5, 8.0]))
    made = hetsp.remap(tokens, ranks_per_node=per_node, intra_seconds_per_token=intra, inter_seconds_per_token=inter)
    after = tokens.copy()
    for sender, receiver, count in made.transfers:
        after[sender] -= count
        after[receiver] += count
    assert after.tolist() == made.targets
    assert max(made.targets) - min(made.targets) <= 1

    surplus = tokens - np.array(made.targets)
    pairs = [(i, j) for i in range(ranks) for j in range(ranks) if surplus[i] > 0 > surplus[j]]
    if not pairs:
        assert made.transfers == []
        return
    cost = [intra if i // per_node == j // per_node else inter for i, j in pairs]
    columns = np.arange(len(pairs))
    rows = np.array(pairs).T
    matrix = sparse.csc_matrix((np.ones(2 * len(pairs)), (rows.reshape(-1), np.tile(columns, 2))), shape=(ranks, len(pairs)))
    moved = np.abs(surplus)
    unlimited = np.full(len(pairs), np.inf)
    status, objective = run_highs(highs_model(cost, matrix, np.zeros(len(pairs)), unlimited, moved, moved))
    assert status == "optimal"
    assert made.sum_seconds == pytest.approx(objective, rel=1e-9)


def test_a_plan_is_balanced_and_led_back() -> None:
    plan = hetsp.plan([9000, 300, 200, 40, 40, 7], hetsp.Cluster(8, 4096))
    tokens = plan.rank_tokens(0)
    there = hetsp.remap(tokens, ranks_per_node=4, inter_seconds_per_token=3.0)
    back = hetsp.remap(there.targets, tokens, ranks_per_node=4, inter_seconds_per_token=3.0)
    assert back.targets == list(tokens)
    assert (back.moved, back.crossing, back.sum_seconds) == (there.moved, there.crossing, there.sum_seconds)
    assert "8 ranks" in repr(there)


@pytest.mark.parametrize(
    ("call", "part"),
    [
        (lambda: hetsp.remap([1, -1]), "rank 1 has -1 tokens"),
        (lambda: hetsp.remap([1, 1.5]), "tokens[1] is 1.5, must be an integer"),
        (lambda: hetsp.remap("12"), "must be an iterable"),
        (lambda: hetsp.remap([1, 2], [1, 1]), "targets of 2"),
        (lambda: hetsp.remap([1], ranks_per_node=0), "ranks_per_node is 0, must be at least 1"),
        (lambda: hetsp.remap([1], intra_seconds_per_token=2.0), "0 <= intra <= inter"),
        (lambda: hetsp.remap([1], inter_seconds_per_token=float("nan")), "must be finite"),
    ],
)
def test_bad_input_is_named(call, part: str) -> None:
    with pytest.raises(InvalidArgument) as error:
        call()
    assert part in str(error.value)
