"""Attention on a GPU as a user has it from torch, and ours: calls that `bench/attention/cuda_attention_bench.py` times.

torch's flash and cuDNN backends of scaled_dot_product_attention take one call per document, and the views that they get of the
packed tensors are the layout that they prefer. A contender that cannot do a problem is left out with torch's own words.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.functional import scaled_dot_product_attention

import hetsp_ext as hetsp

from .cuda_rows import EQUAL_WORK, Problem

OURS = "hetsp"
LISTS_GIVEN = "lists given"  # ours in every layer of a step but its first, which makes the lists for all
Attend = Callable[[Tensor, Tensor, Tensor], Tensor]
Call = Callable[[], object]  # returns a tensor or several, the same ones for every contender of a problem


class Batch:
    """The tensors of a problem, normal random numbers."""

    def __init__(self, problem: Problem, device: str) -> None:
        p, self.problem = problem, problem
        generator = torch.Generator(device).manual_seed(0)
        dtype = getattr(torch, p.dtype)

        def rows(heads: int, dim: int) -> Tensor:
            return torch.randn(sum(p.lengths), heads, dim, generator=generator, device=device, dtype=torch.float32).to(dtype)

        self.q, self.k, self.v, self.grad = (
            rows(p.heads, p.dim),
            rows(p.heads_kv, p.dim),
            rows(p.heads_kv, p.dim_v),
            rows(p.heads, p.dim_v),
        )
        self.cu = torch.tensor([0, *p.lengths], device=device).cumsum(0).int()
        self.leaves = [x.requires_grad_(p.backward) for x in (self.q, self.k, self.v)]

    def call(self, attend: Attend) -> Call:
        """What is timed: the forward without a graph, or the backward of a forward that has been."""
        if not self.problem.backward:
            return lambda: attend(self.q, self.k, self.v)
        out = attend(self.q, self.k, self.v)
        return lambda: torch.autograd.grad(out, self.leaves, self.grad, retain_graph=True)

    def ours(self, q: Tensor, k: Tensor, v: Tensor, deterministic: bool = False) -> Tensor:
        longest = max(self.problem.lengths)
        causal = self.problem.causal
        return hetsp.varlen_attention(
            q, k, v, self.cu, self.cu, longest, longest, causal=causal, deterministic=deterministic, return_lse=False
        )

    def in_a_layer(self) -> Attend:
        p = self.problem
        rows, longest = sum(p.lengths), max(p.lengths)
        segments = hetsp.varlen_segments(self.cu, self.cu, rows, rows, longest, longest, causal=p.causal)
        lists = hetsp.attention_lists(segments, rows, rows)

        def attend(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
            out = hetsp.segment_attention(q, k, v, segments, return_lse=False, lists=lists)
            assert isinstance(out, Tensor)
            return out

        return attend

    def varlen_attn(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        from torch.nn.attention.varlen import varlen_attn

        grouped = {"enable_gqa": True} if "enable_gqa" in inspect.signature(varlen_attn).parameters else {}
        longest = max(self.problem.lengths)
        window = (-1, 0 if self.problem.causal else -1)
        return varlen_attn(q, k, v, self.cu, self.cu, longest, longest, window_size=window, **grouped)

    def sdpa(self, backend: SDPBackend) -> Attend:
        p = self.problem

        def attend(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
            outs = []
            with sdpa_kernel(backend):
                for document in zip(*(x.split(p.lengths) for x in (q, k, v)), strict=True):
                    views = (x.transpose(0, 1).unsqueeze(0) for x in document)
                    out = scaled_dot_product_attention(*views, is_causal=p.causal, enable_gqa=p.heads != p.heads_kv)
                    outs.append(out.squeeze(0).transpose(0, 1))
            return outs[0] if len(outs) == 1 else torch.cat(outs)

        return attend


@dataclass
class Contenders:
    """Calls by name, ours first. `others`: of them, those that do something else than the problem, and so differ in result."""

    calls: dict[str, Call] = field(default_factory=dict)
    absent: dict[str, str] = field(default_factory=dict)
    others: set[str] = field(default_factory=set)

    def add(self, name: str, make: Callable[[], Call]) -> None:
        """Made and called once; what fails is noted. Our own failure is the caller's to hear of."""
        try:
            call = make()
            call()
            self.calls[name] = call
        except (RuntimeError, ValueError, ImportError, NotImplementedError, TypeError) as error:
            if name == OURS:
                raise
            self.absent[name] = str(error).strip().partition("\n")[0][:300]


