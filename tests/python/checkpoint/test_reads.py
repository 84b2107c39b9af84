"""Pieces and detours against torch's own slicing: files are byte strings here, and a piece is a copy."""

import ctypes

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from hetsp_ext.checkpoint import _reads
from hetsp_ext.checkpoint._boxes import Box
from hetsp_ext.checkpoint._reads import Reads, StoredBox
from hetsp_ext.errors import InvalidArgument


def copy_pieces(reads, files):
    ends = 0
    for _, _, size, address in sorted(reads.pieces, key=lambda piece: piece[3]):
        assert address >= ends, "two pieces meet at their destination"
        ends = address + size
    for file, offset, size, address in reads.pieces:
        assert offset >= 0
        assert offset + size <= len(files[file])
        ctypes.memmove(address, files[file][offset : offset + size], size)
    reads.place()


def store(whole, cuts, dim):
    """One file a piece of `whole`, cut along `dim`; each with a few bytes before its data."""
    files, stored = [], []
    for begin, end in zip([0, *cuts], [*cuts, whole.shape[dim]], strict=True):
        piece = whole.narrow(dim, begin, end - begin)
        lead = 8 * len(files)
        files.append(b"\xff" * lead + piece.contiguous().view(torch.uint8).numpy().tobytes())
        offsets = [0] * whole.dim()
        offsets[dim] = begin
        stored.append(StoredBox(len(files) - 1, lead, Box(tuple(offsets), tuple(piece.shape))))
    return files, stored


@settings(max_examples=200, deadline=None)
@given(st.data())
def test_a_wanted_box_is_filled_from_uneven_pieces(data):
    shape = data.draw(st.lists(st.integers(0, 9), min_size=1, max_size=3))
    dtype = data.draw(st.sampled_from([torch.float32, torch.bfloat16, torch.int64, torch.uint8, torch.bool]))
    dim = data.draw(st.integers(0, len(shape) - 1))
    cuts = sorted(data.draw(st.lists(st.integers(0, shape[dim]), max_size=3)))
    whole = torch.arange(1, 1 + torch.Size(shape).numel()).reshape(shape).to(dtype)
    files, stored = store(whole, cuts, dim)
    begin = [data.draw(st.integers(0, size)) for size in shape]
    sizes = [data.draw(st.integers(0, size - a)) for size, a in zip(shape, begin, strict=True)]
    want = whole[tuple(slice(a, a + n) for a, n in zip(begin, sizes, strict=True))]
    order = data.draw(st.permutations(range(len(shape))))
    gap = data.draw(st.sampled_from([1, 1, 2]))
    memory = torch.zeros(*(sizes[d] for d in order), gap, dtype=data.draw(st.sampled_from([dtype, torch.float64])))
    live = memory[..., 0].permute(*(order.index(d) for d in range(len(shape))))
    assert tuple(live.shape) == tuple(sizes)

    reads = Reads()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_reads, "SHORT_RUN_BYTES", data.draw(st.sampled_from([1, 16, 4096])))
        reads.want("w", live, begin, stored, dtype)
    copy_pieces(reads, files)
    assert torch.equal(live, want.to(live.dtype))
    assert not memory[..., 1:].any(), "the gaps are not ours"


def whole_file(tensor):
    return store(tensor, [], 0)


def test_a_contiguous_tensor_is_one_piece_into_its_own_memory():
    files, stored = whole_file(torch.randn(100, 200))
    live = torch.zeros(100, 200, requires_grad=True)
    version, reads = live._version, Reads()
    reads.want("w", live, (0, 0), stored, torch.float32)
    assert reads.pieces == [(0, 0, 80000, live.data_ptr())]
    assert reads.detour_bytes == 0
    copy_pieces(reads, files)
    assert live._version > version, "a graph that saved the old values must be told"


def test_rows_of_a_shard_go_straight_into_memory():
    files, stored = whole_file(torch.arange(8 * 2048.0).reshape(8, 2048))
    live = torch.zeros(3, 2048)
    reads = Reads()
    reads.want("w", live, (2, 0), stored, torch.float32)
    assert [(offset, size) for _, offset, size, _ in reads.pieces] == [(2 * 8192, 3 * 8192)]
    copy_pieces(reads, files)
    assert torch.equal(live, torch.arange(8 * 2048.0).reshape(8, 2048)[2:5])


