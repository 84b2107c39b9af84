"""LazyCheckpointer over several ranks: replicated state once, shards as boxes, other numbers of ranks."""

from __future__ import annotations

import random
from typing import Any

import pytest
import torch
import torch.distributed as dist

from hetsp_ext.errors import CheckpointBusy, InvalidArgument
from tests.multirank.checkpoint_replicas import copied, manifest_of, replicated_model, step_replicated
from tests.python.checkpoint.training import Holder, Training, checkpointer, same
from tests.support.ranks import run_ranks

WIDTH = 600  # of matrices that are cut over the ranks, and so large that headers count little


def save_replicated(rank: int, size: int, path: str, saves: int, first_step: bool) -> Any:
    model, optimizer = replicated_model(width=WIDTH)
    if first_step:
        step_replicated(model, optimizer, 0)
    with checkpointer(path, model, optimizer, loader=Holder(rank=rank)) as lazy:
        for number in range(saves):
            lazy.save(number)
            state = copied([dict(model.state_dict()), optimizer.state_dict()])
            step_replicated(model, optimizer, number + 1)
        lazy.wait()
    return state


@pytest.mark.parametrize("first_step", [True, False], ids=["moments", "moments appear later"])
def test_replicated_state_is_written_once_spread_over_four_ranks(tmp_path, first_step):
    states = run_ranks(4, save_replicated, str(tmp_path), 2, first_step)
    newest = max(tmp_path.glob("step-*"))
    sizes = [file.stat().st_size for file in sorted(newest.glob("rank-*"))]
    state = 3 * sum(p.numel() * 4 for p in replicated_model(width=WIDTH)[0].parameters())
    assert len(sizes) == 4
    assert sum(sizes) <= 1.02 * state
    assert max(sizes) - min(sizes) <= 0.05 * state
    model, optimizer = replicated_model(seed=7, width=WIDTH)
    with checkpointer(tmp_path, model, optimizer, loader=Holder()) as lazy:
        assert lazy.restore() == 1
    assert same(dict(model.state_dict()), states[0][0])
    assert same(optimizer.state_dict(), states[0][1])


def restore_replicated(rank: int, size: int, path: str) -> Any:
    model, optimizer = replicated_model(seed=rank + 5, width=WIDTH)
    loader = Holder()
    with checkpointer(path, model, optimizer, loader=loader) as lazy:
        step = lazy.restore()
        state = copied([dict(model.state_dict()), optimizer.state_dict()])
        lazy.save(step + 1)
        lazy.wait()
    return step, state, loader.state


@pytest.mark.parametrize("sizes", [(1, 3), (3, 2), (2, 4)])
def test_restore_on_another_number_of_ranks(tmp_path, sizes):
    before, after = sizes
    states = run_ranks(before, save_replicated, str(tmp_path), 1, True)
    found = run_ranks(after, restore_replicated, str(tmp_path))
    for rank, (step, state, loader) in enumerate(found):
        assert step == 0
        assert same(state, states[0])
        assert loader == {"rank": rank % before}
    assert sorted(manifest_of(path)["world"] for path in tmp_path.glob("step-*")) == sorted(sizes)


def save_own(rank: int, size: int, path: str) -> Any:
    """Tensors that differ between the ranks under one name, small and large, and generators."""
    torch.manual_seed(100 + rank)
    model = torch.nn.Linear(200, 400)  # 320 kB, and another one on each rank
    batch_norm = torch.nn.BatchNorm1d(5)
    batch_norm(torch.randn(4, 5))
    holder = Holder(position=torch.tensor([rank, 7]), equal=torch.tensor([3, 4]), number=rank * 10)
    with checkpointer(path, model, model2=batch_norm, holder=holder) as lazy:
        lazy.save(0)
        state = copied([dict(model.state_dict()), dict(batch_norm.state_dict()), holder.state])
        drawn = torch.rand(3)
        with torch.no_grad():
            lazy.wait()
            for parameter in [*model.parameters(), *batch_norm.parameters()]:
                parameter.zero_()
        lazy.restore()
        assert torch.equal(torch.rand(3), drawn)
        return state, copied([dict(model.state_dict()), dict(batch_norm.state_dict()), holder.state])


