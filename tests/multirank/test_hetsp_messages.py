"""Messages between two ranks over backend hetsp: every type and layout, matching, waiting, giving up, mistakes."""

from __future__ import annotations

import time
from datetime import timedelta
from typing import Any

import pytest
import torch
import torch.distributed as dist

import hetsp_ext as hetsp
from hetsp_ext.distributed import gpu_lanes
from hetsp_ext.errors import InvalidArgument
from tests.support.hetsp_groups import needs_extension, new_group
from tests.support.ranks import run_ranks

pytestmark = needs_extension

NODES = [pytest.param((4,), id="one node"), pytest.param((2, 2), id="two nodes"), pytest.param((1, 3), id="uneven nodes")]
TYPES = [
    *(torch.float32, torch.float64, torch.float16, torch.bfloat16, torch.float8_e4m3fn, torch.float8_e5m2),
    *(torch.int8, torch.uint8, torch.int16, torch.int32, torch.int64, torch.bool, torch.complex64, torch.complex128),
]


def values(shape: tuple[int, ...], dtype: torch.dtype, seed: int) -> torch.Tensor:
    size = torch.empty(shape, dtype=dtype).element_size() * torch.Size(shape).numel()
    bits = torch.randint(0, 2 if dtype == torch.bool else 56, (size,), generator=torch.Generator().manual_seed(seed))
    return bits.to(torch.uint8).view(dtype).view(shape)


