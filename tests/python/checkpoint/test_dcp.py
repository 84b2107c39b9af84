"""torch.distributed.checkpoint through our writer and reader, one process; several ranks are in tests/multirank."""

import dataclasses
import os

import pytest
import torch
import torch.distributed.checkpoint as dcp
from safetensors import safe_open
from torch.distributed.checkpoint import CheckpointException
from torch.distributed.checkpoint.metadata import Metadata
from torch.futures import Future

from hetsp_ext import LazyCheckpointer
from hetsp_ext.checkpoint import _saving
from hetsp_ext.checkpoint.dcp import HetspStorageReader, HetspStorageWriter
from hetsp_ext.checkpoint.store import list_checkpoints, verify_checkpoint
from hetsp_ext.errors import CheckpointBusy, CheckpointCorrupt, CheckpointError, InvalidArgument
from tests.support.checkpoints import write_checkpoint

pytestmark = pytest.mark.filterwarnings("ignore:torch.distributed is")


def state(seed=0):
    draw = torch.Generator().manual_seed(seed)

    def random(*shape, dtype=torch.float32):
        return torch.randn(*shape, generator=draw).to(dtype)

    return {
        "model": {
            "w": random(300, 70),
            "t": random(40, 30).t(),
            "strided": random(40, 6)[:, ::2],
            "empty": random(0, 3),
            "scalar": random(()),
            "half": random(9, dtype=torch.bfloat16),
            "flag": random(9) > 0,
        },
        "optim": {"state": [{"m": random(300, 70), "step": torch.tensor(3.0)}], "lr": 0.1, "betas": (0.9, 0.95)},
        "epoch": 5 + seed,
        "name": "run",
    }


def zeros(value):
    if isinstance(value, torch.Tensor):
        return torch.zeros_like(value)
    if isinstance(value, dict):
        return {key: zeros(item) for key, item in value.items()}
    return type(value)(zeros(item) for item in value) if isinstance(value, list | tuple) else type(value)()


def assert_equal(found, want, where=""):
    if isinstance(want, torch.Tensor):
        assert found.dtype == want.dtype
        assert torch.equal(found, want), where
    elif isinstance(want, dict | list | tuple):
        assert len(found) == len(want), where
        for key in want if isinstance(want, dict) else range(len(want)):
            assert_equal(found[key], want[key], f"{where}.{key}")
    else:
        assert found == want, where


@pytest.fixture
def writer(tmp_path):
    writer = HetspStorageWriter(tmp_path / "c", ring_bytes=8 << 20)
    yield writer
    writer.close()


def load(path, like):
    found = zeros(like)
    dcp.load(found, storage_reader=HetspStorageReader(path))
    return found


def test_what_is_saved_is_loaded(writer, tmp_path):
    saved = state()
    dcp.save(saved, storage_writer=writer)
    assert_equal(load(tmp_path / "c", saved), saved)
    assert verify_checkpoint(tmp_path / "c") == []
    assert sorted(os.listdir(tmp_path)) == ["c"], "nothing is left beside it"
    assert sorted(os.listdir(tmp_path / "c")) == ["manifest.json", "rank-00000.safetensors"]


def test_an_empty_state(writer, tmp_path):
    dcp.save({}, storage_writer=writer)
    assert load(tmp_path / "c", {}) == {}
    assert verify_checkpoint(tmp_path / "c") == []


def test_checkpoint_id_names_the_path_and_tells_the_step(writer, tmp_path):
    for step in (10, 200):
        dcp.save(state(step), storage_writer=writer, checkpoint_id=tmp_path / f"step-{step}")
    for step in (10, 200):
        assert_equal(load(tmp_path / f"step-{step}", state()), state(step))
        (info,) = list_checkpoints(tmp_path / f"step-{step}")
        assert info.step == step


def test_of_several_paths_in_one_directory_the_last_saved_is_the_newest(writer, tmp_path):
    """Steps 100, 200, and after a fallback 150 and 200 again: the reader of the directory takes what was saved last."""
    for sequence, step in enumerate((100, 200, 150, 200, 90), start=1):
        dcp.save(state(sequence), storage_writer=writer, checkpoint_id=tmp_path / f"step-{step}")
        dcp.save(state(0), storage_writer=writer, checkpoint_id=tmp_path / "other")
        assert_equal(load(tmp_path, state()), state(sequence))
        newest = list_checkpoints(tmp_path)[0]
        assert (newest.step, newest.sequence) == (step, sequence)


