"""Plans made ahead: the same plans in the same order, errors where they belong, and an end that does not hang."""

import gc
import subprocess
import sys
import threading
import time
import weakref
from collections.abc import Iterator

import pytest

import hetsp_ext as hetsp
from hetsp_ext.errors import InvalidArgument, PlanInfeasible

CLUSTER = hetsp.Cluster(8, 4000)
STEPS = [[5000, 400, 300, 20], [900] * 12, [16000, 1, 1], [7, 8, 9]]


def threads() -> int:
    return sum(thread.name == "hetsp-plan-ahead" for thread in threading.enumerate())


@pytest.mark.parametrize("ahead", [1, 2, 50])
@pytest.mark.parametrize("exclusive", [False, True])
def test_plans_are_those_of_plan_in_order(ahead: int, exclusive: bool) -> None:
    with hetsp.PlanAhead(STEPS, CLUSTER, ahead=ahead, exclusive=exclusive, seed=3) as plans:
        made = [plan.digest for plan in plans]
        assert made == [hetsp.plan(step, CLUSTER, exclusive=exclusive, seed=3).digest for step in STEPS]
        assert list(plans) == []
    assert threads() == 0


def test_a_sampler_of_indices_looks_up_lengths() -> None:
    with hetsp.PlanAhead([[2, 0], [1]], CLUSTER, lengths=[10, 20, 30]) as plans:
        assert [plan.lengths for plan in plans] == [[30, 10], [20]]


def test_at_most_ahead_steps_are_read_before_they_are_needed() -> None:
    read = []

    def steps() -> Iterator[list[int]]:
        for step in range(20):
            read.append(step)
            yield [100 + step]

    with hetsp.PlanAhead(steps(), CLUSTER, ahead=3) as plans:
        assert next(plans).lengths == [100]
        deadline = time.monotonic() + 20.0
        while len(read) < 5 and time.monotonic() < deadline:
            time.sleep(0.01)
        time.sleep(0.1)
        # One taken, three ready, and the one that waits for room.
        assert read == [0, 1, 2, 3, 4]


def test_an_error_is_raised_at_its_step_and_the_next_goes_on() -> None:
    with hetsp.PlanAhead([[10], [40000], ["x"], [20]], CLUSTER) as plans:
        assert next(plans).lengths == [10]
        with pytest.raises(PlanInfeasible, match="40000 tokens"):
            next(plans)
        with pytest.raises(InvalidArgument, match="'x'"):
            next(plans)
        assert next(plans).lengths == [20]
        with pytest.raises(StopIteration):
            next(plans)


def test_an_error_of_the_steps_ends_them() -> None:
    def steps() -> Iterator[list[int]]:
        yield [10]
        raise KeyError("no such shard")

    with hetsp.PlanAhead(steps(), CLUSTER) as plans:
        assert next(plans).lengths == [10]
        with pytest.raises(KeyError, match="no such shard"):
            next(plans)
        with pytest.raises(StopIteration):
            next(plans)


def test_close_cancels_a_long_search_and_wakes_a_waiting_reader() -> None:
    lengths = [1 + 37 * (i * i % 977) for i in range(400)]
    endless = hetsp.PlanAhead([lengths], hetsp.Cluster(64, 4000), exclusive=True, work_limit=2**62, ahead=1)
    seen: list[object] = []
    reader = threading.Thread(target=lambda: seen.append(list(endless)))
    reader.start()
    time.sleep(0.2)
    endless.close()
    reader.join(20.0)
    assert not reader.is_alive()
    assert len(seen[0]) <= 1  # type: ignore[arg-type]
    assert threads() == 0
    endless.close()  # twice is fine
    with pytest.raises(StopIteration):
        next(endless)


def test_dropping_it_ends_the_thread() -> None:
    plans = hetsp.PlanAhead([[10]] * 1000, CLUSTER)
    assert next(plans).lengths == [10]
    reference = weakref.ref(plans)
    del plans
    gc.collect()
    assert reference() is None
    assert threads() == 0


def test_the_interpreter_ends_while_a_search_is_under_way() -> None:
    code = (
        "import hetsp_ext as h\n"
        "p = h.PlanAhead([[5000, 300] * 200] * 9, h.Cluster(64, 9000), exclusive=True, work_limit=2**62)\n"
        "print('left')"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=True)
    assert run.stdout == "left\n"
    assert not run.stderr


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"ahead": 0}, "ahead is 0"),
        ({"cancellation": hetsp.planner.Cancellation()}, "cancellation is its own"),
    ],
)
def test_bad_arguments_are_refused_at_once(options: dict[str, object], message: str) -> None:
    with pytest.raises(InvalidArgument, match=message):
        hetsp.PlanAhead(STEPS, CLUSTER, **options)
    with pytest.raises(InvalidArgument, match="steps is 3"):
        hetsp.PlanAhead(3, CLUSTER)  # type: ignore[arg-type]
