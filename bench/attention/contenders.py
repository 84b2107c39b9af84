"""What a user has for causal attention of a packed batch on a CPU, and ours: calls without arguments, as `compare` takes them.

SDPA loop: a call per sequence. SDPA bucketed: a call per run of equal lengths, which here lie side by side, so that a bucket is
a view and costs nothing: its best case. Both take `split` and not slices, whose backward is quadratic in the number of
sequences, and join outputs in the layout that the kernel wrote them in. torch.mm is the rate that the others are held against.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

import hetsp_ext as hetsp

MM_SIZE = 2048
Attend = Callable[[Tensor, Tensor, Tensor], Tensor]


@dataclass(frozen=True)
class Setting:
    """One packed batch: tokens per sequence, heads of q and of k, v, head_dim, element type, and which passes are timed."""

    lengths: tuple[int, ...]
    heads: int
    heads_kv: int
    dim: int
    dtype: torch.dtype
    backward: bool

    @property
    def flops(self) -> float:
        """Useful work: causal counted as half of the square, as everybody does; the backward is 2.5 times the forward."""
        return 4 * self.heads * self.dim * sum(n * n / 2 for n in self.lengths) * (3.5 if self.backward else 1)


@dataclass
class Batch:
    """The tensors of a setting; gradients flow into q, k, v where the backward is timed."""

    setting: Setting
    q: Tensor = field(init=False)
    k: Tensor = field(init=False)
    v: Tensor = field(init=False)
    grad: Tensor = field(init=False)

    def __post_init__(self) -> None:
        s = self.setting
        torch.manual_seed(0)

        def rows(heads: int) -> Tensor:
            return torch.randn(sum(s.lengths), heads, s.dim).to(s.dtype)

        self.q, self.k, self.v = (rows(heads).requires_grad_(s.backward) for heads in (s.heads, s.heads_kv, s.heads_kv))
        self.grad = rows(s.heads)

    def run(self, attend: Attend) -> list[Tensor]:
        """out, and dq, dk, dv where the backward is timed."""
        out = attend(self.q, self.k, self.v)
        return [out, *torch.autograd.grad(out, (self.q, self.k, self.v), self.grad)] if self.setting.backward else [out]


def sdpa_bucketed(buckets: list[tuple[int, int]], gqa: str) -> Attend:
    """`buckets`: (sequences, tokens of each) side by side. `gqa`: how key heads that are shared reach SDPA."""
    rows = [count * length for count, length in buckets]

    def attend(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        share = q.shape[1] // k.shape[1]
        if gqa == "expanded" and share > 1:
            k, v = (x[:, :, None].expand(-1, -1, share, -1).flatten(1, 2) for x in (k, v))
        outs = []
        for (count, length), *piece in zip(buckets, *(x.split(rows) for x in (q, k, v)), strict=True):
            batched = (x.unflatten(0, (count, length)).transpose(1, 2) for x in piece)
            out = scaled_dot_product_attention(*batched, is_causal=True, enable_gqa=gqa == "enable_gqa" and share > 1)
            outs.append(out.transpose(1, 2).flatten(0, 1))
        return torch.cat(outs)

    return attend


def each(lengths: tuple[int, ...]) -> list[tuple[int, int]]:
    return [(1, length) for length in lengths]


def runs(lengths: tuple[int, ...]) -> list[tuple[int, int]]:
    return [(len(list(run)), length) for length, run in itertools.groupby(lengths)]


def hetsp_varlen(lengths: tuple[int, ...]) -> Attend:
    cu, longest = torch.tensor([0, *lengths]).cumsum(0).int(), max(lengths)
    return lambda q, k, v: hetsp.varlen_attention(q, k, v, cu, cu, longest, longest, return_lse=False)


def faster_gqa(setting: Setting) -> str:
    """ "enable_gqa" or "expanded": the faster for SDPA, by CPU time on the first sequences of the setting."""
    lengths = tuple(min(n, 1024) for n in setting.lengths[:8])
    small = Batch(Setting(lengths, setting.heads, setting.heads_kv, setting.dim, setting.dtype, setting.backward))

    def seconds(gqa: str) -> float:
        found = []
        for _ in range(4):  # the first pays for cold caches
            begin = time.process_time()
            small.run(sdpa_bucketed(each(lengths), gqa))
            found.append(time.process_time() - begin)
        return min(found[1:])

    return min(("enable_gqa", "expanded"), key=seconds)


def contenders(setting: Setting, gqa: str) -> dict[str, Callable[[], object]]:
    """By name, the SDPA loop first. The buckets are left out where they are the loop's own calls."""
    batch, lengths = Batch(setting), setting.lengths
    attends = {"SDPA loop": sdpa_bucketed(each(lengths), gqa), "SDPA bucketed": sdpa_bucketed(runs(lengths), gqa)}
    if each(lengths) == runs(lengths):
        del attends["SDPA bucketed"]
    attends["hetsp"] = hetsp_varlen(lengths)
    return {name: lambda attend=attend: batch.run(attend) for name, attend in attends.items()}  # type: ignore[misc]


def matrix_product(dtype: torch.dtype) -> tuple[float, Callable[[], object]]:
    """FLOP of a call, and the call."""
    a, b = (torch.randn(MM_SIZE, MM_SIZE).to(dtype) for _ in range(2))
    return 2.0 * MM_SIZE**3, lambda: torch.mm(a, b)
