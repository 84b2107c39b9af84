"""The arithmetic of bench/checkpoint/lazy_bench.py; its times are for people to run."""

from pathlib import Path
from typing import Any

import pytest
import torch

from bench.checkpoint.lazy_bench import Contender, bars, render, turn, whole_rows
from bench.checkpoint.savers import Dcp, DcpAsync, Hetsp, PlainCopy, Saver
from bench.checkpoint.training import Shape, Training

TURN = {"blocks": 0.001, "stall": 0.001, "longer": 0.011, "durable": 0.5, "iteration": 1.0, "memory": 70e6, "call's CPU": 0.003}


def contender(kind: type[Saver], **figures: float) -> Contender:
    first = {**TURN, "blocks": 9.0, "durable": 99.0}
    return Contender(kind, None, None, [first, *({**TURN, **figures} for _ in range(3))])


def test_bars_compare_with_the_right_saver_and_leave_out_first_saves() -> None:
    every = [
        contender(Dcp, durable=1.6),
        contender(DcpAsync, durable=2.4),
        contender(PlainCopy, longer=0.02),
        contender(Hetsp, longer=0.021),
    ]
    found = {bar["bar"]: bar for bar in bars(every, [0.4, 0.5, 0.6])}
    assert {name: bar["met"] for name, bar in found.items()} == {
        "save() blocks, ms": True,
        "save() computes, ms": False,
        "stall, % of an iteration": True,
        "memory beyond the ring, MB": True,
        "write rate until durable, over fio's": True,
        "durable sooner than dcp.save, times": True,
        "durable sooner than dcp.async_save, times": False,
        "longer, over a memcpy thread's": True,
    }
    assert found["durable sooner than dcp.async_save, times"]["found"] == pytest.approx(4.8)
    assert found["memory beyond the ring, MB"]["found"] == pytest.approx((70e6 - (64 << 20)) / 1e6)
    every[2] = contender(PlainCopy, longer=-0.02)
    (longer,) = [bar for bar in bars(every, []) if bar["bar"].startswith("longer")]
    assert (longer["bar"], longer["asked"], longer["met"]) == ("longer, % of an iteration", 1.0, False)
    text = render(every, [0.5])
    assert "9.000" in text.splitlines()[-2], "the first save is shown apart"
    assert "3.20x" in text.splitlines()[-2]


@pytest.mark.parametrize(("disk", "bound"), [(0.5, 1.1), (2.0, 0.55)])
def test_a_save_each_iteration_is_held_to_the_slower_of_loop_and_disk(disk: float, bound: float) -> None:
    slow = contender(Hetsp)
    slow.whole = [{"without": 1.0, "with": 1.1, "disk": disk}] * 3
    (row,) = whole_rows(slow)
    assert row["over_without"] == pytest.approx(1.1)
    assert row["over_bound"] == pytest.approx(bound)


class Wrong(Saver):
    """Keeps a reference instead of a copy: what it gives back are later values."""

    name = "wrong"

    def save(self) -> None:
        self.kept: Any = self.training.state()

    def read(self, names: list[str]) -> dict[str, Any]:
        return {name: self.kept[name] for name in names}


def test_a_saver_that_keeps_later_values_is_found_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bench.checkpoint.training.WIDTH", 32)
    monkeypatch.setattr("bench.checkpoint.training.TARGET", 0.0)
    threads = torch.get_num_threads()
    try:
        training = Training(Shape(2), "sleep")
        training.window = 0.0
        with pytest.raises(AssertionError, match=r"holds other values.*p\.0\.weight"):
            turn(training, Wrong(training, tmp_path))
    finally:
        torch.set_num_threads(threads)
