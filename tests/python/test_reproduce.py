"""Reproductions of published tables: their parts against arithmetic, and each one at its smallest."""

import functools
import json
from pathlib import Path

import numpy as np
import pytest

import hetsp_ext as hetsp
from hetsp_ext.cli import main
from hetsp_ext.errors import InvalidArgument
from hetsp_ext.simulator.reproduce import NAMES, AutoRow, Cell, Report, byted, flexsp, hdp, lengths, published, reproduce, zones
from hetsp_ext.simulator.reproduce.report import auto_row

SETTING = hetsp.preset("bytescale-7b")


@functools.cache
def reproduced(name: str) -> Report:
    """One step of every table, on stand-ins for the data."""
    seen: list[str] = []
    report = reproduce(name, None, 1, seen.append)
    assert seen or name == "frontier"
    return report


def test_a_report_shows_deviations_and_why_a_cell_is_missing() -> None:
    report = Report(
        "Name", "source", [Cell("row", "a", 2.0, 3.0, "s"), Cell("row", "b", 1.0, None, "x", "no data")], ["assumed"]
    )
    text = str(report)
    assert "+50.0 %" in text
    assert "(no data)" in text
    assert "- assumed" in text
    records = json.loads(json.dumps(report.as_dict()))["cells"]
    assert [record["deviation"] for record in records] == [0.5, None]


@pytest.mark.parametrize("seed", range(2))
def test_byted_has_the_published_shares(seed: int) -> None:
    drawn = np.array(byted.draw(1 << 32, seed), dtype=np.int64)
    assert drawn.sum() == 1 << 32
    for limit, share in published.BYTED_DOCUMENTS[:2]:
        assert (drawn <= limit).mean() == pytest.approx(share, abs=0.002)
    for limit, share in published.BYTED_TOKENS_ABOVE.items():
        above = drawn >= limit if limit == 2097152 else drawn > limit
        assert drawn[above].sum() / drawn.sum() == pytest.approx(share, abs=0.03)


@pytest.mark.parametrize("seed", range(3))
def test_every_rung_holds_every_sequence_within_memory(seed: int) -> None:
    room, ranks, ring = 1000, 64, 16
    generator = np.random.default_rng(seed)
    drawn = generator.lognormal(5.0, 1.5, 300).astype(int).clip(1, room * ring).tolist()
    sequences = SETTING.sequences(drawn)
    units = hdp.units_of(drawn, room, hdp.ranks_by_memory(room))
    work = hetsp.CostModel(1e-9, 1e-6)  # no communication: what remains is balance
    plans = [
        hdp.static_plan(drawn, sequences, ranks, ring, room),
        hdp.naive_plan(units, sequences, ranks),
        hdp.balanced_plan(units, sequences, work, ranks),
    ]
    for plan in plans:
        # A zigzag cut may hold 2 tokens of a sequence more than an even share.
        most = max(len(group.sequences) for micro_batch in plan.micro_batches for group in micro_batch.groups)
        plan.check(hetsp.Cluster(ranks, room + 2 * most))
    naive, balanced = (hetsp.simulate(plan, work) for plan in plans[1:])
    assert balanced.makespan <= naive.makespan
    assert sum(balanced.busy) == pytest.approx(sum(naive.busy))


