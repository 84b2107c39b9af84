"""What a checkpoint costs a training loop of one second a step, and how long until it is safe, by every saver side by side.

Columns, in seconds: `blocks`, the call itself; `stall`, the call and all waits before a step until the checkpoint is durable;
`longer`, what all iterations until then take beyond the same turn's iterations without a save, the call included (a saver that
takes cores or memory bandwidth shows here); `durable`, from the call until it is on disk. `first` is the first save's call.
`memory` is the growth of the process over its size before the saver existed, at its peak.

Savers take turns, one save each, every one in its own process. `ratio` is the median over rounds of `durable` against the
first saver in the same round.
"""

from __future__ import annotations

import argparse
import datetime
import json
import multiprocessing
import os
import shlex
import statistics
import sys
import tempfile
import threading
import time
import traceback
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bench.support import describe_machine

from . import fio
from .savers import SAVERS, Dcp, DcpAsync, Hetsp, PlainCopy, Saver
from .training import Shape, Training, digest, timed

ITERATIONS = 40  # after a save at most; slower savers are waited for without training
NOISE = 0.01  # of an iteration: shorter lengthenings are not told apart
WATCH_SECONDS = 0.005  # between looks whether a save is done
COLUMNS = ("first", "blocks", "stall", "longer", "durable", "memory")


def turn(training: Training, saver: Saver) -> dict[str, float]:
    """One save amid iterations; the figures of the module's docstring."""
    saver.clear()
    os.sync()  # what others left in the page cache is not this saver's to write
    quiet = [training.iteration(saver.fence) for _ in range(2)]
    expected = training.digests()
    reset_peak()
    waits = [0.0]

    def fence() -> None:
        waits.append(timed(saver.fence))

    watch = Watch(saver)
    settle_heap()
    computing = time.thread_time()
    blocked = timed(saver.save)
    computing = time.thread_time() - computing
    watch.start()
    after: list[float] = []
    while len(after) < 2 or (watch.running and len(after) < ITERATIONS):
        after.append(training.iteration(fence))
    durable = watch.seconds()
    saver.finish()
    figures = {"peak": peak()}
    quiet.append(training.iteration(saver.fence))
    base = statistics.median(quiet)
    found = {name: digest(tensor) for name, tensor in saver.read(list(expected)).items()}
    different = [name for name in found if found[name] != expected[name]]
    if different:
        raise AssertionError(f"{saver.name}: the checkpoint holds other values than the state at the save: {different}")
    figures |= {
        "blocks": blocked,
        "call's CPU": computing,  # what blocks on a machine that has nothing else to do
        "stall": blocked + sum(waits) + saver.waited_in_hooks(),
        "longer": blocked + sum(after) - base * len(after),
        "durable": durable,
        "iteration": base,
    }
    return figures | saver.extra()


class Watch(threading.Thread):
    """Notes when a saver is done, in a thread, for iterations take longer than many a save."""

    def __init__(self, saver: Saver) -> None:
        super().__init__(daemon=True)
        self.saver, self.begin, self.end = saver, time.perf_counter(), 0.0

    def run(self) -> None:
        while not self.saver.done():
            time.sleep(WATCH_SECONDS)
        self.end = time.perf_counter()

    @property
    def running(self) -> bool:
        return not self.end

    def seconds(self) -> float:
        self.join()
        return self.end - self.begin


def every_iteration(training: Training, saver: Saver, iterations: int) -> dict[str, float]:
    """The same number of iterations without a save and with one after each."""
    saver.clear()
    os.sync()
    training.iteration(saver.fence)
    without = timed(lambda: [training.iteration(saver.fence) for _ in range(iterations)])

    def saving() -> None:
        for _ in range(iterations):
            training.iteration(saver.fence)
            saver.save()

    with_saves = timed(saving)
    saver.finish()
    return {"without": without / iterations, "with": with_saves / iterations}


def settle_heap() -> None:
    """Gives the pages of blocks that the iteration has freed back to the kernel: glibc does so at the next free of more than
    1 KiB beside them, whoever makes it, and 2 to 5 ms for the activations' pages would count as the call's. `longer` has them
    either way."""
    bytearray(1 << 16).clear()


def reset_peak() -> None:
    Path("/proc/self/clear_refs").write_text("5")


def status(key: str) -> float:
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(key))
    return int(line.split()[1]) * 1024.0


def peak() -> float:
    """Bytes of the process at its largest since reset_peak."""
    return status("VmHWM")


def serve(training: Training, kind: type[Saver], place: Path, connection: Any) -> None:
    """A saver's process: answers calls by (True, value) or (False, why)."""
    training.iteration(lambda: None)  # every shared page is mapped here before memory is compared
    before = status("VmRSS")
    saver: Saver | None = None
    while (call := connection.recv()) is not None:
        try:
            saver = saver or kind(training, place)
            answer = turn(training, saver) if call == "turn" else every_iteration(training, saver, call)
            if "peak" in answer:
                answer["memory"] = answer.pop("peak") - before
            connection.send((True, answer))
        except Exception:
            connection.send((False, traceback.format_exc()))
    connection.close()
    os._exit(0)  # savers' own threads and processes may not end by themselves


