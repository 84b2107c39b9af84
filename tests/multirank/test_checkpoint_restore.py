"""restore_newest on several ranks: one verdict, and where it is bad no rank keeps anything."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import torch
import torch.distributed as dist

from hetsp_ext.checkpoint.store import Target, restore_newest
from hetsp_ext.errors import CheckpointCorrupt, InvalidArgument
from tests.support.checkpoints import write_checkpoint
from tests.support.ranks import run_ranks

ROWS = 30


def whole(step):
    return torch.arange(ROWS * 4.0).reshape(ROWS, 4) + step


def damage(path, rank):
    file = path / f"rank-{rank:05d}.safetensors"
    data = bytearray(file.read_bytes())
    data[-1] ^= 1
    file.write_bytes(data)


def attempt(rank, size, folder, alter=None):
    """Each rank restores the rows that its own file holds; what came of it, and whether its rows changed."""
    live = torch.full((10, 4), -1.0)

    def targets(manifest):
        if alter == "shape" and rank == 1:
            return [Target("w", torch.zeros(3, 5), (0, 0))]
        if alter == "crash" and rank == 1:
            raise KeyError("a mistake of the caller")
        if alter == "refuses" and rank == 2 and manifest.step > 1:
            raise CheckpointCorrupt("rank 2 does not like its values")
        return [Target("w", live, (rank * 10, 0))]

    where = folder / str(rank) if alter == "elsewhere" else folder
    try:
        done = restore_newest(where, targets, group=dist.group.WORLD)
    except Exception as error:
        return type(error), str(error), bool((live != -1).any())
    if done is None:
        return None
    assert torch.equal(live, whole(done.step)[rank * 10 : rank * 10 + 10])
    return done.step, [(skip.step, skip.reason) for skip in done.skipped]


def attempts(rank, size, folder):
    found = {}
    for name in ("whole", "fault", "none"):
        found[name] = attempt(rank, size, folder / name)
    for alter in ("shape", "crash", "refuses", "elsewhere"):
        found[alter] = attempt(rank, size, folder / ("apart" if alter == "elsewhere" else "whole"), alter)
    found["absent"] = attempt(rank, size, folder / "nothing")
    return found


def restore_here(rank, size, folder):
    os.chdir(folder / str(rank))
    return attempt(rank, size, Path())


def test_ranks_that_see_different_checkpoints_under_one_name_restore_neither(tmp_path):
    """As where a directory is local to each node: rank 1's step 2 has the name of the others' and is another save's."""
    for rank in range(3):
        for step, uid in ((1, "01"), (2, "zz" if rank == 1 else "02")):
            path = tmp_path / str(rank) / f"step-{step}-{uid}"
            write_checkpoint(path, {"w": whole(step)}, step=step, sequence=step, world=3, cuts={"w": [10, 20]})
    (tmp_path / "1/step-2-zz").rename(tmp_path / "1/step-2-02")
    for step, ((skipped, reason),) in run_ranks(3, restore_here, tmp_path):
        assert (step, skipped) == (1, 2)
        assert "rank 1: step-2-02: is zz here, 02 on the first rank" in reason


def test_all_ranks_come_to_one_verdict(tmp_path):
    for folder in ("whole", "fault", "none"):
        for step in (1, 2):
            path = tmp_path / folder / f"step-{step}-{step:02x}"
            write_checkpoint(path, {"w": whole(step)}, step=step, sequence=step, world=3, cuts={"w": [10, 20]})
    damage(tmp_path / "fault/step-2-02", 1)
    damage(tmp_path / "none/step-2-02", 2)
    damage(tmp_path / "none/step-1-01", 0)
    for rank in range(3):
        shutil.copytree(tmp_path / "whole", tmp_path / "apart" / str(rank))
    shutil.rmtree(tmp_path / "apart/1/step-2-02")
    found = run_ranks(3, attempts, tmp_path)

    assert [ranks["whole"] for ranks in found] == [(2, [])] * 3
    for ranks in found:
        step, ((skipped, reason),) = ranks["fault"]
        assert (step, skipped) == (1, 2)
        assert reason.startswith("rank 1: rank-00001.safetensors bytes")
        kind, text, changed = ranks["none"]
        assert kind is CheckpointCorrupt
        assert "rank 2: rank-00002.safetensors" in text
        assert "rank 0: rank-00000.safetensors" in text
        assert not changed, "ranks whose own bytes verified have taken them back"
        step, ((skipped, reason),) = ranks["refuses"]
        assert (step, skipped, reason) == (1, 2, "rank 2: rank 2 does not like its values")
        assert ranks["absent"] is None
    kinds = [ranks["shape"][0] for ranks in found]
    assert kinds == [InvalidArgument] * 3
    assert "failed on rank 1" in found[0]["shape"][1]
    assert [ranks["crash"][0] for ranks in found] == [InvalidArgument, KeyError, InvalidArgument]
    assert "failed on rank 1: KeyError: 'a mistake of the caller'" in found[2]["crash"][1]
    assert not any(ranks[alter][2] for ranks in found for alter in ("shape", "crash"))
    for ranks in found:  # rank 0 names a directory of its own, which the others do not read as theirs
        assert ranks["elsewhere"][0] == 2
