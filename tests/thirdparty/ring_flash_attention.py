"""ring-flash-attention's tests as assertions, over Gloo: its rings with hetsp_ext's attention inside, and hetsp_ext's own ring.

Each of its scripts computes attention once whole and once as a ring, and prints the largest difference; none can fail. Here the
whole is hetsp_ext.integrations.flash_attn, and so are the pieces within their ring: `_flash_attn_forward`, which must return an
lse that can be merged, and `_flash_attn_backward`, which must be right from an lse and an out that belong to more keys than it
sees. Scripts whose cut our layouts know run a second time with our ring in place of theirs (our_rings.py).

Changed in the scripts, by rewrite.py: the device, the collectives' backend, and log("... diff", a, b), which now fails where
a and b differ by more than roundings explain: their ring keeps each hop's result in bfloat16, 2^-9 of the largest value each.
Left out: its Triton kernels, and its adapter for transformers.
"""

from __future__ import annotations

import importlib
import os
import runpy
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from hetsp_ext.integrations import flash_attn, torch_attention
from hetsp_ext.integrations._flash_attention import dense, packed
from tests.support.meeting import open_meeting
from tests.thirdparty import our_rings
from tests.thirdparty.rewrite import rewritten

LEFT_OUT = {"test_triton_kernels.py": "Triton kernels, no attention"}
SECONDS = 900


def _flash_attn_forward(
    q: Tensor, k: Tensor, v: Tensor, dropout_p: float, softmax_scale: float, causal: bool,
    window_size_left: int, window_size_right: int, softcap: float, alibi_slopes: Any, return_softmax: bool,
) -> tuple[Tensor, Tensor, None, None]:  # fmt: skip
    window = (window_size_left, window_size_right)
    return *dense(q, k, v, softmax_scale, causal, window, softcap), None, None


def _flash_attn_varlen_forward(
    q: Tensor, k: Tensor, v: Tensor, cu_seqlens_q: Tensor, cu_seqlens_k: Tensor, max_seqlen_q: int, max_seqlen_k: int,
    dropout_p: float, softmax_scale: float, causal: bool, window_size_left: int = -1, window_size_right: int = -1,
    softcap: float = 0.0, alibi_slopes: Any = None, return_softmax: bool = False,
) -> tuple[Tensor, Tensor, None, None]:  # fmt: skip
    window = (window_size_left, window_size_right)
    args = (q, k, v, cu_seqlens_q, cu_seqlens_k, max_seqlen_q, max_seqlen_k, softmax_scale, causal, window, softcap)
    return *packed(*args), None, None


def _flash_attn_backward(
    dout: Tensor, q: Tensor, k: Tensor, v: Tensor, out: Tensor, softmax_lse: Tensor, dq: Tensor, dk: Tensor, dv: Tensor,
    dropout_p: float, softmax_scale: float, causal: bool, window_size_left: int, window_size_right: int, softcap: float,
    alibi_slopes: Any, deterministic: bool, rng_state: Any = None,
) -> None:  # fmt: skip
    fill(
        (dq, dk, dv), dout, q, k, v, out, softmax_lse, None, None, 0, 0, causal, softmax_scale,
        window_size_left, window_size_right,
    )  # fmt: skip


def _flash_attn_varlen_backward(
    dout: Tensor, q: Tensor, k: Tensor, v: Tensor, out: Tensor, softmax_lse: Tensor, dq: Tensor, dk: Tensor, dv: Tensor,
    cu_seqlens_q: Tensor, cu_seqlens_k: Tensor, max_seqlen_q: int, max_seqlen_k: int, dropout_p: float, softmax_scale: float,
    causal: bool, window_size_left: int, window_size_right: int, softcap: float, alibi_slopes: Any, deterministic: bool,
    rng_state: Any = None, zero_tensors: bool = False,
) -> None:  # fmt: skip
    fill(
        (dq, dk, dv), dout, q, k, v, out, softmax_lse, cu_seqlens_q, cu_seqlens_k, max_seqlen_q, max_seqlen_k, causal,
        softmax_scale, window_size_left, window_size_right,
    )  # fmt: skip


def fill(
    grads: tuple[Tensor, ...], dout: Tensor, q: Tensor, k: Tensor, v: Tensor, out: Tensor, lse: Tensor, cu_q: Any, cu_k: Any,
    max_q: int, max_k: int, causal: bool, scale: float, left: int, right: int,
) -> None:  # fmt: skip
    """Both backwards; theirs write into buffers that they are given."""
    options = {"scale": scale, "window_size_left": left, "window_size_right": right}
    args = (dout, q, k, v, out, lse, cu_q, cu_k, max_q, max_k, 0.0, causal, lse, lse)
    for buffer, grad in zip(grads, torch_attention.backward(*args, **options), strict=True):
        buffer.copy_(grad)


