"""Ranks killed at named phases of a save, one of them or all: the newest announced checkpoint, or a newer one, loads."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

import pytest
import torch

from hetsp_ext.errors import CheckpointError
from tests.multirank.checkpoint_replicas import replicated_model
from tests.python.checkpoint.training import checkpointer
from tests.support.ranks import run_ranks

RANKS = 3


def fill(model: Any, optimizer: Any, step: int) -> None:
    """Every number of the state becomes `step`."""
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.fill_(step)
            optimizer.state[parameter] = {
                "step": torch.tensor(float(step)),
                "exp_avg": torch.full_like(parameter, step),
                "exp_avg_sq": torch.full_like(parameter, step),
            }


def die_at(rank: int, size: int, path: str, victims: tuple[int, ...], phase: str, announced: str) -> None:
    """Saves steps 1, 2, 3; the victims kill themselves in `phase` of step 2. Commits are announced in a file a rank."""

    def progress(told: Any) -> None:
        if told.phase == "committed":
            Path(f"{announced}-{rank}").write_text(str(told.step))
        if told.step == 2 and told.phase == phase and rank in victims:
            os.kill(os.getpid(), signal.SIGKILL)

    model, optimizer = replicated_model(width=300)
    lazy = checkpointer(path, model, optimizer, timeout=4, progress=progress)
    for step in (1, 2, 3):
        lazy.fence()
        fill(model, optimizer, step)
        lazy.save(step)
        try:
            lazy.wait()
        except CheckpointError:
            assert step > 1
    os._exit(0)  # the others of its group are dead: there is nobody to say goodbye to


def restore(rank: int, size: int, path: str) -> tuple[int | None, list[float]]:
    model, optimizer = replicated_model(seed=5, width=300)
    with checkpointer(path, model, optimizer) as lazy:
        step = lazy.restore()
    tensors = [*model.parameters(), *(tensor for state in optimizer.state.values() for tensor in state.values())]
    return step, sorted({number for tensor in tensors for number in tensor.unique().tolist()})


@pytest.mark.parametrize(
    ("victims", "phase"),
    [
        ((1,), "captured"),
        ((2,), "written"),
        ((0,), "written"),
        ((0,), "renamed"),
        ((0, 1, 2), "captured"),
        ((0, 1, 2), "committed"),
    ],
    ids=lambda value: value if isinstance(value, str) else "rank " + " ".join(map(str, value)),
)
def test_killed_ranks_cost_no_announced_checkpoint(tmp_path, victims, phase):
    announced = tmp_path / "announced"
    run_ranks(RANKS, die_at, str(tmp_path / "c"), victims, phase, str(announced), outcomes=True, timeout=150)
    told = [int(file.read_text()) for file in tmp_path.glob("announced-*")]
    assert max(told) >= 1
    for step, numbers in run_ranks(2, restore, str(tmp_path / "c")):
        assert step is not None
        assert step >= max(told)
        assert numbers == [float(step)]
    assert not list((tmp_path / "c").glob(".part-*"))  # what died in progress was cleared away