def test_a_path_used_again_holds_the_new_one(writer, tmp_path):
    for seed in range(4):
        dcp.save(state(seed), storage_writer=writer)
        assert_equal(load(tmp_path / "c", state()), state(seed))
        (info,) = list_checkpoints(tmp_path / "c")
        assert info.sequence == seed + 1
    assert os.listdir(tmp_path) == ["c"]


def test_the_file_is_safetensors(writer, tmp_path):
    saved = state()
    dcp.save(saved, storage_writer=writer)
    with safe_open(tmp_path / "c/rank-00000.safetensors", "pt") as file:
        assert torch.equal(file.get_tensor("model.w"), saved["model"]["w"])
        assert torch.equal(file.get_tensor("model.t"), saved["model"]["t"])
        assert file.get_slice("model.empty").get_shape() == [0, 3]


def test_torchs_hugging_face_reader_reads_it(writer, tmp_path):
    saved = {name: tensor for name, tensor in state()["model"].items() if name != "flag"}
    dcp.save(saved, storage_writer=writer)
    found = zeros(saved)
    dcp.load(found, storage_reader=dcp.HuggingFaceStorageReader(str(tmp_path / "c")))
    assert_equal(found, saved)


def test_loads_what_others_committed_and_converts_dtypes(tmp_path):
    whole = torch.arange(60.0).reshape(20, 3)
    write_checkpoint(tmp_path / "step-1-aa", {"w": whole}, world=3, cuts={"w": [1, 9]}, sequence=1)
    write_checkpoint(tmp_path / "step-1-bb", {"w": whole + 1}, world=2, cuts={"w": [0]}, sequence=2)
    found = {"w": torch.zeros(20, 3, dtype=torch.float64)}
    dcp.load(found, storage_reader=HetspStorageReader(tmp_path))
    assert torch.equal(found["w"], whole.double() + 1)


def test_what_a_lazy_checkpointer_committed_is_loaded_by_our_reader_and_by_torchs(tmp_path):
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(30, 20), torch.nn.BatchNorm1d(20))
    with LazyCheckpointer(tmp_path, model=model, ring_bytes=8 << 20) as checkpointer:
        checkpointer.save(4)
        checkpointer.wait()
    (step,) = tmp_path.glob("step-*")
    want = {f"model.{name}": tensor for name, tensor in model.state_dict().items() if tensor.dim()}
    for reader in (HetspStorageReader(tmp_path), HetspStorageReader(step), dcp.HuggingFaceStorageReader(str(step))):
        found = {name: torch.zeros_like(tensor) for name, tensor in want.items()}
        dcp.load(found, storage_reader=reader)
        assert_equal(found, want)


def test_the_state_is_built_from_the_checkpoint_alone(writer, tmp_path):
    from torch.distributed.checkpoint.state_dict_loader import _load_state_dict_from_keys

    dcp.save(state(), storage_writer=writer)
    found = _load_state_dict_from_keys(storage_reader=HetspStorageReader(tmp_path / "c"))
    assert_equal(found, state())


def damage(file):
    data = bytearray(file.read_bytes())
    data[-1] ^= 1
    file.write_bytes(data)


def test_a_flipped_bit_is_named_and_leaves_tensors_as_they_were(writer, tmp_path):
    """The first tensor takes several extents, which are whole and in place when the last one turns out not to be."""
    saved = {"a": torch.ones(3_000_000), "z": torch.ones(5)}
    dcp.save(saved, storage_writer=writer)
    damage(tmp_path / "c/rank-00000.safetensors")
    found = zeros(saved)
    with pytest.raises(CheckpointException) as raised:
        dcp.load(found, storage_reader=HetspStorageReader(tmp_path / "c"))
    error, _ = raised.value.failures[0]
    assert isinstance(error, CheckpointCorrupt)
    assert "rank-00000.safetensors bytes" in str(error)
    assert "(z)" in str(error)
    assert "have changed" not in str(error)
    assert_equal(found, zeros(saved))


