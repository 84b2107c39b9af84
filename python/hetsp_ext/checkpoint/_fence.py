"""The two fences of the window in which live state is read: save() opens it, whoever writes next closes it, group by group.

After save() the capture reads parameters and optimizer state in the background. The next writer is an optimizer's step, so a
global step pre-hook waits there until what that step will write has been copied. Optimizers of torch.optim with several
parameter groups walk over `param_groups`; for the time of the step theirs is a list that waits for group i when group i is
asked for, so that the step of the first groups and the copy of the last ones overlap. Any other optimizer, and one whose step
is compiled (dynamo cannot trace such a list), waits for all of its groups. The post-hook waits for what no optimizer owns: what
a program changes after a step (a moving average of the weights) is safe then, too. Steps without hooks - a CUDA graph's
replay - must call fence().

Guard: at save() each tensor's version counter is noted, and compared when its group is released; the engine compares sampled
bytes, since fused kernels, `.data` and numpy leave the version alone. Debug mode hashes every byte before and after.
"""

from __future__ import annotations

import logging
import os
import threading
import time
import weakref
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import torch
from torch.optim.optimizer import register_optimizer_step_post_hook, register_optimizer_step_pre_hook

from .._native import core
from ._stats import SaveStats
from ._table import Table

logger = logging.getLogger("hetsp_ext.checkpoint")


# A forked child has none of the threads that would release a window, and none of the reasons to wait for one.
_fences: weakref.WeakSet[Fence] = weakref.WeakSet()


def _forget_windows() -> None:
    for fence in _fences:
        fence._window = None


os.register_at_fork(after_in_child=_forget_windows)


class SaveWindow:
    """One save's state between the fences; `capture` is the engine's."""

    def __init__(
        self,
        table: Table,
        capture: Any,
        step: int,
        versions: list[list[int]],
        hashes: list[list[str]] | None,
        stats: SaveStats,
    ) -> None:
        self.table = table
        self.capture = capture
        self.step = step
        self.stats = stats
        self.mutated: list[str] = []  # names of tensors that were written inside the window
        self._versions = versions
        self._hashes = hashes
        self._held: list[Any] | None = table.hold()
        self._open = {group for group, tensors in enumerate(table.guarded) if tensors}
        self._lock = threading.Lock()

    @property
    def open(self) -> bool:
        """Whether some group has not been released yet."""
        return bool(self._open)

    def close(self, groups: Iterable[int] | None = None, *, count: bool = True) -> None:
        """Waits until these groups (None: all) have been copied, and releases them; `count`: as time that training waited."""
        if not self._open:
            return
        with self._lock:
            for group in sorted(self._open if groups is None else self._open.intersection(groups)):
                if group in self.table.captured:
                    begin = time.perf_counter()
                    self.capture.wait_group(group)
                    if count:
                        self.stats.stall += time.perf_counter() - begin
                self._check(group)
                self._open.discard(group)
            if not self._open:
                self._held = None

    def _check(self, group: int) -> None:
        tensors, names = self.table.guarded[group], self.table.guarded_names[group]
        now = [0 if tensor.is_inference() else tensor._version for tensor in tensors]
        changed = [name for name, old, new in zip(names, self._versions[group], now, strict=True) if old != new]
        if self._hashes is not None:
            hashes = hash_tensors(tensors)
            changed += [name for name, old, new in zip(names, self._hashes[group], hashes, strict=True) if old != new]
        if changed:
            self.report(changed)

    def report(self, names: Iterable[str]) -> None:
        """Notes that tensors were written inside the window, and says so at once."""
        new = sorted(set(names) - set(self.mutated))
        if new:
            self.mutated += new
            logger.warning(
                "the checkpoint of step %d fails: %s changed in place while being captured", self.step, list_names(new)
            )


def list_names(names: list[str]) -> str:
    """The first few of a list of tensors, for a message."""
    shown = ", ".join(repr(name) for name in names[:3])
    return shown + (f" and {len(names) - 3} more" if len(names) > 3 else "")


def hash_tensors(tensors: Iterable[torch.Tensor]) -> list[str]:
    """A digest of all bytes of each tensor, wherever it lies."""
    digests = []
    for tensor in tensors:
        local: Any = getattr(tensor, "_local_tensor", tensor)
        data = local.detach().resolve_conj().resolve_neg().cpu().contiguous()
        digests += core.hash_spans([data.data_ptr()], [data.nbytes])
    return digests


