"""A checkpoint is opened only where manifest and files say the same; what differs is named."""

import json

import pytest
import torch

from hetsp_ext.checkpoint._opened import Fault, Opened, joined
from hetsp_ext.checkpoint.store import verify_checkpoint
from hetsp_ext.errors import CheckpointCorrupt
from tests.support.checkpoints import crc32c, sealed, write_checkpoint

TENSORS = {"model.w": torch.arange(40.0).reshape(10, 4), "model.b": torch.ones(4), "adam.w.m": torch.zeros(10, 4)}


@pytest.fixture
def checkpoint(tmp_path):
    path = tmp_path / "step-0000000003-aa"
    manifest = write_checkpoint(path, TENSORS, step=3, sequence=7, world=3, cuts={"model.w": [1, 8]})
    return path, manifest


def open_all(path):
    opened = Opened(path)
    for index in range(len(opened.manifest.files)):
        opened.header(index)


def edit(path, manifest, change):
    change(manifest)
    (path / "manifest.json").write_bytes(sealed(json.dumps(manifest).encode()))


def test_the_reference_checksum_is_crc32c():
    assert crc32c(b"123456789") == "e3069283"
    assert crc32c(bytes(32)) == "8a9136aa"  # RFC 3720, B.4


def test_boxes_are_found_in_their_files(checkpoint):
    opened = Opened(checkpoint[0])
    assert (opened.manifest.step, opened.manifest.sequence, opened.manifest.world) == (3, 7, 3)
    assert opened.bytes == sum(file.stat().st_size for file in checkpoint[0].glob("rank-*"))
    found = opened.stored("model.w")
    assert [(box.file, box.box.offsets, box.box.sizes) for box in found] == [
        (0, (0, 0), (1, 4)),
        (1, (1, 0), (7, 4)),
        (2, (8, 0), (2, 4)),
    ]
    for box in found:
        data = (checkpoint[0] / f"rank-{box.file:05d}.safetensors").read_bytes()[box.begin :]
        begin = box.box.offsets[0]
        rows = torch.frombuffer(bytearray(data[: box.box.elements * 4]), dtype=torch.float32).reshape(-1, 4)
        assert torch.equal(rows, TENSORS["model.w"][begin : begin + len(rows)])
    assert opened.stored("model.w", (8, 0)) == found[2:]
    assert opened.stored("model.w", (5, 0)) == []


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda m: m["tensors"]["model.w"]["boxes"].pop(1), "'model.w': the boxes hold 12 of 40"),
        (lambda m: m["tensors"]["model.w"]["boxes"][1].update(offsets=[2, 0]), "'model.w': boxes .* overlap"),
        (lambda m: m["tensors"]["model.b"].update(dtype="I64"), "needs .*I64"),
        (lambda m: m["tensors"]["model.b"]["boxes"][0].update(key="nothing"), "holds nothing as 'nothing'"),
        (lambda m: m["tensors"]["model.b"].update(shape=[2, 2], boxes=m["tensors"]["model.b"]["boxes"]), "do not lie in shape"),
        (lambda m: m.update(uid="bb"), "is the file of rank 0 of checkpoint aa, not of bb"),
        (lambda m: m["files"][1].update(bytes=m["files"][1]["bytes"] - 4), "extents"),
        (lambda m: m["files"][0].update(header_bytes=8192), "extents"),
        (lambda m: m.update(planner_data={"bytes": ["model.w"], "paths": None}), "type U8"),
        (lambda m: m.update(planner_data={"bytes": ["nothing"], "paths": None}), "must list tensors"),
        (lambda m: m.update(planner_data={"bytes": [], "paths": {"a": [1.5]}}), "strings and integers"),
        (lambda m: m.update(planner_data=[]), "must be an object"),
    ],
)
def test_a_manifest_that_lies_is_refused_though_its_seal_is_right(checkpoint, change, words):
    path, manifest = checkpoint
    edit(path, manifest, change)
    with pytest.raises(CheckpointCorrupt, match=words):
        open_all(path)


def test_files_of_two_ranks_that_changed_places_are_told_by_name(checkpoint):
    path, _ = checkpoint
    one, two = path / "rank-00000.safetensors", path / "rank-00001.safetensors"
    size = max(one.stat().st_size, two.stat().st_size)
    assert size > 0
    data = one.read_bytes(), two.read_bytes()
    one.write_bytes(data[1])
    two.write_bytes(data[0])
    with pytest.raises(CheckpointCorrupt, match=r"rank-00000.safetensors: \d+ bytes, committed with"):
        Opened(path).header(0)


def test_files_of_equal_size_that_changed_places_are_told_by_their_rank(tmp_path):
    path = tmp_path / "step-1-aa"
    write_checkpoint(path, {"a": torch.zeros(4), "b": torch.ones(4)}, world=2)
    one, two = path / "rank-00000.safetensors", path / "rank-00001.safetensors"
    data = one.read_bytes(), two.read_bytes()
    one.write_bytes(data[1])
    two.write_bytes(data[0])
    with pytest.raises(CheckpointCorrupt, match=r"rank-00000.safetensors: is the file of rank 1"):
        Opened(path).header(0)


def test_a_missing_manifest_and_a_missing_file_are_named(checkpoint):
    path, _ = checkpoint
    (path / "rank-00002.safetensors").unlink()
    with pytest.raises(CheckpointCorrupt, match=r"rank-00002.safetensors: No such file"):
        Opened(path).header(2)
    (path / "manifest.json").unlink()
    with pytest.raises(CheckpointCorrupt, match=r"manifest.json"):
        Opened(path)


def test_a_fault_names_the_tensors_at_its_bytes(checkpoint):
    opened = Opened(checkpoint[0])
    begin = opened.stored("model.b")[0].begin
    opened.header(1)
    fault = opened.fault(1, begin, begin + 1, "checksum differs")
    assert fault.tensors == ("model.b",)
    assert str(fault) == f"rank-00001.safetensors bytes [{begin}, {begin + 1}) (model.b): checksum differs"
    assert opened.fault(1, 0, 10**6, "x").tensors == ("model.w", "model.b")
    assert str(Fault("f", "gone")) == "f: gone"


def test_faults_that_adjoin_and_say_the_same_are_one():
    cut = "the file ends at 5"
    found = [(0, 8, 12, cut), (0, 4, 8, cut), (0, 5, 16, "is 5 bytes long"), (0, 12, 16, cut), (1, 16, 20, cut), (0, 0, 4, "a")]
    assert joined(found) == [
        (0, 0, 4, "a"),
        (0, 4, 16, cut),
        (0, 5, 16, "is 5 bytes long"),
        (1, 16, 20, cut),
    ]
    assert joined([(0, 0, 4, cut), (0, 8, 12, cut)]) == [(0, 0, 4, cut), (0, 8, 12, cut)]
    assert joined([]) == []


def test_a_file_that_was_cut_tells_of_its_extents_once(tmp_path):
    path = tmp_path / "step-0000000003-aa"
    write_checkpoint(path, {"w": torch.zeros(3 << 20), "v": torch.ones(2 << 20)}, step=3)
    (file,) = path.glob("rank-*")
    size = file.stat().st_size
    file.open("r+b").truncate(4096 + 100)
    said = [fault for fault in verify_checkpoint(path) if fault.what.startswith("the file ends at")]
    assert [(fault.begin, fault.end) for fault in said] == [(4096, size)]
    assert said[0].what.startswith("the file ends at 4196,")
