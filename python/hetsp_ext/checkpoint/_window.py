"""The window of dcp.async_save: the live state is handed on as it is, and the next optimizer step waits until it is copied.

Between two steps parameters and moments stand still, so staging need not copy them. Small tensors (buffers, counters, scales)
do change in between and cost nothing to copy, so they are copied at once, like everything that is no tensor. What is left is
guarded: hooks on every optimizer close the window, and address, version and some bytes of each tensor are compared after its
copy.
"""

from __future__ import annotations

import contextlib
import copy
import threading
import time
from collections.abc import Iterator
from concurrent.futures import Future
from typing import Any

import torch
from torch.distributed._shard.sharded_tensor import ShardedTensor
from torch.distributed.tensor import DTensor

from .._native import core
from ..errors import CheckpointError

SMALL_BYTES = 64 << 10
UNCLAIMED_SECONDS = 60.0


class Staged(Future):  # of the state
    """The future that stage() returns: done when all is copied, so it tells when live tensors may change.

    Its result, the live state, is handed out before that: the save that is to copy it waits for the result.
    """

    def __init__(self, window: Window, state: Any) -> None:
        super().__init__()
        self.window, self.state = window, state

    def result(self, timeout: float | None = None) -> Any:
        """The live state, at once, to the thread that asks first: it saves it. To all others when it is copied."""
        if self.window.claim(threading.current_thread()):
            return self.state
        return super().result(timeout)


def _module(device: torch.device) -> Any:
    return torch.get_device_module(device)


def _memory(tensor: torch.Tensor) -> list[torch.Tensor]:
    """The plain tensors that hold what a rank has of a tensor; none where only its own class knows."""
    if isinstance(tensor, DTensor):
        return [tensor._local_tensor.detach()]
    if isinstance(tensor, ShardedTensor):
        return [shard.tensor.detach() for shard in tensor.local_shards()]
    if tensor.layout != torch.strided or not (tensor.numel() == 0 or tensor.data_ptr()):
        return []
    return [tensor.detach().as_subclass(torch.Tensor)]


class Window:
    """From stage() until the state is copied, or its save has ended without."""

    def __init__(self, state: Any, small_bytes: int = SMALL_BYTES) -> None:
        self._saver: threading.Thread | None = None
        self._lock = threading.Lock()
        self._closed = threading.Event()
        self._small = small_bytes
        self._live: list[tuple[str, torch.Tensor, int, int]] = []  # name, tensor, version, address
        self._on: set[torch.device] = set()  # devices that tensors lie on
        self.future = Staged(self, self._stage("", state))
        # Behind the copies that staging has queued, too.
        self._events = {device: _module(device).current_stream(device).record_event() for device in self._on}
        self._probes = self._probe()

    def _stage(self, name: str, value: Any) -> Any:
        if isinstance(value, torch.Tensor):
            return self._stage_tensor(name, value)
        if type(value) in (dict, list, tuple):
            items = value.items() if isinstance(value, dict) else enumerate(value)
            staged = {key: self._stage(f"{name}.{key}" if name else str(key), item) for key, item in items}
            return staged if isinstance(value, dict) else type(value)(staged.values())
        if isinstance(value, dict):  # OrderedDict of a module's state, with its _metadata
            changed = copy.copy(value)
            for key, item in value.items():
                dict.__setitem__(changed, key, self._stage(f"{name}.{key}" if name else str(key), item))
            return changed
        return copy.deepcopy(value)

    def _stage_tensor(self, name: str, tensor: torch.Tensor) -> torch.Tensor:
        held = _memory(tensor)
        self._on.update(part.device for part in held if part.device.type != "cpu")
        if sum(part.nbytes for part in held) <= self._small:
            plain = type(tensor) in (torch.Tensor, torch.nn.Parameter, DTensor)
            return tensor.detach().clone() if plain else copy.deepcopy(tensor)  # whatever else a subclass knows goes along
        for part in held:
            version = -1 if part.is_inference() else part._version
            self._live.append((name, part, version, part.data_ptr()))
        return tensor

    def claim(self, thread: threading.Thread) -> bool:
        """Whether `thread` is the one that saves the state. When it ends the window closes, whatever became of the save."""
        with self._lock:
            if self._saver is not None:
                return False
            self._saver = thread

        def watch() -> None:
            thread.join()
            self.close(CheckpointError("the save ended before the state was copied"))

        threading.Thread(target=watch, name="hetsp-window", daemon=True).start()
        return True

    @contextlib.contextmanager
    def devices(self) -> Iterator[None]:
        """On the saving thread, while it gathers and copies: its streams come behind what was queued before stage(), and not
        behind what training has queued since, as its default streams would."""
        with contextlib.ExitStack() as streams:
            for device, event in self._events.items():
                module = _module(device)
                stream = module.Stream(device)
                stream.wait_event(event)
                streams.enter_context(module.stream(stream))
            yield

    def _probe(self) -> list[Any]:
        host = [tensor for _, tensor, _, _ in self._live if tensor.device.type == "cpu" and tensor.is_contiguous()]
        return core.probe_digests([tensor.data_ptr() for tensor in host], [tensor.nbytes for tensor in host])

    def changed(self) -> list[str]:
        """Names of live tensors that have been written to or moved since stage(), as far as can be told."""
        found = []
        for name, tensor, version, address in self._live:
            now = -1 if tensor.is_inference() else tensor._version
            if (now, tensor.data_ptr()) != (version, address):
                found.append(name)
        if not found:
            names = [name for name, tensor, _, _ in self._live if tensor.device.type == "cpu" and tensor.is_contiguous()]
            found = [name for name, a, b in zip(names, self._probes, self._probe(), strict=True) if a != b]
        return found

    @property
    def closed(self) -> bool:
        """Whether live tensors may change."""
        return self._closed.is_set()

    def wait(self) -> float:
        """Returns when live tensors may change; seconds that took."""
        if self._closed.is_set() or self._saver is threading.current_thread():
            return 0.0
        begin = time.perf_counter()
        while not self._closed.wait(UNCLAIMED_SECONDS) and self._saver is None:
            self.close(CheckpointError(f"nobody has begun to save the state in {UNCLAIMED_SECONDS:.0f} s"))
        return time.perf_counter() - begin

    def finished(self) -> None:
        """Returns when the thread that saves has ended."""
        if self._saver is not None and self._saver is not threading.current_thread():
            self._saver.join()

    def close(self, error: BaseException | None = None) -> None:
        """Lets the optimizers go on. Only the first call counts; with an error, the future has it."""
        with self._lock:
            if self._closed.is_set():
                return
            self._closed.set()
        self._live.clear()
        if error is None:
            self.future.set_result(self.future.state)
        else:
            self.future.set_exception(error)
