"""The GPU benchmark where there is no GPU: its arithmetic, its contenders, and that a row's end is not the table's."""

import json
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from bench.attention import cuda_attention_bench as cuda_bench
from bench.attention.cuda_contenders import LISTS_GIVEN, OURS, Contenders, contenders, difference
from bench.attention.cuda_rows import CODE, EQUAL_WORK, ROWS, SKEWED, WIKIPEDIA, Bar, Problem, Row
from bench.support import Comparison
from bench.support.device_timing import ClockLog


def test_work_is_counted_as_the_published_tables_do() -> None:
    forward = Problem((16_384,), heads=16)
    assert forward.flop == 4 * 128 * 16 * 16_384**2 / 2
    assert Problem((16_384,), heads=16, backward=True).flop == 2.5 * forward.flop
    assert Problem((10, 20), 1, 1, 192, 128, backward=True, causal=False).flop == 2 * (3 * 192 + 2 * 128) * 500


def test_lengths_are_a_step_each_and_the_skewed_batch_has_its_equal() -> None:
    assert sum(CODE) == sum(WIKIPEDIA) == 32_768
    skewed, one = Problem(SKEWED, backward=True).flop, Problem((EQUAL_WORK,), backward=True).flop
    assert one == pytest.approx(skewed, rel=1e-4)


def test_rows_have_names_of_their_own_and_the_first_ones_have_bars() -> None:
    assert len({row.name for row in ROWS}) == len(ROWS)
    assert all(row.bars for row in ROWS[:8])


def test_verdicts() -> None:
    rate = Bar("TFLOP/s", 600, 680, 720)
    assert [rate.verdict(found) for found in (599, 600, 700, 720)] == ["NOT met", "must met", "strong met", "aim met"]
    hop = Bar("of a plain hop's time", 1.03, 1.01, 1.0, least=False)
    assert [hop.verdict(found) for found in (1.04, 1.02, 1.0, 0.9)] == ["NOT met", "must met", "aim met", "aim met"]


def test_figures_are_ratios_within_a_round() -> None:
    seconds = {OURS: [1.0, 2.0, 4.0], "varlen_attn": [2.0, 4.0, 8.0], "plain hop": [0.5, 1.0, 2.0]}
    found = cuda_bench.figures(Comparison("case", "varlen_attn", seconds, {"FLOP": 4e12}))
    assert found == {"TFLOP/s": 2.0, "over varlen_attn": 2.0, "of a plain hop's time": 2.0}
    bars = cuda_bench.judged(
        Row("row", Problem((1,)), bars=(Bar("over varlen_attn", 1.3, 1.6, 2.0), Bar("other", 1, 1, 1))), found
    )
    assert [bar["verdict"] for bar in bars] == ["aim met", "not measured"]


@pytest.mark.parametrize("backward", [False, True], ids=["forward", "backward"])
@pytest.mark.parametrize(("heads_kv", "causal"), [(4, True), (2, True), (4, False)])
def test_contenders_of_a_batch_agree(heads_kv: int, causal: bool, backward: bool) -> None:
    problem = Problem((40, 1, 33), 4, heads_kv, 16, 16, "float32", backward, causal)
    them = contenders(problem, "batch", "cpu")
    assert set(them.calls) == {OURS, LISTS_GIVEN, "flash SDPA"}, them.absent  # cuDNN and varlen_attn are a GPU's
    assert set(them.absent) == {"varlen_attn", "cuDNN SDPA"}
    name, apart = cuda_bench.compared(them)
    assert name == "flash SDPA"
    assert apart < 1e-5


def test_a_seeded_hop_is_a_hop_and_a_merge() -> None:
    them = contenders(Problem((50,), 2, 2, 16, 16, "float32", causal=False), "ring", "cpu")
    assert cuda_bench.compared(them)[1] < 1e-5
    assert difference(them.calls[OURS](), them.calls["plain hop"]()) > 0.1  # lse knows that the keys came twice


@pytest.mark.parametrize("kind", ["skewed", "deterministic"])
def test_other_kinds_run(kind: str) -> None:
    them = contenders(Problem((64, 2, 2), 2, 2, 16, 16, "float32", True), kind, "cpu")
    assert set(them.calls) == {OURS, {"skewed": "hetsp, one document", "deterministic": "hetsp, free order"}[kind]}


def test_differences_and_nan_are_seen() -> None:
    ones = torch.ones(4)
    assert difference([ones, ones], [ones, ones * 2]) == pytest.approx(0.5)
    assert not difference(torch.full((4,), torch.nan), ones) <= cuda_bench.MOST_DIFFERENCE


