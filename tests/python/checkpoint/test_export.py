"""An exported checkpoint is whole tensors that safetensors reads without us, or nothing at all."""

import json

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file

from hetsp_ext.checkpoint.store import export
from hetsp_ext.errors import CheckpointCorrupt, InvalidArgument
from tests.support.checkpoints import write_checkpoint

TENSORS = {
    "model.a.weight": torch.arange(60.0).reshape(20, 3),
    "model.b": torch.randn(7, generator=torch.Generator().manual_seed(0)).to(torch.bfloat16),
    "model.empty": torch.zeros(0, 2),
    "model.scalar": torch.tensor(3),
    "adam.a.m": torch.ones(20, 3),
    "objects": torch.arange(9, dtype=torch.uint8),
}


@pytest.fixture
def checkpoint(tmp_path):
    path = tmp_path / "step-1-aa"
    planner_data = {"bytes": ["objects"], "paths": None}
    write_checkpoint(path, TENSORS, world=3, cuts={"model.a.weight": [3, 3]}, planner_data=planner_data)
    return path


def loaded(folder):
    index = json.loads((folder / "model.safetensors.index.json").read_text())
    found = {}
    for file in sorted(folder.glob("*.safetensors")):
        part = load_file(file)
        assert {name: index["weight_map"][name] for name in part} == dict.fromkeys(part, file.name)
        found |= part
    assert set(found) == set(index["weight_map"])
    assert index["metadata"]["total_size"] == sum(tensor.nbytes for tensor in found.values())
    return found


@pytest.mark.parametrize("file_bytes", [10**9, 250, 1])
@pytest.mark.parametrize("prefix", ["", "model.", "adam."])
def test_whole_tensors_come_out(checkpoint, tmp_path, prefix, file_bytes):
    files = export(checkpoint, tmp_path / "out", prefix=prefix, file_bytes=file_bytes)
    want = {name.removeprefix(prefix): t for name, t in TENSORS.items() if name.startswith(prefix) and name != "objects"}
    found = loaded(tmp_path / "out")
    assert set(found) == set(want)
    for name, tensor in want.items():
        assert found[name].dtype == tensor.dtype
        assert torch.equal(found[name], tensor), name
    assert sorted(files) == sorted((tmp_path / "out").glob("*.safetensors"))
    if file_bytes == 10**9:
        assert [file.name for file in files] == ["model.safetensors"]
    for file in files:
        with safe_open(file, "pt") as opened:
            assert opened.metadata() == {"format": "pt"}, "transformers asks for it"
            sizes = [opened.get_tensor(key).nbytes for key in opened.keys()]  # noqa: SIM118 - no mapping
        assert len(sizes) == 1 or sum(sizes) <= file_bytes


def test_damage_leaves_nothing_behind(checkpoint, tmp_path):
    file = checkpoint / "rank-00002.safetensors"
    data = bytearray(file.read_bytes())
    data[-1] ^= 1
    file.write_bytes(data)
    with pytest.raises(CheckpointCorrupt, match=r"rank-00002\.safetensors bytes"):
        export(checkpoint, tmp_path / "out")
    assert list(tmp_path.iterdir()) == [checkpoint]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"prefix": "nobody."}, "begins with 'nobody.'"),
        ({"prefix": "model.b"}, "goes on"),
        ({"file_bytes": 0}, "file_bytes is 0"),
    ],
)
def test_requests_that_cannot_be_met(checkpoint, tmp_path, arguments, words):
    with pytest.raises(InvalidArgument, match=words):
        export(checkpoint, tmp_path / "out", **arguments)


def test_nothing_is_overwritten(checkpoint, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out/model.safetensors").write_text("precious")
    with pytest.raises(InvalidArgument, match="no empty directory"):
        export(checkpoint, tmp_path / "out")
    assert (tmp_path / "out/model.safetensors").read_text() == "precious"