class WaitingGroups(list[Any]):
    """An optimizer's param_groups that wait, while `wait` is set, for group i before they give it away."""

    wait: Callable[[int], None] | None = None
    owner: Any = None  # the fence that has put it there

    def __iter__(self) -> Iterator[Any]:
        wait = self.wait
        if wait is None:
            return super().__iter__()
        return self._waiting(wait)

    def _waiting(self, wait: Callable[[int], None]) -> Iterator[Any]:
        for index, group in enumerate(super().__iter__()):
            wait(index)
            yield group

    def __getitem__(self, index: Any) -> Any:
        if self.wait is not None:
            for asked in range(len(self))[index] if isinstance(index, slice) else [range(len(self))[index]]:
                self.wait(asked)
        return super().__getitem__(index)

    def __reduce_ex__(self, protocol: Any) -> Any:
        """Copies and pickles are plain lists: they belong to no checkpointer."""
        return list, (list(super().__iter__()),)


def waits_per_group(optimizer: torch.optim.Optimizer) -> bool:
    """Whether the class is known to reach its parameters through param_groups alone, one group after the other."""
    kind = type(optimizer)
    return kind.__module__.startswith("torch.optim.") and kind is not torch.optim.LBFGS and len(optimizer.param_groups) > 1


class Fence:
    """Closes the window of the latest save at the steps of all optimizers. `close()` takes the hooks away."""

    def __init__(self, optimizers: dict[str, torch.optim.Optimizer]) -> None:
        self._optimizers = optimizers
        self._window: SaveWindow | None = None
        self._compiled: weakref.WeakSet[torch.optim.Optimizer] = weakref.WeakSet()
        _fences.add(self)
        before, after = weakref.WeakMethod(self._before), weakref.WeakMethod(self._after)

        # The hooks are global: they must not keep the checkpointer alive. What dynamo would trace of them is a wait that
        # happened once; disabled, they run at every step of a compiled optimizer, too. Only that it is compiled is traced.
        @torch.compiler.disable
        def wait_before(optimizer: torch.optim.Optimizer, compiled: bool) -> None:
            if (method := before()) is not None:
                method(optimizer, compiled)

        def pre_hook(optimizer: torch.optim.Optimizer, *_: Any) -> None:
            wait_before(optimizer, torch.compiler.is_compiling())

        @torch.compiler.disable
        def post_hook(optimizer: torch.optim.Optimizer, *_: Any) -> None:
            if (method := after()) is not None:
                method(optimizer)

        self._handles = [register_optimizer_step_pre_hook(pre_hook), register_optimizer_step_post_hook(post_hook)]
        for optimizer in optimizers.values():
            self._handles.append(optimizer.register_load_state_dict_pre_hook(lambda *_: _close_all(before)))

    @property
    def window(self) -> SaveWindow | None:
        """The window of the latest save, while it is open."""
        return self._window

    def arm(self, window: SaveWindow) -> None:
        """From now on steps wait for `window`."""
        self._window = window

    def close_window(self) -> None:
        """Waits until nothing is read any more."""
        if (window := self._window) is not None:
            window.close()
            self._window = None

    def _name_of(self, optimizer: torch.optim.Optimizer) -> str | None:
        return next((name for name, known in self._optimizers.items() if known is optimizer), None)

    def _take_back(self, optimizer: torch.optim.Optimizer) -> None:
        """Gives the optimizer a plain list again; groups that its step has added are in it."""
        groups = optimizer.param_groups
        if isinstance(groups, WaitingGroups) and groups.owner is self:
            groups.wait = None
            optimizer.param_groups = list(groups)

    def _before(self, optimizer: torch.optim.Optimizer, compiled: bool) -> None:
        if compiled:
            self._compiled.add(optimizer)
        self._take_back(optimizer)  # a step that raised has left its list
        if (window := self._window) is None:
            return
        name = self._name_of(optimizer)
        gate = None if name is None else window.table.gates.get(name)
        if gate is None:  # one that is not saved may still write to what is
            window.close()
            return
        if (
            not window.open
            or optimizer in self._compiled
            or not waits_per_group(optimizer)
            or isinstance(optimizer.param_groups, WaitingGroups)  # of another checkpointer
            or len(optimizer.param_groups) != len(gate.groups)
        ):
            window.close(gate.all if len(optimizer.param_groups) == len(gate.groups) else None)
            return
        window.close(gate.first)
        optimizer.param_groups = WaitingGroups(optimizer.param_groups)
        optimizer.param_groups.owner = self
        optimizer.param_groups.wait = lambda index: window.close(gate.groups[index])

    def _after(self, optimizer: torch.optim.Optimizer) -> None:
        self._take_back(optimizer)
        if (window := self._window) is None:
            return
        name = self._name_of(optimizer)
        gate = None if name is None else window.table.gates.get(name)
        window.close({window.table.rest, *(gate.all if gate is not None else ())})
        if not window.open:
            self._window = None

    def close(self) -> None:
        """Waits for the window, and removes the hooks."""
        self.close_window()
        for handle in self._handles:
            handle.remove()
        self._handles.clear()


def _close_all(method: weakref.WeakMethod[Any]) -> None:
    bound = method()
    if bound is not None:
        bound.__self__.close_window()
