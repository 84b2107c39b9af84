"""The native verified read from Python: types, faults, rollback. Its rules are tested in tests/cpp/checkpoint."""

import itertools

import pytest
import torch

from hetsp_ext._native import core
from hetsp_ext.errors import InvalidArgument

EXTENT = 1 << 20
HEADER = 4096


@pytest.fixture
def file(tmp_path):
    """A file of a header and three extents, its spec, and its data."""
    data = torch.randint(0, 256, (HEADER + 3 * EXTENT,), dtype=torch.uint8, generator=torch.Generator().manual_seed(3))
    path = tmp_path / "rank-00000.safetensors"
    path.write_bytes(data.numpy().tobytes())

    def digest(begin, end):
        return core.seal(data[begin:end].numpy().tobytes()[:-1], "crc32c").split()[-1].decode()

    # A seal covers its text and one newline: end each part in one, so that its checksum can be taken from a seal.
    bounds = [0, HEADER, HEADER + EXTENT, HEADER + 2 * EXTENT, HEADER + 3 * EXTENT]
    for end in bounds[1:]:
        data[end - 1] = ord("\n")
    path.write_bytes(data.numpy().tobytes())
    extents = [(begin, end, digest(begin, end)) for begin, end in itertools.pairwise(bounds[1:])]
    return core.FileSpec(str(path), len(data), digest(0, HEADER), extents), data


def test_pieces_arrive_in_tensors(file):
    spec, data = file
    target = torch.zeros(2 * EXTENT, dtype=torch.uint8)
    pieces = [(0, HEADER + 17, EXTENT, target.data_ptr()), (0, HEADER + 2 * EXTENT, 5, target.data_ptr() + EXTENT)]
    done = core.verified_read([spec], pieces, checksum="crc32c")
    assert done.faults == []
    assert done.bytes == EXTENT + 5
    assert torch.equal(target[:EXTENT], data[HEADER + 17 : HEADER + 17 + EXTENT])
    assert torch.equal(target[EXTENT : EXTENT + 5], data[HEADER + 2 * EXTENT : HEADER + 2 * EXTENT + 5])
    assert not target[EXTENT + 5 :].any()
    assert core.verify_file(spec.path, spec.size, spec.header_hash, spec.extents, "crc32c") == []
    assert core.verify_files([spec, spec], "crc32c") == []


@pytest.mark.parametrize("free_memory", [None, 0])
def test_a_flipped_bit_leaves_live_tensors_as_they_were(file, free_memory):
    spec, _ = file
    with open(spec.path, "r+b") as f:
        f.seek(HEADER + 2 * EXTENT + 99)
        byte = f.read(1)
        f.seek(-1, 1)
        f.write(bytes([byte[0] ^ 4]))
    target = torch.full((3 * EXTENT,), 7, dtype=torch.uint8)
    pieces = [(0, HEADER, 3 * EXTENT, target.data_ptr())]
    done = core.verified_read([spec], pieces, checksum="crc32c", undo=True, free_memory=free_memory)
    ((index, begin, end, what),) = done.faults
    assert (index, begin, end) == (0, HEADER + 2 * EXTENT, HEADER + 3 * EXTENT)
    assert what.startswith("crc32c is ")
    assert done.undo == ("kept" if free_memory is None else "checked first")
    done.rollback()
    assert target.eq(7).all()
    assert core.verify_file(spec.path, spec.size, spec.header_hash, spec.extents, "crc32c") == [(0, begin, end, what)]
    assert "1 faults" in repr(done)


@pytest.mark.parametrize("free_memory", [None, 0])
def test_a_good_read_can_be_taken_back_until_it_is_finished(file, free_memory):
    spec, data = file
    for certain in (False, True):
        target = torch.full((3 * EXTENT,), 7, dtype=torch.uint8)
        pieces = [(0, HEADER, 3 * EXTENT, target.data_ptr())]
        done = core.verified_read([spec], pieces, checksum="crc32c", undo=True, hold=True, free_memory=free_memory)
        assert done.faults == []
        assert done.kept == (0 if free_memory == 0 else 3 * EXTENT)
        if certain:
            done.finish()
            assert torch.equal(target, data[HEADER:])
            done.forget()
        else:
            done.rollback()
            assert target.eq(7).all()
            done.finish()
            assert target.eq(7).all()


def test_a_missing_file_is_a_fault_and_a_bad_call_an_error(file, tmp_path):
    spec, _ = file
    gone = core.FileSpec(str(tmp_path / "gone"), spec.size, spec.header_hash, spec.extents)
    assert core.verify_files([spec, gone], "crc32c") == [(1, 0, spec.size, "is missing")]
    with pytest.raises(InvalidArgument, match="two pieces meet"):
        core.verified_read([spec], [(0, HEADER, 8, 1 << 40), (0, HEADER, 8, (1 << 40) + 4)], checksum="crc32c")
    with pytest.raises(InvalidArgument, match="checksum"):
        core.verified_read([spec], [], checksum="md5")
