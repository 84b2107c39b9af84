"""A pytest plugin: which of a suite's cases run. Suites multiply parameters into tens of thousands of cases, made for GPUs.

--longest N   drops cases with a parameter seqlen* above N tokens
--sample N    keeps N cases of each test, drawn with a fixed seed; 0 keeps all
An adapter adds `why_not(item)`: the reason why a case cannot be honoured here, or None. What is dropped is counted and printed.
"""

from __future__ import annotations

import random
from collections import Counter, defaultdict
from collections.abc import Callable
from typing import Any

import pytest


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--longest", type=int, default=1024)
    parser.addoption("--sample", type=int, default=0)


def parameters(item: pytest.Item) -> dict[str, Any]:
    spec = getattr(item, "callspec", None)
    return {} if spec is None else spec.params


def too_long(item: pytest.Item, longest: int) -> str | None:
    lengths = [value for name, value in parameters(item).items() if name.startswith("seqlen") and isinstance(value, int)]
    return f"longer than {longest} tokens" if max(lengths, default=0) > longest else None


def select(config: pytest.Config, items: list[pytest.Item], why_not: Callable[[pytest.Item], str | None]) -> None:
    """Reduces `items` in place, as pytest_collection_modifyitems does, and tells pytest and the reader what went."""
    longest, sample = config.getoption("--longest"), config.getoption("--sample")
    dropped: list[pytest.Item] = []
    reasons: Counter[str] = Counter()
    tests: dict[str, list[pytest.Item]] = defaultdict(list)
    for item in items:
        reason = why_not(item) or too_long(item, longest)
        if reason is None:
            tests[item.nodeid.partition("[")[0]].append(item)
        else:
            dropped.append(item)
            reasons[reason] += 1
    kept: list[pytest.Item] = []
    for name, cases in tests.items():
        chosen = random.Random(name).sample(range(len(cases)), min(sample or len(cases), len(cases)))
        kept += [cases[index] for index in sorted(chosen)]
        rest = set(range(len(cases))) - set(chosen)
        dropped += [cases[index] for index in rest]
        reasons["outside the sample"] += len(rest)
    config.hook.pytest_deselected(items=dropped)
    items[:] = kept
    report = config.pluginmanager.get_plugin("terminalreporter")
    for reason, count in reasons.items():
        if count and report is not None:
            report.write_line(f"left out: {count} cases: {reason}")