@pytest.mark.parametrize("seed", range(3))
def test_zones_cut_what_is_long_and_fit(seed: int) -> None:
    generator = np.random.default_rng(seed)
    drawn = generator.lognormal(6.0, 1.2, 60).astype(int).clip(1, 30000).tolist()
    sequences = SETTING.sequences(drawn)
    for room in (max(drawn), 1 + sum(drawn) // 12):
        plan = zones.zones_plan(drawn, sequences, 16, 4, room, s1=20000.0, s0=3000.0)
        plan.check(hetsp.Cluster(16, room + 2 * len(drawn)))
        degree = {i: len(group.ranks) for group in plan.micro_batches[0].groups for i in group.sequences}
        for i, length in enumerate(drawn):
            assert degree[i] > 1 or length < 3000
            if degree[i] > 4:
                assert degree[i] % 4 == 0, "whole nodes"
    few = zones.zones_plan([100, 200, 50], SETTING.sequences([100, 200, 50]), 16, 4, 1000, 20000.0, 3000.0)
    assert few.one_line() == "3x1"


def test_lengths_are_files_or_named_stand_ins(tmp_path: Path) -> None:
    assert "STAND-IN" in lengths.load("wikipedia", None).origin
    assert "STAND-IN" in lengths.load("wikipedia", tmp_path).origin
    np.savez(tmp_path / "lengths_wikipedia.npz", lengths=np.array([5, 900, 7, 0, 3], np.uint32))
    loaded = lengths.load("wikipedia", tmp_path)
    assert "5 lengths of lengths_wikipedia.npz" in loaded.origin
    assert loaded.batches(2, 2, 100) == [[5, 7], [3, 5]]
    drawn = loaded.until(100, 10, seed=1)
    assert sum(drawn) == 100
    assert max(drawn) <= 7
    (tmp_path / "lengths_github.npz").write_text("none")
    with pytest.raises(InvalidArgument, match=r"lengths_github.npz cannot be read"):
        lengths.load("github", tmp_path)
    with pytest.raises(InvalidArgument, match="is no folder"):
        lengths.load("github", tmp_path / "nowhere")
    with pytest.raises(InvalidArgument, match="no length is at most 2"):
        loaded.until(5, 2, 0)


def test_flexsp_cells_are_the_plans_own_seconds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(flexsp, "FLEXSP", {("7b", 192, "wikipedia"): published.FLEXSP["7b", 192, "wikipedia"]})
    report = flexsp.reproduce(None, 1, lambda _: None)
    by_column = {cell.column: cell.simulated for cell in report.cells}
    setting = hetsp.preset("flexsp-7b")
    (step,) = lengths.load("wikipedia", None).batches(1, 512, 192 * 1024)
    static = hetsp.plan(
        setting.sequences(step),
        setting.cluster(64, 192 * 1024),
        setting.cost_model,
        "static",
        executable=("whole", "ulysses"),
        exclusive=True,
        degrees="pow2",
        synchronisation="layer",
    )
    assert by_column["DeepSpeed"] == pytest.approx(static.makespan, rel=1e-9)
    assert max(by_column["FlexSP"], by_column["BatchAda"]) <= by_column["DeepSpeed"]
    assert by_column["Megatron-LM"] is None


def test_a_zeppelin_round_is_bytes_over_bandwidth(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["simulate", "--reproduce", "zeppelin", "--batches", "1", "--json"]) == 0
    cells = {cell["column"]: cell for cell in json.loads(capsys.readouterr().out)["cells"]}
    bytes_ = 4096 * 3200 * 2 * 2  # tokens, hidden, keys and values, bfloat16
    assert cells["own NIC"]["simulated"] == pytest.approx(1e3 * bytes_ / 24e9)
    assert cells["transfer leg, routed"]["simulated"] == pytest.approx(1e3 * bytes_ / 4 / 24e9)
    assert cells["routing"]["simulated"] >= cells["routing, legs in turn"]["simulated"] > 1.0


def test_the_others_run() -> None:
    for name in ("megatron-dcp", "frontier", "bytescale"):
        report = reproduced(name)
        assert all(cell.simulated is not None or cell.note for cell in report.cells), "a missing number says why"
        assert any(cell.simulated is not None for cell in report.cells)
    by_rung = {cell.column: cell.simulated for cell in report.cells}
    assert by_rung["static"] > by_rung["naive HDP"] > by_rung["balanced HDP"]


@pytest.mark.parametrize("name", NAMES)
def test_auto_is_never_slower_than_a_printed_system(name: str) -> None:
    report = reproduced(name)
    assert {row.row for row in report.auto} == {cell.row for cell in report.cells}
    for row in report.auto:
        if row.least is None or row.ratio is None:
            assert row.note, f"{row.row} says why it has none"
        else:
            assert row.least >= 1 - 1e-9, f"{row.row}, {row.column}: {row.best}"
            assert row.ratio >= row.least * (1 - 1e-9) or row.ratio >= 1.0
    compared = {"flexsp": 18, "bytescale": 2, "zeppelin": 1, "megatron-dcp": 4, "frontier": 0}
    assert sum(row.ratio is not None for row in report.auto) == compared[name]


def test_a_row_of_auto_is_beside_the_best_of_each_step() -> None:
    row = auto_row("row", [1.0, 2.0], {"a": [1.5, 2.0], "b": [1.2, 4.0]}, "column")
    assert (row.seconds, row.best) == (1.5, "a")
    assert row.ratio == pytest.approx(1.75 / 1.5)
    assert row.least == pytest.approx(1.0)
    report = Report("Name", "source", auto=[row, AutoRow("other", note="no plan")])
    assert "row, column" in str(report)
    assert "a over it 1.167 x, in its worst step 1.000 x" in str(report)
    assert "(no plan)" in str(report)
    assert [record["row"] for record in report.as_dict()["auto"]] == ["row", "other"]


def test_bad_requests_are_named(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(InvalidArgument, match="'gpt' is unknown; allowed: flexsp"):
        reproduce("gpt")
    with pytest.raises(InvalidArgument, match="batches is 0"):
        reproduce(NAMES[0], batches=0)
    assert main(["simulate", "--reproduce", "flexsp", "--data", "nowhere"]) == 2
    assert "nowhere is no folder" in capsys.readouterr().err