def contenders(problem: Problem, kind: str, device: str) -> Contenders:
    return {"batch": of_batch, "skewed": of_skewed, "ring": of_ring, "deterministic": of_deterministic}[kind](problem, device)


def of_batch(problem: Problem, device: str) -> Contenders:
    batch, found = Batch(problem, device), Contenders()
    found.add(OURS, lambda: batch.call(batch.ours))
    found.add("varlen_attn", lambda: batch.call(batch.varlen_attn))
    found.add("cuDNN SDPA", lambda: batch.call(batch.sdpa(SDPBackend.CUDNN_ATTENTION)))
    found.add("flash SDPA", lambda: batch.call(batch.sdpa(SDPBackend.FLASH_ATTENTION)))
    if len(problem.lengths) > 1:
        found.add(LISTS_GIVEN, lambda: batch.call(batch.in_a_layer()))
    return found


def of_skewed(problem: Problem, device: str) -> Contenders:
    """Against one document of the same work: what the skew costs."""
    batch, found = Batch(problem, device), Contenders()
    divide = max(1, 128 * 1024 // max(problem.lengths))  # of a problem that was shrunk
    one = Batch(Problem(**{**problem.__dict__, "lengths": (EQUAL_WORK // divide,)}), device)
    found.add(OURS, lambda: batch.call(batch.ours))
    found.add("hetsp, one document", lambda: one.call(one.ours))
    found.add("varlen_attn", lambda: batch.call(batch.varlen_attn))
    found.others.add("hetsp, one document")
    return found


def of_ring(problem: Problem, device: str) -> Contenders:
    """One hop of a ring: keys of another rank, all visible, joined to the float32 result of the hops before."""
    batch, found = Batch(problem, device), Contenders()
    (rows,) = problem.lengths
    segments = torch.tensor([[0, rows, 0, rows, rows, 0, -1, -1]], device=device)
    forward, scale = torch.ops.hetsp.varlen_attention_forward, problem.dim**-0.5

    def hop(seed_out: Tensor | None, seed_lse: Tensor | None, partial: bool) -> tuple[Tensor, Tensor]:
        return forward(batch.q, batch.k, batch.v, segments, scale, 0.0, None, seed_out, seed_lse, partial)

    seed = hop(None, None, True)
    found.add(OURS, lambda: lambda: hop(*seed, True))
    found.add("hop then merge", lambda: lambda: hetsp.merge_attention(*seed, *hop(None, None, True)))
    found.add("plain hop", lambda: lambda: hop(None, None, False))
    found.add("plain hop to float32", lambda: lambda: hop(None, None, True))
    found.others.update(("plain hop", "plain hop to float32"))
    return found


def of_deterministic(problem: Problem, device: str) -> Contenders:
    batch, found = Batch(problem, device), Contenders()
    found.add(OURS, lambda: batch.call(lambda q, k, v: batch.ours(q, k, v, deterministic=True)))
    found.add("hetsp, free order", lambda: batch.call(batch.ours))
    found.add("cuDNN SDPA", lambda: batch.call(batch.sdpa(SDPBackend.CUDNN_ATTENTION)))
    return found


def kernels_of(call: Call, device: str) -> str:
    """The family of our kernels that serves a call by itself; why not Hopper's, where that is another one."""
    if device != "cuda":
        return device
    refused = ""
    try:
        for name in ("hopper", "mma", "scalar"):
            hetsp.set_cuda_kernels(name, only=True)
            try:
                call()
                return name + (f" ({refused})" if refused else "")
            except (RuntimeError, ValueError) as error:
                refused = refused or str(error).strip().partition("\n")[0]
    finally:
        hetsp.set_cuda_kernels(None)
    return f"none ({refused})"


def difference(ours: object, theirs: object) -> float:
    """Largest norm of a difference over the norm of the value, among the results of two contenders; NaN where one has NaN."""
    pairs = zip(*(([x] if isinstance(x, Tensor) else list(x)) for x in (ours, theirs)), strict=True)  # type: ignore[call-overload]
    found = [torch.linalg.vector_norm(x.float() - y.float()) / torch.linalg.vector_norm(y.float()) for x, y in pairs]
    return torch.stack(found).max().item() if all(x.isfinite() for x in found) else float("nan")
