"""The attention benchmark: its contenders compute the same, and its bars judge what was found. No wall time is asserted."""

import json
from pathlib import Path

import pytest
import torch

from bench.attention import contenders, varlen_attention_bench
from bench.attention.contenders import Batch, Setting
from bench.support import Comparison

LENGTHS = (40, 7, 7, 7, 1, 33)
CASE = varlen_attention_bench.Case("b", "8/8", 64, "bfloat16", "forward", 1)


@pytest.mark.parametrize("heads_kv", [4, 2])
def test_all_contenders_compute_the_same(heads_kv: int) -> None:
    batch = Batch(Setting(LENGTHS, 4, heads_kv, 16, torch.float64, True))
    expected = batch.run(contenders.hetsp_varlen(LENGTHS))
    for buckets in (contenders.each(LENGTHS), contenders.runs(LENGTHS)):
        assert sum(count * length for count, length in buckets) == sum(LENGTHS)
        for gqa in ("enable_gqa", "expanded"):
            found = batch.run(contenders.sdpa_bucketed(buckets, gqa))
            for x, y in zip(found, expected, strict=True):
                torch.testing.assert_close(x, y, atol=1e-12, rtol=1e-12)


def test_buckets_are_left_out_where_they_are_the_loop() -> None:
    alone = contenders.contenders(Setting((9,), 2, 2, 8, torch.float32, False), "as they are")
    assert list(alone) == ["SDPA loop", "hetsp"]
    many = contenders.contenders(Setting((9, 9), 2, 2, 8, torch.float32, False), "as they are")
    assert list(many) == ["SDPA loop", "SDPA bucketed", "hetsp"]


def timed(loop: float, bucketed: float, ours: float) -> Comparison:
    seconds = {"SDPA loop": [loop] * 3, "SDPA bucketed": [bucketed] * 3, "hetsp": [ours] * 3}
    return Comparison("case", "SDPA loop", seconds, {"FLOP": 1.0})


def test_bars_are_met_and_missed() -> None:
    met = varlen_attention_bench.bars(CASE, timed(2.8, 1.0, 1.0), 0.75)
    assert [(each["bar"], each["asked"], each["met"]) for each in met] == [
        ("over the SDPA loop", 2.8, True),
        ("over SDPA bucketed", 1.0, True),
        ("of torch.mm's rate", 0.75, True),
    ]
    missed = varlen_attention_bench.bars(CASE, timed(2.7, 0.9, 1.0), 0.74)
    assert not any(each["met"] for each in missed)


def test_at_128_a_tenth_less_will_do() -> None:
    wide = varlen_attention_bench.Case("a", "8/8", 128, "float32", "forward", 1)
    (over, _) = varlen_attention_bench.bars(wide, timed(1.72, 2.0, 1.0), 0.1)
    assert over["asked"] == pytest.approx(1.71)
    assert over["met"]


def test_options_choose_cases() -> None:
    def titles(*arguments: str) -> list[str]:
        return [case.title for case in varlen_attention_bench.cases(varlen_attention_bench.parse(list(arguments)))]

    few = ["--shapes", "d", "--heads", "8/8", "--dims", "64", "--dtypes", "float32"]
    assert titles(*few, "--threads", "1") == [
        "d float32 forward, heads 8/8 of 64, 1 thread",
        "d float32 forward+backward, heads 8/8 of 64, 1 thread",
    ]
    assert len(titles("--threads", "1")) == 3 * 2 * 2 * 4  # 8/8 of 64 and 128, 8/2 of 64


def test_a_run_writes_its_record(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "result.json"
    few = ["--quick", "--shapes", "d", "--heads", "8/2", "--dtypes", "bfloat16", "--passes", "forward", "--threads", "1"]
    varlen_attention_bench.main([*few, "--rounds", "1", "--out", str(out)])
    record = json.loads(out.read_text())
    (case,) = record["cases"]
    assert set(case["contenders"]) == {"SDPA loop", "SDPA bucketed", "hetsp"}
    assert case["sdpa_key_heads"] in ("enable_gqa", "expanded")
    assert [each["bar"] for each in case["bars"]] == ["over the SDPA loop", "over SDPA bucketed"]
    assert "2 bars met (quick: means nothing)" in capsys.readouterr().out
