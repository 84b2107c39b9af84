"""Boxes, runs and tilings against numpy's own slicing and against counting every element."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hetsp_ext.checkpoint._boxes import Box, contiguous_strides, run_elements, runs, tiling_fault

EXAMPLES = settings(max_examples=200, deadline=None)


@st.composite
def boxes_in(draw, shape):
    """A box within shape; empty ones included."""
    offsets = tuple(draw(st.integers(0, size)) for size in shape)
    return Box(offsets, tuple(draw(st.integers(0, size - offset)) for size, offset in zip(shape, offsets, strict=True)))


SHAPES = st.lists(st.integers(0, 7), max_size=4).map(tuple)


@st.composite
def two_boxes(draw):
    shape = draw(SHAPES)
    return shape, draw(boxes_in(shape)), draw(boxes_in(shape))


def slices(box):
    return tuple(slice(a, a + n) for a, n in zip(box.offsets, box.sizes, strict=True))


def mask(shape, box):
    found = np.zeros(shape, dtype=bool)
    found[slices(box)] = True
    return found


@EXAMPLES
@given(two_boxes())
def test_an_intersection_holds_what_both_hold(case):
    shape, one, other = case
    both = one.intersect(other)
    want = mask(shape, one) & mask(shape, other)
    assert np.array_equal(mask(shape, both) if both else np.zeros(shape, dtype=bool), want)
    assert (both.elements if both else 0) == want.sum()


@EXAMPLES
@given(two_boxes(), st.data())
def test_runs_copy_what_slicing_copies(case, data):
    """A stored box is row-major; the wanted one lies in memory with permuted dimensions and gaps between its elements."""
    shape, stored, wanted = case
    whole = np.arange(np.prod(shape, dtype=int)).reshape(shape)
    both = stored.intersect(wanted)
    order = data.draw(st.permutations(range(len(shape))))
    gap = data.draw(st.sampled_from([1, 1, 2, 3]))
    memory = np.full((*(wanted.sizes[d] for d in order), gap), -1)
    view = memory[..., 0].transpose(np.argsort(order)) if order else memory[..., 0]
    assert view.shape == wanted.sizes
    want = view.copy()
    if both is None:
        return
    want[slices(both.relative_to(wanted.offsets))] = whole[slices(both)]

    strides = tuple(stride // memory.itemsize for stride in view.strides)
    found = runs(both.sizes, contiguous_strides(stored.sizes), strides)
    source = whole[slices(stored)].flatten()
    from_first = np.dot(both.relative_to(stored.offsets).offsets, contiguous_strides(stored.sizes))
    to_first = np.dot(both.relative_to(wanted.offsets).offsets, strides)
    flat = memory.reshape(-1)
    assert len(found) * found.elements == both.elements
    for a, b in zip(found.source.tolist(), found.destination.tolist(), strict=True):
        span = slice(int(to_first) + b, int(to_first) + b + found.elements)
        assert (flat[span] == -1).all(), "no element is written twice"
        flat[span] = source[int(from_first) + a : int(from_first) + a + found.elements]
    assert np.array_equal(view, want)
    assert (np.diff(found.source.numpy()) > 0).all(), "source order"


@pytest.mark.parametrize(
    ("sizes", "source", "destination", "count", "length"),
    [
        ((4, 5), (5, 1), (5, 1), 1, 20),  # whole tensor
        ((4, 5), (9, 1), (5, 1), 4, 5),  # columns of a wider one
        ((4, 5), (9, 1), (9, 1), 4, 5),
        ((4, 1), (9, 1), (1, 7), 4, 1),  # one column
        ((1, 5), (9, 1), (77, 1), 1, 5),  # a size of one has no stride that matters
        ((2, 3, 4), (12, 4, 1), (12, 4, 1), 1, 24),
        ((2, 3, 4), (24, 4, 1), (12, 4, 1), 2, 12),
        ((4, 5), (5, 1), (1, 4), 20, 1),  # transposed
        ((), (), (), 1, 1),
        ((0, 3), (3, 1), (3, 1), 0, 0),
        ((3, 0), (1, 1), (1, 1), 0, 0),
    ],
)
def test_runs_are_as_long_as_both_memories_allow(sizes, source, destination, count, length):
    found = runs(sizes, source, destination)
    assert (len(found), found.elements) == (count, length)
    assert run_elements(sizes, source, destination) == length


@st.composite
def tilings(draw):
    """A tiling by random cuts of random pieces, in any order, with empty boxes strewn in."""
    shape = draw(SHAPES)
    pieces = [Box((0,) * len(shape), shape)]
    for _ in range(draw(st.integers(0, 6)) if shape else 0):
        box = pieces.pop(draw(st.integers(0, len(pieces) - 1)))
        d = draw(st.integers(0, len(shape) - 1))
        cut = draw(st.integers(0, box.sizes[d]))
        low, high = list(box.sizes), list(box.sizes)
        low[d], high[d] = cut, box.sizes[d] - cut
        start = list(box.offsets)
        start[d] += cut
        pieces += [Box(box.offsets, tuple(low)), Box(tuple(start), tuple(high))]
    return shape, draw(st.permutations(pieces))


@EXAMPLES
@given(tilings())
def test_a_tiling_is_accepted(case):
    assert tiling_fault(*case) is None


@EXAMPLES
@given(tilings(), st.data())
def test_a_broken_tiling_is_refused(case, data):
    shape, boxes = case
    full = [index for index, box in enumerate(boxes) if box.elements]
    if not full:
        return
    index = data.draw(st.sampled_from(full))
    assert "elements" in tiling_fault(shape, boxes[:index] + boxes[index + 1 :])
    assert "overlap" in tiling_fault(shape, [*boxes, boxes[index]])


@EXAMPLES
@given(st.data())
def test_tiling_agrees_with_counting(data):
    shape = data.draw(SHAPES)
    boxes = data.draw(st.lists(boxes_in(shape), max_size=5))
    count = np.zeros(shape, dtype=int)
    for box in boxes:
        count[slices(box)] += 1
    assert (tiling_fault(shape, boxes) is None) == bool((count == 1).all())


@pytest.mark.parametrize(
    ("shape", "box", "words"),
    [
        ((4, 4), Box((0,), (4,)), "1 dimensions"),
        ((4, 4), Box((2, 0), (3, 4)), "leaves the shape"),
        ((4, 4), Box((-1, 0), (1, 4)), "leaves the shape"),
        ((4,), Box((0,), (-1,)), "leaves the shape"),
        ((), Box((0,), (1,)), "1 dimensions"),
    ],
)
def test_a_box_outside_the_tensor_is_named(shape, box, words):
    assert words in tiling_fault(shape, [box])


def test_many_boxes_are_checked_without_comparing_all_pairs():
    """Rows of a long tensor: were every pair compared, this would be 2 * 10^8 intersections."""
    boxes = [Box((row, 0), (1, 3)) for row in range(20000)]
    assert tiling_fault((20000, 3), boxes) is None
    assert "overlap" in tiling_fault((20000, 3), [*boxes, Box((7, 1), (1, 1))])
