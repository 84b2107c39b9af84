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
# Three equal documents a step on two ranks, of which one is best shared: Python's own library may hold none such.
DOCUMENTS, BYTES = 12, 680


def write_documents(folder: Path) -> None:
    sentence = b"Long documents are shared by many ranks, short ones stay whole. "
    for index in range(DOCUMENTS):
        text = b"# document %d\n" % index + sentence * (BYTES // len(sentence) + 1)
        (folder / f"{index:02}.py").write_bytes(text[:BYTES])


def run_the_loop(source: str, folder: Path) -> dict[str, Any]:
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
        patch.setattr(hetsp, "standard_library", lambda: folder)
        names: dict[str, Any] = {"__name__": "__main__"}
        exec(compile(source, str(PAGE), "exec"), names)
    return {"losses": names["losses"], "degrees": degrees, "calls": calls}


def on_both_ranks_then_on_one(rank: int, size: int, source: str, folder: Path) -> tuple[dict[str, Any], dict[str, Any] | None]:
    # AdamW divides by the root of tiny second moments: float32's rounding would not stay small over the steps.
    torch.set_default_dtype(torch.float64)
    together = run_the_loop(source, folder)
    dist.destroy_process_group()
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)  # each rank alone
    return together, run_the_loop(source, folder) if rank == 0 else None


def test_the_loop_of_the_page_trains_on_two_ranks_as_on_one(tmp_path: Path) -> None:
    write_documents(tmp_path)
    (block,) = [content for tag, content in fenced_blocks(PAGE.read_text(encoding="utf-8")) if tag == "python"]
    answers = run_ranks(2, on_both_ranks_then_on_one, block, tmp_path, timeout=240)
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
