"""Kills a process that checkpoints, again and again, and judges what is left by its content.

    python -m tests.fuzz.lazy_kill --runs 5000 --seed 1

Each run forks a child from this process, which has imported torch. The child restores, then sets every tensor of its state to
the number of the step, saves, and goes on; when a checkpoint is committed it says so. It is killed with SIGKILL at a named
phase of its n-th save (by its own hand, so that the place is exact), or by this process after a random time. The next child on
the same directory must restore the newest step that was announced, or a newer one, with every tensor equal to that step;
several runs share a directory, with and without a staging level. A run that finds another state is printed with its seed.
"""

from __future__ import annotations

import argparse
import os
import random
import select
import shutil
import signal
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

import hetsp_ext as hetsp

PHASES = ("captured", "written", "manifest", "synced", "renamed", "committed", "latest", "drained")
RUNS_PER_DIRECTORY = 8
MOST_SAVES = 6  # of a child that nobody kills
PATIENCE = 60.0  # seconds that a child may live


@dataclass
class Plan:
    """How one child dies: in `phase` of its `save`-th save, or after `seconds`."""

    phase: str | None
    save: int
    seconds: float
    staging: bool

    @classmethod
    def draw(cls, seed: int, staging: bool) -> Plan:
        """A death out of a seed; one in eight children lives."""
        chance = random.Random(seed)
        kind = chance.random()
        phase = chance.choice(PHASES[: None if staging else -1]) if kind < 0.6 else None
        return cls(phase, chance.randint(1, 4), 1e9 if kind > 0.875 else chance.uniform(0.0, 0.12), staging)


class Constant:
    """A state whose every number is the step that it belongs to."""

    def __init__(self) -> None:
        self.model = torch.nn.Sequential(torch.nn.Linear(60, 50), torch.nn.BatchNorm1d(50), torch.nn.Linear(50, 3000))
        self.optimizer = torch.optim.AdamW(self.model.parameters())

    def set(self, step: int) -> None:
        """Every tensor becomes `step`."""
        with torch.no_grad():
            for tensor in self.model.state_dict(keep_vars=True).values():
                tensor.fill_(step)
            for parameter in self.model.parameters():
                self.optimizer.state[parameter] = {
                    "step": torch.tensor(float(step)),
                    "exp_avg": torch.full_like(parameter, step),
                    "exp_avg_sq": torch.full_like(parameter, step),
                }
        self.optimizer.param_groups[0]["lr"] = float(step)

    def numbers(self) -> set[float]:
        """All different numbers in the state."""
        found = {self.optimizer.param_groups[0]["lr"]}
        for tensor in self.model.state_dict().values():
            found.update(tensor.unique().tolist())
        for state in self.optimizer.state.values():
            for tensor in state.values():
                found.update(tensor.unique().tolist())
        return found


def child(path: str, plan: Plan, out: int) -> None:
    """Lives as the module says; tells `restored STEP NUMBERS` once and `committed STEP` of each checkpoint."""

    def tell(text: str) -> None:
        os.write(out, (text + "\n").encode())

    saves: list[int] = []

    def progress(told: Any) -> None:
        if told.phase == "committed":
            tell(f"committed {told.step}")
        if told.step not in saves:
            saves.append(told.step)
        if told.phase == plan.phase and len(saves) == plan.save:
            os.kill(os.getpid(), signal.SIGKILL)

    state = Constant()
    staging = os.path.join(path, "fast") if plan.staging else None
    with hetsp.LazyCheckpointer(
        os.path.join(path, "slow"), state.model, state.optimizer, ring_bytes=1 << 20, progress=progress, staging_path=staging
    ) as lazy:
        step = lazy.restore()
        tell(f"restored {step} {sorted(state.numbers()) if step is not None else []}")
        for number in range((step or 0) + 1, (step or 0) + 1 + MOST_SAVES):
            lazy.fence()
            state.set(number)
            lazy.save(number)
            lazy.wait()


def run(path: str, plan: Plan) -> list[str]:
    """One child's life; the lines that it told."""
    read, write = os.pipe()
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            os.close(read)
            child(path, plan, write)
            status = 0
        except BaseException as error:
            os.write(write, f"failed {type(error).__name__}: {error}\n".encode())
        finally:
            os._exit(status)
    os.close(write)
    told = b""
    begin = time.monotonic()
    # The clock starts when the child has restored: before that nothing is at stake.
    kill_at = float("inf")
    killed = False
    while True:
        now = time.monotonic()
        if not killed and (now >= kill_at or now - begin > PATIENCE):
            os.kill(pid, signal.SIGKILL)
            killed = True
        left = min(kill_at, begin + PATIENCE) - now
        ready, _, _ = select.select([read], [], [], max(0.0, left) if not killed else PATIENCE)
        if ready:
            data = os.read(read, 65536)
            if not data:
                break
            told += data
            if kill_at == float("inf") and b"restored" in told:
                kill_at = time.monotonic() + plan.seconds
    os.close(read)
    os.waitpid(pid, 0)
    if time.monotonic() - begin > PATIENCE:
        told += b"failed the child hung\n"
    return told.decode().splitlines()


def judge(lines: list[str], announced: int) -> tuple[str | None, int]:
    """(what is wrong with a child's words, the newest step now announced)."""
    for line in lines:
        kind, _, rest = line.partition(" ")
        if kind == "failed":
            return f"it failed: {rest}", announced
        if kind == "restored":
            step, _, numbers = rest.partition(" ")
            if step == "None":
                if announced > 0:
                    return f"step {announced} was announced, and nothing was restored", announced
            elif int(step) < announced:
                return f"step {announced} was announced, and step {step} was restored", announced
            elif numbers != str([float(step)]):
                return f"step {step} was restored with the numbers {numbers}", announced
        if kind == "committed":
            announced = max(announced, int(rest))
    return None, announced


def campaign(runs: int, seed: int, folder: Path) -> tuple[int, int, list[str]]:
    """(children killed or not, checkpoints announced, findings)."""
    torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))])  # imports what else each child would import for itself
    findings: list[str] = []
    checkpoints = announced = 0
    path = folder
    for number in range(runs):
        if number % RUNS_PER_DIRECTORY == 0:
            shutil.rmtree(path, ignore_errors=True)
            path, announced = folder / f"d{seed}-{number}", 0
        staging = (seed + number // RUNS_PER_DIRECTORY) % 3 == 0
        lines = run(str(path), Plan.draw(seed * 1_000_003 + number, staging))
        checkpoints += sum(line.startswith("committed") for line in lines)
        wrong, announced = judge(lines, announced)
        if wrong:
            findings.append(f"seed {seed}, run {number}: {wrong}")
            path = folder / f"d{seed}-{number}-next"  # the directory stays for whoever looks
            announced = 0
    return runs, checkpoints, findings


def main() -> int:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--folder", type=Path, help="where to keep checkpoints; a temporary folder by default")
    options = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as temporary:
        folder = options.folder or Path(temporary)
        begin = time.monotonic()
        runs, checkpoints, findings = campaign(options.runs, options.seed, folder)
    print(*findings, sep="\n")
    print(f"{runs} runs, {checkpoints} checkpoints announced, {len(findings)} findings, {time.monotonic() - begin:.0f} s")
    return 1 if findings else 0


if __name__ == "__main__":
    sys.exit(main())