@dataclass
class Contender:
    """A saver's process as its parent sees it."""

    kind: type[Saver]
    process: Any
    connection: Any
    turns: list[dict[str, float]] = field(default_factory=list)
    whole: list[dict[str, float]] = field(default_factory=list)
    failure: str | None = None

    def ask(self, call: str | int) -> dict[str, float] | None:
        if self.failure is not None:
            return None
        self.connection.send(call)
        try:
            good, answer = self.connection.recv()
        except EOFError:
            good, answer = False, f"its process ended with {self.process.exitcode}"
        if not good:
            self.failure = answer
            print(f"{self.kind.name} failed and is left out:\n{answer}", file=sys.stderr, flush=True)
            return None
        return answer

    def median(self, name: str) -> float:
        """Over the saves after the first."""
        if name == "first":
            return self.turns[0]["blocks"]
        return statistics.median(turn[name] for turn in self.turns[1:])


def start(training: Training, kinds: list[type[Saver]], place: Path) -> list[Contender]:
    context = multiprocessing.get_context("fork")
    contenders = []
    for index, kind in enumerate(kinds):
        ours, theirs = context.Pipe()
        folder = place / f"saver-{index}"
        folder.mkdir()
        process = context.Process(target=serve, args=(training, kind, folder, theirs))
        process.start()
        theirs.close()
        contenders.append(Contender(kind, process, ours))
    return contenders


def ratio(base: list[float], own: list[float]) -> float:
    return statistics.median(theirs / mine for theirs, mine in zip(base, own, strict=True))


def render(contenders: list[Contender], disk: list[float]) -> str:
    width = max(len(contender.kind.name) for contender in contenders)
    lines = [f"{'':<{width}}" + "".join(f"{column:>10}" for column in COLUMNS) + f"{'ratio':>8}"]
    base = durables(contenders[0])
    for contender in contenders:
        cells = [contender.median(column) for column in COLUMNS]
        cells[-1] /= 1e9
        others = {name for name in contender.turns[-1] if name not in (*COLUMNS, "iteration")}
        words = "".join(f"  {name} {contender.median(name):.3f}" for name in sorted(others))
        times = f"{ratio(base, durables(contender)):>7.2f}x"
        lines.append(f"{contender.kind.name:<{width}}" + "".join(f"{cell:>10.3f}" for cell in cells) + times + words)
    if disk:
        blank = " " * (10 * (COLUMNS.index("durable")))
        lines.append(f"{'fio, direct write':<{width}}{blank}{statistics.median(disk):>10.3f}")
    return "\n".join(lines)


def durables(contender: Contender) -> list[float]:
    return [turn["durable"] for turn in contender.turns[1:]]


def case(options: argparse.Namespace, work: str, kinds: list[type[Saver]]) -> dict[str, Any]:
    """All savers under one kind of forward and backward; prints its tables and returns them."""
    training = Training(Shape(options.layers), work)
    size = training.shape.bytes
    disk: list[float] = []
    with tempfile.TemporaryDirectory(prefix="hetsp-bench-", dir=options.place) as place:
        contenders = start(training, kinds, Path(place))
        try:
            for number in range(options.rounds + 1):  # the first round's saves are the first of their savers
                start_at = number % len(contenders)
                for contender in [*contenders[start_at:], *contenders[:start_at]]:
                    answer = contender.ask("turn")
                    contender.turns += [] if answer is None else [answer]
                if fio.absent() is None:
                    disk += [fio.seconds(Path(place), size)] if number else []
                print(f"  round {number} of {options.rounds}, load {os.getloadavg()[0]:.1f}", file=sys.stderr, flush=True)
            for contender in [each for each in contenders if issubclass(each.kind, Hetsp)]:
                for _ in range(options.rounds):
                    answer = contender.ask(options.iterations)
                    if answer is not None:
                        rate = {} if fio.absent() else {"disk": fio.seconds(Path(place), size)}
                        contender.whole.append(answer | rate)
        finally:
            for contender in contenders:
                contender.connection.send(None) if contender.process.is_alive() else None
                contender.process.join(30)
                contender.process.kill()
    finished = [contender for contender in contenders if contender.failure is None]
    iteration = statistics.median(contender.median("iteration") for contender in finished)
    print(f"\n{work}: {size / 1e9:.2f} GB of state, iterations of {iteration:.2f} s, {options.rounds} saves after the first")
    print(render(finished, disk))
    held = bars(finished, disk)
    for bar in held:
        word = "met" if bar["met"] else "not met"
        print(f"{bar['saver']}: {bar['bar']}: {bar['found']:.2f}, asked for {bar['asked']:g}: {word}")
    rows = [row for contender in finished for row in whole_rows(contender)]
    print("".join(f"{row['saver']}: a save every iteration {row['words']}\n" for row in rows), end="", flush=True)
    savers = {
        contender.kind.name: {column: contender.median(column) for column in (*COLUMNS, *contender.turns[-1])}
        | {"durable_ratio": ratio(durables(finished[0]), durables(contender)), "fsyncs": contender.kind.fsyncs}
        for contender in finished
    }
    return {
        "case": work,
        "bytes": size,
        "iteration": iteration,
        "rounds": options.rounds,
        "baseline": finished[0].kind.name,
        "savers": savers,
        "fio_seconds": statistics.median(disk) if disk else None,
        "bars": held,
        "every_iteration": rows,
        "failed": [contender.kind.name for contender in contenders if contender.failure is not None],
    }


