"""`plan()`: checks what Python may pass, and calls the native planner without the interpreter lock."""

import operator
import threading
from collections.abc import Callable, Iterable
from typing import Any

from .._native import core
from ..errors import InvalidArgument

__all__ = ["default_cost_model", "plan"]


def default_cost_model() -> Any:
    """The cost model of an 8-billion-parameter Llama (32 layers, grouped-query attention) in bfloat16.

    Ranks that sustain 300 TFLOP/s in attention and 400 in the linear modules, links of 50 GB/s with 10 microseconds a hop:
    an H100-class GPU with a 400 Gb/s NIC. Only ratios matter to a plan. Measure and pass a model of your own for real
    predictions: `cost_model_from_model(ModelShape(...), ...)`.
    """
    shape = core.ModelShape(
        layers=32, hidden=4096, intermediate=14336, heads=32, kv_heads=8, head_dim=128, vocabulary=128256, bytes=2
    )
    return core.cost_model_from_model(shape, 300e12, 400e12, 50e9, 10e-6)


def plan(
    lengths: Iterable[Any],
    cluster: Any,
    cost_model: Any = None,
    strategy: str = "auto",
    *,
    work_limit: int | None = None,
    time_limit: float | None = None,
    executable: Iterable[str] = ("whole", "ring"),
    seed: int = 0,
    window: int | None = None,
    synchronisation: str = "step",
    exclusive: bool = False,
    degrees: str = "any",
    max_degree: int | None = None,
    micro_batches: int | None = None,
    target_gap: float = 0.0,
    simulated: bool = False,
    overlap: bool = True,
    stages: int = 1,
    cancellation: Any = None,
) -> Any:
    """Decides which ranks share each sequence of a training step.

    Args:
        lengths: tokens of each sequence (any iterable of integers, an integer array or tensor of shape (sequences,)), or
            `Sequence` objects, which carry their own count of visible pairs.
        cluster: `Cluster(ranks, tokens_per_rank)`: how many ranks, and what one holds of a micro-batch, in tokens.
        cost_model: `CostModel` in seconds; None for `default_cost_model()`.
        strategy: "auto" (any degree, balanced), "static" (every sequence on all ranks), "data-parallel" (whole sequences,
            longest first onto the least loaded rank), or the strategy of a published system, which makes disjoint groups:
            docs/planner.md lists them.
        work_limit: how long "auto" searches, in visits of a rank, at least 1; None for a limit in proportion to sequences x
            ranks. The same limit and seed give the same plan on every machine.
        time_limit: seconds, above 0, after which the search stops; None for none. A plan cut off by it is not reproducible.
        executable: kinds of group that the plan may have: "whole" (one rank) and "ring", which the engine runs; of disjoint
            groups also "ulysses" and "gather". Of two that cost the same, the first is taken (of a set, by the alphabet).
        seed: of the search's restarts, 0 to 2**64 - 1.
        window: each query sees itself and at most this many keys before it; None for all of them (causal).
        synchronisation: where ranks wait, and so what makespan means: "step" (once: the slowest rank's sum), "micro_batch" or
            "layer" (the sum over micro-batches of the slowest rank).
        exclusive: disjoint groups: each rank is in at most one group of a micro-batch, and "auto" solves the packing problem of
            FlexSP with a certified bound. False: a rank may serve several groups, whose times add up.
        degrees: "any" or "pow2", the degrees that disjoint groups may have.
        max_degree: ranks of the largest disjoint group; None for all ranks, at most 1024.
        micro_batches: of disjoint groups at most so many, 1 or more; None to have the number chosen.
        target_gap: fraction; the search for disjoint groups stops at a plan within it of the bound.
        simulated: of disjoint groups, "auto" takes the candidate that `simulate` finds fastest, in place of the one with the
            least predicted makespan, and improves it under the simulator; among the candidates are every other strategy's
            plans. `lower_bound` stays the cost model's. It takes three to five times as long.
        overlap: with `simulated`, whether computation hides the hops of rings, as `simulate` has it.
        stages: with `simulated`, of a pipeline that every rank is a column of: a step of m micro-batches then counts
            (m + stages - 1) / m times.
        cancellation: a `Cancellation`; once it is cancelled, from any thread, the search ends with the best plan it has. An
            interrupt (SIGINT) cancels it too, and is raised.

    Returns:
        A `Plan`: `micro_batches` of groups, `makespan`, `lower_bound` and `rank_seconds` in seconds, `gap` as a fraction,
        `digest`. `print(plan)` shows a table. It has passed its check.

    Raises:
        InvalidArgument: a value that no plan can accept; the message names it and what is allowed.
        PlanInfeasible: a sequence that fits on no group the strategy may form; the message says which, and the memory.
    """
    kinds = [executable] if isinstance(executable, str) else list(executable)
    if isinstance(executable, (set, frozenset)):
        kinds.sort()  # sets have no order that two processes agree on
    ends = core.Cancellation() if cancellation is None else _instance(cancellation, core.Cancellation, "cancellation")
    sequences = _sequences(lengths, window)
    arguments = (
        sequences,
        _instance(cluster, core.Cluster, "cluster"),
        default_cost_model() if cost_model is None else _instance(cost_model, core.CostModel, "cost_model"),
    )
    options = dict(
        strategy=_instance(strategy, str, "strategy"),
        executable=[_instance(kind, str, "executable") for kind in kinds],
        synchronisation=_instance(synchronisation, str, "synchronisation"),
        work_limit=0 if work_limit is None else _integer(work_limit, "work_limit", 1, 2**63 - 1),
        time_limit=0.0 if time_limit is None else _positive(time_limit, "time_limit"),
        seed=_integer(seed, "seed", 0, 2**64 - 1),
        exclusive=_instance(exclusive, bool, "exclusive"),
        degrees=_instance(degrees, str, "degrees"),
        max_degree=0 if max_degree is None else _integer(max_degree, "max_degree", 1, 2**20),
        micro_batches=0 if micro_batches is None else _integer(micro_batches, "micro_batches", 1, 2**30),
        target_gap=0.0 if target_gap == 0 else _positive(target_gap, "target_gap"),
        simulated=_instance(simulated, bool, "simulated"),
        overlap=_instance(overlap, bool, "overlap"),
        stages=_integer(stages, "stages", 1, 2**20),
        cancellation=ends,
    )
    return _interruptible(lambda: core.make_plan(*arguments, **options), ends)


