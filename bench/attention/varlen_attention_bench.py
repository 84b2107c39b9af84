"""varlen_attention against a loop of scaled_dot_product_attention over the sequences, forward and backward, causal.

Shapes, tokens per sequence: a 8 x 1024; b 8192, 1024, 512, 256 x 8, 64 x 32; c 8192; d 256 x 32. 8 heads of 64.
Threads: OMP_NUM_THREADS. `--quick` takes an eighth of each length.
"""

import sys

import torch
from torch.nn.functional import scaled_dot_product_attention

import hetsp_ext as hetsp
from bench.support import compare, main

SHAPES = {
    "a": [1024] * 8,
    "b": [8192, 1024, 512] + [256] * 8 + [64] * 32,
    "c": [8192],
    "d": [32] * 256,
}
HEADS, DIM = 8, 64
QUICK = "--quick" in sys.argv


def sdpa_loop(q, k, v, lengths):
    """One call per sequence; `split` and not slicing, whose backward is quadratic in the number of sequences."""
    pieces = zip(*(x.transpose(0, 1).split(lengths, dim=1) for x in (q, k, v)), strict=True)
    return torch.cat([scaled_dot_product_attention(*(x[None] for x in piece), is_causal=True)[0] for piece in pieces], dim=1)


def flops(lengths, backward):
    """Causal counted as half of the square; the backward is 2.5 times the forward."""
    return 4 * HEADS * DIM * sum(n * n / 2 for n in lengths) * (3.5 if backward else 1)


def contenders(lengths, dtype, backward):
    torch.manual_seed(0)
    tokens, cu = sum(lengths), torch.tensor([0, *lengths]).cumsum(0).int()
    q, k, v = (torch.randn(tokens, HEADS, DIM).to(dtype).requires_grad_(backward) for _ in range(3))
    grad = torch.randn(tokens, HEADS, DIM).to(dtype)

    def run(attend, grad):
        out = attend()
        if backward:
            torch.autograd.grad(out, (q, k, v), grad)

    longest = max(lengths)
    return {
        "SDPA loop": lambda: run(lambda: sdpa_loop(q, k, v, lengths), grad.transpose(0, 1)),
        "hetsp": lambda: run(lambda: hetsp.varlen_attention(q, k, v, cu, cu, longest, longest, return_lse=False), grad),
    }


def run(rounds):
    for name, shape in SHAPES.items():
        lengths = [max(1, n // 8) for n in shape] if QUICK else shape
        for dtype in (torch.float32, torch.bfloat16):
            for backward in (False, True):
                case = f"{name} {str(dtype).removeprefix('torch.')} {'forward + backward' if backward else 'forward'}"
                yield compare(
                    case, contenders(lengths, dtype, backward), rounds=rounds, work={"FLOP": flops(lengths, backward)}
                )


if __name__ == "__main__":
    main(run, [option for option in sys.argv[1:] if option != "--quick"])
