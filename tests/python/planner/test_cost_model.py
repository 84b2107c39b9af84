"""The cost model and its presets as Python sees them; the formulas are tested in C++."""

import pytest

import hetsp_ext as hetsp
from hetsp_ext.errors import InvalidArgument, PlanInfeasible

NETWORK = hetsp.Network((100e9, 1e-5), (25e9, 2e-5), 4)
SHAPE = hetsp.ModelShape(
    layers=2, hidden=64, intermediate=128, heads=8, kv_heads=2, head_dim=8, vocabulary=100, bytes=2, attentionless_layers=1
)


def test_every_preset_is_named_and_plans() -> None:
    assert {"flexsp-7b", "flexsp-13b", "flexsp-30b", "llama-7b", "llama-70b", "bytescale-7b", "zeppelin-a-3b"} <= {
        one.name for one in hetsp.presets()
    }
    for one in hetsp.presets():
        assert hetsp.preset(one.name).description == one.description
        cluster = one.cluster(128, 32768)
        assert cluster.tokens_per_rank == one.tokens_per_rank(128, 32768)
        plan = hetsp.plan(one.sequences([20000, 3000, 200]), cluster, one.cost_model, strategy="static")
        plan.check(cluster)


def test_flexsp_counts_squares() -> None:
    seven = hetsp.preset("flexsp-7b")
    assert seven.squared_pairs
    assert [s.visible_pairs for s in seven.sequences([3, 10])] == [9, 100]
    assert seven.cluster(64, 384 * 1024).tokens_per_rank == 6407
    assert not hetsp.preset("llama-7b").squared_pairs


def test_a_group_crosses_nodes() -> None:
    cost = hetsp.cost_model_on_network(SHAPE, 1e12, 1e12, NETWORK, 4)
    assert cost.shape.attentionless_layers == 1
    assert cost.network.inter_node == (25e9, 2e-5)
    inside = cost.group_cost(ring_degree=4, ranks_per_node=4)
    outside = cost.group_cost(ring_degree=4, ranks_per_node=2)
    assert outside.communication_per_token == pytest.approx(4 * inside.communication_per_token)
    assert outside.per_pair == inside.per_pair
    assert cost.group_cost(head_degree=3).per_pair == pytest.approx(cost.seconds_per_pair / 3 * 9 / 8)
    assert cost.max_head_degree == 8
    assert hetsp.CostModel(1.0, 1.0).shape is None


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: hetsp.preset("gpt"), 'preset "gpt" is unknown; allowed: flexsp-7b'),
        (lambda: hetsp.preset(7), "name is 7"),
        (lambda: hetsp.Network((0.0, 0.0), (1.0, 0.0)), "intra_node bytes_per_second is 0"),
        (lambda: hetsp.cost_model_on_network(SHAPE, 0.0, 1.0, NETWORK), "attention_flops is 0"),
        (lambda: hetsp.cost_model_on_network(SHAPE, 1.0, 1.0, NETWORK, -1), "ranks_per_node is -1"),
        (lambda: hetsp.cost_model_on_network(SHAPE, 1.0, 1.0, NETWORK).group_cost(head_degree=9), "head_degree is 9"),
        (lambda: hetsp.preset("llama-7b").cost_model.group_cost(head_degree=0), "head_degree is 0"),
    ],
)
def test_bad_arguments_are_named(call, message: str) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(InvalidArgument, match=message):
        call()


def test_a_model_too_large_for_the_ranks_is_infeasible() -> None:
    with pytest.raises(PlanInfeasible, match="fills the memory of 1 ranks"):
        hetsp.preset("llama-70b").cluster(1, 4096)