def test_what_a_row_has_to_be_told_of() -> None:
    bars = [
        {"figure": "TFLOP/s", "found": 650.0, "verdict": "must met"},
        {"figure": "over varlen_attn", "found": 1.25, "verdict": "NOT met"},
        {"figure": "of one document's rate", "found": None, "verdict": "not measured"},
    ]
    row = {"kernels": "hopper", "difference": {"norm": 0.003, "allowed": 0.015}, "bars": bars}
    assert cuda_bench.remarks(row) == "must met; NOT met (1.25 over varlen_attn); not measured"
    row = {"kernels": "mma (head_dim is 256)", "difference": {"norm": float("nan"), "allowed": 0.015}, "bars": []}
    assert cuda_bench.remarks(row) == "WRONG RESULT (nan); mma"


def test_our_own_failure_is_not_an_absence() -> None:
    def fails() -> None:
        raise RuntimeError("no such kernel\nand more")

    them = Contenders()
    them.add("varlen_attn", lambda: fails)
    assert them.absent == {"varlen_attn": "no such kernel"}
    with pytest.raises(RuntimeError, match="no such kernel"):
        them.add(OURS, lambda: fails)


def test_a_run_writes_its_record(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "result.json"
    few = ["--rows", "32k packed, code", "--device", "cpu", "--divide", "256", "--rounds", "3", "--row-seconds", "1"]
    cuda_bench.main([*few, "--out", str(out)])
    record = json.loads(out.read_text())
    assert [case["case"] for case in record["cases"]] == ["forward 32k packed, code", "backward 32k packed, code"]
    for case in record["cases"]:
        assert case["problem"]["tokens"] == sum(n // 256 or 1 for n in CODE)
        assert case["difference"]["norm"] <= cuda_bench.MOST_DIFFERENCE
        assert case["kernels"] == "cpu"
        assert len(case["seconds"][OURS]) == case["rounds"] == 3
        assert [bar["figure"] for bar in case["bars"]] == ["TFLOP/s", "over varlen_attn"]
    assert "WRONG" not in capsys.readouterr().out


CRASHES_AT_THE_SECOND = """
import json, sys, time
rows = sys.argv[sys.argv.index("--exactly") + 1 :]
for row in rows:
    if row == "b":
        sys.exit("an illegal address")
    if row == "c":
        time.sleep(60)
    print("@row " + json.dumps({"case": row}), flush=True)
"""


def test_a_row_that_crashes_or_hangs_does_not_hide_the_next(monkeypatch: pytest.MonkeyPatch) -> None:
    started = []

    def stub(command: list[str], **options: object) -> subprocess.Popen[str]:
        started.append(command[command.index("--exactly") + 1 :])
        return popen([sys.executable, "-c", CRASHES_AT_THE_SECOND, *command[3:]], **options)

    popen = subprocess.Popen
    monkeypatch.setattr(cuda_bench.subprocess, "Popen", stub)
    monkeypatch.setattr(cuda_bench, "START_SECONDS", 2)
    options = cuda_bench.parse(["--device", "cpu", "--row-seconds", "0.1"])
    found = list(cuda_bench.isolated(options, [Row(name, Problem((1,))) for name in "abcd"]))
    assert found[0] == {"case": "a"}
    assert found[1] == {"case": "b", "failed": "exit code 1: an illegal address"}
    assert found[2] == {"case": "c", "failed": "no result within its time"}
    assert found[3] == {"case": "d"}
    assert started == [["a", "b", "c", "d"], ["c", "d"], ["d"]]
    assert cuda_bench.table(found[1:3]).count("\n") == 2


def test_a_budget_leaves_out_the_last_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    popen = subprocess.Popen
    sleeper = [sys.executable, "-c", "import time; time.sleep(60)"]
    monkeypatch.setattr(cuda_bench.subprocess, "Popen", lambda command, **options: popen(sleeper, **options))
    options = cuda_bench.parse(["--device", "cpu", "--budget", "0.5"])
    found = list(cuda_bench.isolated(options, [Row(name, Problem((1,))) for name in "ab"]))
    assert [record["failed"] for record in found] == ["not measured: the budget of 0.5 s is over"] * 2


@pytest.mark.parametrize("arguments", [["--rounds", "0"], ["--budget", "-1"], ["--rows", "nothing of that name"]])
def test_bad_options_are_named(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        cuda_bench.parse(arguments)
    assert arguments[1] in capsys.readouterr().err


def test_clocks_of_a_span() -> None:
    log = ClockLog()
    log.note("1980, 650.5, 60")
    log.note("[N/A], 1, 2")
    log.note("1785, 690.5, 62")
    span = log.readings[0][0], time.monotonic()
    assert log.between(*span)["sm_mhz"] == {"median": 1882.5, "least": 1785.0, "most": 1980.0}
    assert log.between(span[0] - 9, span[0] - 8) == {"absent": "nvidia-smi gave no reading in this time"}
