"""Every kind of kernel once, on small batches: what compute-sanitizer can watch in a minute. Exits 1 if a result is wrong.

    compute-sanitizer --tool memcheck python -m tests.python.attention.small_set [--device cuda] [--cases N]

References are computed on the CPU, so that nearly all that runs on the GPU is ours.
"""

from __future__ import annotations

import argparse
import itertools
import sys
from collections.abc import Iterator

import torch
from torch import Tensor

import hetsp_ext as hetsp
from tests.python.attention.reference import Case, gradients, norm_error
from tests.support.devices import default_device

LENGTHS = [5, 130, 0, 1, 64]
DTYPES = [torch.bfloat16, torch.float16, torch.float32]
DIMS = [(128, 128), (64, 64), (192, 128), (256, 256), (40, 24)]
FEATURES = [{}, {"window": (40, 3), "causal": False}, {"softcap": 3.0}, {"sink": True}, {"causal": False}]
# Wrong is what is wrong by far: tests/python/attention holds results to tighter bounds.
BOUND = {torch.bfloat16: 2e-2, torch.float16: 3e-3, torch.float32: 1e-5}


def cases() -> Iterator[tuple[str, Case]]:
    """Each dtype with each head dimension; features in turn, so that each meets each dtype."""
    for number, (dim, dtype) in enumerate(itertools.product(DIMS, DTYPES)):
        options = dict(FEATURES[number % len(FEATURES)])
        torch.manual_seed(number)
        rows = [torch.randn(sum(LENGTHS) + 3, heads, d).to(dtype) for heads, d in ((4, dim[0]), (2, dim[0]), (2, dim[1]))]
        sink = torch.randn(4).requires_grad_() if options.pop("sink", False) else None
        name = f"{str(dtype)[6:]} {dim[0]}, {dim[1]} {options or ('sink' if sink is not None else 'causal')}"
        yield name, Case(*(x.requires_grad_() for x in rows), LENGTHS, LENGTHS, sink=sink, **options)


def on(device: str, case: Case, grad_out: Tensor, deterministic: bool) -> list[Tensor]:
    """out, lse and gradients by our kernels on `device`."""
    with default_device(device):
        there = case.to(case.q.dtype)
        leaves = [x.detach().to(device).requires_grad_() for x in case.leaves]
        there.q, there.k, there.v, there.sink = (*leaves, None)[:4]
        there.deterministic = deterministic
        outputs = there.ours()
        grads = gradients(there, outputs, grad_out.to(device), torch.zeros(outputs[1].shape))
    return [x.detach().cpu() for x in (*outputs, *grads)]


def wrong(name: str, case: Case, device: str) -> list[str]:
    """What of a case is beyond its bound."""
    exact = case.to(torch.float64)
    truth = exact.reference()
    grad_out = torch.randn(truth[0].shape).to(case.q.dtype)
    true = [*truth, *gradients(exact, truth, grad_out, torch.zeros(truth[1].shape))]
    found = []
    for deterministic in (False, True):
        ours = on(device, case, grad_out, deterministic)
        for what, x, expected in zip(("out", "lse", "dq", "dk", "dv", "dsink"), ours, true, strict=False):
            error = norm_error(x, expected)
            if not error <= BOUND[case.q.dtype] * (8 if what == "dsink" else 1):
                found.append(f"{name}, deterministic={deterministic}: {what} is off by {error:.2g}")
    return found


def hops(device: str) -> list[str]:
    """A seeded hop against two hops merged, and D given against D computed."""
    torch.manual_seed(99)
    q, k, v, grad = (torch.randn(150, 2, 128).bfloat16().to(device) for _ in range(4))
    forward, backward = torch.ops.hetsp.varlen_attention_forward, torch.ops.hetsp.varlen_attention_backward
    first, second = (torch.tensor([[0, 150, a, b, 0, a, -1, 0]], device=device) for a, b in ((0, 70), (70, 150)))
    rest = (0.1, 0.0, None)
    part = forward(q, k, v, first, *rest, None, None, True)
    seeded = forward(q, k, v, second, *rest, *part, True)
    merged = hetsp.merge_attention(*part, *forward(q, k, v, second, *rest, None, None, True))
    out = seeded[0].bfloat16()
    delta = hetsp.attention_delta(grad, out, seeded[1])
    given = backward(grad, None, q, k, v, out, seeded[1], first, *rest, True, delta)
    computed = backward(grad, None, q, k, v, out, seeded[1], first, *rest, True)
    pairs = {"seeded out": (seeded[0], merged[0]), "seeded lse": (seeded[1], merged[1])}
    pairs |= {f"{name} of a hop": (x, y) for name, x, y in zip(("dq", "dk", "dv"), given, computed, strict=False)}
    return [f"{name} is off by {norm_error(x, y):.2g}" for name, (x, y) in pairs.items() if not norm_error(x, y) <= 5e-3]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda", choices=["cuda", "cpu"])
    parser.add_argument("--cases", type=int, default=len(DTYPES) * len(DIMS), help="only the first so many")
    options = parser.parse_args()
    failures = hops(options.device)
    print("hops", flush=True)
    for name, case in itertools.islice(cases(), options.cases):
        failures += wrong(name, case, options.device)
        print(name, flush=True)
    print("\n".join(failures) or "all right")
    sys.exit(bool(failures))


if __name__ == "__main__":
    main()
