"""The checkpoints of `hetsp train`: when one is due, what becomes of one that fails, and which run a folder holds."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import hetsp_ext

from ..checkpoint.store import MANIFEST, list_checkpoints, read_values
from ..errors import CheckpointError, CheckpointMutated, InvalidArgument
from .options import EVERY, Options
from .run_state import RunState
from .step import Trainer

__all__ = ["Checkpoints", "require_folder", "require_no_checkpoints", "saved_run"]

logger = logging.getLogger("hetsp")


def saved_run(folder: Path) -> RunState | None:
    """The newest run state that can be read in a folder, without its model; None where there is no checkpoint, or none
    that can be read. What `restore` loads in the end may be older, but is of the same run."""
    for info in list_checkpoints(folder):
        if info.fault is not None:
            continue  # restore says what is wrong with it
        try:
            return RunState.of(read_values(info.path, "run"))
        except InvalidArgument:
            raise InvalidArgument(f"{info.path} is no checkpoint of `hetsp train`: it holds no state of a run") from None
    return None


def require_folder(folder: Path) -> None:
    """A folder for checkpoints, or the name of one to be made; not a file, and not one of the checkpoints."""
    if folder.exists() and not folder.is_dir():
        raise InvalidArgument(f"--checkpoint-dir {folder} is not a folder")
    if (folder / MANIFEST).exists():
        raise InvalidArgument(f"--checkpoint-dir {folder} is itself a checkpoint; name the folder that holds it")


def require_no_checkpoints(folder: Path) -> None:
    """A run that begins at step 1 beside the checkpoints of another would prune them, one by one."""
    found = list_checkpoints(folder)
    if found:
        raise InvalidArgument(
            f"--checkpoint-dir {folder} holds {len(found)} checkpoints; --resume goes on from them, another folder begins anew"
        )


class Checkpoints:
    """Saves a trainer and the state of its run; all ranks of the run call alike.

    A save that fails (a full disk, say) is logged and costs that checkpoint alone: training goes on, and the next one is tried.
    `failed`, known after close(), is why the last one was lost, None where it was committed.
    """

    def __init__(self, options: Options, trainer: Trainer, state: RunState) -> None:
        assert options.checkpoint_dir is not None
        self._every = options.every or EVERY
        self._lazy = hetsp_ext.LazyCheckpointer(
            options.checkpoint_dir,
            model=trainer.model,
            optimizer=trainer.optimizer,
            run=state,
            timeout=options.timeout,
        )
        self.failed: CheckpointError | None = None

    def restore(self) -> Any:
        """Loads the newest checkpoint that verifies into trainer and state; None where there is none."""
        return self._lazy.restore()

    def due(self, step: int) -> bool:
        """Whether a checkpoint follows step `step` (counted from 1) of a phase that goes on after it."""
        return step % self._every == 0

    def save(self, step: int) -> None:
        """Begins a checkpoint; call it between an optimizer step and the next forward. `step` counts through the phases."""
        try:
            self._lazy.save(step)
        except CheckpointMutated as error:  # of the save before; this one has begun
            logger.warning("a checkpoint was lost: %s", error)

    def close(self) -> None:
        """Waits for the last save."""
        try:
            self._lazy.close()
        except CheckpointError as error:
            self.failed = error

    def summary(self) -> dict[str, Any]:
        """How many there were, and the most seconds that one blocked save() and made training wait elsewhere; after close()."""
        saves = self._lazy.stats.saves
        return {
            "committed": len(self._lazy.stats.committed),
            "failed": len(self._lazy.stats.failed),
            "blocked_most": max((save.blocked for save in saves), default=0.0),
            "stall_most": max((save.stall for save in saves), default=0.0),
        }