def test_a_directory_of_damaged_checkpoints_is_refused_with_their_faults(tmp_path):
    for step in (1, 2):
        (tmp_path / f"step-{step}").mkdir()
        (tmp_path / f"step-{step}/manifest.json").write_bytes(b"{}")
    with pytest.raises(CheckpointException, match=r"step-1/manifest\.json.*step-2/manifest\.json"):
        dcp.load({"w": torch.zeros(1)}, storage_reader=HetspStorageReader(tmp_path))


def test_a_planner_whose_tensor_has_another_size_is_refused(writer, tmp_path):
    class Planner(dcp.DefaultLoadPlanner):
        def transform_tensor(self, read_item, tensor):
            return tensor[:2]

    dcp.save({"w": torch.ones(4)}, storage_writer=writer)
    with pytest.raises(CheckpointException, match=r"'w': the planner has \[2\] for \[4\] stored"):
        dcp.load({"w": torch.zeros(4)}, storage_reader=HetspStorageReader(tmp_path / "c"), planner=Planner())


@pytest.mark.parametrize("content", [None, b"{}"], ids=["absent", "damaged"])
def test_a_path_without_a_sound_manifest_is_refused(tmp_path, content):
    if content is not None:
        (tmp_path / "c").mkdir()
        (tmp_path / "c/manifest.json").write_bytes(content)
    with pytest.raises(CheckpointException, match=r"holds no checkpoint|manifest\.json"):
        dcp.load({"w": torch.zeros(1)}, storage_reader=HetspStorageReader(tmp_path / "c"))


@pytest.mark.parametrize("where", ["file", "folder", "strangers"])
def test_what_no_save_put_there_is_not_overwritten(writer, tmp_path, where):
    path = tmp_path / "c"
    if where == "file":
        path.write_text("precious")
    elif where == "folder":
        path.mkdir()
        (path / "thesis.tex").write_text("precious")
    else:
        dcp.save(state(), storage_writer=writer)
        (path / "tokenizer.json").write_text("precious")
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(CheckpointException, match=r"no checkpoint of this library|holds tokenizer\.json"):
        dcp.save(state(1), storage_writer=writer)
    assert sorted(tmp_path.rglob("*")) == before


def test_an_empty_directory_is_used(writer, tmp_path):
    (tmp_path / "c").mkdir()
    dcp.save(state(), storage_writer=writer)
    assert_equal(load(tmp_path / "c", state()), state())


def test_a_link_is_followed_and_stays_one(tmp_path):
    (tmp_path / "disk").mkdir()
    (tmp_path / "last").symlink_to("disk/c")
    writer = HetspStorageWriter(tmp_path / "last", ring_bytes=8 << 20)
    for seed in range(2):
        dcp.save(state(seed), storage_writer=writer)
        assert_equal(load(tmp_path / "last", state()), state(seed))
    writer.close()
    assert (tmp_path / "last").is_symlink()
    assert os.listdir(tmp_path / "disk") == ["c"]


def test_parents_are_made(tmp_path):
    writer = HetspStorageWriter(tmp_path / "a/b/c", ring_bytes=8 << 20)
    dcp.save(state(), storage_writer=writer)
    writer.close()
    assert_equal(load(tmp_path / "a/b/c", state()), state())


class Unwritable:
    def __reduce__(self):
        raise ValueError("not me")


@pytest.mark.parametrize(
    ("extra", "words"),
    [({"odd": torch.zeros(2, dtype=torch.complex128)}, "complex128"), ({"odd": Unwritable()}, "not me")],
    ids=["dtype", "object"],
)
def test_a_save_that_fails_leaves_the_old_one_and_no_remains(writer, tmp_path, extra, words):
    dcp.save(state(), storage_writer=writer)
    with pytest.raises(CheckpointException, match=words):
        dcp.save(state(1) | extra, storage_writer=writer)
    assert_equal(load(tmp_path / "c", state()), state())
    writer.close()
    assert os.listdir(tmp_path) == ["c"]


