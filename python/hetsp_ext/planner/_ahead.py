"""Plans made ahead of the steps that need them, in a thread of their own: `PlanAhead`."""

import threading
import time
import weakref
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from .._native import core
from ..errors import InvalidArgument
from ._plan import _integer, plan

__all__ = ["PlanAhead"]

STOP_SECONDS = 10.0  # how long close() waits for an item that `steps` is producing


class PlanAhead(Iterator[Any]):
    """Iterates over the plans of coming steps, which a background thread makes from lengths alone, before any data is read.

    Planning holds no interpreter lock, so a training loop runs beside it. Plans come in the order of the steps and are those
    that `plan` would return for the same arguments. A step that cannot be planned raises its error when its turn comes; the
    next one goes on with the step after it. An error of `steps` itself ends the iteration.

    Use it as a context manager, or call `close`, so that the thread ends with the loop:

        with hetsp.PlanAhead(batch_sampler, cluster, cost_model, lengths=dataset_lengths) as plans:
            for plan in plans:
                ...

    `waited_seconds` is how long iteration has waited for plans so far: near zero where planning is hidden.
    """

    def __init__(
        self,
        steps: Iterable[Iterable[Any]],
        cluster: Any,
        cost_model: Any = None,
        strategy: str = "auto",
        *,
        lengths: Sequence[int] | Any = None,
        ahead: int = 2,
        **options: Any,
    ) -> None:
        """Starts planning at once.

        Args:
            steps: per step what `plan` takes as lengths: tokens of each sequence, or `Sequence` objects. With `lengths`, per
                step the indices of its sequences, as a batch sampler yields them. It is read in the background thread.
            cluster, cost_model, strategy: as of `plan`.
            lengths: tokens of every sequence of the data set, indexed by what `steps` yields; None where it yields lengths.
            ahead: plans kept ready at most, 1 or more.
            options: as of `plan`; not `cancellation`, which belongs to this object.

        Raises:
            InvalidArgument: `ahead` below 1, or an option that is `cancellation`.
        """
        if "cancellation" in options:
            raise InvalidArgument("PlanAhead: cancellation is its own; call close() instead")
        if not isinstance(steps, Iterable):
            raise InvalidArgument(f"PlanAhead: steps is {steps!r}, must be an iterable of lengths, one item a step")
        arguments = {"cluster": cluster, "cost_model": cost_model, "strategy": strategy, **options}
        self._work = _Work(steps, lengths, arguments, _integer(ahead, "ahead", 1, 2**20))
        self.waited_seconds = 0.0
        self._thread = threading.Thread(target=self._work.run, name="hetsp-plan-ahead", daemon=True)
        self._thread.start()
        # Runs when this object is collected and before the interpreter ends: native code must not outlive it.
        self._end = weakref.finalize(self, _stop, self._work, self._thread)

    def __iter__(self) -> "PlanAhead":
        return self

    def __next__(self) -> Any:
        begin = time.perf_counter()
        try:
            return self._work.take()
        finally:
            self.waited_seconds += time.perf_counter() - begin

    def close(self) -> None:
        """Ends the planning under way and the thread; iteration then stops. Waits at most 10 s for an item of `steps`."""
        self._end()

    def __enter__(self) -> "PlanAhead":
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()


def _stop(work: "_Work", thread: threading.Thread) -> None:
    work.stop()
    thread.join(STOP_SECONDS)


class _Work:
    """What the thread and the iterator share; the thread holds no reference to PlanAhead, so that may be collected."""

    def __init__(self, steps: Iterable[Iterable[Any]], lengths: Any, arguments: dict[str, Any], ahead: int) -> None:
        self.steps, self.lengths, self.arguments, self.ahead = steps, lengths, arguments, ahead
        self.cancellation = core.Cancellation()
        self.changed = threading.Condition()
        self.ready: deque[tuple[Any, BaseException | None]] = deque()
        self.stopped = False  # by close()
        self.ended = False  # no more plans will come

    def run(self) -> None:
        try:
            for step in self.steps:
                if not self.wait_for_room():
                    return
                self.put(*self.make(step))
        except BaseException as error:
            self.put(None, error)
        finally:
            with self.changed:
                self.ended = True
                self.changed.notify_all()

    def make(self, step: Iterable[Any]) -> tuple[Any, BaseException | None]:
        try:
            lengths = step if self.lengths is None else [self.lengths[index] for index in step]
            return plan(lengths, cancellation=self.cancellation, **self.arguments), None
        except Exception as error:
            return None, error

    def wait_for_room(self) -> bool:
        with self.changed:
            self.changed.wait_for(lambda: self.stopped or len(self.ready) < self.ahead)
            return not self.stopped

    def put(self, made: Any, error: BaseException | None) -> None:
        with self.changed:
            self.ready.append((made, error))
            self.changed.notify_all()

    def take(self) -> Any:
        with self.changed:
            self.changed.wait_for(lambda: self.stopped or self.ready or self.ended)
            if self.stopped or not self.ready:
                raise StopIteration
            made, error = self.ready.popleft()
            self.changed.notify_all()
        if error is not None:
            raise error
        return made

    def stop(self) -> None:
        self.cancellation.cancel()
        with self.changed:
            self.stopped = True
            self.ready.clear()
            self.changed.notify_all()