def test_what_differs_between_ranks_is_each_ranks_own(tmp_path):
    for before, after in run_ranks(3, save_own, str(tmp_path)):
        assert same(before, after)
    (step,) = tmp_path.glob("step-*")
    names = set(manifest_of(step)["tensors"])
    assert {"model.weight@0", "model.weight@1", "model.weight@2", "holder.position@1", "rng.torch@2"} <= names
    assert {"holder.equal", "model2.weight"} <= names  # equal ones are listed once
    assert not {"holder.equal@0", "model2.weight@0", "holder.position"} & names


def fsdp(rank: int, size: int, seed: int, replicate: int) -> tuple[Any, Any]:
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    shape = (replicate, size // replicate) if replicate > 1 else (size,)
    names = ("replicate", "shard") if replicate > 1 else ("shard",)
    mesh = init_device_mesh("cpu", shape, mesh_dim_names=names)
    torch.manual_seed(seed)
    model = torch.nn.Sequential(
        torch.nn.Linear(8, 7), torch.nn.Linear(7, 1), torch.nn.Linear(1, 300), torch.nn.Linear(300, 500)
    )
    for layer in model:
        fully_shard(layer, mesh=mesh)
    fully_shard(model, mesh=mesh)
    return model, torch.optim.AdamW(model.parameters(), lr=1e-2)


def full(state: Any) -> Any:
    """Whole tensors in place of DTensors."""
    from torch.distributed.tensor import DTensor

    if isinstance(state, DTensor):
        return state.full_tensor().detach().clone()
    if isinstance(state, torch.Tensor):
        return state.detach().clone()
    if isinstance(state, dict):
        return {key: full(value) for key, value in state.items()}
    return [full(item) for item in state] if isinstance(state, list) else state


def train_fsdp(model: Any, optimizer: Any, seed: int) -> float:
    optimizer.zero_grad()
    loss = model(torch.randn(4, 8, generator=torch.Generator().manual_seed(seed))).square().mean()
    loss.backward()
    optimizer.step()
    return loss.item()


def save_fsdp(rank: int, size: int, path: str, replicate: int) -> Any:
    model, optimizer = fsdp(rank, size, 0, replicate)
    with checkpointer(path, model, optimizer) as lazy:
        for number in range(3):
            train_fsdp(model, optimizer, number)
            lazy.save(number)
            state = full([dict(model.state_dict()), optimizer.state_dict()])
        losses = [train_fsdp(model, optimizer, number) for number in range(3, 5)]
        lazy.wait()
        assert not lazy.stats.failed
    return state, losses


def restore_fsdp(rank: int, size: int, path: str, replicate: int) -> Any:
    model, optimizer = fsdp(rank, size, 9, replicate)
    with checkpointer(path, model, optimizer) as lazy:
        assert lazy.restore() == 2
        state = full([dict(model.state_dict()), optimizer.state_dict()])
        return state, [train_fsdp(model, optimizer, number) for number in range(3, 5)]


@pytest.mark.parametrize(
    ("saved", "restored"), [((4, 1), (4, 1)), ((3, 1), (2, 1)), ((2, 1), (3, 1)), ((4, 2), (3, 1)), ((2, 1), (4, 2))]
)
def test_fsdp_shards_and_hybrid_replicas_reshard(tmp_path, saved, restored):
    """Uneven and empty shards included: (ranks, replicas) of the saving job and of the one that restores."""
    before = run_ranks(saved[0], save_fsdp, str(tmp_path), saved[1])
    after = run_ranks(restored[0], restore_fsdp, str(tmp_path), restored[1])
    for state, losses in after:
        assert same(state, before[0][0])
        if saved == restored:
            assert losses == before[0][1]
    newest = max(tmp_path.glob("step-*"))
    total = sum(file.stat().st_size for file in newest.glob("rank-*"))
    elements = sum(tensor.numel() for tensor in before[0][0][0].values())
    assert total <= 1.02 * 12 * elements + saved[0] * 20480  # parameter and two moments, each once


def placed(rank: int, size: int, path: str, placements: list[str], restores: bool) -> None:
    from torch.distributed.tensor import Replicate, Shard, distribute_tensor, init_device_mesh

    mesh = init_device_mesh("cpu", (size,))
    where = {"rows": [Shard(0)], "columns": [Shard(1)], "replicated": [Replicate()], "last": [Shard(2)]}
    shapes = {"a": (7, 5, 3), "b": (300, 4, 200), "c": (1, 6, 2), "d": (0, 4, 4)}
    model = torch.nn.Module()
    values = {}
    for (name, shape), placement in zip(shapes.items(), placements, strict=True):
        values[name] = torch.arange(torch.Size(shape).numel(), dtype=torch.float32).view(shape)
        start = torch.zeros(shape) if restores else values[name]
        setattr(model, name, torch.nn.Parameter(distribute_tensor(start, mesh, where[placement])))
    with checkpointer(path, model) as lazy:
        if restores:
            assert lazy.restore() == 0
            for name, value in values.items():
                assert torch.equal(getattr(model, name).full_tensor(), value)
        else:
            lazy.save(0)


@pytest.mark.parametrize("seed", range(3))
def test_any_placement_is_restored_into_any_other(tmp_path, seed):
    draw = random.Random(seed)
    for ranks, restores in ((draw.randint(1, 4), False), (draw.randint(1, 4), True)):
        placements = [draw.choice(["rows", "columns", "replicated", "last"]) for _ in range(4)]
        run_ranks(ranks, placed, str(tmp_path), placements, restores)


def part_of_the_ranks(rank: int, size: int, path: str) -> Any:
    group = dist.new_group([0, 2])
    model, optimizer = replicated_model()
    if rank == 1:
        with pytest.raises(InvalidArgument, match=r"rank 1 is not in process_group, which has ranks \[0, 2\]"):
            checkpointer(path, model, optimizer, process_group=group)
        return None
    with checkpointer(path, model, optimizer, process_group=group) as lazy:
        lazy.save(0)
        lazy.wait()
        return lazy.restore()


def test_a_process_group_that_is_not_all(tmp_path):
    assert run_ranks(3, part_of_the_ranks, str(tmp_path)) == [0, None, 0]
    (step,) = tmp_path.glob("step-*")
    assert manifest_of(step)["world"] == 2


def busy(rank: int, size: int, path: str) -> Any:
    checkpointer(path, *replicated_model())


def test_a_directory_that_is_taken_is_refused_on_every_rank(tmp_path):
    with checkpointer(tmp_path, Holder(a=1)):
        found = run_ranks(2, busy, str(tmp_path), outcomes=True)
    assert [type(error) for error in found] == [CheckpointBusy, CheckpointBusy]


def whole_training(rank: int, size: int, path: str, staging: str) -> Any:
    training = Training(width=2000)
    with checkpointer(path, staging_path=staging, **training.objects) as lazy:
        for number in range(4):
            training.step()
            lazy.save(number)
        lazy.wait()
        assert not lazy.stats.failed
        return training.state()


def test_staging_over_ranks(tmp_path):
    states = run_ranks(2, whole_training, str(tmp_path / "slow"), str(tmp_path / "fast"))
    for level in ("slow", "fast"):
        assert len(list((tmp_path / level).glob("step-*"))) == 2
        training = Training(width=2000, seed=3)
        with checkpointer(tmp_path / level, **training.objects) as lazy:
            assert lazy.restore() == 3
        assert same(training.state(), states[0])


def data_parallel(rank: int, size: int, path: str) -> list[float]:
    torch.manual_seed(3)
    model = torch.nn.Sequential(torch.nn.Linear(8, 300), torch.nn.BatchNorm1d(300), torch.nn.Linear(300, 300))
    wrapped = torch.nn.parallel.DistributedDataParallel(model)
    optimizer = torch.optim.AdamW(wrapped.parameters(), lr=1e-2)

    def step(number: int) -> float:
        draw = torch.Generator().manual_seed(number * size + rank)
        optimizer.zero_grad()
        loss = wrapped(torch.randn(5, 8, generator=draw)).square().mean()
        loss.backward()
        optimizer.step()
        return loss.item()

    with checkpointer(path, wrapped, optimizer) as lazy:
        for number in range(3):
            step(number)
            lazy.save(number)
        losses = [step(number) for number in range(3, 6)]
        lazy.wait()
        assert not lazy.stats.failed
        assert lazy.restore() == 2
        assert [step(number) for number in range(3, 6)] == losses
        return losses


def test_data_parallel_training_goes_on_bit_identically(tmp_path):
    """Batch statistics differ between its ranks, parameters do not: each is saved as what it is."""
    run_ranks(3, data_parallel, str(tmp_path))
    names = manifest_of(max(tmp_path.glob("step-*")))["tensors"]
    assert "model.module.0.weight" in names
    assert {f"model.module.1.running_mean@{rank}" for rank in range(3)} <= names.keys()
