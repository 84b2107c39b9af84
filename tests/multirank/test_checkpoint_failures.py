"""LazyCheckpointer over several ranks: what fails on one rank fails that checkpoint on all, and no other."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist

from hetsp_ext.errors import CheckpointError, CheckpointMutated, InvalidArgument
from tests.multirank.checkpoint_replicas import copied, manifest_of, replicated_model, step_replicated
from tests.python.checkpoint.training import Holder, checkpointer, same
from tests.support.ranks import run_ranks


def mutate_on_one_rank(rank: int, size: int, path: str) -> str:
    torch.manual_seed(0)
    model = torch.nn.Linear(1000, 4000)
    with checkpointer(path, model, debug=True) as lazy:
        lazy.save(0)
        lazy.wait()
        lazy.save(1)
        if rank == 1:
            model.weight.detach().numpy()[:] += 1
        try:
            lazy.wait()
        except CheckpointMutated as error:
            return str(error)
        finally:
            assert lazy.restore() == 0
            assert not lazy.stats.saves[0].error
    return "committed"


def test_a_mutation_on_one_rank_fails_the_checkpoint_on_all(tmp_path):
    told = run_ranks(3, mutate_on_one_rank, str(tmp_path))
    assert all("'model.weight' changed in place" in text for text in told)
    assert told[0].startswith("rank 1: ")


def refuse(rank: int, size: int, path: str) -> list[str]:
    holder = Holder(a=1)
    told = []
    with checkpointer(path, *replicated_model(), holder=holder) as lazy:
        if rank == 1:
            holder.state = {"a": {1, 2}}
        for _ in range(2):
            try:
                lazy.save(0)
            except InvalidArgument as error:
                told.append(str(error))
        holder.state = {"a": 2}
        lazy.save(1)
        lazy.wait()
        assert lazy.restore() == 1
    return told


def test_state_that_one_rank_cannot_save_is_refused_on_all_at_once(tmp_path):
    """At the first save, where the others wait for that rank to agree with them."""
    for rank, told in enumerate(run_ranks(3, refuse, str(tmp_path))):
        assert len(told) == 2
        assert all("state 'holder.a' is a builtins.set" in text for text in told)
        assert all(text.startswith("rank 1: ") == (rank != 1) for text in told)


def mutate_shard(rank: int, size: int, path: str, through_wrapper: bool) -> list[str | None]:
    from torch.distributed.tensor import Shard, distribute_tensor, init_device_mesh

    mesh = init_device_mesh("cpu", (size,))
    model = torch.nn.Module()
    model.w = torch.nn.Parameter(distribute_tensor(torch.zeros(4000, 1000), mesh, [Shard(0)]))
    told = []
    with checkpointer(path, model) as lazy:
        for number in range(2):
            lazy.save(number)
            if number == 1:
                with torch.no_grad():
                    (model.w if through_wrapper else model.w._local_tensor).add_(1)
            lazy._wait_all()
            told.append(lazy.stats.saves[-1].error)
        dist.barrier()
        want = lazy.restore()
        assert (want == 0) == (told[1] is not None)
        assert not model.w._local_tensor.any()
        with contextlib.suppress(CheckpointMutated):  # of step 1; this save has begun all the same
            lazy.save(2)
        lazy.wait()
    return told


@pytest.mark.parametrize("through_wrapper", [True, False], ids=["DTensor", "its shard"])
def test_the_guard_sees_shards(tmp_path, through_wrapper):
    """Refused, or too late to matter: in both cases the newest checkpoint holds the old values."""
    for told in run_ranks(2, mutate_shard, str(tmp_path), through_wrapper):
        assert told[0] is None
        assert told[1] is None or "'model.w' changed in place" in told[1]


def diverge(rank: int, size: int, path: str) -> list[Any]:
    """Replicas that were equal at the first save, and are no more: said once, then saved by each rank."""
    model, optimizer = replicated_model()
    step_replicated(model, optimizer, 0)
    told = []
    with checkpointer(path, model, optimizer) as lazy:
        for number in range(4):
            lazy.save(number)
            lazy._wait_all()
            dist.barrier()
            told.append(lazy.stats.saves[-1].error)
            if number == 0:
                step_replicated(model, optimizer, 1000 + rank)
        want = copied(dict(model.state_dict()))
        step_replicated(model, optimizer, 3)
        lazy.wait()
        assert lazy.restore() == 3
        assert same(dict(model.state_dict()), want)
    return told


def test_a_divergence_fails_loudly_and_heals(tmp_path):
    for told in run_ranks(2, diverge, str(tmp_path)):
        assert told[0] is None
        assert "ranks no longer hold the same values in 'model.0.bias', 'model.0.weight'" in told[1]
        assert told[3] is None


def die(rank: int, size: int, path: str, signal_file: str) -> Any:
    model, optimizer = replicated_model()
    step_replicated(model, optimizer, 0)
    lazy = checkpointer(path, model, optimizer, timeout=5)
    lazy.save(0)
    lazy.wait()
    dist.barrier()
    if rank == 1:
        os.kill(os.getpid(), signal.SIGKILL)
    lazy.save(1)
    step_replicated(model, optimizer, 1)  # training goes on
    begin = time.monotonic()
    try:
        lazy.wait()
    except CheckpointError as error:
        raise RuntimeError(f"{time.monotonic() - begin < 60}: {error}") from None
    return "committed"


def test_a_dead_rank_is_named_and_nothing_hangs(tmp_path):
    found = run_ranks(3, die, str(tmp_path), "", outcomes=True, timeout=120)
    assert found[1] is None
    assert "True: no vote for step 1 from rank 1 within 5 s" in str(found[0])
    assert "no vote for step 1 from rank 1" in str(found[2])
    model, optimizer = replicated_model(seed=4)
    with checkpointer(tmp_path, model, optimizer) as lazy:
        assert lazy.restore() == 0
        assert not list(tmp_path.glob(".part-*/rank-*"))


def one_rank_cannot_write(rank: int, size: int, path: str) -> Any:
    model, optimizer = replicated_model()
    errors = []
    with checkpointer(path, model, optimizer) as lazy:
        for number in range(3):
            if number == 1 and rank == 1:
                part = Path(path) / f".part-{lazy._uid(1)}"
                part.mkdir(exist_ok=True)
                (part / "rank-00001.safetensors").write_bytes(b"in the way")
            lazy.save(number)
            try:
                lazy.wait()
                errors.append(None)
            except (CheckpointError, OSError) as error:
                errors.append(f"{type(error).__name__}: {error}")
            dist.barrier()
    return errors


def test_an_io_error_of_one_rank_fails_that_checkpoint_on_all(tmp_path):
    found = run_ranks(3, one_rank_cannot_write, str(tmp_path))
    for errors in found:
        assert errors[0] is None
        assert errors[2] is None
        assert "File exists (EEXIST)" in errors[1]
        assert "rank-00001.safetensors" in errors[1]
    assert sorted(manifest_of(path)["step"] for path in tmp_path.glob("step-*")) == [0, 2]
    assert not list(tmp_path.glob(".part-*"))


def damaged(rank: int, size: int, path: str) -> Any:
    model, optimizer = replicated_model()
    with checkpointer(path, model, optimizer) as lazy:
        for number in range(2):
            step_replicated(model, optimizer, number)
            lazy.save(number)
            if number == 0:
                want = copied([dict(model.state_dict()), optimizer.state_dict()])
        lazy.wait()
        dist.barrier()
        if rank == 0:
            file = max(Path(path).glob("step-*")) / "rank-00001.safetensors"
            data = bytearray(file.read_bytes())
            data[-5000] ^= 4
            file.write_bytes(data)
        dist.barrier()
        assert lazy.restore() == 0
        got = copied([dict(model.state_dict()), optimizer.state_dict()])
        lazy.save(2)
        lazy.wait()
    return same(got, want)


def test_damage_in_one_ranks_file_makes_all_fall_back_together(tmp_path):
    assert run_ranks(3, damaged, str(tmp_path)) == [True] * 3


def give_up_in_silence(rank: int, size: int, path: str) -> str:
    from hetsp_ext.checkpoint import _commit

    def fail(self: Any, save: Any, level: Any, *_: Any) -> None:  # rank 0 cannot publish, and the disk takes no reason either
        level.directory.discard(save.uid)
        raise CheckpointError("the disk is gone")

    _commit.GIVEN_UP_SECONDS = 0.5
    _commit.Committer._publish = fail  # type: ignore[method-assign]
    _commit.Committer._announce_failure = lambda *_: None  # type: ignore[method-assign]
    with contextlib.suppress(CheckpointError), checkpointer(path, torch.nn.Linear(10, 10)) as lazy:
        lazy.save(0)
        try:
            lazy.wait()
        except CheckpointError as error:
            return str(error)
    return "committed"


def test_ranks_that_have_voted_do_not_wait_for_a_directory_that_is_gone(tmp_path):
    told = run_ranks(2, give_up_in_silence, str(tmp_path / "kept"), timeout=60.0)
    assert told[0] == "the disk is gone"
    assert told[1].endswith("is gone, and rank 0 could not say why")
