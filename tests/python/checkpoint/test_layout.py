"""Who writes what: parts tile each box whoever asks, bytes spread over the holders, and ranks agree on what they share."""

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hetsp_ext.checkpoint._layout import SMALLEST_CUT, Agreement, Held, agree, part


@settings(max_examples=300, deadline=None)
@given(
    st.text(max_size=6),
    st.integers(0, 50),
    st.one_of(st.integers(0, 100), st.integers(SMALLEST_CUT - 1, SMALLEST_CUT + 1)),
    st.lists(st.integers(0, 99), min_size=1, max_size=9, unique=True).map(sorted),
)
def test_parts_of_the_holders_tile_the_rows(name, rows, bytes_, holders):
    parts = [part(name, rows, bytes_, holders, rank) for rank in holders]
    covered = sorted(row for found in parts if found for row in range(*found))
    assert covered == list(range(rows))
    if bytes_ >= SMALLEST_CUT and rows >= len(holders):
        sizes = [end - begin for begin, end in parts]
        assert max(sizes) - min(sizes) <= 1


@pytest.mark.parametrize("seed", range(3))
def test_small_tensors_spread_over_the_ranks(seed):
    draw = random.Random(seed)
    names = [f"layers.{draw.randrange(10**6)}.bias" for _ in range(4000)]
    counts = [sum(part(name, 8, 32, range(4), rank) is not None for name in names) for rank in range(4)]
    assert sum(counts) == 4000
    # Binomial(4000, 1/4) leaves 1000 +- 6 standard deviations of 27.4 once in 5e8 draws.
    assert max(abs(count - 1000) for count in counts) < 165


def held(text):
    return Held("F32", (3,), text)


def test_agreement_is_on_equal_tensors_of_equal_names():
    told = [
        {"w": held("1"), "b": held("1"), "stage": held("1"), "only0": held("5")},
        {"w": held("1"), "b": held("2"), "stage": held("1")},
        {"w": held("1"), "b": held("1")},
    ]
    found = [agree(told, rank).holders for rank in range(3)]
    assert found[0] == {"w": (0, 1, 2), "stage": (0, 1), "only0": (0,)}
    assert found[1] == {"w": (0, 1, 2), "stage": (0, 1)}
    assert found[2] == {"w": (0, 1, 2)}


def test_moments_are_held_by_whoever_holds_the_parameter():
    agreement = Agreement({"w": (0, 2)})
    agreement.same_as("m", "w")
    agreement.same_as("n", "unknown")
    agreement.same_as("o", None)
    assert agreement.holders == {"w": (0, 2), "m": (0, 2)}
    agreement.separate(["m"])
    agreement.same_as("m", "w")
    assert agreement.holders == {"w": (0, 2)}