def whole_rows(contender: Contender) -> list[dict[str, Any]]:
    """The whole run with a save each iteration, over one without, and over what the disk allows: an iteration takes at least
    the time in which the disk writes the state."""
    if not contender.whole:
        return []
    over = statistics.median(each["with"] / each["without"] for each in contender.whole)
    row: dict[str, Any] = {"saver": contender.kind.name, "over_without": over}
    words = f"takes {over:.3f}x of one without"
    if "disk" in contender.whole[0]:
        row["over_bound"] = statistics.median(each["with"] / max(each["without"], each["disk"]) for each in contender.whole)
        row["disk"] = statistics.median(each["disk"] for each in contender.whole)
        words += f", {row['over_bound']:.3f}x of the back-pressure bound (fio writes the state in {row['disk']:.2f} s)"
    return [row | {"words": words}]


def bars(contenders: list[Contender], disk: list[float]) -> list[dict[str, Any]]:
    """What LazyCheckpointer is held to, with what was found: by saver, {"bar", "found", "asked", "met"}."""
    by_name = {contender.kind.name: contender for contender in contenders}
    found = []
    for contender in contenders:
        if not issubclass(contender.kind, Hetsp):
            continue

        def add(bar: str, value: float, asked: float, *, least: bool = False, name: str = contender.kind.name) -> None:
            met = value >= asked if least else value <= asked
            found.append({"saver": name, "bar": bar, "found": value, "asked": asked, "met": met})

        add("save() blocks, ms", 1e3 * contender.median("blocks"), 2.0)
        add("save() computes, ms", 1e3 * contender.median("call's CPU"), 2.0)
        add("stall, % of an iteration", 100 * contender.median("stall") / contender.median("iteration"), 1.0)
        add("memory beyond the ring, MB", (contender.median("memory") - contender.kind.ring) / 1e6, 16 * 1.048576)
        if disk:
            add("write rate until durable, over fio's", statistics.median(disk) / contender.median("durable"), 0.9, least=True)
        for name, asked in ((Dcp.name, 3.0), (DcpAsync.name, 5.0)):
            if name in by_name:
                add(
                    f"durable sooner than {name}, times", ratio(durables(by_name[name]), durables(contender)), asked, least=True
                )
        if PlainCopy.name in by_name:
            plain = by_name[PlainCopy.name].median("longer")
            if plain > NOISE * contender.median("iteration"):
                add("longer, over a memcpy thread's", contender.median("longer") / plain, 1.1)
            else:  # a copy takes nothing here that can be measured: so must we
                add("longer, % of an iteration", 100 * contender.median("longer") / contender.median("iteration"), 100 * NOISE)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5, help="saves of each saver after its first (default %(default)s)")
    parser.add_argument("--layers", type=int, default=32, help="of 50 MB of state each (default %(default)s: 1.6 GB)")
    parser.add_argument("--iterations", type=int, default=6, help="of a run with a save each (default %(default)s)")
    parser.add_argument("--work", nargs="+", choices=("sleep", "matmul"), default=["sleep", "matmul"])
    parser.add_argument("--place", type=Path, help="folder on the disk that is measured (default: for temporary files)")
    parser.add_argument("--only", nargs="+", metavar="WORD", help="savers whose names hold one of these words")
    parser.add_argument("--out", type=Path, help="result file, such as bench/results/checkpoint.json")
    options = parser.parse_args()
    if options.rounds < 1:
        parser.error(f"--rounds is {options.rounds}; at least 1 is needed")
    kinds = []
    for kind in SAVERS:
        if options.only is None or any(word in kind.name for word in options.only):
            reason = kind.absent()
            print(f"{kind.name} is left out: {reason}") if reason else kinds.append(kind)
    if not kinds:
        parser.error(f"no saver can run whose name holds {options.only!r}")
    machine = describe_machine()
    cases = [case(options, work, kinds) for work in options.work]
    if options.out:
        date = datetime.datetime.now(datetime.timezone.utc).strftime("%Y-%m-%d")
        command = shlex.join(["python", "-m", "bench.checkpoint.lazy_bench", *sys.argv[1:]])
        record = {"date": date, "command": command, "machine": machine, "cases": cases}
        options.out.parent.mkdir(parents=True, exist_ok=True)
        options.out.write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
        print(f"written: {options.out}")


if __name__ == "__main__":
    main()
