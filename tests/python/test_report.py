"""What a run told, packed for another process of the same run."""

import json
from pathlib import Path

from hetsp_ext.train.report import Report


def test_records_survive_packing_and_go_on(tmp_path: Path) -> None:
    first = Report(0, as_json=False)
    packed = []
    for number in range(50):
        first.record({"step": number, "loss": 1 / (number + 3), "plan": "auto" if number < 30 else "static"})
        packed.append(first.packed())
    assert len(packed[-1]) < 40 * 50
    assert packed[-1] == first.packed()
    for count in (1, 20, 50):  # what a kill leaves is a snapshot of any moment
        second = Report(0, as_json=False)
        second.go_on_from(packed[count - 1])
        assert second.records == first.records[:count]
        (tmp_path / "metrics.jsonl").write_text("of an earlier process")
        second.keep_in(tmp_path)
        second.record({"step": count, "plan": "static"})
        assert json.loads(json.dumps(second.steps("static")))[-1] == {"step": count, "plan": "static"}
        third = Report(0, as_json=False)
        third.go_on_from(second.packed())
        assert third.records == second.records
        second.done()
        lines = (tmp_path / "metrics.jsonl").read_text().splitlines()
        assert [json.loads(line) for line in lines] == third.records


def test_only_rank_0_has_records(tmp_path: Path) -> None:
    report = Report(1, as_json=False)
    report.record({"step": 1, "plan": "auto"})
    report.keep_in(tmp_path)
    report.go_on_from(report.packed())
    assert report.records == []
    assert list(tmp_path.iterdir()) == []
