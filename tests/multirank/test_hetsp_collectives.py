"""Collectives of backend hetsp against Gloo's and against arithmetic, small and large, on nodes of several shapes."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
import torch.distributed as dist
import torch.distributed._functional_collectives as functional

from hetsp_ext.errors import InvalidArgument
from tests.support.hetsp_groups import needs_extension, new_group
from tests.support.ranks import run_ranks

pytestmark = needs_extension

NODES = [pytest.param((1, 1), id="a pair"), pytest.param((2, 2), id="two nodes"), pytest.param((1, 3), id="uneven nodes")]
SIZES = (0, 1, 5, 1000, 3001, 100_003)
Op = dist.ReduceOp


def data(rank: int, size: int, dtype: torch.dtype) -> torch.Tensor:
    generator = torch.Generator().manual_seed(100 * rank + size)
    if dtype == torch.bool:
        return torch.randint(0, 2, (size,), generator=generator).bool()
    if dtype.is_complex or dtype.is_floating_point:
        return torch.randn(size, generator=generator, dtype=torch.float64).to(dtype)
    return torch.randint(1, 7, (size,), generator=generator).to(dtype)


def bits(tensor: torch.Tensor) -> bytes:
    return bytes(tensor.contiguous().view(-1).view(torch.uint8).numpy())


def reductions(rank: int, size: int, counts: tuple[int, ...]) -> dict[str, bytes]:
    group = new_group(*counts)
    results = {}
    whole = [Op.SUM, Op.PRODUCT, Op.MIN, Op.MAX, Op.BAND, Op.BOR, Op.BXOR]
    cases: list[tuple[Any, torch.dtype]] = [(op, torch.int64) for op in whole] + [(op, torch.int32) for op in whole[:1]]
    cases += [(op, torch.float32) for op in (Op.SUM, Op.AVG, Op.PRODUCT, Op.MIN, Op.MAX)]
    cases += [(Op.SUM, torch.bfloat16), (Op.SUM, torch.float64), (Op.SUM, torch.complex64), (Op.SUM, torch.float16)]
    for op, dtype in cases:
        for length in SIZES:
            ours, reference = data(rank, length, dtype), data(rank, length, dtype)
            dist.all_reduce(ours, op=op, group=group)
            if op == Op.AVG:
                dist.all_reduce(reference)
                reference /= size
            else:
                dist.all_reduce(reference, op=op)
            if dtype.is_floating_point or dtype.is_complex:
                slack = 4 * size * (torch.finfo(dtype).eps if not dtype.is_complex else 1e-6)
                torch.testing.assert_close(ours, reference, rtol=slack, atol=slack * size)
            else:
                assert torch.equal(ours, reference), (op, dtype, length)
            results[f"{op} {dtype} {length}"] = bits(torch.view_as_real(ours) if dtype.is_complex else ours)

            root = length % size
            ours, before = data(rank, length, dtype), data(rank, length, dtype)
            dist.reduce(ours, root, op=op, group=group)
            if rank != root:
                assert torch.equal(ours, before)  # only the root's tensor changes
            elif not (dtype.is_floating_point or dtype.is_complex):
                assert torch.equal(ours, reference)
    return results


@pytest.mark.parametrize("counts", NODES)
def test_reductions_agree_with_gloo_and_are_the_same_bits_everywhere(counts):
    results = run_ranks(sum(counts), reductions, counts)
    assert all(result == results[0] for result in results)


def copies(rank: int, size: int, counts: tuple[int, ...]) -> None:
    group = new_group(*counts)
    for dtype in (torch.float32, torch.bool, torch.bfloat16, torch.complex128):
        for length in (0, 1, 4000, 400_000):
            everyone = [data(other, length, dtype) for other in range(size)]
            for root in range(size):
                ours = everyone[rank].clone()
                dist.broadcast(ours, root, group=group)
                assert torch.equal(ours, everyone[root])

            outs = [torch.zeros_like(one) for one in everyone]
            dist.all_gather(outs, everyone[rank], group=group)
            assert all(torch.equal(out, one) for out, one in zip(outs, everyone, strict=True))

            out = torch.zeros(size * length, dtype=dtype)
            dist.all_gather_into_tensor(out, everyone[rank], group=group)
            assert torch.equal(out, torch.cat(everyone))

            root = (length + 1) % size
            outs = [torch.zeros_like(one) for one in everyone]
            dist.gather(everyone[rank], outs if rank == root else None, dst=root, group=group)
            assert rank != root or all(torch.equal(out, one) for out, one in zip(outs, everyone, strict=True))

            mine = torch.zeros(length, dtype=dtype)
            dist.scatter(mine, everyone if rank == root else None, src=root, group=group)
            assert torch.equal(mine, everyone[rank])
    uneven = [torch.zeros(10 * (other + 1)) for other in range(size)]
    dist.all_gather(uneven, torch.full((10 * (rank + 1),), float(rank)), group=group)
    assert all(bool((one == other).all()) for other, one in enumerate(uneven))
    dist.barrier(group=group)


@pytest.mark.parametrize("counts", NODES)
def test_copies_arrive(counts):
    run_ranks(sum(counts), copies, counts)


def scattered_sums(rank: int, size: int) -> None:
    group = new_group(2, 1)
    for length in (0, 3, 50_000):
        everyone = [data(other, size * length, torch.int64) for other in range(size)]
        want = sum(everyone).view(size, length)[rank]
        before = everyone[rank].clone()
        out = torch.zeros(length, dtype=torch.int64)
        dist.reduce_scatter_tensor(out, everyone[rank], group=group)
        assert torch.equal(out, want)
        assert torch.equal(before, everyone[rank])
        out.zero_()
        dist.reduce_scatter(
            out, list(everyone[rank].chunk(size)) if length else [out.clone() for _ in range(size)], group=group
        )
        assert torch.equal(out, want)
    uneven = [torch.full((5 * other + 1,), 1.0 + rank) for other in range(size)]
    out = torch.zeros(5 * rank + 1)
    dist.reduce_scatter(out, uneven, group=group)
    assert bool((out == 6.0).all())


def test_reduce_scatter_leaves_its_inputs_alone():
    run_ranks(3, scattered_sums)


def all_to_alls(rank: int, size: int) -> None:
    group = new_group(2, 2)
    for unit in (1, 700, 30_000):
        counts = [[unit * ((source * 3 + target) % 4) for target in range(size)] for source in range(size)]
        sent = torch.cat([torch.full((counts[rank][target], 2), 10.0 * rank + target) for target in range(size)])
        received = torch.zeros(sum(counts[source][rank] for source in range(size)), 2)
        dist.all_to_all_single(received, sent, [counts[source][rank] for source in range(size)], counts[rank], group=group)
        want = torch.cat([torch.full((counts[source][rank], 2), 10.0 * source + rank) for source in range(size)])
        assert torch.equal(received, want)

        outs = [torch.zeros(counts[source][rank]) for source in range(size)]
        dist.all_to_all(
            outs, [torch.full((counts[rank][target],), 10.0 * rank + target) for target in range(size)], group=group
        )
        assert all(bool((out == 10.0 * source + rank).all()) for source, out in enumerate(outs))
    even = torch.arange(8.0) + 100 * rank
    out = torch.zeros(8)
    dist.all_to_all_single(out, even, group=group)
    assert torch.equal(out.view(4, 2)[:, 0], 2.0 * rank + 100 * torch.arange(4.0))
    with pytest.raises(InvalidArgument, match="9 rows does not divide by 4 ranks"):
        dist.all_to_all_single(torch.zeros(9), torch.zeros(9), group=group)


def test_all_to_all_with_uneven_splits():
    run_ranks(4, all_to_alls)


def functionals(rank: int, size: int) -> None:
    group = new_group(2, 1)
    x = torch.arange(6.0) + rank
    assert torch.equal(functional.all_reduce(x, "sum", group) + 0, 3 * torch.arange(6.0) + 3)
    assert torch.equal(functional.all_gather_tensor(x, 0, group) + 0, torch.cat([torch.arange(6.0) + r for r in range(3)]))
    summed = functional.reduce_scatter_tensor(x, "sum", 0, group) + 0
    assert torch.equal(summed, (3 * torch.arange(6.0) + 3)[2 * rank : 2 * rank + 2])
    split = [rank + 1] * 3
    moved = functional.all_to_all_single(torch.full((3 * (rank + 1),), float(rank)), [1, 2, 3], split, group) + 0
    assert torch.equal(moved, torch.tensor([0.0, 1.0, 1.0, 2.0, 2.0, 2.0]))
    several = functional.all_reduce_coalesced([x, 2 * x], "sum", group)
    assert torch.equal(several[1] + 0, 2 * (several[0] + 0))
    gathered = functional.all_gather_into_tensor_coalesced([x, x + 1], group)
    assert torch.equal((gathered[1] + 0)[:6], torch.arange(6.0) + 1)
    scattered = functional.reduce_scatter_tensor_coalesced([x, x + 1], "sum", [0, 0], group)
    assert torch.equal(scattered[1] + 0, (scattered[0] + 0) + 3)
    assert torch.equal(functional.broadcast(x, 1, group) + 0, torch.arange(6.0) + 1)


def test_functional_collectives():
    run_ranks(3, functionals)


def overlapping(rank: int, size: int) -> None:
    group = new_group(2, 2)
    tensors = [torch.full((20_000,), float(rank + i)) for i in range(12)]
    works = [dist.all_reduce(tensor, group=group, async_op=True) for tensor in tensors]
    received = torch.zeros(60_000)
    messages = [dist.isend(torch.full((60_000,), float(rank)), (rank + 1) % size, group=group)]
    messages.append(dist.irecv(received, (rank - 1) % size, group=group))
    for work in reversed(works + messages):
        work.wait()
    assert all(bool((tensor == 6.0 + 4 * i).all()) for i, tensor in enumerate(tensors))
    assert bool((received == (rank - 1) % size).all())
    objects: list[Any] = [None] * size
    dist.all_gather_object(objects, {"rank": rank}, group=group)
    assert objects == [{"rank": other} for other in range(size)]
    strided = torch.zeros(6, 4)[:, ::2]
    strided += rank
    dist.all_reduce(strided, group=group)
    assert bool((strided == 6).all())


def test_collectives_and_messages_may_be_under_way_together():
    run_ranks(4, overlapping)


def data_parallel(rank: int, size: int) -> None:
    group = new_group(2, 1)
    torch.manual_seed(0)
    plain = torch.nn.Sequential(torch.nn.Linear(40, 60), torch.nn.ReLU(), torch.nn.Linear(60, 3)).double()
    wrapped = torch.nn.parallel.DistributedDataParallel(copy.deepcopy(plain), process_group=group)
    batch = torch.randn(size, 8, 40, dtype=torch.float64)
    wrapped(batch[rank]).square().mean().backward()
    plain(batch.flatten(0, 1)).square().mean().backward()
    for ours, want in zip(wrapped.parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(ours.grad, want.grad)


def test_ddp_averages_its_gradients():
    run_ranks(3, data_parallel)


def refused(rank: int, size: int) -> None:
    group = new_group(1, 1)
    with pytest.raises(InvalidArgument, match="AVG needs floating or complex numbers"):
        dist.all_reduce(torch.zeros(3, dtype=torch.int32), op=Op.AVG, group=group)
    with pytest.raises(InvalidArgument, match="BAND does not exist for"):
        dist.all_reduce(torch.zeros(3), op=Op.BAND, group=group)
    length = 50_000 + rank  # one rank is wrong: both hear of it, and the next collective works
    with pytest.raises((InvalidArgument, RuntimeError)):
        dist.all_reduce(torch.zeros(length), group=group)
    good = torch.ones(3)
    dist.all_reduce(good, group=group)
    assert bool((good == 2).all())


def test_what_cannot_be_reduced_is_refused():
    run_ranks(2, refused)


def alone(rank: int, size: int) -> None:
    group = new_group()
    x = torch.arange(4.0)
    dist.all_reduce(x, op=Op.AVG, group=group)
    out = torch.zeros(4)
    dist.all_gather_into_tensor(out, x, group=group)
    dist.barrier(group=group)
    assert torch.equal(out, torch.arange(4.0))


def test_a_group_of_one():
    run_ranks(1, alone)


def other_types(rank: int, size: int) -> None:
    group = new_group()
    with pytest.raises(InvalidArgument, match=r"type (Float|Int), its receive of type (Float|Int): they must be equal"):
        dist.all_reduce(torch.ones(4, dtype=(torch.float32, torch.int32)[rank]), group=group)
    x = torch.ones(4)
    dist.all_reduce(x, group=group)
    assert bool((x == 2).all())
    dist.destroy_process_group(group)


def test_types_that_differ_are_named_on_both_sides() -> None:
    run_ranks(2, other_types)
