"""What a run tells: records for machines, lines for people, and the summary table."""

import json
import os
import statistics
import sys
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TextIO

from .step import Prediction, StepResult
from .verify import Verification

__all__ = [
    "Report",
    "checkpoints_line",
    "checkpoints_record",
    "resumed_line",
    "step_record",
    "summary_record",
    "summary_table",
    "verify_record",
]


def step_record(result: StepResult, strategy: str, prediction: Prediction) -> dict[str, Any]:
    """Times in seconds; `step` counts from 1, as people do."""
    return {
        "step": result.step + 1,
        "plan": strategy,
        "groups": result.plan.one_line(),
        "loss": result.loss,
        "tokens": result.tokens,
        "seconds": result.seconds,
        "tokens_per_second": result.tokens / result.seconds,
        "predicted_seconds": prediction.seconds(result.plan),
        "measured_seconds": result.measured,
        "predicted_step_seconds": prediction.step_seconds(result.plan),
        "busy_least": min(result.busy),
        "busy_most": max(result.busy),
        "gap": result.plan.gap,
        "rank_tokens": result.rank_tokens,
        "rank_pairs": result.rank_pairs,
        "rank_work_seconds": result.work_seconds,
        "rank_wait_seconds": result.wait_seconds,
        "rank_delay_seconds": result.delay_seconds,
    }


def verify_record(verification: Verification) -> dict[str, Any]:
    """The one record with the key `verify`."""
    return {
        "verify": {
            "loss_relative_difference": verification.loss_relative_difference,
            "max_gradient_relative_difference": verification.max_gradient_relative_difference,
            "degrees": verification.degrees,
            "gradients_compared": verification.gradients_compared,
        }
    }


