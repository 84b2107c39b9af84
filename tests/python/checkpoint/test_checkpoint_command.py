"""`hetsp checkpoint ls|verify|export`: what it says of whole and of damaged checkpoints, to people and to programs."""

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

import hetsp_ext as hetsp
from hetsp_ext import cli

STEPS = (3, 5, 4)  # in the order of their commits: steps repeat and fall after a fallback


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[int, dict[str, torch.Tensor]]]:
    """A folder of three checkpoints, and the model's weights by step."""
    folder = tmp_path_factory.mktemp("saved") / "kept"
    torch.manual_seed(7)
    model = torch.nn.Sequential(torch.nn.Linear(64, 33), torch.nn.Linear(33, 300))
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.1)
    weights = {}
    with hetsp.LazyCheckpointer(folder, model=model, optimizer=optimizer, keep=len(STEPS)) as checkpointer:
        for step in STEPS:
            model(torch.randn(2, 64)).square().sum().backward()
            optimizer.step()
            checkpointer.save(step)
            weights[step] = {name: value.clone() for name, value in model.state_dict().items()}
            checkpointer.wait()
    return folder, weights


@pytest.fixture
def folder(saved: tuple[Path, Any], tmp_path: Path) -> Path:
    shutil.copytree(saved[0], tmp_path / "kept")
    return tmp_path / "kept"


def records(capsys: pytest.CaptureFixture[str], *arguments: str | Path) -> tuple[int, list[dict[str, Any]]]:
    status = cli.main(["checkpoint", *map(str, arguments), "--json"])
    return status, [json.loads(line) for line in capsys.readouterr().out.splitlines()]


def checkpoint(folder: Path, step: int) -> Path:
    (found,) = folder.glob(f"step-{step:010d}-*")
    return found


