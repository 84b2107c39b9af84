"""The training loop that checkpoint benchmarks disturb: a model and its Adam moments in shared memory, one step a second.

Every saver gets a process of its own, forked from one parent: allocators, page tables and threads of one saver cannot help or
hurt the next, while parameters, gradients and moments lie in one shared mapping, so that ten savers need no ten copies. The
processes take turns.
"""

from __future__ import annotations

import hashlib
import mmap
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import torch

WIDTH = 2048  # of the square linear layers: 16 MiB of float32 each
LEARNING_RATE = 1e-5
TARGET = 1.0  # seconds of an iteration


@dataclass(frozen=True)
class Shape:
    """`layers` linear layers of WIDTH x WIDTH in float32; with both moments 12 bytes a parameter."""

    layers: int

    @property
    def bytes(self) -> int:
        return 3 * 4 * self.layers * WIDTH * WIDTH


@dataclass
class Training:
    """A model, its optimizer and what stands for forward and backward.

    `work` is "sleep": an accelerator computes and the host waits, or "matmul": this process computes on one core, and whatever
    runs beside it takes cycles and memory bandwidth from it. Both last TARGET seconds together with `step`.
    """

    shape: Shape
    work: str
    model: torch.nn.Sequential = field(init=False)
    optimizer: torch.optim.AdamW = field(init=False)
    window: float = 0.0  # seconds of forward and backward, as calibrated
    rows: int = 0  # of the input of "matmul"

    def __post_init__(self) -> None:
        torch.set_num_threads(1)
        torch.manual_seed(0)
        tensors = self._shared(4 * self.shape.layers)
        self.model = torch.nn.Sequential()
        moments = []
        for _ in range(self.shape.layers):
            layer = torch.nn.Linear(WIDTH, WIDTH, bias=False, device="meta")
            weight, gradient, *state = (next(tensors) for _ in range(4))
            torch.nn.init.normal_(weight, std=0.02)
            torch.nn.init.normal_(gradient, std=1e-3)
            layer.weight = torch.nn.Parameter(weight)
            layer.weight.grad = gradient
            self.model.append(layer)
            moments.append(state)
        self.optimizer = torch.optim.AdamW(self.model.parameters(), lr=LEARNING_RATE, fused=True)
        for parameter, (average, square) in zip(self.model.parameters(), moments, strict=True):
            state = {"step": torch.zeros(()), "exp_avg": average.zero_(), "exp_avg_sq": square.zero_()}
            self.optimizer.state[parameter] = state
        self._calibrate()

    @staticmethod
    def _shared(count: int) -> Iterator[torch.Tensor]:
        """`count` matrices in one anonymous mapping that children share; no views of one tensor, which have one version."""
        each = WIDTH * WIDTH
        memory = mmap.mmap(-1, 4 * each * count)
        for index in range(count):
            yield torch.frombuffer(memory, dtype=torch.float32, count=each, offset=4 * each * index).view(WIDTH, WIDTH)

    def _calibrate(self) -> None:
        """The step's own time first; forward and backward take what is left of the second."""
        self.optimizer.step()
        self.window = max(0.2, TARGET - least(self.optimizer.step))
        if self.work == "matmul":
            self.rows = 16
            for _ in range(2):  # time is not proportional to few rows
                self.rows = max(1, round(self.rows * self.window / least(self.forward_backward)))

    def forward_backward(self) -> None:
        if self.work == "sleep":
            time.sleep(self.window)
            return
        # Gradients stay where they are (shared memory) and are overwritten, not grown.
        for parameter in self.model.parameters():
            assert parameter.grad is not None
            parameter.grad.zero_()
        self.model(torch.ones(self.rows, WIDTH)).square().mean().backward()

    def iteration(self, fence: Callable[[], None]) -> float:
        """Seconds of one iteration; `fence` is what a saver must wait for before the step changes its tensors."""
        begin = time.perf_counter()
        self.forward_backward()
        fence()
        self.optimizer.step()
        return time.perf_counter() - begin

    def state(self) -> dict[str, torch.Tensor]:
        """Everything that a checkpoint must hold, by name; the live tensors."""
        found = {}
        for name, parameter in self.model.named_parameters():
            state = self.optimizer.state[parameter]
            found |= {f"p.{name}": parameter.detach(), f"m.{name}": state["exp_avg"], f"v.{name}": state["exp_avg_sq"]}
        return found

    def digests(self) -> dict[str, str]:
        """Of a few tensors, first and last, to compare a checkpoint with."""
        first, last = f"{0}.weight", f"{self.shape.layers - 1}.weight"
        live = self.state()
        return {name: digest(live[name]) for name in (f"p.{first}", f"p.{last}", f"m.{first}", f"v.{last}")}


def digest(tensor: torch.Tensor) -> str:
    return hashlib.sha256(tensor.numpy()).hexdigest()


def least(call: Callable[[], object]) -> float:
    """Seconds of one core without what others on the machine take."""

    def computing() -> float:
        begin = time.process_time()
        call()
        return time.process_time() - begin

    return min(computing() for _ in range(4))


def timed(call: Callable[[], object]) -> float:
    begin = time.perf_counter()
    call()
    return time.perf_counter() - begin
