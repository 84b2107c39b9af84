"""The loop that docs/training.md shows, run as a reader would paste it: on two ranks and on one it trains alike."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist

import hetsp_ext as hetsp
from tests.support.ranks import run_ranks
from tools.readme_block import fenced_blocks

pytest.importorskip("transformers", reason="transformers is not installed")

PAGE = Path(__file__).resolve().parents[2] / "docs" / "training.md"


def run_the_loop(source: str) -> dict[str, Any]:
    """Executes the page's block as a script, within the process group that there is; its losses, and the degrees it used."""
    calls: list[str] = []
    degrees: list[int] = []
    shard = hetsp.shard

    def watched(plan: hetsp.Plan, *args: Any, **options: Any) -> list[hetsp.Shard]:
        degrees.extend(len(group.ranks) for batch in plan.micro_batches for group in batch.groups)
        return shard(plan, *args, **options)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(dist, "init_process_group", lambda backend: calls.append(f"join {backend}"))
        patch.setattr(dist, "destroy_process_group", lambda: calls.append("leave"))
        patch.setattr(hetsp, "shard", watched)
        names: dict[str, Any] = {"__name__": "__main__"}
        exec(compile(source, str(PAGE), "exec"), names)
    return {"losses": names["losses"], "degrees": degrees, "calls": calls}


def on_both_ranks_then_on_one(rank: int, size: int, source: str) -> tuple[dict[str, Any], dict[str, Any] | None]:
    # AdamW divides by the root of tiny second moments: float32's rounding would not stay small over the steps.
    torch.set_default_dtype(torch.float64)
    together = run_the_loop(source)
    dist.destroy_process_group()
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)  # each rank alone
    return together, run_the_loop(source) if rank == 0 else None


def test_the_loop_of_the_page_trains_on_two_ranks_as_on_one() -> None:
    (block,) = [content for tag, content in fenced_blocks(PAGE.read_text(encoding="utf-8")) if tag == "python"]
    answers = run_ranks(2, on_both_ranks_then_on_one, block, timeout=240)
    (first, alone), (other, _) = answers
    assert alone is not None
    assert other["losses"] == first["losses"]
    assert first["losses"] == pytest.approx(alone["losses"], rel=1e-9)
    assert len(first["losses"]) == 3
    assert sorted(first["losses"], reverse=True) == first["losses"], "the loss falls"
    assert max(first["degrees"]) > 1, "documents were shared"
    assert set(alone["degrees"]) == {1}
    for answer, _ in answers:
        assert answer["calls"] == ["join gloo", "leave"]
