"""The trace of attention: what it keeps, and whose clock it trusts."""

import pytest
import torch

from hetsp_ext.sequence_parallel.trace import Trace, TraceEvent


def test_waits_are_summed_and_events_kept_only_if_asked() -> None:
    for keep in (False, True):
        trace = Trace(keep=keep)
        for kind in ("attend", "wait", "wait"):
            with trace.range("x", kind, "forward"):
                pass
        assert trace.waited > 0
        assert [event.kind for event in trace.events] == (["attend", "wait", "wait"] if keep else [])


def test_other_threads_turns_are_left_out() -> None:
    assert TraceEvent("x", "attend", "forward", 1.0, 3.0, delayed=0.5).seconds == 1.5
    assert TraceEvent("x", "attend", "forward", 1.0, 3.0, delayed=5.0).seconds == 0.0


class FakeEvent:
    """torch.cuda.Event on a device that takes 7 ms from one mark to the next."""

    marks: list["FakeEvent"]

    def __init__(self, enable_timing: bool) -> None:
        assert enable_timing
        self.synchronized = False

    def record(self) -> None:
        self.milliseconds = 7.0 * len(FakeEvent.marks)
        FakeEvent.marks.append(self)

    def synchronize(self) -> None:
        self.synchronized = True

    def elapsed_time(self, later: "FakeEvent") -> float:
        assert later.synchronized, "the device has not come so far"
        return later.milliseconds - self.milliseconds


def test_a_device_tells_its_own_time(monkeypatch: pytest.MonkeyPatch) -> None:
    FakeEvent.marks = []
    monkeypatch.setattr(torch.cuda, "Event", FakeEvent)
    trace = Trace(keep=True, device="cuda")
    for kind in ("attend", "wait"):
        with trace.range("x", kind, "forward"):
            pass
    first, second = trace.events
    assert first.seconds == pytest.approx(7e-3)
    assert second.seconds == pytest.approx(7e-3)
    assert second.begin >= first.begin
    assert trace.events == [first, second]
    silent = Trace(keep=False, device="cuda")
    with silent.range("x", "attend", "forward"):
        pass
    assert len(FakeEvent.marks) == 4