def _interruptible(search: Callable[[], Any], ends: Any) -> Any:
    """What `search()` returns; an interrupt ends it at once, though Python heeds signals between its own instructions only."""
    if threading.current_thread() is not threading.main_thread():
        return search()
    found: list[Any] = []
    failed: list[BaseException] = []
    over = threading.Event()  # Thread.join() of Python 3.11 takes a thread whose join was interrupted for ended

    def run() -> None:
        try:
            found.append(search())
        except BaseException as error:
            failed.append(error)
        finally:
            over.set()

    threading.Thread(target=run, name="hetsp-plan").start()
    try:
        over.wait()
    except BaseException:
        ends.cancel()
        over.wait()
        raise
    if failed:
        raise failed[0]
    return found[0]


def _sequences(lengths: Iterable[Any], window: int | None) -> list[Any]:
    if isinstance(lengths, (str, bytes)) or not isinstance(lengths, Iterable):
        raise InvalidArgument(f"plan: lengths is {lengths!r}; must be an iterable of token counts")
    keys_before = -1 if window is None else _integer(window, "window", 0, 2**62)
    items = lengths.tolist() if hasattr(lengths, "tolist") else list(lengths)
    if not isinstance(items, list) or any(isinstance(item, list) for item in items):
        raise InvalidArgument("plan: lengths must have one dimension, a token count per sequence")
    sequences = []
    for index, item in enumerate(items):
        if isinstance(item, core.Sequence):
            sequences.append(item)
            continue
        tokens = _integer(item, f"lengths[{index}]", 0, 2**40)
        sequences.append(core.Sequence(tokens, core.visible_pairs(tokens, keys_before)))
    return sequences


def _integer(value: Any, name: str, low: int, high: int) -> int:
    try:
        number = operator.index(value)
    except TypeError:
        raise InvalidArgument(f"plan: {name} is {value!r}, must be an integer") from None
    if isinstance(value, bool) or not low <= number <= high:
        raise InvalidArgument(f"plan: {name} is {value!r}, must be an integer in {low}..{high}")
    return number


def _positive(value: Any, name: str) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not value > 0:
        raise InvalidArgument(f"plan: {name} is {value!r}, must be a number above 0")
    return float(value)


def _instance(value: Any, kind: type, name: str) -> Any:
    if not isinstance(value, kind):
        raise InvalidArgument(f"plan: {name} is {value!r}, must be of type {kind.__name__}")
    return value
