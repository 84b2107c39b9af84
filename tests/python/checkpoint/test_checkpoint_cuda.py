"""Checkpoints of tensors on a GPU: the first thing to run on a machine that has one.

    pytest -q -rs tests/python/checkpoint/test_checkpoint_cuda.py

What holds on the CPU as well runs there, too. Elsewhere the CUDA half is skipped with the reason; the engine's logic is
tested on threads that pass for devices (tests/cpp/staging/fake_device.h), the kernel on the CPU (gather_test.cc).
"""

import logging

import pytest
import torch
import torch.distributed.checkpoint as dcp

from hetsp_ext._native import core
from hetsp_ext.checkpoint.dcp import HetspStorageReader, HetspStorageWriter
from hetsp_ext.errors import CheckpointMutated, CheckpointWriteError
from tests.python.checkpoint.training import Holder, checkpointer, same


def why_no_cuda() -> str:
    why = core.cuda_absent_why()
    return why or ("" if torch.cuda.is_available() else "this torch has no CUDA")


needs_cuda = pytest.mark.skipif(bool(why_no_cuda()), reason=f"no CUDA device: {why_no_cuda()}")
DEVICES = [pytest.param("cpu", id="cpu"), pytest.param("cuda", id="cuda", marks=needs_cuda)]


class Job:
    """Model with buffers, AdamW with two groups; its state copied on the device, without waiting for it."""

    def __init__(self, device, width=256, depth=4, **options):
        torch.manual_seed(0)
        layers = [torch.nn.Sequential(torch.nn.Linear(width, width), torch.nn.BatchNorm1d(width)) for _ in range(depth)]
        self.device, self.width = device, width
        self.model = torch.nn.Sequential(*layers).to(device)
        groups = [{"params": layer.parameters()} for layer in self.model]
        self.optimizer = torch.optim.AdamW(groups, lr=0.1, **options)
        self.batch = torch.randn(64, width, device=device)

    def step(self):
        self.optimizer.zero_grad()
        self.model(self.batch).square().mean().backward()
        self.optimizer.step()

    @property
    def objects(self):
        return {"model": self.model, "optimizer": self.optimizer}

    def state(self):
        def copied(value):
            if isinstance(value, torch.Tensor):
                return value.detach().clone()
            if isinstance(value, dict):
                return {key: copied(item) for key, item in value.items()}
            return [copied(item) for item in value] if isinstance(value, list) else value

        return {name: copied(dict(thing.state_dict())) for name, thing in self.objects.items()}


def busy(seconds=0.05):
    """Queues work for about so long on the current stream."""
    torch.cuda._sleep(int(seconds * 1.5e9))


@pytest.mark.parametrize("options", [{"foreach": True}, {"fused": True}], ids=["foreach", "fused"])
@pytest.mark.parametrize("ring", [1 << 20, 64 << 20], ids=["ring smaller than the state", "ring larger"])
@pytest.mark.parametrize("device", DEVICES)
def test_every_checkpoint_is_the_state_at_its_save(tmp_path, device, ring, options):
    """Batch statistics change in each forward, weights in each step; a busy stream holds both back behind save()."""
    job = Job(device, **options)
    states = []
    with checkpointer(tmp_path, ring_bytes=ring, keep=8, **job.objects) as lazy:
        for step in range(6):
            if device == "cuda":
                busy()
            job.step()
            states.append(job.state())
            lazy.save(step)
        job.step()
        lazy.wait()
        assert [save.error for save in lazy.stats.saves] == [None] * 6
        for step, state in enumerate(states):
            assert lazy.restore(step) == step
            assert same(job.state(), state), f"step {step}"


@pytest.mark.parametrize("device", DEVICES)
def test_thousands_of_small_tensors_of_every_length(tmp_path, device):
    sizes = [2 + (7 * i) % 1031 for i in range(3000)]
    parameters = [torch.nn.Parameter(torch.randn(size, device=device)) for size in sizes]
    buffers = [torch.randint(0, 100, (size % 50,), dtype=torch.uint8, device=device) for size in sizes]
    model = torch.nn.ParameterList(parameters)
    optimizer = torch.optim.SGD(model.parameters(), lr=1.0)
    holder = Holder(buffers=buffers)
    with checkpointer(tmp_path, model, optimizer, holder) as lazy:
        want = [parameter.detach().clone() for parameter in parameters], [buffer.clone() for buffer in buffers]
        lazy.save(1)
        for buffer in buffers:
            buffer.add_(1)
        for parameter in parameters:
            parameter.grad = torch.ones_like(parameter)
        optimizer.step()
        lazy.wait()
        lazy.restore()
        assert all(map(torch.equal, parameters, want[0]))
        assert all(map(torch.equal, holder.state["buffers"], want[1]))


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16, torch.float64, torch.int64, torch.complex64])
def test_dtypes_strides_and_what_is_empty(tmp_path, device, dtype):
    def tensor(*shape):
        return torch.randint(-100, 100, shape).to(dtype).to(device)

    large = tensor(700, 900)
    state = {
        "large": large,
        "rows": large[10:500],
        "columns": large[:, 3:7],
        "transposed": large.t(),
        "every second": large[::2],
        "scalar": tensor(),
        "empty": tensor(0, 5),
        "conjugated": large.conj(),
        "odd": tensor(1_000_003),
    }
    holder = Holder(**state)
    want = {name: value.clone() for name, value in state.items()}
    with checkpointer(tmp_path, holder) as lazy:
        lazy.save(3)
        lazy.wait()
        for value in (large, state["odd"], state["scalar"]):
            value.zero_()
        lazy.restore()
    assert all(torch.equal(holder.state[name], value) for name, value in want.items())


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("how", ["data", "last bytes"])
def test_a_write_inside_the_window_fails_that_checkpoint(tmp_path, device, how, caplog):
    """Behind the version counter's back, and before the copy: the ring is full of what came first."""
    first, second = (torch.nn.Parameter(torch.randn(1 << 23, device=device)) for _ in range(2))
    optimizer = torch.optim.SGD([first, second], lr=1.0)
    with checkpointer(tmp_path, torch.nn.ParameterList([first, second]), optimizer) as lazy, caplog.at_level(logging.CRITICAL):
        lazy.save(1)
        target = second.data if how == "data" else second.data[-16:]
        target.mul_(2).add_(1)
        with pytest.raises(CheckpointMutated, match="1"):
            lazy.wait()
        lazy.save(2)
        lazy.wait()
        want = second.detach().clone()
        second.data.zero_()
        assert lazy.restore() == 2
    assert torch.equal(second, want)