def log(what: str, a: Tensor, b: Tensor | None = None, rank0_only: bool = False) -> None:
    """In place of theirs, which prints max|a|; with b it compares."""
    if b is None:
        return
    whole = b if b._base is None else b._base  # some of their slices hold nothing but a gradient that is 0
    size = whole.detach().float().abs().max().item()
    worst = (a.float() - b.float()).abs().max().item()
    roundings = dist.get_world_size() + 3
    allowed = 1e-5 * max(size, 1.0) if a.dtype == torch.float32 else roundings * 2**-9 * size
    print(f"rank {dist.get_rank()} {what}: {worst:.3g}, allowed {allowed:.3g}", flush=True)
    if not worst <= allowed:  # also NaN
        raise AssertionError(f"rank {dist.get_rank()}: {what} is {worst:.3g}, allowed {allowed:.3g}")


def set_seed(rank: int, seed: int = 42) -> None:
    torch.manual_seed(seed + rank)


def worker(script: str, checkout: str, ring: str) -> None:
    """One rank of one script, with our modules where it looks for flash_attn, and `ring` ("theirs" or "ours")."""
    torch.set_num_threads(1)
    interface = ModuleType("flash_attn.flash_attn_interface")
    interface.__dict__.update({name: getattr(flash_attn, name) for name in flash_attn.__all__})
    for function in (_flash_attn_forward, _flash_attn_varlen_forward, _flash_attn_backward, _flash_attn_varlen_backward):
        setattr(interface, function.__name__, function)
    utils, adapters = ModuleType("utils"), ModuleType("ring_flash_attn.adapters")
    utils.__dict__.update(log=log, set_seed=set_seed)
    adapters.__dict__.update(substitute_hf_flash_attn=None, update_ring_flash_attn_params=None)
    for module in (interface, utils, adapters):
        sys.modules[module.__name__] = module
    sys.modules["flash_attn"] = flash_attn
    sys.path.insert(0, checkout)
    if ring == "ours":
        our_rings.install(importlib.import_module("ring_flash_attn"), our_rings.CUTS[Path(script).name])
    sys.argv = [script]
    runpy.run_path(script, run_name="__main__")
    if dist.is_initialized():  # their scripts leave it to the interpreter's end, where one in twenty of Gloo's processes aborts
        dist.destroy_process_group()


def run_ranks(script: Path, checkout: Path, ring: str, ranks: int) -> str | None:
    """None where every rank ends well, else what the first failing one printed."""
    _store, meeting = open_meeting()  # the store lives as long as this call
    shared = {**meeting, "WORLD_SIZE": str(ranks), "PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, "-m", "tests.thirdparty.ring_flash_attention", str(script), str(checkout), ring]
    outputs = [script.with_suffix(f".{rank}.log") for rank in range(ranks)]
    processes = [
        subprocess.Popen(
            command, env={**os.environ, **shared, "RANK": str(rank)}, stdout=outputs[rank].open("w"), stderr=subprocess.STDOUT
        )
        for rank in range(ranks)
    ]
    failed: str | None = None
    try:
        for process, output in zip(processes, outputs, strict=True):
            if process.wait(timeout=SECONDS) != 0 and failed is None:
                failed = output.read_text()
    except subprocess.TimeoutExpired:
        failed = f"not done after {SECONDS} s\n"
    finally:
        for process in processes:
            if process.poll() is None:
                process.kill()
                process.wait()
    return failed


def run(checkout: Path, folder: Path, ranks: int) -> int:
    """Every script of the checkout on `ranks` ranks; prints one line each, and the sum."""
    sources = sorted((checkout / "test").glob("test_*.py"))
    if not sources:
        raise FileNotFoundError(f"{checkout}/test holds no test_*.py; name a checkout of zhuzilin/ring-flash-attention")
    passed = failed = 0
    for source in sources:
        if source.name in LEFT_OUT:
            print(f"left out: {source.name}: {LEFT_OUT[source.name]}", flush=True)
            continue
        script = folder / source.name
        script.write_text(rewritten(source.read_text()))
        for ring in ("theirs", "ours") if source.name in our_rings.CUTS else ("theirs",):
            problem = run_ranks(script, checkout, ring, ranks)
            passed, failed = passed + (problem is None), failed + (problem is not None)
            print(f"{'passed' if problem is None else 'FAILED'}: {source.name} on {ranks} ranks, {ring}", flush=True)
            if problem is not None:
                print("    " + "\n    ".join(problem.splitlines()[-12:]), flush=True)
    print(f"{passed} passed, {failed} failed", flush=True)
    return 1 if failed else 0


if __name__ == "__main__":
    worker(*sys.argv[1:])