def test_tied_tensors_are_read_once():
    _, stored = whole_file(torch.randn(4, 2048))
    live = torch.zeros(4, 2048)
    reads = Reads()
    reads.want("head", live, (0, 0), stored, torch.float32)
    reads.want("embedding", live.view(4, 2048), (0, 0), stored, torch.float32)
    assert len(reads.pieces) == 1


@pytest.mark.parametrize("seed", range(20))
def test_memory_wanted_under_several_names_is_written_by_one_piece_at_a_time(seed):
    """Views of one storage that meet in any way: each element is what the file of some name that covers it says."""
    draw = torch.Generator().manual_seed(seed)
    live, files, reads = torch.zeros(300), [], Reads()
    allowed = torch.full((6, 300), torch.nan)
    for name in range(6):
        begin = int(torch.randint(0, 200, (), generator=draw))
        size = int(torch.randint(1, 100, (), generator=draw))
        value = torch.randn(size, generator=draw)
        files.append(value.numpy().tobytes())
        reads.want(str(name), live[begin : begin + size], (0,), [StoredBox(name, 0, Box((0,), (size,)))], torch.float32)
        allowed[name, begin : begin + size] = value
    copy_pieces(reads, files)
    covered = ~allowed.isnan().all(0)
    assert (allowed == live).any(0)[covered].all()
    assert not live[~covered].any()


def test_interleaved_columns_of_one_memory_keep_apart():
    whole = torch.arange(600.0).reshape(300, 2)
    files, stored = whole_file(whole)
    memory, reads = torch.zeros(300, 2), Reads()
    reads.want("a", memory[:, :1], (0, 1), stored, torch.float32)
    reads.want("b", memory[:, 1:], (0, 0), stored, torch.float32)
    copy_pieces(reads, files)
    assert torch.equal(memory, whole.flip(1))


def test_narrow_columns_are_one_read_and_a_pick():
    whole = torch.arange(5000.0).reshape(1000, 5)
    files, stored = whole_file(whole)
    live = torch.zeros(1000, 2)
    reads = Reads()
    reads.want("w", live, (0, 1), stored, torch.float32)
    assert len(reads.pieces) == 1
    assert reads.pieces[0][2] == (999 * 5 + 2) * 4
    copy_pieces(reads, files)
    assert torch.equal(live, whole[:, 1:3])


@pytest.mark.parametrize("live", [torch.zeros(()), torch.zeros(1).expand(1), torch.zeros(0, 3)], ids=["0-d", "one", "empty"])
def test_small_shapes(live):
    whole = torch.full(live.shape, 7.0)
    files, stored = ([whole.numpy().tobytes()], [StoredBox(0, 0, Box((0,) * whole.dim(), tuple(whole.shape)))])
    reads = Reads()
    reads.want("w", live, (0,) * whole.dim(), stored, torch.float32)
    copy_pieces(reads, files)
    assert torch.equal(live, whole)


def test_a_conjugated_view_gets_the_values_and_not_the_bytes():
    whole = torch.randn(6, dtype=torch.complex64)
    files, stored = whole_file(whole)
    live = torch.zeros(6, dtype=torch.complex64).conj()
    reads = Reads()
    reads.want("w", live, (0,), stored, torch.complex64)
    copy_pieces(reads, files)
    assert torch.equal(live, whole)


@pytest.mark.parametrize(
    ("tensor", "words"),
    [
        (torch.zeros(1).expand(5), "share memory"),
        (torch.empty(5, device="meta"), "device meta"),
        (torch.zeros(5).to_sparse(), "sparse_coo"),
    ],
)
def test_memory_that_cannot_be_filled_is_refused_by_name(tensor, words):
    with pytest.raises(InvalidArgument, match="layer.w: .*" + words):
        Reads().want("layer.w", tensor, (0,), [], torch.float32)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=["direct", "detour"])
def test_inference_tensors_are_filled(dtype):
    files, stored = whole_file(torch.arange(6.0))
    with torch.inference_mode():
        live = torch.zeros(6, dtype=dtype)
    reads = Reads()
    reads.want("w", live, (0,), stored, torch.float32)
    copy_pieces(reads, files)
    assert live.tolist() == [0, 1, 2, 3, 4, 5]
