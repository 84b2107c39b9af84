"""torch.distributed.checkpoint over several ranks: any number saves, any other loads, and one that fails harms nothing."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
import torch.distributed.checkpoint as dcp
from safetensors import safe_open
from torch.distributed.checkpoint.metadata import ChunkStorageMetadata, MetadataIndex, TensorProperties
from torch.distributed.checkpoint.planner import TensorWriteData, WriteItem, WriteItemType
from torch.distributed.tensor import DeviceMesh, DTensor, Replicate, Shard, distribute_tensor

from hetsp_ext.checkpoint.dcp import HetspStorageReader, HetspStorageWriter
from hetsp_ext.checkpoint.store import list_checkpoints, verify_checkpoint
from hetsp_ext.errors import CheckpointCorrupt
from tests.support.ranks import run_ranks

pytestmark = pytest.mark.filterwarnings("ignore:torch.distributed is")

ROWS, COLUMNS = 37, 24


def whole(seed=0):
    return torch.randn(ROWS, COLUMNS, generator=torch.Generator().manual_seed(seed))


class UnevenShard(torch.Tensor):
    """Some rows of a tensor, as many as one likes: what DTensor cannot say, through the hooks that DCP has for it."""

    @staticmethod
    def __new__(cls, local, begin, shape):
        found = torch.Tensor._make_subclass(cls, local)
        found.begin, found.whole_shape = begin, torch.Size(shape)
        return found

    def _chunk(self):
        offsets = torch.Size([self.begin] + [0] * (self.dim() - 1))
        return ChunkStorageMetadata(offsets, torch.Size(self.shape))

    def size(self, *dims):
        return self.whole_shape if not dims else super().size(*dims)

    def __create_write_items__(self, fqn, object):
        chunk = self._chunk()
        data = TensorWriteData(chunk, TensorProperties(self.dtype), self.whole_shape)
        return [WriteItem(MetadataIndex(fqn, chunk.offsets), WriteItemType.SHARD, tensor_data=data)]

    def __create_chunk_list__(self):
        return [self._chunk()]

    def __get_tensor_shard__(self, index):
        return self.as_subclass(torch.Tensor)


def cuts_of(size, seed):
    """Rows at which `size` ranks cut, uneven and sometimes empty; the first rank is never empty, since empty boxes that begin
    where others do are dropped by torch's own planner."""
    draw = torch.Generator().manual_seed(seed * 100 + size)
    return [0, *sorted(torch.randint(1, ROWS + 1, (size - 1,), generator=draw).tolist()), ROWS]


def state(rank, size, seed, mesh):
    """Sharded evenly, unevenly and over columns, replicated by DTensor and by hand, and what is no tensor."""
    cuts = cuts_of(size, seed)
    return {
        "rows": distribute_tensor(whole(1), mesh, [Shard(0)]),
        "columns": distribute_tensor(whole(2), mesh, [Shard(1)]),
        "few": distribute_tensor(whole(3)[:2], mesh, [Shard(0)]),
        "copies": distribute_tensor(whole(4), mesh, [Replicate()]),
        "uneven": UnevenShard(whole(5)[cuts[rank] : cuts[rank + 1]].clone(), cuts[rank], (ROWS, COLUMNS)),
        "plain": whole(6),
        "step": 17,
    }


def local(value):
    if isinstance(value, DTensor):
        return value.to_local()
    return value.as_subclass(torch.Tensor) if isinstance(value, torch.Tensor) else value


def on_first(size, function, *arguments):
    """Calls function(rank, size, mesh, group, ...) on the first `size` ranks of those that run."""
    mesh, group = DeviceMesh("cpu", list(range(size))), dist.new_group(list(range(size)))
    result = function(dist.get_rank(), size, mesh, group, *arguments) if dist.get_rank() < size else None
    dist.barrier()
    return result


def save(rank, size, mesh, group, path, seed, asynchronous=False):
    writer = HetspStorageWriter(path, ring_bytes=8 << 20, small_bytes=0)
    held = state(rank, size, seed, mesh)
    if asynchronous:
        dcp.async_save(held, storage_writer=writer, process_group=group).upload_completion.result(60)
    else:
        dcp.save(held, storage_writer=writer, process_group=group)
    writer.close()


def load(rank, size, mesh, group, path, seed):
    want = state(rank, size, seed, mesh)
    found = state(rank, size, seed, mesh)
    for value in found.values():
        if isinstance(value, torch.Tensor):
            local(value).fill_(-1)
    found["step"] = 0
    dcp.load(found, storage_reader=HetspStorageReader(path), process_group=group)
    for name, value in want.items():
        if isinstance(value, torch.Tensor):
            assert torch.equal(local(found[name]), local(value)), f"{name} on rank {rank} of {size}"
    assert found["step"] == 17


def save_and_load(rank, size, folder, cases):
    for savers, loaders, seed, asynchronous in cases:
        path = folder / f"{savers}-{loaders}-{seed}"
        on_first(savers, save, path, seed, asynchronous)
        on_first(loaders, load, path, seed + 50)


CASES = [(1, 3, 0, False), (3, 2, 1, True), (4, 1, 2, False), (2, 4, 3, True), (3, 3, 4, False)]


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """Checkpoints of several numbers of ranks, each loaded by another number; loading has compared every element."""
    folder = tmp_path_factory.mktemp("dcp")
    run_ranks(4, save_and_load, folder, CASES)
    return folder


