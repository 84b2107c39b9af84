"""Loss: values and gradients of the chunked cross entropy, its memory, and the algebra of token_mean."""

import subprocess
import sys
from types import SimpleNamespace

import pytest
import torch
from torch.nn.functional import cross_entropy, linear

from hetsp_ext.errors import InvalidArgument
from hetsp_ext.loss import chunked_cross_entropy, token_mean


def case(tokens: int, features: int, vocabulary: int, dtype: torch.dtype, seed: int) -> tuple[torch.Tensor, ...]:
    generator = torch.Generator().manual_seed(seed)
    hidden = torch.randn(tokens, features, generator=generator, dtype=torch.float64)
    weight = torch.randn(vocabulary, features, generator=generator, dtype=torch.float64)
    bias = torch.randn(vocabulary, generator=generator, dtype=torch.float64)
    labels = torch.randint(0, vocabulary, (tokens,), generator=generator)
    labels[torch.rand(tokens, generator=generator) < 0.2] = -100
    return *(x.to(dtype).requires_grad_() for x in (hidden, weight, bias)), labels


def plan_of(lengths: list[int]) -> SimpleNamespace:
    """What token_mean reads of a plan."""
    return SimpleNamespace(sequences=[SimpleNamespace(tokens=length) for length in lengths])


def norm_error(value: torch.Tensor, reference: torch.Tensor) -> float:
    return ((value.double() - reference.double()).norm() / reference.double().norm().clamp_min(1e-300)).item()


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("tokens", [1, 7, 8, 9, 40])
@pytest.mark.parametrize("with_bias", [False, True])
def test_equals_plain_cross_entropy(tokens: int, dtype: torch.dtype, with_bias: bool) -> None:
    hidden, weight, bias, labels = case(tokens, 12, 23, dtype, seed=tokens)
    labels[0] = 3
    inputs = [hidden, weight, bias] if with_bias else [hidden, weight]
    loss = chunked_cross_entropy(hidden, weight, labels, chunk_tokens=8, bias=bias if with_bias else None)
    assert loss.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)
    gradients = torch.autograd.grad(loss * 0.5, inputs)

    exact = [x.detach().double().requires_grad_() for x in inputs]
    reference = cross_entropy(linear(*exact), labels, reduction="sum")
    references = torch.autograd.grad(reference * 0.5, exact)
    plain = cross_entropy(linear(*inputs).to(loss.dtype), labels, reduction="sum")
    plains = torch.autograd.grad(plain * 0.5, inputs)
    assert norm_error(loss, reference) <= max(2 * norm_error(plain, reference), 1e-14 if dtype == torch.float64 else 1e-7)
    for gradient, by_plain, expected in zip(gradients, plains, references, strict=True):
        assert gradient.dtype == dtype
        floor = 1e-14 if dtype == torch.float64 else 1e-7
        assert norm_error(gradient, expected) <= max(2 * norm_error(by_plain, expected), floor)


def test_gradcheck() -> None:
    hidden, weight, bias, labels = case(9, 4, 6, torch.float64, seed=1)
    assert torch.autograd.gradcheck(
        lambda h, w, b: chunked_cross_entropy(h, w, labels, chunk_tokens=4, bias=b), (hidden, weight, bias)
    )


def test_leading_dimensions_and_partial_gradients() -> None:
    hidden, weight, _, labels = case(12, 4, 6, torch.float64, seed=2)
    flat = chunked_cross_entropy(hidden, weight, labels)
    assert torch.equal(flat, chunked_cross_entropy(hidden.view(3, 4, 4), weight, labels.view(3, 4)))
    frozen = weight.detach()
    (expected,) = torch.autograd.grad(cross_entropy(hidden @ frozen.T, labels, reduction="sum"), hidden)
    (gradient,) = torch.autograd.grad(chunked_cross_entropy(hidden, frozen, labels, chunk_tokens=5), hidden)
    torch.testing.assert_close(gradient, expected, rtol=1e-12, atol=1e-14)
    assert not chunked_cross_entropy(hidden.detach(), frozen, labels).requires_grad


def test_no_tokens_stay_in_the_graph() -> None:
    layer = torch.nn.Linear(3, 4)
    head = torch.nn.Parameter(torch.randn(5, 4))
    called = []
    head.register_post_accumulate_grad_hook(called.append)
    loss = chunked_cross_entropy(layer(torch.empty(0, 3)), head, torch.empty(0, dtype=torch.long))
    loss.backward()
    assert loss.item() == 0
    assert called, "a wrapper's hook must fire on a rank without tokens"
    assert layer.weight.grad is not None
    assert all(not parameter.grad.any() for parameter in (head, layer.weight, layer.bias))