@needs_cuda
def test_host_and_device_in_one_state(tmp_path):
    on_host, on_device = Job("cpu"), Job("cuda")
    objects = {f"{name}_{job.device}": thing for job in (on_host, on_device) for name, thing in job.objects.items()}
    with checkpointer(tmp_path, **objects) as lazy:
        for step in range(3):
            on_host.step(), on_device.step()
            want = on_host.state(), on_device.state()
            lazy.save(step)
        on_host.step(), on_device.step()
        lazy.wait()
        lazy.restore()
    assert same((on_host.state(), on_device.state()), want)


@needs_cuda
def test_save_returns_while_the_device_is_busy_and_the_step_waits(tmp_path):
    job = Job("cuda")
    job.step()
    with checkpointer(tmp_path, **job.objects) as lazy:
        lazy.save(0)  # makes streams and blocks
        lazy.wait()
        busy(0.5)
        ended = torch.cuda.current_stream().record_event()
        lazy.save(1)
        assert not ended.query(), "save() has waited for the device"
        assert not lazy._last_window.capture.captured, "the copy has not waited for its producer"
        state = job.state()
        job.step()
        assert ended.query(), "the step has not waited for the capture"
        lazy.wait()
        lazy.restore()
        assert same(job.state(), state)


@needs_cuda
def test_the_producer_is_the_stream_that_is_current(tmp_path):
    job, side = Job("cuda"), torch.cuda.Stream()
    job.step()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side), checkpointer(tmp_path, **job.objects) as lazy:
        for step in range(4):
            busy()
            job.step()
            state = job.state()
            lazy.save(step)
        job.step()
        lazy.wait()
        lazy.restore()
        assert same(job.state(), state)


@needs_cuda
def test_neither_memory_nor_the_current_device_is_left_changed(tmp_path):
    job = Job("cuda", width=1024)
    with checkpointer(tmp_path, **job.objects) as lazy:
        free = []
        for step in range(12):
            job.step()
            lazy.save(step)
            lazy.wait()
            torch.cuda.synchronize()
            free.append(torch.cuda.mem_get_info()[0])
            assert torch.cuda.current_device() == 0
        assert free[3] == free[-1]


@needs_cuda
def test_a_full_device_fails_the_checkpoint_by_cudas_name_and_training_goes_on(tmp_path):
    holder = Holder(positions=[torch.zeros(1 << 18, device="cuda") for _ in range(64)])  # 64 MiB that are copied in save()
    with checkpointer(tmp_path, holder) as lazy:
        hoard = []
        size = torch.cuda.mem_get_info()[0]
        while size > 0:
            try:
                hoard.append(torch.empty(size, dtype=torch.uint8, device="cuda"))
            except torch.cuda.OutOfMemoryError:
                size //= 2
            if size < 16 << 20:
                break
        lazy.save(1)
        with pytest.raises(CheckpointWriteError, match="cudaErrorMemoryAllocation"):
            lazy.wait()
        hoard.clear()
        torch.cuda.empty_cache()
        lazy.save(2)
        lazy.wait()
        assert lazy.restore() == 2


@needs_cuda
def test_training_that_records_a_graph_meanwhile(tmp_path):
    job = Job("cuda", width=2048, capturable=True)
    for _ in range(3):
        job.step()
    state = job.state()
    with checkpointer(tmp_path, **job.objects) as lazy:
        lazy.save(1)
        still = torch.zeros(100, device="cuda")
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):  # in the mode "global": no other thread's call may break it, nor be broken
            still.add_(1)
        lazy.fence()
        graph.replay()
        lazy.wait()
        lazy.restore()
        assert same(job.state(), state)
        assert torch.equal(still, torch.ones_like(still))


@pytest.mark.filterwarnings("ignore:torch.distributed is")
@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("later", [False, True], ids=["save", "async_save"])
def test_dcp(tmp_path, device, later):
    job = Job(device)
    writer = HetspStorageWriter(tmp_path / "0", ring_bytes=8 << 20)
    responses, wants = [], []
    for step in range(4):
        if device == "cuda":
            busy()
        job.step()
        state = dict(job.model.state_dict())
        for number, moments in job.optimizer.state_dict()["state"].items():
            state |= {f"{number}.{name}": tensor for name, tensor in moments.items()}
        wants.append({name: tensor.detach().clone() for name, tensor in state.items()})
        if later:
            responses.append(dcp.async_save(state, storage_writer=writer, checkpoint_id=tmp_path / str(step)))
        else:
            dcp.save(state, storage_writer=writer, checkpoint_id=tmp_path / str(step))
    job.step()
    for response in responses:
        response.upload_completion.result(60)
    for step, want in enumerate(wants):
        found = {name: torch.zeros_like(tensor) for name, tensor in want.items()}
        dcp.load(found, storage_reader=HetspStorageReader(tmp_path / str(step)))
        assert all(torch.equal(found[name], tensor) for name, tensor in want.items()), f"step {step}"
    writer.close()