@pytest.mark.parametrize("action", ["ls", "verify"])
def test_whole_checkpoints_newest_first(action: str, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    status, found = records(capsys, action, folder)
    assert status == 0
    assert [record["step"] for record in found] == [4, 5, 3]
    for record in found:
        assert list(record)[:4] == ["step", "path", "ok", "faults"]
        assert record["ok"] is True
        assert record["faults"] == []
        assert record["path"] == str(checkpoint(folder, record["step"]))
        assert record["ranks"] == 1
        assert record["bytes"] == sum(file.stat().st_size for file in Path(record["path"]).glob("*.safetensors"))
    assert cli.main(["checkpoint", action, str(folder)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 4
    assert all(
        " ok " in line and str(checkpoint(folder, step)) in line for line, step in zip(lines[1:], (4, 5, 3), strict=True)
    )


@pytest.mark.parametrize("action", ["ls", "verify"])
def test_one_checkpoint_is_a_list_of_one(action: str, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    status, (found,) = records(capsys, action, checkpoint(folder, 5))
    assert status == 0
    assert found["step"] == 5
    assert found["ok"]


def flip(path: Path, at: int) -> None:
    data = bytearray(path.read_bytes())
    data[at] ^= 0x10
    path.write_bytes(data)


def middle(path: Path) -> int:
    return path.stat().st_size // 2


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1])


SHARD, MANIFEST = "rank-00000.safetensors", "manifest.json"
# (damage, what the fault names, whether `ls` sees it without reading what has a checksum; None: where it stays legal JSON)
DAMAGES: dict[str, tuple[Callable[[Path], object], str, bool | None]] = {
    "a flipped bit in a tensor": (lambda place: flip(place / SHARD, middle(place / SHARD)), SHARD, False),
    "a flipped bit in the header's length": (lambda place: flip(place / SHARD, 1), SHARD, True),
    "a flipped bit in the header": (lambda place: flip(place / SHARD, 30), SHARD, None),
    "a cut file": (lambda place: cut(place / SHARD), SHARD, True),
    "a missing file": (lambda place: (place / SHARD).unlink(), SHARD, True),
    "a flipped bit in the manifest": (lambda place: flip(place / MANIFEST, middle(place / MANIFEST)), MANIFEST, True),
    "a missing manifest": (lambda place: (place / MANIFEST).unlink(), MANIFEST, True),
}


@pytest.mark.parametrize("name", DAMAGES)
def test_damage_is_named_and_is_the_exit_status(name: str, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    damage, named, outer = DAMAGES[name]
    place = checkpoint(folder, 5)
    damage(place)
    status, found = records(capsys, "verify", folder)
    assert status == 1
    assert {record["path"]: record["ok"] for record in found} == {str(checkpoint(folder, step)): step != 5 for step in STEPS}
    (faulty,) = [record for record in found if not record["ok"]]
    assert faulty["faults"]
    assert all(named in fault for fault in faulty["faults"])
    status, found = records(capsys, "ls", folder)
    if outer is not None:
        assert status == int(outer)
        assert [record["path"] for record in found if not record["ok"]] == ([str(place)] if outer else [])
    assert cli.main(["checkpoint", "verify", str(folder)]) == 1
    text = capsys.readouterr().out
    assert named in text
    assert re.search(r" \d+ faults? ", text)


def test_a_fault_in_data_names_bytes_and_tensor(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = checkpoint(folder, 4) / SHARD
    flip(file, file.stat().st_size - 1)
    _, found = records(capsys, "verify", folder, "--step", "4")
    assert [record["step"] for record in found] == [4]
    (fault,) = found[0]["faults"]
    assert "bytes [" in fault
    assert "optimizer." in fault or "model." in fault or "rng." in fault


def test_export_is_what_the_model_held(
    folder: Path, saved: tuple[Path, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for step, arguments in ((4, []), (5, ["--step", "5"])):
        out = tmp_path / f"out-{step}"
        status, (found,) = records(capsys, "export", folder, "--out", out, "--prefix", "model.", *arguments)
        assert status == 0
        assert found["step"] == step
        assert found["files"] == [str(out / "model.safetensors")]
        loaded = load_file(out / "model.safetensors")
        assert loaded.keys() == saved[1][step].keys()
        assert all(torch.equal(loaded[name], tensor) for name, tensor in saved[1][step].items())
        index = json.loads((out / "model.safetensors.index.json").read_text())
        assert set(index["weight_map"]) == set(loaded)


def test_export_of_damaged_data_leaves_nothing(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    flip(checkpoint(folder, 4) / SHARD, middle(checkpoint(folder, 4) / SHARD))
    assert cli.main(["checkpoint", "export", str(folder), "--out", str(tmp_path / "out")]) == 1
    captured = capsys.readouterr()
    assert captured.err.startswith("hetsp checkpoint: error: ")
    assert SHARD in captured.err
    assert not (tmp_path / "out").exists()


def test_export_says_which_newer_checkpoint_it_passes_over(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for step in (4, 5):
        (checkpoint(folder, step) / MANIFEST).unlink()
    assert cli.main(["checkpoint", "export", str(folder), "--out", str(tmp_path / "out")]) == 0
    captured = capsys.readouterr()
    assert "step 3" in captured.out
    (checkpoint(folder, 3) / MANIFEST).unlink()
    status, found = records(capsys, "export", folder, "--out", tmp_path / "none")
    assert status == 1
    assert [record["ok"] for record in found] == [False] * 3


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["ls", "{folder}/none"], "none is not a folder"),
        (["ls", "{folder}/latest"], "latest is not a folder"),
        (["verify", "{empty}"], "holds no checkpoint"),
        (["verify", "{folder}", "--step", "9"], "--step is 9; {folder} has checkpoints of steps 4, 5, 3"),
        (["export", "{folder}", "--out", "{folder}"], "is no empty directory"),
        (["export", "{folder}", "--out", "{empty}", "--prefix", "mode."], "begins with 'mode.'"),
    ],
)
def test_a_wrong_request_is_one_line(
    arguments: list[str], message: str, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "empty").mkdir()
    places = {"folder": folder, "empty": tmp_path / "empty"}
    assert cli.main(["checkpoint", *(word.format(**places) for word in arguments)]) == 2
    captured = capsys.readouterr()
    assert message.format(**places) in captured.err
    assert captured.err.count("\n") == 1
    assert not captured.out


def test_help_of_every_action(capsys: pytest.CaptureFixture[str]) -> None:
    for action in ("ls", "verify", "export"):
        with pytest.raises(SystemExit) as stop:
            cli.main(["checkpoint", action, "--help"])
        assert stop.value.code == 0
        text = capsys.readouterr().out
        assert "DIR" in text
        assert "--json" in text
        assert "None" not in text
    with pytest.raises(SystemExit) as stop:
        cli.main(["checkpoint", "list", "."])
    assert stop.value.code == 2
