"""torch.compile of a model that attends with others: the graph breaks at the messages, and nowhere else."""

import pytest
import torch

import hetsp_ext as hetsp

HEADS, DIM = 2, 8


@pytest.mark.parametrize("seed", range(2))
def test_sequence_parallel_attention_breaks_the_graph_once(seed: int) -> None:
    torch.manual_seed(seed)
    documents = [torch.arange(50), torch.arange(30)]
    plan = hetsp.plan([len(document) for document in documents], hetsp.Cluster(1, 100))
    (shard,) = hetsp.shard(plan, documents)
    weight = torch.randn(HEADS * DIM, 3 * HEADS * DIM, requires_grad=True)
    x = torch.randn(shard.layout.tokens, HEADS * DIM)
    graphs = []

    def counted(graph: torch.fx.GraphModule, inputs: list[torch.Tensor]) -> object:
        graphs.append(graph)
        return graph.forward

    def model(x: torch.Tensor) -> torch.Tensor:
        q, k, v = (x @ weight).view(-1, 3, HEADS, DIM).unbind(1)
        return hetsp.sequence_parallel_attention(q, k, v, shard.layout).flatten(1) @ weight.T[: HEADS * DIM]

    def run(function: object) -> tuple[torch.Tensor, torch.Tensor]:
        out = function(x)  # type: ignore[operator]
        (gradient,) = torch.autograd.grad(out.square().sum(), weight)
        return out, gradient

    expected, got = run(model), run(torch.compile(model, backend=counted))
    assert len(graphs) == 2, "one before the messages and one after"
    for one, other in zip(expected, got, strict=True):
        torch.testing.assert_close(other, one)