@pytest.mark.parametrize(
    ("planner_data", "words"),
    [([1, 2], "planner_data is a list"), ({"a": [1]}, r"planner_data\['a'\] is \[1\]"), ({"a": (1.5,)}, "allowed: a tuple")],
)
def test_planner_data_that_json_cannot_hold_are_refused_before_anything_is_written(writer, tmp_path, planner_data, words):
    class Planner(dcp.DefaultSavePlanner):
        def create_local_plan(self):
            return dataclasses.replace(super().create_local_plan(), planner_data=planner_data)

    with pytest.raises(CheckpointException, match=words):
        dcp.save(state(), storage_writer=writer, planner=Planner(flatten_state_dict=False))
    assert os.listdir(tmp_path) == []


def test_saving_without_collectives_is_refused(writer):
    with pytest.raises(InvalidArgument, match="use_collectives=False"):
        dcp.save(state(), storage_writer=writer, use_collectives=False)


def test_finish_needs_a_save_under_way(writer):
    with pytest.raises(CheckpointError, match="without a save under way"):
        writer.finish(Metadata({}), [])


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda written: dataclasses.replace(written, uid="0" * 16), "wrote for the save 0000000000000000"),
        (lambda written: dataclasses.replace(written, checksum="crc32c"), "ranks hash with crc32c and"),
        (lambda written: dataclasses.replace(written, sizes=(3,)), "'w' was not written as a whole: the boxes hold 3 of 4"),
    ],
)
def test_what_ranks_tell_must_fit_together(tmp_path, change, words):
    """As of a rank that read the uid of an earlier save, was built without xxHash, or wrote less than it said."""

    class Writer(HetspStorageWriter):
        def write_data(self, plan, planner):
            (result,) = super().write_data(plan, planner).value()
            future = Future()
            future.set_result([dataclasses.replace(result, storage_data=change(result.storage_data))])
            return future

    writer = Writer(tmp_path / "c", ring_bytes=8 << 20)
    if writer._open_engine().checksum == "crc32c" and "hash" in words:
        pytest.skip("this build hashes with crc32c alone")
    with pytest.raises(CheckpointException, match=words):
        dcp.save({"w": torch.ones(4)}, storage_writer=writer)
    assert os.listdir(tmp_path) == []


def test_ranks_that_see_no_save_of_the_first_rank_say_so(tmp_path, monkeypatch):
    monkeypatch.setattr(_saving, "APPEARS_SECONDS", 0.05)
    with pytest.raises(CheckpointError, match=r"\.saving-c is not here after 0 s; all ranks must see one disk"):
        _saving.uid_of_saving(tmp_path / "c")


def test_a_second_writer_of_one_path_is_told(writer, tmp_path):
    writer.set_up_storage_writer(True, rank=0)
    writer.prepare_global_plan([])
    other = HetspStorageWriter(tmp_path / "c")
    with pytest.raises(CheckpointException) as raised:
        dcp.save(state(), storage_writer=other)
    assert isinstance(raised.value.failures[0][0], CheckpointBusy)
    writer.close()
    dcp.save(state(), storage_writer=other)
    assert_equal(load(tmp_path / "c", state()), state())


def test_what_a_dead_writer_left_is_removed_by_the_next_save_to_the_path(tmp_path):
    pid = os.fork()
    if pid == 0:
        writer = HetspStorageWriter(tmp_path / "c")
        writer.set_up_storage_writer(True, rank=0)
        writer.prepare_global_plan([])
        os._exit(0)
    os.waitpid(pid, 0)
    assert len(os.listdir(tmp_path)) == 2
    writer = HetspStorageWriter(tmp_path / "c")
    dcp.save(state(), storage_writer=writer)
    writer.close()
    assert os.listdir(tmp_path) == ["c"]


def test_a_plan_from_the_planners_cache(writer, tmp_path):
    for seed in range(3):
        dcp.save(state(seed), storage_writer=writer, planner=dcp.DefaultSavePlanner(enable_plan_caching=True))
        assert_equal(load(tmp_path / "c", state()), state(seed))


@pytest.mark.parametrize("path", ["s3://bucket/c", "/", "..", ""])
def test_a_path_that_is_none_is_refused(tmp_path, path):
    assert not HetspStorageWriter.validate_checkpoint_id(path)
    with pytest.raises(CheckpointException, match="is no path of a directory"):
        dcp.save(state(), storage_writer=HetspStorageWriter(path))
