"""varlen_attention against float64 maths on random batches biased to corners; the seed is in the test's id."""

import pytest
import torch

from tests.python.attention.bounds import check_against_maths
from tests.python.attention.reference import random_case

TYPES = [torch.float32, torch.bfloat16, torch.float64, torch.float16]


@pytest.mark.parametrize("seed", range(96))
def test_error_is_at_most_twice_that_of_the_maths_in_the_same_dtype(seed: int) -> None:
    dtype = TYPES[seed % 4]
    case = random_case(seed, dtype)
    torch.manual_seed(seed + 1)
    rows, heads, _ = case.q.shape
    grad_out = torch.randn(rows, heads, case.v.shape[2], dtype=torch.float64).to(dtype)
    grad_lse = torch.randn(heads, rows, dtype=torch.float64)
    check_against_maths(case, grad_out, grad_lse if dtype == torch.float64 else grad_lse.float())
