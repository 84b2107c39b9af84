"""dcp.async_save with our writer as its stager: nothing is copied before it returns, and what is saved is what was then."""

import errno
import gc
import os
import pickle
import resource
import threading
import weakref

import pytest
import torch
import torch.distributed.checkpoint as dcp
from torch import nn
from torch.optim import optimizer as optimizer_module

from hetsp_ext.checkpoint import _window
from hetsp_ext.checkpoint.dcp import HetspStorageReader, HetspStorageWriter
from hetsp_ext.errors import CheckpointError, CheckpointMutated, CheckpointWriteError, InvalidArgument

pytestmark = pytest.mark.filterwarnings("ignore:torch.distributed is")


class HeldPlanner(dcp.DefaultSavePlanner):
    """Plans when told to, so that a test knows what happens before the copy."""

    def __init__(self, error=None):
        super().__init__()
        self.go, self.error = threading.Event(), error

    def create_local_plan(self):
        assert self.go.wait(60)
        if self.error is not None:
            raise self.error
        return super().create_local_plan()


@pytest.fixture
def writer(tmp_path):
    writer = HetspStorageWriter(tmp_path / "c", ring_bytes=8 << 20)
    yield writer
    writer.close()


def copied(state):
    return {k: copied(v) if isinstance(v, dict) else v.clone() if isinstance(v, torch.Tensor) else v for k, v in state.items()}


def load(path, like):
    found = {name: torch.zeros_like(tensor) for name, tensor in like.items()}
    dcp.load(found, storage_reader=HetspStorageReader(path))
    return found


def assert_equal(found, want):
    for name, tensor in want.items():
        assert torch.equal(found[name], tensor), name


def flat(model, optimizer):
    state = dict(model.state_dict())
    for index, held in optimizer.state_dict()["state"].items():
        state |= {f"optim.{index}.{name}": tensor for name, tensor in held.items() if isinstance(tensor, torch.Tensor)}
    return state


