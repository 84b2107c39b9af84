"""A rank's header: what we build every safetensors reader takes, and what is not whole is refused by name."""

import json
import random

import pytest
import torch

from hetsp_ext.checkpoint._dtypes import DTYPES, dtype_name
from hetsp_ext.checkpoint._shard import ALIGNMENT, SHARDING, HeaderTemplate, ShardTensor, build_header, parse_header
from hetsp_ext.errors import CheckpointCorrupt, InvalidArgument


def raw(entries, data=b"", pad=0):
    text = json.dumps(entries).encode() if not isinstance(entries, bytes) else entries
    return len(text + b" " * pad).to_bytes(8, "little") + text + b" " * pad + data


def random_bits(dtype, shape, seed):
    count = int(torch.tensor(shape).prod()) * dtype.itemsize if shape else dtype.itemsize
    data = torch.randint(
        0, 2 if dtype is torch.bool else 256, (count,), dtype=torch.uint8, generator=torch.Generator().manual_seed(seed)
    )
    return data


@pytest.mark.parametrize("seed", range(8))
def test_safetensors_reads_a_file_of_ours(tmp_path, seed):
    safetensors = pytest.importorskip("safetensors")
    draw = random.Random(seed)
    tensors, data = [], b""
    for index, name in enumerate(draw.sample(sorted(DTYPES), k=10)):
        shape = tuple(draw.choice([0, 1, 3, 5]) for _ in range(draw.randint(0, 3)))
        bits = random_bits(DTYPES[name], shape, seed * 100 + index)
        tensors.append(ShardTensor(f't{index}.ä"', name, shape))
        data += bits.numpy().tobytes()
    place = [4] * len(tensors[1].shape)
    header = build_header(tensors, "run-00000001", 3, {tensors[1].key: place})
    assert len(header) % ALIGNMENT == 0
    path = tmp_path / "a.safetensors"
    path.write_bytes(header + data)
    read = parse_header("a", header, len(header) + len(data))
    assert read.data_begin == len(header)
    assert read.metadata["hetsp_uid"] == "run-00000001"
    assert read.metadata["hetsp_rank"] == "3"
    places = {tensor.key: {"saved_offsets": [0] * len(tensor.shape)} for tensor in tensors}
    assert json.loads(read.metadata[SHARDING]) == places | {tensors[1].key: {"saved_offsets": place}}
    with safetensors.safe_open(path, "pt") as file:
        assert file.metadata() == read.metadata
        for tensor in tensors:
            if tensor.dtype == "F8_E8M0":
                continue  # safetensors 0.8 knows the name in headers, but makes no torch tensor of it
            got = file.get_tensor(tensor.key)
            place = read.tensors[tensor.key]
            want = (header + data)[place.begin : place.end]
            assert (got.dtype, tuple(got.shape)) == (DTYPES[tensor.dtype], tensor.shape)
            assert got.reshape(-1).view(torch.uint8).numpy().tobytes() == want


def test_a_template_renders_one_uid_after_another():
    tensors = [ShardTensor("w", "F32", (3, 5)), ShardTensor("b", "BF16", (0,))]
    template = HeaderTemplate(tensors, 0, {}, 12)
    for uid in ("run-00000001", "run-00000002"):
        assert template.render(uid) == build_header(tensors, uid, 0)
    assert (template.header_bytes, template.file_bytes) == (4096, 4096 + 60)
    with pytest.raises(InvalidArgument, match="12 plain ASCII"):
        template.render("run-1")
    with pytest.raises(InvalidArgument, match="12 plain ASCII"):
        template.render('run-0000000"')


@pytest.mark.parametrize("length", range(3900, 4110, 7))
def test_data_begin_at_a_page_for_any_length_of_names(length):
    assert len(build_header([ShardTensor("n" * length, "U8", (1,))], "u", 0)) % ALIGNMENT == 0


def test_names_that_collide_are_refused():
    for key in ("w", "__metadata__"):
        with pytest.raises(InvalidArgument, match="taken already"):
            build_header([ShardTensor("w", "U8", (1,)), ShardTensor(key, "U8", (1,))], "u", 0)


def test_a_type_without_a_name_is_refused():
    with pytest.raises(InvalidArgument, match=r"'m\.w' is torch\.complex128"):
        dtype_name(torch.complex128, "m.w")


W = {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}


@pytest.mark.parametrize(
    ("content", "what"),
    [
        (b"", "0 bytes"),
        (b"\x02\x00\x00", "3 bytes"),
        (raw({"w": W}), "at byte"),  # no data
        (raw({"w": W}, b"0" * 9), "at byte"),  # one byte too many
        (raw({"w": W}, b"0" * 8)[:20], "header of"),
        ((1 << 40).to_bytes(8, "little") + b"{}", "header of"),
        (raw(b" {}"), "does not start"),
        (raw(b"[]"), "does not start"),
        (raw(b"{ "), "no JSON"),
        (raw(b"{" * 3000), "no JSON"),
        (raw(b'{"a":' * 100_000), "no JSON"),
        (raw(b"{\xff}"), "no JSON"),
        (raw(b'{"w":1,"w":2}'), "twice"),
        (raw({"w": 3}), "'w'"),
        (raw({"w": {**W, "more": 1}}, b"0" * 8), "'w'"),
        (raw({"w": {**W, "dtype": "F31"}}, b"0" * 8), "F31"),
        (raw({"w": {**W, "dtype": ["F32"]}}, b"0" * 8), "F32"),
        (raw({"w": {**W, "shape": [3]}}, b"0" * 8), "needs 12"),
        (raw({"w": {**W, "shape": [-2]}}, b"0" * 8), "shape"),
        (raw({"w": {**W, "shape": [2.0]}}, b"0" * 8), "shape"),
        (raw({"w": {**W, "shape": [True, 2]}}, b"0" * 8), "shape"),
        (raw({"w": {**W, "shape": [1] * 65}}, b"0" * 8), "shape"),
        (raw({"w": {**W, "data_offsets": [8, 0]}}, b"0" * 8), "hold -8"),
        (raw({"w": {**W, "data_offsets": [0, 8, 9]}}, b"0" * 8), "two integers"),
        (raw({"w": {**W, "data_offsets": [1, 9]}}, b"0" * 9), "begins at byte"),
        (raw({"w": W, "v": {**W, "data_offsets": [4, 12]}}, b"0" * 12), "begins at byte"),
        (raw({"__metadata__": {"a": 1}, "w": W}, b"0" * 8), "strings only"),
    ],
    ids=lambda value: value if isinstance(value, str) else f"{len(value)} bytes",
)
def test_a_header_that_is_not_whole_is_corrupt(content, what):
    with pytest.raises(CheckpointCorrupt, match=what) as error:
        parse_header("rank-00007.safetensors", content, len(content))
    assert str(error.value).startswith("rank-00007.safetensors: ")


def test_a_cut_header_is_corrupt():
    whole = raw({"w": W}, b"0" * 8)
    with pytest.raises(CheckpointCorrupt, match="cut at byte 20"):
        parse_header("f", whole[:20], len(whole))