def bits(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.contiguous().view(-1).view(torch.uint8)


def everyone_to_everyone(rank: int, size: int, counts: tuple[int, ...]) -> None:
    group = new_group(*counts)
    shapes = [(), (0,), (1,), (7, 3), (5000, 3), (70_001,), (300, 1001)]
    works, expected = [], []
    for number, (dtype, shape) in enumerate((dtype, shape) for dtype in TYPES for shape in shapes):
        for other in range(size):
            if other == rank:
                continue
            out = torch.zeros(shape, dtype=dtype)
            works.append(dist.irecv(out, src=other, group=group, tag=number % 5))
            expected.append((out, values(shape, dtype, 1000 * number + 10 * other + rank)))
            works.append(
                dist.isend(values(shape, dtype, 1000 * number + 10 * rank + other), dst=other, group=group, tag=number % 5)
            )
    for work in works:
        work.wait()
    for out, want in expected:
        assert torch.equal(bits(out), bits(want)), (out.dtype, out.shape)


@pytest.mark.parametrize("counts", NODES)
def test_every_type_and_size_arrives(counts):
    run_ranks(sum(counts), everyone_to_everyone, counts)


def large(rank: int, size: int) -> dict[str, Any]:
    group = new_group(1, 1, nics=4)
    ours = values((2_000_003,), torch.float32, rank)
    theirs = torch.empty_like(ours)
    works = [dist.isend(ours, 1 - rank, group=group), dist.irecv(theirs, 1 - rank, group=group)]
    for work in works:
        work.wait()
    assert torch.equal(bits(theirs), bits(values((2_000_003,), torch.float32, 1 - rank)))
    return dict(group._get_backend(torch.device("cpu")).statistics())


def test_a_large_message_is_spread_over_every_rail():
    for statistics in run_ranks(2, large):
        assert statistics["spread"] == 1
        assert len(statistics["rails"]) == 4
        for rail in statistics["rails"]:
            assert rail["up"]
            assert rail["bytes_sent"] > 200_000
            assert rail["bytes_received"] > 200_000


def gpus(rank: int, size: int) -> list[dict[str, Any]]:
    found = []
    for asked in (False, rank == 1, True):
        group = new_group(1, 1, gpu_lanes=asked)
        found.append(hetsp.distributed.statistics(group)["gpu"])
        ours, theirs = values((1000,), torch.float32, rank), torch.empty(1000)
        for work in dist.batch_isend_irecv(
            [dist.P2POp(dist.isend, ours, 1 - rank, group), dist.P2POp(dist.irecv, theirs, 1 - rank, group)]
        ):
            work.wait()
        assert torch.equal(theirs, values((1000,), torch.float32, 1 - rank))
    return found


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU: bench/comm/gpu_lanes_bench.py tries it")
def test_a_group_forms_without_lanes_of_gpus_and_says_why():
    for not_asked, one, both in run_ranks(2, gpus):
        assert not_asked["why"] == gpu_lanes.NOT_ASKED
        assert one["why"].startswith("rank 0: not asked for")
        assert both["why"].startswith(f"rank 0: torch {torch.__version__} sees no GPU")
        assert both["chunks_sent"] == both["bytes_received"] == 0


def layouts(rank: int, size: int) -> None:
    group = new_group(1, 1)
    base = torch.arange(600, dtype=torch.float32).view(20, 30)
    complexes = torch.complex(base, base + 1)
    cases = [
        (base.t(), torch.zeros(30, 20)),
        (base[::2, 3:9], torch.zeros(20, 12)[::2, ::2]),
        (base[:, 0].expand(5, 20), torch.zeros(20, 5).t()),
        (complexes.conj(), torch.zeros(20, 30, dtype=torch.complex64)),
        (complexes.conj().imag, torch.zeros(40, 30)[::2]),  # negated lazily
        (complexes, torch.zeros(20, 30, dtype=torch.complex64).conj()),
    ]
    for sent, received in cases:
        # By the backend itself: torch's front end takes no conjugate.
        if rank == 0:
            group._get_backend(torch.device("cpu")).send([sent], 1, 0).wait()
        else:
            group._get_backend(torch.device("cpu")).recv([received], 0, 0).wait()
            assert torch.equal(received, sent)


def test_strides_and_conjugates_are_honoured():
    run_ranks(2, layouts)


def matching(rank: int, size: int) -> None:
    group = new_group(2, 1)
    if rank == 2:
        outs = [torch.zeros(40_000 + i) for i in range(6)]
        works = [dist.irecv(out, 0, group=group, tag=i % 2) for i, out in enumerate(outs)]
        for work in reversed(works):
            work.wait()
        assert [int(out[-1]) for out in outs] == [0, 1, 2, 3, 4, 5]
        seen = []
        for _ in range(2):
            out = torch.zeros(3)
            seen.append((dist.recv(out, group=group, tag=9), int(out[0])))  # from any
        assert sorted(seen) == [(0, 100), (1, 101)]
    else:
        if rank == 0:
            order = [1, 0, 3, 2, 5, 4]  # of one tag in the order of posting, tags among each other in any
            works = [dist.isend(torch.full((40_000 + i,), float(i)), 2, group=group, tag=i % 2) for i in order]
            for work in works:
                work.wait()
        dist.send(torch.full((3,), 100.0 + rank), 2, group=group, tag=9)


def test_messages_match_by_source_tag_and_order():
    run_ranks(3, matching)


def batch(rank: int, size: int) -> None:
    group = new_group(2, 2)
    outs = {other: torch.zeros(30_000 * (other + 1)) for other in range(size) if other != rank}
    operations = []
    for other, out in outs.items():
        operations.append(dist.P2POp(dist.isend, torch.full((30_000 * (rank + 1),), 1.0 + rank), other, group=group))
        operations.append(dist.P2POp(dist.irecv, out, other, group=group))
    for work in dist.batch_isend_irecv(operations):
        work.wait()
    assert all(bool((out == 1.0 + other).all()) for other, out in outs.items())


def test_a_batch_is_one_work():
    run_ranks(4, batch)


def dropped(rank: int, size: int) -> None:
    group = new_group(1, 1)
    for count in (5, 30_000, 600_000):
        if rank == 0:
            dist.isend(torch.full((count,), 7.0), 1, group=group)  # nobody keeps the Work, nor the tensor
            junk = [torch.rand(count) for _ in range(3)]
            assert junk
        else:
            time.sleep(0.05)
            out = torch.zeros(count)
            dist.recv(out, 0, group=group)
            assert bool((out == 7.0).all())
    if rank == 0:
        dist.isend(torch.full((600_000,), 8.0), 1, group=group)
        dist.destroy_process_group(group)  # what was sent still arrives
    else:
        time.sleep(0.1)
        out = torch.zeros(600_000)
        dist.recv(out, 0, group=group)
        assert bool((out == 8.0).all())


def test_a_dropped_work_is_still_done():
    run_ranks(2, dropped)


def waiting(rank: int, size: int) -> None:
    group = new_group(1, 1)
    out = torch.zeros(500_000)
    if rank == 0:
        dist.barrier()
        dist.send(torch.ones(500_000), 1, group=group)
        future_sent = dist.isend(torch.ones(8), 1, group=group, tag=1).get_future()
        future_sent.wait()
    else:
        work = dist.irecv(out, 0, group=group)
        assert not work.is_completed()
        still = r"(?s)recv from rank 0 .* has not completed within 50 ms.*receiving from rank 0.*: no message for it has come"
        with pytest.raises(dist.DistBackendError, match=still):
            work.wait(timedelta(milliseconds=50))
        dist.barrier()
        assert work.wait()  # the same one: nothing was lost by the first wait
        assert work.is_completed()
        assert work.is_success()
        assert bool((out == 1).all())
        small = torch.zeros(8)
        future = dist.irecv(small, 0, group=group, tag=1).get_future().then(lambda done: done.value()[0].sum())
        assert float(future.wait()) == 8.0


def test_wait_with_a_timeout_harms_nothing():
    run_ranks(2, waiting)


def aborting(rank: int, size: int) -> None:
    group = new_group(1, 1)
    backend = group._get_backend(torch.device("cpu"))
    if rank == 1:
        works = [backend.recv([torch.zeros(4)], 0, 3), backend.send([torch.zeros(400_000)], 0, 4)]
        for work in works:
            work.abort()
            assert not work.wait()
    dist.barrier()
    if rank == 0:
        dist.send(torch.ones(4), 1, group=group, tag=5)
    else:
        out = torch.zeros(4)
        dist.recv(out, 0, group=group, tag=5)
        assert bool((out == 1).all())


def test_an_aborted_work_leaves_the_group_well():
    run_ranks(2, aborting)


def mismatches(rank: int, size: int) -> list[str]:
    group = new_group(1, 1)
    said = []
    for ours, theirs in (
        (torch.zeros(10), torch.zeros(11)),
        (torch.zeros(200_000), torch.zeros(100_000)),
        (torch.zeros(10), torch.zeros(10, dtype=torch.int32)),
        (torch.zeros(400_000), torch.zeros(400_000, dtype=torch.int32)),
    ):
        work = dist.isend(ours, 1, group=group) if rank == 0 else dist.irecv(theirs, 0, group=group)
        with pytest.raises(InvalidArgument) as caught:
            work.wait(timedelta(seconds=20))
        said.append(str(caught.value))
    out = torch.full((3,), 1.0)
    if rank == 0:
        dist.send(out, 1, group=group)
    else:
        dist.recv(out, 0, group=group)
    return said


def test_sizes_or_types_that_differ_fail_on_both_sides():
    for said in run_ranks(2, mismatches):
        assert "40" in said[0]
        assert "44" in said[0]
        assert "800000" in said[1]
        assert "400000" in said[1]
        assert "Float" in said[2]
        assert "Int" in said[3]


def mistakes(rank: int, size: int) -> None:
    group = new_group(1, 1)
    backend = group._get_backend(torch.device("cpu"))
    one = torch.zeros(2)
    for call, part in (
        (lambda: backend.send([one], rank, 0), "is not another rank of this group of 2"),
        (lambda: backend.send([one], 2, 0), "destination rank 2"),
        (lambda: backend.recv([one], -3, 0), "source rank -3"),
        (lambda: backend.send([one], 1 - rank, -1), "tag -1 is negative"),
        (lambda: backend.send([one, one], 1 - rank, 0), "takes one tensor, not 2"),
        (lambda: backend.send([one.to_sparse()], 1 - rank, 0), "only strided"),
    ):
        with pytest.raises(InvalidArgument, match=part):
            call()


def test_mistakes_name_the_value():
    run_ranks(2, mistakes)
