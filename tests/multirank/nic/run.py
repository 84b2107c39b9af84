"""Ranks as processes on the two hosts: started in a namespace each, watched, heard while they run, killed or stopped by pid.

    with Run(hosts, traffic.exchange_messages, args) as run:
        run.hear("started")              # every rank has said so
        hosts.link(0, 2, up=False)
        results = run.results()          # by rank; raises RankFailure with what the ranks printed

A rank function gets a `Rank` first. Ranks are forked from a server that has imported torch, so that eight start within a
second. Nothing waits in silence: where the test hears nothing for a while every rank prints what its groups wait for and the
stacks of its threads; when `seconds` have passed the test fails with that; a process that outlives its end is named.
"""

from __future__ import annotations

import ctypes
import faulthandler
import json
import os
import pickle
import signal
import sys
import tempfile
import threading
import time
import traceback
from collections.abc import Callable, Collection, Mapping
from contextlib import suppress
from multiprocessing import connection as connections
from pathlib import Path
from typing import Any

from tests.multirank.nic.hosts import HOSTS, Hosts
from tests.support.ranks import RankFailure, context

CLONE_NEWNET = 0x40000000
REPORT, STACKS = signal.SIGUSR2, signal.SIGUSR1  # what a rank prints when it gets them
QUIET = 15.0  # seconds without a word before they are asked, or a quarter of what they have: a benchmark's take long
LAST = 10.0  # seconds from SIGKILL to the end of every process


class Rank:
    """What a rank function knows of itself, and its line to the test."""

    def __init__(self, rank: int, per_host: int, connection: Any) -> None:
        self.rank, self.size, self.per_host = rank, len(HOSTS) * per_host, per_host
        self.host, self.local = divmod(rank, per_host)
        self._connection = connection

    def say(self, word: str, value: Any = None) -> None:
        self._connection.send_bytes(pickle.dumps((word, value)))

    def leave(self, result: Any = None) -> None:
        """Ends this process at once, without another word to its group; a rank that returns stays until the test is through."""
        self.say("result", result)
        os._exit(0)

    def wait(self, word: str) -> Any:
        """Until the test says this word (Run.tell); what it says with it."""
        heard, value = pickle.loads(self._connection.recv_bytes())
        assert heard == word, f"waited for {word}, was told {heard}"
        return value


def _report_when_asked() -> None:
    while True:
        signal.sigwait([REPORT])
        from hetsp_ext.distributed import report

        print(report() or "no group of backend hetsp", flush=True)