@pytest.mark.parametrize(("savers", "loaders", "seed", "asynchronous"), CASES, ids=str)
def test_any_number_of_ranks_loads_what_any_other_saved(saved, savers, loaders, seed, asynchronous):
    path = saved / f"{savers}-{loaders}-{seed}"
    assert sorted(os.listdir(path)) == ["manifest.json", *(f"rank-{rank:05d}.safetensors" for rank in range(savers))]
    assert verify_checkpoint(path) == []
    (info,) = list_checkpoints(path)
    assert info.world == savers
    assert sorted(os.listdir(saved)) == sorted(f"{a}-{b}-{seed}" for a, b, seed, _ in CASES), "nothing is left beside them"


def test_replicated_tensors_are_written_once(saved):
    written = sum(file.stat().st_size for file in (saved / "4-1-2").glob("rank-*"))
    tensors = 5 * ROWS * COLUMNS * 4 + 2 * COLUMNS * 4
    pickled, headers = 4096, 4 * 4096
    assert tensors < written < tensors + pickled + headers


def test_every_file_is_safetensors_and_torchs_own_reader_reshards_them(saved):
    path, cuts = saved / "3-3-4", cuts_of(3, 4)
    for rank in range(3):
        with safe_open(path / f"rank-{rank:05d}.safetensors", "pt") as file:
            assert torch.equal(file.get_tensor("uneven"), whole(5)[cuts[rank] : cuts[rank + 1]])
    found = {name: torch.zeros(ROWS, COLUMNS) for name in ("rows", "columns", "copies", "uneven", "plain")}
    dcp.load(found, storage_reader=dcp.HuggingFaceStorageReader(str(path)), no_dist=True)
    for seed, name in ((1, "rows"), (2, "columns"), (4, "copies"), (5, "uneven"), (6, "plain")):
        assert torch.equal(found[name], whole(seed)), name


def save_once(rank, size, path, seed):
    on_first(size, save, path, seed)


def load_once(rank, size, path, seed):
    on_first(size, load, path, seed)


def save_with_a_failure(rank, size, mesh, group, path, failing, how):
    writer = HetspStorageWriter(path, ring_bytes=8 << 20)

    def broken(*_):
        if how == "dies":
            os.kill(os.getpid(), signal.SIGKILL)
        raise OSError(28, "No space left on device")

    if rank == failing:
        writer._write = broken
    try:
        dcp.save({"rows": distribute_tensor(whole(9), mesh, [Shard(0)])}, storage_writer=writer, process_group=group)
    except dcp.CheckpointException as error:
        return sorted(error.failures)
    finally:
        writer.close()
    return None


def failures_one_by_one(rank, size, path):
    named = []
    on_first(size, save, path, 0)
    before = {file: (path / file).read_bytes() for file in os.listdir(path)}
    for failing in range(size):
        named.append(on_first(size, save_with_a_failure, path, failing, "raises"))
        assert {file: (path / file).read_bytes() for file in os.listdir(path)} == before
        assert os.listdir(path.parent) == ["c"]
    on_first(size, save, path, 1)
    on_first(size, load, path, 1)
    return named


def test_a_rank_that_fails_is_named_and_the_old_checkpoint_stays(tmp_path):
    assert run_ranks(3, failures_one_by_one, tmp_path / "c") == [[[0], [1], [2]]] * 3


def die_in_a_save(rank, size, path, failing):
    on_first(size, save_with_a_failure, path, failing, "dies")


@pytest.mark.parametrize("failing", [0, 1])
def test_a_rank_that_dies_leaves_the_old_checkpoint_and_the_next_save_cleans_up(tmp_path, failing):
    path = tmp_path / "c"
    run_ranks(2, save_once, path, 0)
    run_ranks(2, die_in_a_save, path, failing, outcomes=True)
    assert verify_checkpoint(path) == []
    run_ranks(2, load_once, path, 0)
    run_ranks(2, save_once, path, 1)
    assert os.listdir(tmp_path) == ["c"]
    run_ranks(3, load_once, path, 1)


def load_damaged(rank, size, mesh, group, path):
    found = {"rows": distribute_tensor(torch.zeros(ROWS, COLUMNS), mesh, [Shard(0)])}
    try:
        dcp.load(found, storage_reader=HetspStorageReader(path), process_group=group)
    except dcp.CheckpointException as error:
        kinds = {rank: type(failure[0]) for rank, failure in error.failures.items()}
        return kinds, bool(found["rows"].to_local().any())
    return None


def save_damage_load(rank, size, path):
    on_first(size, save, path, 0)
    if rank == 0:
        file = Path(path / "rank-00001.safetensors")
        data = bytearray(file.read_bytes())
        with safe_open(file, "pt") as opened:
            rows = opened.get_tensor("rows").numpy().tobytes()
        data[data.index(rows) + 5] ^= 1
        file.write_bytes(data)
    dist.barrier()
    return on_first(size, load_damaged, path)


def test_damage_is_told_to_all_ranks_by_the_one_that_reads_it(tmp_path):
    (kinds, _), (kinds_too, changed) = run_ranks(2, save_damage_load, tmp_path / "c")
    assert kinds == kinds_too == {1: CheckpointCorrupt}
    assert not changed, "the rank that read the damage is as it was"


def load_from_own_folder(rank, size, folder):
    reader = HetspStorageReader(folder / str(rank))
    try:
        dcp.load({"w": torch.zeros(4)}, storage_reader=reader)
    except dcp.CheckpointException as error:
        return str(error)
    return ""


def test_ranks_that_see_different_checkpoints_do_not_load_a_mixture(tmp_path):
    for rank in (0, 1):
        writer = HetspStorageWriter(tmp_path / str(rank), ring_bytes=8 << 20)
        dcp.save({"w": torch.full((4,), float(rank))}, storage_writer=writer, no_dist=True)
        writer.close()
    for text in run_ranks(2, load_from_own_folder, tmp_path):
        assert "rank 1 sees checkpoint" in text
