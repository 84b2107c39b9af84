"""`hetsp train` where documents are fewer than ranks: who has none still takes part, with gradients of zeros."""

from pathlib import Path

import pytest

pytest.importorskip("transformers", reason="transformers is not installed")

from tests.support.train_runs import TrainRun, write_documents


@pytest.mark.parametrize("plan", ["data-parallel", "static"])
@pytest.mark.parametrize("sizes", [[3], [1, 7]], ids=str)
def test_losses_are_those_of_one_rank(plan: str, sizes: list[int], tmp_path: Path) -> None:
    documents = [*write_documents(tmp_path / "few", sizes), "--batch-tokens", "8", "--max-length", "8"]
    arguments = [*documents, "--steps", "3", "--dtype", "float64", "--verify", "--plan", plan]
    found = {}
    for ranks in (1, 3):
        out = ["--out", str(tmp_path / f"out-{ranks}")]
        records = TrainRun(ranks, [*arguments, *out], tmp_path / f"said-{ranks}").finish()
        steps = [record for record in records if "step" in record and record["plan"] == plan]
        found[ranks] = [record["loss"] for record in steps]
        if ranks == 3 and plan == "data-parallel":
            assert min(min(record["rank_tokens"]) for record in steps) == 0, "no rank was idle: the test shows nothing"
    assert found[3] == pytest.approx(found[1], rel=1e-10)
