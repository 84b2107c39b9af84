"""A small attention call through the ops, in a process of its own: what crashes there costs the asker nothing.

    python -m hetsp_ext.device_trial [--device cuda]

tells each step on a line before it is taken (JSON), so that the last line of a process that died names what killed it.
`attempt` runs this and reads it.
"""

import argparse
import json
import os
import signal
import subprocess
import sys
from dataclasses import dataclass, field

__all__ = ["Trial", "attempt"]

ROWS, HEADS, DIM = 100, 2, 64
BOUND = 2e-2  # of bfloat16 against float64, relative to the norm; what is wrong is wrong by far
SECONDS = 60.0


@dataclass
class Trial:
    """What a trial told."""

    steps: list[str] = field(default_factory=list)  # taken or begun
    compiled: bool | None = None  # whether the core holds CUDA kernels; None: it did not come so far
    counted: int | None = None  # devices that the core sees
    devices: list[str] = field(default_factory=list)  # that torch sees, with the best family of kernels for each
    families: list[str] = field(default_factory=list)  # of kernels whose call came back right
    death: str = ""  # why it did not end well; "" where it did

    @property
    def last(self) -> str:
        return self.steps[-1] if self.steps else "starting Python and importing hetsp_ext"


def attempt(device: str = "cuda", seconds: float = SECONDS, command: list[str] | None = None) -> Trial:
    """Runs a trial on `device` for at most so long. Raises nothing: whatever goes wrong is told as its death."""
    command = command or [sys.executable, "-X", "faulthandler", "-m", "hetsp_ext.device_trial", "--device", device]
    try:
        done = subprocess.run(command, capture_output=True, text=True, errors="replace", timeout=seconds, check=False)
    except subprocess.TimeoutExpired as late:
        trial = read(late.stdout.decode(errors="replace") if isinstance(late.stdout, bytes) else late.stdout or "")
        trial.death = f"no end after {seconds:g} s of {trial.last}"
        return trial
    except OSError as error:
        return Trial(death=f"{command[0]} does not start: {error}")
    trial = read(done.stdout)
    if done.returncode < 0:
        trial.death = f"{name_of(-done.returncode)} in {trial.last}"
    elif done.returncode:
        said = [line for line in done.stderr.splitlines() if line.strip()]
        trial.death = f"exit status {done.returncode} in {trial.last}: {said[-1].strip() if said else 'without a word'}"
    return trial


def name_of(number: int) -> str:
    try:
        return f"{signal.Signals(number).name} ({signal.strsignal(number)})"
    except ValueError:
        return f"signal {number}"


def read(lines: str) -> Trial:
    """The trial that such output tells of; other lines, or one that broke off, count for nothing."""
    trial = Trial()
    for line in lines.splitlines():
        try:
            record = json.loads(line)
        except ValueError:
            continue
        if not isinstance(record, dict):
            continue
        trial.steps += [str(record["step"])] if "step" in record else []
        if "counted" in record:
            trial.compiled, trial.counted = bool(record["compiled"]), int(record["counted"])
        trial.devices += [str(record["device"])] if "device" in record else []
        trial.families += [str(record["family"])] if "family" in record else []
    return trial


def tell(**record: str | int) -> None:
    os.write(1, (json.dumps(record) + "\n").encode())  # past every buffer: the next step may be the last


def run(device: str) -> None:
    """The trial itself. Raises RuntimeError where a result is wrong."""
    import torch

    from . import kernels, set_cuda_kernels
    from ._native import ops

    tell(step="the core's count of devices")
    compiled, _, counted = ops.cuda_info()
    tell(compiled=compiled, counted=counted)
    families = ["cpu"]
    if device == "cuda":
        tell(step="torch's start of CUDA")
        capabilities = [torch.cuda.get_device_capability(index) for index in range(torch.cuda.device_count())]
        for index, capability in enumerate(capabilities):
            tell(device=f"{torch.cuda.get_device_name(index)} ({kernels.kernels_of(*capability)})")
        torch.zeros(1, device=device)
        if not compiled or not counted:
            raise RuntimeError(f"no call: CUDA kernels compiled: {bool(compiled)}, devices that the core counts: {counted}")
        families = kernels.FAMILIES[: kernels.FAMILIES.index(kernels.kernels_of(*capabilities[0])) + 1]
    for family in families:
        if device == "cuda":
            set_cuda_kernels(family)
        compare(device, family)
        tell(family=family)


def compare(device: str, family: str) -> None:
    """One call forward and backward in bfloat16 against plain maths in float64 on the CPU."""
    import torch

    from .attention import varlen_attention

    generator = torch.Generator().manual_seed(7)
    exact = [torch.randn(ROWS, HEADS, DIM, generator=generator).bfloat16().double().requires_grad_() for _ in range(3)]
    q, k, v = exact
    scores = torch.einsum("qhd,khd->hqk", q, k) / DIM**0.5
    hidden = torch.ones(ROWS, ROWS, dtype=torch.bool).triu(1)
    truth = torch.einsum("hqk,khd->qhd", scores.masked_fill(hidden, float("-inf")).softmax(-1), v)
    true = [truth, *torch.autograd.grad(truth, exact, torch.ones_like(truth))]

    tell(step=f"the copies to the device for {family}")
    q, k, v = ours = [x.detach().bfloat16().to(device).requires_grad_() for x in exact]
    cu_seqlens = torch.tensor([0, ROWS], dtype=torch.int32, device=device)
    tell(step=f"the forward by {family}")
    out = varlen_attention(q, k, v, cu_seqlens, cu_seqlens, ROWS, ROWS, return_lse=False)
    found = out.detach().cpu()  # waits: an error of the kernels shows here
    tell(step=f"the backward by {family}")
    gradients = [x.cpu() for x in torch.autograd.grad(out, ours, torch.ones_like(out))]
    for what, x, expected in zip(("out", "dq", "dk", "dv"), [found, *gradients], true, strict=True):
        error = float((x.double() - expected).norm() / expected.norm())
        if not error <= BOUND:
            raise RuntimeError(f"{family}: {what} is off by {error:.2g} of its norm, at most {BOUND:g} is right")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", choices=["cuda", "cpu"], default="cuda")
    run(parser.parse_args().device)
