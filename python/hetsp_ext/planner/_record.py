"""Plans as JSON: what `hetsp plan --json` prints, and plans.jsonl."""

import os
import tempfile
from collections.abc import Iterable, Iterator
from json import loads
from pathlib import Path
from typing import Any

from .._native import core
from ..errors import InvalidArgument

__all__ = ["plan_record", "read_plans", "write_plans"]


def plan_record(plan: Any) -> dict[str, Any]:
    """What scripts read of a `Plan`, as plain numbers, strings, lists and dictionaries; all times in seconds.

    `makespan_s` and `lower_bound_s` are sums over the micro-batches, `gap` is makespan_s / lower_bound_s - 1. `sequences` are
    indices into the lengths that were planned. A micro-batch's bound is its share of the step's, not a bound of its own. Its
    placeholder are the ranks that have no sequences but take part, and what that costs each.
    """
    return {
        "makespan_s": plan.makespan,
        "lower_bound_s": plan.lower_bound,
        "gap": plan.gap,
        "solve_seconds": plan.solve_seconds,
        "first_incumbent_seconds": plan.first_incumbent_seconds,
        "status": plan.status,
        "strategy": plan.strategy,
        "micro_batches": [
            {
                "makespan_s": micro_batch.makespan,
                "lower_bound_s": micro_batch.lower_bound,
                "groups": [
                    {
                        "ranks": group.ranks,
                        "sequences": group.sequences,
                        "strategy": group.kind,
                        "offload_ratio": group.offload_ratio,
                    }
                    for group in micro_batch.groups
                ],
                "placeholder": {"ranks": micro_batch.placeholder.ranks, "seconds": micro_batch.placeholder.seconds},
            }
            for micro_batch in plan.micro_batches
        ],
    }


def write_plans(path: "str | os.PathLike[str]", plans: Iterable[Any]) -> int:
    """Writes plans to a file, one JSON object a line (`Plan.to_json_line`), and returns how many.

    The file appears whole or not at all: it is written beside its place and renamed. Raises InvalidArgument for what is no
    `Plan`, OSError where the place cannot be written.
    """
    target = Path(path)
    if target.exists() and not target.is_file():
        raise InvalidArgument(f"write_plans: {target} is no regular file; a renamed file would take its place")
    count = 0
    handle, name = tempfile.mkstemp(prefix=f".{target.name}.", dir=target.parent)
    try:
        with open(handle, "w", encoding="utf-8") as file:
            for count, plan in enumerate(plans, start=1):
                if not isinstance(plan, core.Plan):
                    raise InvalidArgument(f"write_plans: item {count - 1} is {plan!r}, must be a Plan")
                file.write(plan.to_json_line() + "\n")
        os.chmod(name, 0o644)
        os.replace(name, target)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise
    return count


def read_plans(path: "str | os.PathLike[str]") -> Iterator[Any]:
    """The plans of a file that `write_plans` wrote, one at a time; each is compared with its digest.

    Raises InvalidArgument naming the line that is no plan or was changed, OSError where the file cannot be read.
    """
    with open(path, "rb") as file:
        for number, line in enumerate(file, start=1):
            try:
                data = loads(line)
            except (ValueError, RecursionError) as error:  # of the text, of its encoding, or of its depth
                raise InvalidArgument(f"read_plans: {path} line {number} is no JSON: {error}") from None
            if not isinstance(data, dict):
                raise InvalidArgument(
                    f"read_plans: {path} line {number} holds a {type(data).__name__}, must be a plan's object"
                )
            try:
                yield core.Plan.from_dict(data)
            except InvalidArgument as error:
                raise InvalidArgument(f"read_plans: {path} line {number}: {error}") from None
