"""What the engine is told of tensors on a GPU, shown with tensors of the host that pass for a device's.

The engine's own part of it is tests/cpp/checkpoint/device_capture_test.cc; a real GPU has test_checkpoint_cuda.py.
"""

import ctypes
import random

import pytest
import torch
import torch.distributed.checkpoint as dcp

from hetsp_ext.checkpoint import _devices
from hetsp_ext.checkpoint._devices import HOST, Fetched
from hetsp_ext.checkpoint._items import VOLATILE
from hetsp_ext.checkpoint.dcp import HetspStorageReader, HetspStorageWriter
from hetsp_ext.errors import CheckpointWriteError
from tests.python.checkpoint.test_table import table_of
from tests.python.checkpoint.training import Holder, Training, checkpointer, same

pytestmark = pytest.mark.filterwarnings("ignore:torch.distributed is")
STREAM = 4711


@pytest.fixture
def pretended(monkeypatch):
    """Tensors of floats lie on device 3."""
    monkeypatch.setattr(_devices, "number_of", lambda tensor: 3 if tensor.is_floating_point() else HOST)
    monkeypatch.setattr(_devices, "producers", lambda numbers: dict.fromkeys(set(numbers) - {HOST}, STREAM))
    return monkeypatch


class Recorder:
    """The engine; what it is told of devices is noted, and it copies the host's memory that they really are."""

    def __init__(self, engine):
        self.engine, self.told = engine, []

    def __getattr__(self, name):
        return getattr(self.engine, name)

    def begin(self, path, header, addresses, sizes, groups, devices, eager, producers):
        content = [ctypes.string_at(address, size) for address, size in zip(addresses, sizes, strict=True)]
        self.told.append((list(devices), {span: content[span] for span in eager}, producers))
        return self.engine.begin(path, header, addresses, sizes, groups)


def test_parameters_and_moments_are_read_there_and_buffers_copied_there_at_each_save(tmp_path, pretended):
    training = Training()
    states = []
    with checkpointer(tmp_path, **training.objects) as lazy:
        lazy._engine = recorder = Recorder(lazy._engine)
        for step in range(3):
            training.step()
            states.append(training.state())
            lazy.save(step)
            lazy.wait()
        lazy.restore()
        assert same(training.state(), states[-1])
    for state, (devices, eager, producers) in zip(states, recorder.told, strict=True):
        assert producers == {3: STREAM}
        assert set(devices) == {3, HOST}, "the generators' states are of the host"
        buffers = [state["model"][name].numpy().tobytes() for name in ("1.running_mean", "1.running_var")]
        steps = [moments["step"].numpy().tobytes() for moments in state["optimizer"]["state"].values()]
        assert sorted(eager.values()) == sorted(buffers + steps)
        assert all(devices[span] == 3 for span in eager)


def test_memory_that_is_new_at_each_save_is_found(tmp_path, pretended):
    """A state_dict may make its tensors anew: what is volatile need not lie where it lay."""
    holder, kept = Holder(position=torch.zeros(5)), []
    with checkpointer(tmp_path, holder) as lazy:
        lazy._engine = recorder = Recorder(lazy._engine)
        for step in range(4):
            kept.append(holder.state["position"])
            holder.state = {"position": torch.full((5,), float(step))}
            lazy.save(step)
            lazy.wait()
        assert len({id(tensor) for tensor in kept}) == 4
    assert [list(eager.values()) for _, eager, _ in recorder.told] == [
        [torch.full((5,), float(step)).numpy().tobytes()] for step in range(4)
    ]


@pytest.mark.parametrize("seed", range(20))
def test_what_other_ranks_compare_is_in_the_order_of_the_file(seed, pretended):
    """Volatile tensors of the host and of a device by turns, with elements of all sizes; empty, strided and conjugated ones."""
    rng = random.Random(seed)
    dtypes = [torch.float64, torch.float32, torch.float16, torch.int64, torch.int8, torch.bool]
    state = {}
    for number in range(rng.randrange(12)):
        tensor = torch.randint(0, 2, (rng.choice([0, 1, 3, 7]), rng.choice([1, 5]))).to(rng.choice(dtypes))
        state[f"t{number}"] = tensor.t() if rng.random() < 0.3 else tensor
    table = table_of(holder=Holder(**state))
    expected = b"".join(item.written.contiguous().numpy().tobytes() for item in table.written if item.kind == VOLATILE)
    assert table.fetch().volatile() == expected
    spans = list(zip(table.addresses, table.sizes, strict=True))
    assert b"".join(ctypes.string_at(address, size) for address, size in spans) == expected
    for item, begin in zip(table.written, _begins(table), strict=True):
        assert begin % item.local.itemsize == 0, "aligned in the file"


def _begins(table):
    at = 0
    for item in table.written:
        yield at
        at += item.written.nbytes


def test_fetched_bytes_are_those_of_now():
    tensor = torch.arange(6.0).view(2, 3)
    fetched = Fetched([tensor.t(), torch.tensor([True])])
    want = tensor.t().contiguous().numpy().tobytes() + b"\1"
    tensor.zero_()
    assert bytes(fetched) == want
    assert bytes(Fetched([])) == b""


def needs_no_device():
    if not _devices.core.cuda_absent_why():
        pytest.skip("there is a CUDA device: memory of the host would be read as if it were the device's")


def test_a_device_that_is_not_there_fails_the_checkpoint_and_nothing_else(tmp_path, pretended):
    needs_no_device()
    training = Training()
    training.step()
    with checkpointer(tmp_path, **training.objects) as lazy:
        lazy.save(0)
        training.step()
        with pytest.raises(CheckpointWriteError, match="device copy: ") as caught:
            lazy.wait()
        assert caught.value.filename.endswith("rank-00000.safetensors")
        assert "copying from a GPU is absent" in str(caught.value) or "cudaError" in str(caught.value)
        pretended.undo()
        lazy._table = None
        state = training.state()
        lazy.save(1)
        training.step()
        lazy.wait()
        assert lazy.restore() == 1
        assert same(training.state(), state)


def test_dcp_hands_tensors_on_where_they_are(tmp_path, pretended):
    writer = HetspStorageWriter(tmp_path / "c", ring_bytes=8 << 20)
    recorder = Recorder(writer._open_engine())
    writer._engine = recorder
    state = {"w": torch.randn(100, 100), "n": torch.arange(5), "strided": torch.randn(50, 40).t(), "text": "abc"}
    dcp.save(state, storage_writer=writer)
    found = {**state, **{name: torch.zeros_like(tensor) for name, tensor in state.items() if name != "text"}}
    dcp.load(found, storage_reader=HetspStorageReader(tmp_path / "c"))
    assert all(torch.equal(found[name], state[name]) for name in ("w", "n", "strided"))
    ((devices, eager, producers),) = recorder.told
    assert sorted(devices) == [HOST, HOST, 3, 3]
    assert not eager
    assert producers == {3: STREAM}
    writer.close()


def test_dcp_tells_of_a_device_that_is_not_there(tmp_path, pretended):
    needs_no_device()
    writer = HetspStorageWriter(tmp_path / "c", ring_bytes=8 << 20)
    with pytest.raises(dcp.api.CheckpointException, match="device copy"):
        dcp.save({"w": torch.randn(100, 100)}, storage_writer=writer)
    assert not (tmp_path / "c").exists()
    writer.close()