def _rank_main(rank: int, setting: Mapping[str, Any], connection: Any, function: Callable[..., Any], args: Any) -> None:
    with open(setting["namespace"]) as namespace:
        if ctypes.CDLL(None, use_errno=True).setns(namespace.fileno(), CLONE_NEWNET):
            raise OSError(ctypes.get_errno(), f"setns to {setting['namespace']}")
    out = os.open(setting["out"], os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(out, 1)
    os.dup2(out, 2)
    faulthandler.enable()
    faulthandler.register(STACKS)
    faulthandler.dump_traceback_later(setting["seconds"] + 60.0, exit=True)  # the test has ended it long before
    signal.pthread_sigmask(signal.SIG_BLOCK, [REPORT])  # of all threads to come
    threading.Thread(target=_report_when_asked, daemon=True).start()
    for name, value in setting["environment"].items():
        if value is None:
            os.environ.pop(name, None)
        else:
            os.environ[name] = value
    import torch

    torch.set_num_threads(1)
    own = Rank(rank, setting["per_host"], connection)
    last: tuple[str, Any]
    try:
        last = "result", function(own, *args)
    except BaseException as error:
        traceback.print_exc()
        last = "error", f"{type(error).__name__}: {error}"
    sys.stdout.flush()  # before the test hears of it, which may look at once at what was printed
    sys.stderr.flush()
    own.say(*last)
    with suppress(EOFError):  # rank 0 keeps the rendezvous, and a process that ends is a death to the others
        connection.recv_bytes()
    os._exit(0)


def _state(pid: int | None) -> str:
    """What the kernel says of a process that should be gone; of each of its threads where it waits."""
    folder = Path(f"/proc/{pid}")
    if not folder.exists():
        return f"(process {pid}) is gone, but the server that forked it has not said so"
    with suppress(OSError):
        status = (folder / "status").read_text()
        waits = {(thread / "wchan").read_text() for thread in (folder / "task").iterdir()}
        return f"(process {pid}) is {status.split('State:')[1].splitlines()[0].strip()}, in {', '.join(sorted(waits))}"
    return f"(process {pid}) has just ended"


class Run:
    """One start of eight ranks, or of `per_host` on each host; `own_environment(rank)`: for one, None removes."""

    def __init__(
        self,
        hosts: Hosts,
        function: Callable[..., Any],
        *args: Any,
        per_host: int = 4,
        seconds: float = 60.0,
        topology: Mapping[str, Any] | None = None,
        own_environment: Callable[[int], Mapping[str, str | None]] = lambda rank: {},
    ) -> None:
        self.seconds, self.size = seconds, len(HOSTS) * per_host
        self.quiet = max(QUIET, seconds / 4)
        self._folder = tempfile.TemporaryDirectory()
        folder = Path(self._folder.name)
        (folder / "topology.json").write_text(json.dumps(topology or hosts.topology(per_host)))
        environment = {
            "MASTER_ADDR": "10.255.0.1",
            "MASTER_PORT": str(hosts.next_port()),
            "WORLD_SIZE": str(self.size),
            "LOCAL_WORLD_SIZE": str(per_host),
            "HETSP_TOPOLOGY": str(folder / "topology.json"),
            "OMP_NUM_THREADS": "1",
        }
        self._lines, self._heard = [], [[] for _ in range(self.size)]
        self._outs = [folder / f"rank-{rank}.txt" for rank in range(self.size)]
        self.processes = []
        for rank in range(self.size):
            host, local = divmod(rank, per_host)
            own = {"RANK": str(rank), "LOCAL_RANK": str(local), "GLOO_SOCKET_IFNAME": f"nic{local % hosts.nics}"}
            setting = {
                "namespace": hosts.namespace(host),
                "out": str(self._outs[rank]),
                "seconds": seconds,
                "per_host": per_host,
                "environment": environment | own | dict(own_environment(rank)),
            }
            here, there = context.Pipe()
            process = context.Process(target=_rank_main, args=(rank, setting, there, function, args), daemon=True)
            process.start()
            there.close()
            self._lines.append(here)
            self.processes.append(process)
        self._deadline = time.monotonic() + seconds

    def __enter__(self) -> Run:
        return self

    def __exit__(self, failed: object, *_: object) -> None:
        self.kill(range(self.size))
        until = time.monotonic() + LAST
        for process in self.processes:
            process.join(max(0.0, until - time.monotonic()))
        alive = [f"rank {rank} {_state(each.pid)}" for rank, each in enumerate(self.processes) if each.is_alive()]
        self._folder.cleanup()
        if alive:
            print(failure := f"not ended {LAST} s after SIGKILL: {'; '.join(alive)}", file=sys.stderr, flush=True)
            if failed is None:
                raise RankFailure(failure, None)

    def output(self, rank: int) -> str:
        return self._outs[rank].read_text(errors="replace") if self._outs[rank].exists() else ""

    def kill(self, ranks: Collection[int], number: int = signal.SIGKILL) -> float:
        """Sends a signal to these ranks; returns the time (time.monotonic, the same clock in every process)."""
        for rank in ranks:
            process = self.processes[rank]
            if process.is_alive() and process.pid is not None:
                os.kill(process.pid, number)
        return time.monotonic()

    def ask(self, seconds: float = 5.0) -> None:
        """Has every rank print what its groups wait for, and the stacks of its threads; waits for them so long."""
        before = [len(self.output(rank)) for rank in range(self.size)]
        self.kill(range(self.size), REPORT)
        until = time.monotonic() + seconds
        while time.monotonic() < until and any(len(self.output(rank)) == before[rank] for rank in range(self.size)):
            time.sleep(0.1)
        self.kill(range(self.size), STACKS)
        time.sleep(0.5)

    def tell(self, word: str, value: Any = None, ranks: Collection[int] | None = None) -> None:
        for rank in range(self.size) if ranks is None else ranks:
            self._lines[rank].send_bytes(pickle.dumps((word, value)))

    def hear(self, word: str, ranks: Collection[int] | None = None) -> list[Any]:
        """Waits until each of these ranks (all) has said the word; what it said with it. A rank's words are heard in order."""
        found = {}
        wanted = list(range(self.size) if ranks is None else ranks)
        while len(found) < len(wanted):
            for rank in wanted:
                if rank not in found and self._heard[rank]:
                    said, value = self._heard[rank][0]
                    if said != word:
                        raise self._failure(f"rank {rank} said {said} ({value}) instead of {word}")
                    found[rank] = self._heard[rank].pop(0)[1]
            if len(found) < len(wanted):
                self._listen(word, [rank for rank in wanted if rank not in found])
        return [found[rank] for rank in wanted]

    def results(self, dead: Collection[int] = ()) -> list[Any]:
        """What the function returned on each rank; None for those that the test has killed."""
        wanted = [rank for rank in range(self.size) if rank not in dead]
        by_rank = dict(zip(wanted, self.hear("result", wanted), strict=True))
        return [by_rank.get(rank) for rank in range(self.size)]

    def _listen(self, word: str, missing: Collection[int]) -> None:
        open_lines = [line for line in self._lines if not line.closed]
        left = self._deadline - time.monotonic()
        ready = connections.wait(open_lines, max(0.0, min(left, self.quiet))) if open_lines else []
        if not ready and open_lines and left > self.quiet:
            self.ask()
            quiet = f"{self.quiet} s without a word, and ranks {missing} have not said {word}{self._printed()}"
            print(quiet, file=sys.stderr, flush=True)
            ready = connections.wait(open_lines, max(0.0, self._deadline - time.monotonic()))
        if not ready:
            self.ask()
            raise self._failure(f"waited for {word} in vain, {self.seconds} s after the start")
        for line in ready:
            rank = self._lines.index(line)
            try:
                self._heard[rank].append(pickle.loads(line.recv_bytes()))
            except (EOFError, ConnectionResetError):
                line.close()
                self._heard[rank].append(("end", "its process is gone"))

    def _failure(self, why: str) -> RankFailure:
        return RankFailure(why + self._printed(), None)

    def _printed(self) -> str:
        said = [(rank, self.output(rank)[-8000:]) for rank in range(self.size)]
        return "".join(f"\n--- rank {rank} printed:\n{text}" for rank, text in said if text)