def test_ignored_rows_are_never_read() -> None:
    hidden, weight, _, labels = case(6, 4, 5, torch.float32, seed=3)
    labels[:] = torch.tensor([1, -100, 2, 0, -100, 4])
    poisoned = hidden.detach().clone()
    poisoned[labels == -100] = float("nan")
    poisoned.requires_grad_()
    loss = chunked_cross_entropy(poisoned, weight.detach(), labels)
    assert torch.equal(loss, chunked_cross_entropy(hidden, weight.detach(), labels))
    (gradient,) = torch.autograd.grad(loss, poisoned)
    assert not gradient[labels == -100].any()
    assert gradient[labels != -100].isfinite().all()


def test_autocast_casts_as_a_linear_would() -> None:
    hidden, weight, _, labels = case(10, 4, 6, torch.float32, seed=4)
    with torch.autocast("cpu", torch.bfloat16):
        loss = chunked_cross_entropy(hidden.bfloat16(), weight, labels)
    assert torch.equal(loss, chunked_cross_entropy(hidden.bfloat16(), weight.bfloat16(), labels))
    loss.backward()
    assert weight.grad is not None
    assert weight.grad.dtype == torch.float32


MEMORY = r"""
import re, torch
from pathlib import Path
from hetsp_ext.loss import chunked_cross_entropy
from torch.nn.functional import cross_entropy, linear

torch.set_num_threads(1)
tokens, vocabulary = 4096, 8192
hidden = torch.randn(tokens, 16, requires_grad=True)
weight = torch.randn(vocabulary, 16, requires_grad=True)
labels = torch.randint(0, vocabulary, (tokens,))
# MiB. Not ru_maxrss: a process inherits that from the one that started it, and pytest may be the larger one.
peak = lambda: int(re.search(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())[1]) / 1024
cross_entropy(linear(hidden[:8], weight), labels[:8], reduction="sum").backward()
chunked_cross_entropy(hidden[:8], weight, labels[:8]).backward()
start = peak()
chunked_cross_entropy(hidden, weight, labels, chunk_tokens=128).backward()
chunked = peak()
cross_entropy(linear(hidden, weight), labels, reduction="sum").backward()
print(chunked - start, peak() - start)
"""


def test_peak_memory_is_that_of_a_chunk() -> None:
    run = subprocess.run([sys.executable, "-c", MEMORY], capture_output=True, text=True, check=True)
    chunked, plain = map(float, run.stdout.split())
    logits = 4096 * 8192 * 4 / 2**20  # MiB of all float32 logits
    assert plain > logits
    assert chunked < logits / 4, f"chunked {chunked} MiB, plain {plain} MiB, all logits {logits} MiB"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"weight": torch.zeros(5, 3)}, "does not fit weight"),
        ({"weight": torch.zeros(5, 4, dtype=torch.float64)}, "hidden is torch.float32 but weight is torch.float64"),
        ({"labels": torch.tensor([0, 5])}, r"label 5 is outside the vocabulary \[0, 5\)"),
        ({"labels": torch.tensor([0, -1])}, "label -1 is outside"),
        ({"labels": torch.tensor([0])}, r"labels are torch.int64 \(1,\)"),
        ({"labels": torch.tensor([0.0, 1.0])}, "labels are torch.float32"),
        ({"chunk_tokens": 0}, "chunk_tokens is 0"),
        ({"bias": torch.zeros(4)}, r"bias has shape \(4,\)"),
        ({"hidden": torch.zeros(2, 4, dtype=torch.long)}, "hidden is torch.int64"),
    ],
)
def test_bad_input_is_named(change: dict, message: str) -> None:
    arguments = {"hidden": torch.zeros(2, 4), "weight": torch.zeros(5, 4), "labels": torch.tensor([0, 1])} | change
    with pytest.raises(InvalidArgument, match=message):
        chunked_cross_entropy(**arguments)


def test_token_mean_is_one_loss_for_every_split() -> None:
    plan = plan_of([5, 1, 9, 2])
    losses = torch.rand(4 + 0 + 8 + 1, dtype=torch.float64)
    for seed in range(10):
        owner = torch.randint(0, 3, losses.shape, generator=torch.Generator().manual_seed(seed))
        shares = [token_mean(losses[owner == rank].sum(), plan) for rank in range(3)]
        torch.testing.assert_close(sum(shares), losses.mean(), rtol=1e-14, atol=0)


def test_token_mean_corners() -> None:
    loss = torch.tensor(3.0, requires_grad=True)
    assert token_mean(loss, plan_of([1, 1, 1])).item() == 3.0
    assert token_mean(loss, plan_of([7]), labels_counted=12).item() == 0.25
    assert token_mean(loss, plan_of([7]), gradients="mean").item() == 0.5  # one rank: nothing to undo
    with pytest.raises(InvalidArgument, match="gradients is 'average'; allowed are 'sum' and 'mean'"):
        token_mean(loss, plan_of([7]), gradients="average")
    with pytest.raises(InvalidArgument, match="labels_counted is -1"):
        token_mean(loss, plan_of([7]), labels_counted=-1)
    with pytest.raises(InvalidArgument, match=r"shape \(2,\)"):
        token_mean(torch.zeros(2), plan_of([7]))