def summary_record(strategy: str, steps: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Medians over the records of the steps; the loss is the last step's."""

    def median(name: str) -> float:
        return statistics.median(step[name] for step in steps)

    return {
        "summary": strategy,
        "steps": len(steps),
        "median_seconds": median("seconds"),
        "tokens_per_second": sum(step["tokens"] for step in steps) / sum(step["seconds"] for step in steps),
        "busy_least": median("busy_least"),
        "busy_most": median("busy_most"),
        "predicted_seconds": median("predicted_seconds"),
        "measured_seconds": median("measured_seconds"),
        "loss": steps[-1]["loss"],
    }


def checkpoints_record(phases: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """What Checkpoints.summary says of all phases together."""
    counts = {name: sum(phase[name] for phase in phases) for name in ("committed", "failed")}
    return counts | {name: max(phase[name] for phase in phases) for name in ("blocked_most", "stall_most")}


def checkpoints_line(record: dict[str, Any]) -> str:
    """The same for people; nothing where there was none."""
    if not record["committed"] + record["failed"]:
        return ""
    failed = f", {record['failed']} failed" if record["failed"] else ""
    return (
        f"{record['committed']} checkpoints{failed}: one blocked a step for at most {1e3 * record['blocked_most']:.1f} ms, "
        f"and made it wait for at most {1e3 * record['stall_most']:.1f} ms"
    )


def resumed_line(record: dict[str, Any]) -> str:
    """Where a run goes on, for people."""
    ranks = f"{record['ranks_before']} rank{'s' if record['ranks_before'] > 1 else ''}"
    return f"goes on after step {record['step']} under {record['plan']}, which {ranks} saved"


def step_line(record: dict[str, Any]) -> str:
    return (
        f"step {record['step']}  {record['plan']}  {record['groups']:<12}  loss {record['loss']:.5f}  "
        f"{record['tokens_per_second']:,.0f} tokens/s  predicted {record['predicted_seconds']:.2f} s  "
        f"measured {record['measured_seconds']:.2f} s  busy {record['busy_least']:.0%} to {record['busy_most']:.0%}"
    )


def summary_table(records: Sequence[dict[str, Any]]) -> str:
    """Rows of summary_record as text, a header above them."""
    head = ("plan", "median step", "tokens/s", "busy", "predicted", "measured", "last loss")
    rows = [
        (
            record["summary"],
            f"{record['median_seconds']:.2f} s",
            f"{record['tokens_per_second']:,.0f}",
            f"{record['busy_least']:.0%} to {record['busy_most']:.0%}",
            f"{record['predicted_seconds']:.2f} s",
            f"{record['measured_seconds']:.2f} s",
            f"{record['loss']:.5f}",
        )
        for record in records
    ]
    widths = [max(len(row[column]) for row in [head, *rows]) for column in range(len(head))]
    lines = [
        "  ".join([row[0].ljust(widths[0]), *(c.rjust(w) for c, w in zip(row[1:], widths[1:], strict=True))])
        for row in [head, *rows]
    ]
    return "\n".join([lines[0], "  ".join("-" * width for width in widths), *lines[1:]])


class Report:
    """Rank 0 speaks; on the other ranks every method does nothing.

    With `as_json` standard output carries the records and nothing else, on any rank: whatever a library prints there goes to
    standard error instead.
    """

    def __init__(self, rank: int, *, as_json: bool) -> None:
        self.speaks = rank == 0
        self.as_json = as_json
        self.records: list[dict[str, Any]] = []
        self._packer = zlib.compressobj()
        self._packed: list[bytes] = []
        self._packed_records = 0
        self._metrics: TextIO | None = None
        self._bar: Any = None
        self._out: TextIO = sys.stdout
        if as_json:
            sys.stdout.flush()
            self._out = os.fdopen(os.dup(1), "w", buffering=1)
            os.dup2(2, 1)

    def steps(self, strategy: str) -> list[dict[str, Any]]:
        """The records of the steps under this plan, of earlier processes of the run too."""
        return [record for record in self.records if "step" in record and record["plan"] == strategy]

    def packed(self) -> bytes:
        """All records so far, compressed, for `go_on_from`. What was packed before is not packed again."""
        for record in self.records[self._packed_records :]:
            line = (json.dumps(record) + "\n").encode()
            self._packed.append(self._packer.compress(line) + self._packer.flush(zlib.Z_SYNC_FLUSH))
        self._packed_records = len(self.records)
        return b"".join(self._packed)

    def go_on_from(self, packed: bytes) -> None:
        """Takes the records of an earlier process of this run; call it before any other record."""
        self.records = [json.loads(line) for line in zlib.decompressobj().decompress(packed).splitlines()]

    def keep_in(self, folder: Path) -> None:
        """Records are also written to metrics.jsonl in this folder, those so far included."""
        if self.speaks:
            # In place of an older file at one stroke: who reads it meets the one or the other.
            file, written = folder / "metrics.jsonl", folder / "metrics.jsonl.part"
            self._metrics = written.open("w", buffering=1)
            self._metrics.writelines(json.dumps(record) + "\n" for record in self.records)
            os.replace(written, file)

    def record(self, record: dict[str, Any], line: str = "") -> None:
        """One record; people see `line` instead, if there is one."""
        if not self.speaks:
            return
        self.records.append(record)
        if self._metrics is not None:
            self._metrics.write(json.dumps(record) + "\n")
        if self.as_json:
            print(json.dumps(record), file=self._out)
        elif line:
            self.say(line)

    def step(self, record: dict[str, Any]) -> None:
        self.record(record, step_line(record))
        self.advance()

    def advance(self) -> None:
        """One step further, on the bar."""
        if self._bar is not None:
            self._bar.update()

    def say(self, line: str) -> None:
        """For people only."""
        if not self.speaks or self.as_json:
            return
        if self._bar is not None:
            self._bar.write(line, file=self._out)
        else:
            print(line, file=self._out, flush=True)

    def progress(self, steps: int) -> None:
        """Shows a bar over that many steps where standard error is a terminal."""
        if self.speaks and not self.as_json and sys.stderr.isatty():
            try:
                from tqdm import tqdm
            except ImportError:  # an extra; lines do as well
                return
            self._bar = tqdm(total=steps, unit="step", leave=False)

    def done_with_bar(self) -> None:
        if self._bar is not None:
            self._bar.close()
            self._bar = None

    def done(self) -> None:
        """Ends the bar and the files; may be called twice."""
        self.done_with_bar()
        if self._metrics is not None:
            self._metrics.close()
            self._metrics = None
