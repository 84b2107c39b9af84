"""A small training loop whose state shows what a checkpoint must hold, for the tests of LazyCheckpointer."""

from __future__ import annotations

import copy
from typing import Any

import torch

import hetsp_ext as hetsp

RING = 1 << 20


def checkpointer(path: Any, *args: Any, **kwargs: Any) -> hetsp.LazyCheckpointer:
    """With a ring smaller than most states."""
    return hetsp.LazyCheckpointer(path, *args, **{"ring_bytes": RING, **kwargs})


class Holder:
    """Any state as a stateful object; load_state_dict keeps what it is given."""

    def __init__(self, **state: Any) -> None:
        self.state = state

    def state_dict(self) -> dict[str, Any]:
        return self.state

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.state = state


class Loader:
    """A data loader's position: batches depend on nothing else."""

    def __init__(self, seed: int = 0) -> None:
        self.seed = seed
        self.position = 0

    def batch(self) -> torch.Tensor:
        self.position += 1
        return torch.randn(4, 16, generator=torch.Generator().manual_seed(self.seed * 1000 + self.position))

    def state_dict(self) -> dict[str, Any]:
        return {"seed": self.seed, "position": self.position}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.seed, self.position = state["seed"], state["position"]


class Training:
    """Model with buffers and dropout, optimizer with two groups, schedule, scaler and loader."""

    def __init__(self, width: int = 16, seed: int = 0, optimizer: Any = torch.optim.AdamW, **options: Any) -> None:
        torch.manual_seed(seed)
        self.model = torch.nn.Sequential(
            torch.nn.Linear(16, width), torch.nn.BatchNorm1d(width), torch.nn.Dropout(0.2), torch.nn.Linear(width, 16)
        )
        groups = [
            {"params": self.model[0].parameters()},
            {"params": [*self.model[1].parameters(), *self.model[3].parameters()]},
        ]
        self.optimizer = optimizer(groups, lr=1e-2, **options)
        self.scheduler = torch.optim.lr_scheduler.StepLR(self.optimizer, 3, 0.5)
        self.scaler = torch.amp.GradScaler("cpu", init_scale=8.0, growth_interval=2)
        self.loader = Loader(seed)

    @property
    def objects(self) -> dict[str, Any]:
        return {
            "model": self.model,
            "optimizer": self.optimizer,
            "scheduler": self.scheduler,
            "scaler": self.scaler,
            "loader": self.loader,
        }

    def step(self) -> float:
        self.optimizer.zero_grad()
        loss = self.model(self.loader.batch()).square().mean()
        self.scaler.scale(loss).backward()
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self.scheduler.step()
        return loss.item()

    def state(self) -> dict[str, Any]:
        """All of it, copied."""
        return copy.deepcopy({name: thing.state_dict() for name, thing in self.objects.items()})


def same(a: Any, b: Any) -> bool:
    """Equal in structure and every bit."""
    if isinstance(a, torch.Tensor):
        return (
            isinstance(b, torch.Tensor)
            and (a.dtype, a.shape) == (b.dtype, b.shape)
            and torch.equal(
                a.detach().contiguous().view(-1).view(torch.uint8), b.detach().contiguous().view(-1).view(torch.uint8)
            )
        )
    if isinstance(a, dict):
        return isinstance(b, dict) and a.keys() == b.keys() and all(same(a[key], b[key]) for key in a)
    if isinstance(a, list | tuple):
        return type(a) is type(b) and len(a) == len(b) and all(same(x, y) for x, y in zip(a, b, strict=True))
    return type(a) is type(b) and a == b
