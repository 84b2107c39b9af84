"""The rules by which a copy of somebody's test is changed: what they touch, and what they leave."""

import pytest

from tests.thirdparty.rewrite import rewritten


@pytest.mark.parametrize(
    ("source", "floor", "expected"),
    [
        ('device = "cuda"', 0.0, "device = 'cpu'"),
        ('x = torch.device(f"cuda:{rank}")', 0.0, "x = torch.device('cpu')"),
        ('init("nccl")', 0.0, "init('gloo')"),
        ('print("cuda cores")', 0.0, "print('cuda cores')"),
        ("fwd_atol = 2 * e", 2e-3, "fwd_atol = max(2 * e, 0.002)"),
        ("fwd_atol = 2 * e", 0.0, "fwd_atol = 2 * e"),
        ("rtol = 2", 2e-3, "rtol = 2"),
        (
            "assert (a - b).abs().max().item() <= 2 * e",
            2e-3,
            "assert (a - b).abs().max().item() <= max(2 * e, 0.002)",
        ),
        ("assert abs(dropped - p) <= 0.01", 2e-3, "assert abs(dropped - p) <= 0.01"),
        ("assert (a - b).abs().max().item() >= 1", 2e-3, "assert (a - b).abs().max().item() >= 1"),
        ('log("out", out, rank0_only=True)', 0.0, "log('out', out, rank0_only=True)"),
        ('log("out diff", a[:, 0] - b)', 0.0, "log('out diff', a[:, 0], b)"),
        ('log(f"lse diff {i}", a - b)', 0.0, "log(f'lse diff {i}', a, b)"),
    ],
)
def test_rule(source: str, floor: float, expected: str) -> None:
    assert rewritten(source, floor).strip() == expected


def test_a_comparison_that_cannot_be_turned_into_one_is_an_error() -> None:
    with pytest.raises(ValueError, match=r"line 2: log\('diff', x\) is no difference"):
        rewritten('\nlog("diff", x)')
