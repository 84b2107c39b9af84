"""What the tests of checkpoints over several ranks share: a replicated model, and its state as it is now."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch


def manifest_of(path: Any) -> dict[str, Any]:
    return json.loads((Path(path) / "manifest.json").read_text().splitlines()[0])


def replicated_model(seed: int = 0, layers: int = 3, width: int = 300) -> tuple[Any, Any]:
    """Equal on every rank: a model with moments, larger than what is cut over the ranks, and small tensors."""
    torch.manual_seed(seed)
    model = torch.nn.Sequential(*[torch.nn.Linear(width, width) for _ in range(layers)])
    optimizer = torch.optim.AdamW([{"params": layer.parameters()} for layer in model], lr=1e-2)
    return model, optimizer


def step_replicated(model: Any, optimizer: Any, seed: int) -> None:
    draw = torch.Generator().manual_seed(seed)
    for parameter in model.parameters():
        parameter.grad = torch.randn(parameter.shape, generator=draw)
    optimizer.step()


def copied(state: Any) -> Any:
    if isinstance(state, torch.Tensor):
        return state.detach().clone()
    if isinstance(state, dict):
        return {key: copied(value) for key, value in state.items()}
    return [copied(item) for item in state] if isinstance(state, list) else state
