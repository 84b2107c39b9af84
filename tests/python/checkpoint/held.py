"""Objects whose window is open, before a capture that copies each group when the test says so.

So every order of events can be forced; the real capture is in test_lazy.py.
"""

import threading

import torch

from hetsp_ext.checkpoint._fence import Fence, SaveWindow, hash_tensors
from hetsp_ext.checkpoint._state import named, walk_all
from hetsp_ext.checkpoint._stats import SaveStats
from hetsp_ext.checkpoint._table import Place, Table

PATIENCE = 30.0  # seconds that a test waits for another thread before it fails


class HeldCapture:
    """A capture whose groups are copied when the test says so; remembers who waited for what."""

    def __init__(self, table):
        self.events = [threading.Event() for _ in range(table.rest + 1)]
        self.asked = []
        self.someone_waits = threading.Event()

    def wait_group(self, group):
        self.asked.append(group)
        self.someone_waits.set()
        assert self.events[group].wait(PATIENCE), f"nobody released group {group}"

    def release(self, *groups):
        for group in groups or range(len(self.events)):
            self.events[group].set()


class Setting:
    """Objects with an armed window; `fence.close()` at the end gives the hooks back."""

    def __init__(self, *stateful, debug=False, **named_stateful):
        self.objects = named(stateful, named_stateful)
        optimizers = {name: thing for name, thing in self.objects.items() if isinstance(thing, torch.optim.Optimizer)}
        self.fence = Fence(optimizers)
        self.debug = debug
        self.arm()

    def arm(self):
        _, leaves = walk_all(self.objects)
        self.table = Table(self.objects, leaves, Place(), 8)
        self.capture = HeldCapture(self.table)
        hashes = [hash_tensors(group) for group in self.table.guarded] if self.debug else None
        self.stats = SaveStats(7)
        self.window = SaveWindow(self.table, self.capture, 7, self.table.versions(), hashes, self.stats)
        self.fence.arm(self.window)

    def in_thread(self, function):
        thread = threading.Thread(target=function, daemon=True)
        thread.start()
        return thread

    def end(self):
        self.capture.release()
        self.fence.close()


def parameters(count, seed=0, size=64):
    draw = torch.Generator().manual_seed(seed)
    found = [torch.nn.Parameter(torch.randn(size, generator=draw)) for _ in range(count)]
    for parameter in found:
        parameter.grad = torch.randn(size, generator=draw)
    return found


def module_of(*found):
    module = torch.nn.Module()
    for index, parameter in enumerate(found):
        module.register_parameter(f"p{index}", parameter)
    return module