@pytest.mark.parametrize("options", [{"foreach": True}, {"foreach": False}, {"fused": True}], ids=["foreach", "plain", "fused"])
def test_training_goes_on_at_once_and_each_checkpoint_is_of_its_moment(writer, tmp_path, options):
    """Batch statistics change in every forward, weights in every step; none of it reaches the checkpoint before."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(200, 200), nn.BatchNorm1d(200), nn.Linear(200, 200))
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.1, **options)

    def step():
        optimizer.zero_grad()
        model(torch.randn(8, 200)).square().mean().backward()
        optimizer.step()

    step()
    for round_ in range(6):
        state = flat(model, optimizer)
        want = copied(state)
        response = dcp.async_save(state, storage_writer=writer, checkpoint_id=tmp_path / str(round_))
        for _ in range(3):
            step()
        assert any(not torch.equal(tensor, want[name]) for name, tensor in flat(model, optimizer).items())
        response.upload_completion.result(60)
        assert_equal(load(tmp_path / str(round_), want), want)


def test_staging_is_complete_when_the_copy_is_and_the_optimizer_waits_for_it(writer, tmp_path):
    weight = nn.Parameter(torch.ones(1000, 100))
    weight.grad = torch.ones_like(weight)
    optimizer = torch.optim.SGD([weight], lr=1.0)
    planner = HeldPlanner()
    response = dcp.async_save({"w": weight.detach()}, storage_writer=writer, planner=planner)
    assert not response.staging_completion.done()
    assert not writer._window.closed
    stepped = threading.Thread(target=optimizer.step)
    stepped.start()
    stepped.join(0.2)
    assert stepped.is_alive(), "the step waits"
    assert torch.equal(weight.detach(), torch.ones(1000, 100))
    planner.go.set()
    stepped.join(60)
    assert writer.stalled_seconds > 0.1
    response.staging_completion.result(60)
    response.upload_completion.result(60)
    assert_equal(load(tmp_path / "c", {"w": weight.detach()}), {"w": torch.ones(1000, 100)})
    assert torch.equal(weight.detach(), torch.zeros(1000, 100))


def test_what_is_no_large_tensor_is_copied_at_once(writer, tmp_path):
    state = {
        "small": torch.ones(3),
        "large": torch.ones(100_000),
        "lists": [torch.ones(2), {"n": [1, 2]}],
        "tuple": (torch.ones(2), 5),
        "number": 7,
    }
    planner = HeldPlanner()
    response = dcp.async_save(state, storage_writer=writer, planner=planner)
    state["small"].zero_()
    state["lists"][0].zero_()
    state["lists"][1]["n"].append(3)
    state["tuple"][0].zero_()
    state["number"] = 8
    state["later"] = torch.ones(2)
    planner.go.set()
    response.upload_completion.result(60)
    found = {
        "small": torch.zeros(3), "large": torch.zeros(100_000), "lists": [torch.zeros(2), {"n": [0, 0]}],
        "tuple": (torch.zeros(2), 0), "number": 0,
    }  # fmt: skip
    dcp.load(found, storage_reader=HetspStorageReader(tmp_path / "c"))
    assert_equal(found, {"small": torch.ones(3), "large": torch.ones(100_000)})
    assert torch.equal(found["lists"][0], torch.ones(2))
    assert found["lists"][1]["n"] == [1, 2]
    assert torch.equal(found["tuple"][0], torch.ones(2))
    assert found["number"] == 7


MUTATIONS = {
    "in place": lambda w: w.add_(1),
    "through data": lambda w: w.data.add_(1),
    "through numpy": lambda w: w.numpy().__iadd__(1),
    "moved": lambda w: w.set_(torch.ones(1000, 100)),
}


@pytest.mark.parametrize("mutation", MUTATIONS)
def test_a_tensor_that_changes_in_the_window_fails_that_checkpoint_by_name(writer, tmp_path, mutation):
    weight, other = torch.ones(1000, 100), torch.zeros(1000, 100)
    dcp.save({"w": weight, "other": other}, storage_writer=writer)
    planner = HeldPlanner()
    response = dcp.async_save({"w": weight, "other": other}, storage_writer=writer, planner=planner)
    MUTATIONS[mutation](weight)
    planner.go.set()
    with pytest.raises(dcp.CheckpointException, match=r"CheckpointMutated: w changed in place") as raised:
        response.upload_completion.result(60)
    assert isinstance(raised.value.failures[0][0], CheckpointMutated)
    with pytest.raises(CheckpointMutated):
        response.staging_completion.result(60)
    writer.fence()
    assert_equal(load(tmp_path / "c", {"w": weight}), {"w": torch.ones(1000, 100)})
    dcp.save({"w": weight, "other": other}, storage_writer=writer)
    assert_equal(load(tmp_path / "c", {"w": weight}), {"w": weight})


@pytest.mark.parametrize("where", ["before the plan", "in resolving"])
def test_a_save_that_dies_lets_training_go_on(writer, tmp_path, where):
    weight = torch.ones(100_000)
    planner = HeldPlanner(RuntimeError("planned failure") if where == "before the plan" else None)
    if where == "in resolving":

        def broken(item):
            raise RuntimeError("planned failure")

        planner.resolve_data = broken
    response = dcp.async_save({"w": weight}, storage_writer=writer, planner=planner)
    planner.go.set()
    with pytest.raises(dcp.CheckpointException, match="planned failure"):
        response.upload_completion.result(60)
    assert writer.fence() < 60
    with pytest.raises((CheckpointError, RuntimeError)):
        response.staging_completion.result(60)
    dcp.save({"w": weight}, storage_writer=writer)
    assert_equal(load(tmp_path / "c", {"w": weight}), {"w": weight})
    assert os.listdir(tmp_path) == ["c"]


@pytest.mark.parametrize("asynchronous", [False, True])
def test_a_disk_that_refuses_fails_that_save_with_path_and_errno(writer, tmp_path, asynchronous):
    """A limit on the size of files stands for a full disk: the kernel refuses either in fallocate or in the write."""

    def save(state):
        if asynchronous:
            dcp.async_save(state, storage_writer=writer).upload_completion.result(60)
        else:
            dcp.save(state, storage_writer=writer)

    state = {"w": torch.ones(1_000_000)}
    save(state)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, hard))
    try:
        with pytest.raises(dcp.CheckpointException) as raised:
            save({"w": torch.zeros(1_000_000)})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    error, _ = raised.value.failures[0]
    assert isinstance(error, CheckpointWriteError)
    assert error.errno == errno.EFBIG
    assert error.filename.endswith("/rank-00000.safetensors")
    writer.fence()
    assert_equal(load(tmp_path / "c", state), state)
    save({"w": torch.full((1_000_000,), 2.0)})
    assert_equal(load(tmp_path / "c", state), {"w": torch.full((1_000_000,), 2.0)})
    assert os.listdir(tmp_path) == ["c"]


def test_a_state_that_nobody_saves_does_not_hold_training_for_ever(writer, monkeypatch):
    monkeypatch.setattr(_window, "UNCLAIMED_SECONDS", 0.05)
    future = writer.stage({"w": torch.ones(100_000)})
    writer.fence()
    error = future.exception(60)
    assert isinstance(error, CheckpointError)
    assert "nobody has begun to save" in str(error)


def test_saves_in_a_row_wait_for_each_other(writer, tmp_path):
    weight, responses = torch.zeros(100_000), []
    for step in range(5):
        weight.fill_(step)
        responses.append(dcp.async_save({"w": weight}, storage_writer=writer, checkpoint_id=tmp_path / str(step)))
        writer.fence()
    for step, response in enumerate(responses):
        response.upload_completion.result(60)
        assert_equal(load(tmp_path / str(step), {"w": weight}), {"w": torch.full((100_000,), float(step))})


def test_another_process_cannot_save_live_tensors(writer):
    with pytest.raises(InvalidArgument, match=r"allowed: AsyncCheckpointerType\.THREAD"):
        pickle.dumps(writer)


def test_close_takes_the_hook_away(tmp_path):
    before = len(optimizer_module._global_optimizer_pre_hooks)
    writer = HetspStorageWriter(tmp_path / "c", ring_bytes=8 << 20)
    for _ in range(3):
        dcp.async_save({"w": torch.ones(100_000)}, storage_writer=writer).upload_completion.result(60)
    assert len(optimizer_module._global_optimizer_pre_hooks) == before + 1
    writer.close()
    writer.close()
    assert len(optimizer_module._global_optimizer_pre_hooks) == before


def test_a_writer_that_nobody_closes_goes_away(tmp_path):
    before = len(optimizer_module._global_optimizer_pre_hooks)
    writer = HetspStorageWriter(tmp_path / "c", ring_bytes=8 << 20)
    dcp.async_save({"w": torch.ones(100_000)}, storage_writer=writer).upload_completion.result(60)
    writer._window.finished()
    gone = weakref.ref(writer)
    del writer
    gc.collect()
    assert gone() is None
    assert len(optimizer_module._global_optimizer_pre_hooks) == before
