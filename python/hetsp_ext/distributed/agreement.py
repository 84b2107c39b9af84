"""All ranks come to one verdict over the store that made them a group: the same value everywhere, or the same error.

Each rank leaves a report; rank 0 reads them all, decides, and leaves the verdict: N keys to read for one rank, one for each
other. A rank that failed on its own reports that, so that nobody waits for it.
"""

import json
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from ..errors import HetspError, InvalidArgument, PeerLost

if TYPE_CHECKING:
    from torch.distributed import Store

__all__ = ["agree"]

KINDS: dict[str, type[HetspError]] = {each.__name__: each for each in (HetspError, InvalidArgument, PeerLost)}


def agree(
    store: "Store",
    stage: str,
    rank: int,
    size: int,
    timeout: timedelta,
    report: Callable[[], Any],
    decide: Callable[[list[Any]], Any],
) -> Any:
    """Returns decide(reports of all ranks), or raises on every rank what report() or decide() raised on one.

    Reports and the verdict are values that JSON holds. `stage` names this agreement among those of the same store; it may be
    used again there (a store may outlive a group), as often by each rank.
    """
    own: Exception | None = None
    stage = f"{stage}/{store.add(f'{stage}/uses/{rank}', 1)}"
    try:
        answer: dict[str, Any] = {"value": report()}
    except Exception as error:
        own = error
        answer = failure(error if isinstance(error, HetspError) else HetspError(f"{type(error).__name__}: {error}"))
    store.set(f"{stage}/{rank}", json.dumps(answer))
    if rank == 0:
        store.set(f"{stage}/verdict", json.dumps(verdict(store, stage, size, timeout, decide)))
    try:
        # Rank 0 waits as long for the others before it decides, and it may have begun later.
        store.wait([f"{stage}/verdict"], 2 * timeout)
    except Exception as error:  # its type differs between stores and versions
        raise PeerLost(f"rank 0 is silent: no word from it within {2 * timeout.total_seconds():.3g} s") from error
    answer = json.loads(store.get(f"{stage}/verdict"))
    clear(store, stage, rank, size)
    if "error" in answer:
        if rank == 0:
            until_read(store, stage)
        raise KINDS[answer["kind"]](answer["error"]) from own
    return answer["value"]


def clear(store: "Store", stage: str, rank: int, size: int) -> None:
    """Takes away what the agreement has left."""
    with suppress(NotImplementedError, RuntimeError):  # not every store can forget
        store.delete_key(f"{stage}/{rank}")
        if store.add(f"{stage}/read", 1) == size:  # the last one
            store.delete_key(f"{stage}/read")
            store.delete_key(f"{stage}/verdict")


def until_read(store: "Store", stage: str, seconds: float = 2.0) -> None:
    """Waits until the last rank has taken the verdict away: the store may be rank 0's own, and end with its failure."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline and store.check([f"{stage}/verdict"]):
        time.sleep(0.01)


def verdict(store: "Store", stage: str, size: int, timeout: timedelta, decide: Callable[[list[Any]], Any]) -> dict[str, Any]:
    keys = [f"{stage}/{rank}" for rank in range(size)]
    try:
        store.wait(keys, timeout)
    except Exception:  # as above
        silent = [rank for rank, key in enumerate(keys) if not store.check([key])]
        return failure(PeerLost(f"rank {silent[0] if silent else '?'} did not come: no word from ranks {silent} "
                                f"within {timeout.total_seconds():.3g} s"))  # fmt: skip
    answers = [json.loads(store.get(key)) for key in keys]
    if any("error" in answer for answer in answers):
        return told(answers)
    try:
        return {"value": decide([answer["value"] for answer in answers])}
    except HetspError as error:
        return failure(error)


def told(answers: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """The failure of the lowest rank that has one, which is named unless all say the same."""
    first = next(answer for answer in answers if "error" in answer)
    if all(answer.get("error") == first["error"] for answer in answers):
        return first
    return first | {"error": f"rank {answers.index(first)}: {first['error']}"}


def failure(error: HetspError) -> dict[str, Any]:
    kind = next(name for name in ("InvalidArgument", "PeerLost", "HetspError") if isinstance(error, KINDS[name]))
    return {"error": str(error), "kind": kind}
