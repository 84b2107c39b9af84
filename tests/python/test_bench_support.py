"""bench/support on a fake clock: the arithmetic is checked exactly, no wall time is asserted."""

import json

import pytest

from bench.support import Comparison, compare, describe_machine, render, write


class Clock:
    """Advances only when a contender says how long it took."""

    def __init__(self) -> None:
        self.now = 0.0
        self.order: list[str] = []

    def contender(self, name, seconds):
        def call():
            self.now += seconds(self.now) if callable(seconds) else seconds
            self.order.append(name)

        return call


def test_drift_cancels_in_the_ratio():
    clock = Clock()
    slowdown = lambda now: 1.0 + now / 100  # the machine gets slower all the time  # noqa: E731
    contenders = {
        "theirs": clock.contender("theirs", lambda now: 2.0 * slowdown(now)),
        "ours": clock.contender("ours", lambda now: 1.0 * slowdown(now)),
    }
    comparison = compare("drift", contenders, rounds=9, sample_seconds=0.0, clock=lambda: clock.now)
    assert comparison.speedup("ours") == pytest.approx(2.0, rel=0.02)
    assert comparison.seconds["ours"][-1] > 1.2 * comparison.seconds["ours"][0]  # which plain times do not


def test_one_disturbed_round_is_voted_out():
    clock = Clock()
    calls = iter(range(100))
    contenders = {
        "theirs": clock.contender("theirs", 2.0),
        "ours": clock.contender("ours", lambda now: 50.0 if next(calls) == 4 else 1.0),
    }
    comparison = compare("burst", contenders, rounds=5, sample_seconds=0.0, clock=lambda: clock.now)
    assert comparison.speedup("ours") == 2.0
    assert min(comparison.speedups("ours")) == 0.04


def test_order_rotates_and_samples_repeat():
    clock = Clock()
    contenders = {name: clock.contender(name, 1.0) for name in "abc"}
    comparison = compare("order", contenders, rounds=3, sample_seconds=2.0, clock=lambda: clock.now)
    assert "".join(clock.order) == "aabbcc" + "aabbcc" + "bbccaa" + "ccaabb"  # two warm-up calls each, then rounds of 2
    assert comparison.seconds == {name: [1.0, 1.0, 1.0] for name in "abc"}
    assert comparison.baseline == "a"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"contenders": {}}, "no contenders"),
        ({"contenders": {"a": int}, "baseline": "b"}, "baseline is 'b', must be one of a"),
        ({"contenders": {"a": int}, "rounds": 0}, "rounds is 0"),
    ],
)
def test_bad_input_is_named(arguments, message):
    with pytest.raises(ValueError, match=message):
        compare("bad", **arguments)


def test_table_and_result_file_agree(tmp_path):
    comparison = Comparison("case", "torch", {"torch": [2.0, 2.0, 4.0], "ours": [1.0, 0.5, 1.0]}, {"FLOP": 3e9})
    text = render([comparison])
    assert "4.00x [3.00, 4.00]" in text
    assert "3 GFLOP/s" in text
    assert text.count("baseline") == 1

    path = tmp_path / "results" / "case.json"
    write(path, [comparison], ["python", "-m", "bench.x"], describe_machine())
    record = json.loads(path.read_text())
    assert record["command"] == "python -m bench.x"
    assert record["machine"]["cores"] >= 1
    (case,) = record["cases"]
    assert case["contenders"]["ours"] == {"median_seconds": 1.0, "speedup": 4.0, "speedup_quartiles": [3.0, 4.0]}
