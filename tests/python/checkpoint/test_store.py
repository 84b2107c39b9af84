"""Listing, verifying and restoring checkpoints; how damage is found is test_damage's subject."""

import json
import logging

import pytest
import torch

from hetsp_ext.checkpoint import _restore
from hetsp_ext.checkpoint._opened import Opened
from hetsp_ext.checkpoint.store import Target, list_checkpoints, restore_newest, verify_checkpoint
from hetsp_ext.errors import CheckpointCorrupt, InvalidArgument
from tests.support.checkpoints import sealed, write_checkpoint


def state(step):
    return {
        "model.w": torch.arange(24.0).reshape(6, 4) + step,
        "model.half": torch.full((5,), step, dtype=torch.bfloat16),
        "model.empty": torch.zeros(0, 3),
        "n": torch.tensor(step),
    }


def write(folder, step, sequence, **options):
    write_checkpoint(
        folder / f"step-{step:010d}-{sequence:02x}", state(step), step=step, sequence=sequence, world=2,
        cuts={"model.w": [2]}, **options,
    )  # fmt: skip


@pytest.fixture
def folder(tmp_path):
    """Steps 10, 20, 30, and 20 once more after a fallback: committed in this order, so the newest is step 20."""
    for sequence, step in enumerate((10, 20, 30, 20), start=1):
        write(tmp_path, step, sequence)
    (tmp_path / ".part-05").mkdir()
    (tmp_path / "latest").write_text("garbage")
    return tmp_path


def damage(folder, sequence):
    (file,) = folder.glob(f"step-*-{sequence:02x}/rank-00000.safetensors")
    data = bytearray(file.read_bytes())
    data[-1] ^= 1
    file.write_bytes(data)


def live(step=0):
    return {name: torch.full_like(tensor, 77) for name, tensor in state(step).items()}


def into(tensors):
    return lambda manifest: [Target(name, tensor) for name, tensor in tensors.items()]


def assert_equal(tensors, step):
    for name, tensor in state(step).items():
        assert torch.equal(tensors[name], tensor), name


def test_the_newest_is_the_last_committed_not_the_highest_step(folder):
    found = list_checkpoints(folder)
    assert [(info.step, info.sequence, info.fault) for info in found] == [
        (20, 4, None),
        (30, 3, None),
        (20, 2, None),
        (10, 1, None),
    ]
    assert [info.world for info in found] == [2] * 4
    for info in found:
        assert info.bytes == sum(file.stat().st_size for file in info.path.glob("rank-*"))


def test_a_checkpoint_is_a_list_of_one(folder):
    (path,) = folder.glob("step-*-03")
    assert [info.step for info in list_checkpoints(path)] == [30]


def test_what_a_dead_replacing_save_left_is_found(folder):
    (path,) = folder.glob("step-*-03")
    path.rename(folder / ".old-fixed")
    assert [info.path for info in list_checkpoints(folder / "fixed")] == [folder / ".old-fixed"]
    assert list_checkpoints(folder / "nothing") == []


def test_an_unreadable_manifest_is_listed_last_with_its_fault(folder):
    (path,) = folder.glob("step-*-04")
    (path / "manifest.json").write_bytes(b"")
    last = list_checkpoints(folder)[-1]
    assert (last.path, last.step) == (path, None)
    assert "manifest.json" in last.fault


@pytest.mark.parametrize("files", [[], ["latest"], [".lock"]])
def test_a_directory_without_checkpoints_restores_none(tmp_path, files):
    for file in files:
        (tmp_path / file).write_text("")
    assert list_checkpoints(tmp_path) == []
    assert restore_newest(tmp_path, into(live())) is None
    assert restore_newest(tmp_path / "absent", into(live())) is None


def test_restores_the_newest(folder):
    tensors = live()
    done = restore_newest(folder, into(tensors))
    assert_equal(tensors, 20)
    assert (done.step, done.manifest.sequence, done.skipped) == (20, 4, ())
    assert done.bytes == sum(tensor.nbytes for tensor in tensors.values())


def test_falls_back_saying_what_and_why(folder, caplog):
    damage(folder, 4)
    damage(folder, 3)
    tensors = live()
    with caplog.at_level(logging.WARNING, "hetsp_ext.checkpoint"):
        done = restore_newest(folder, into(tensors))
    assert_equal(tensors, 20)
    assert done.manifest.sequence == 2
    assert [(skip.step, skip.path.name[-2:]) for skip in done.skipped] == [(20, "04"), (30, "03")]
    for skip, record in zip(done.skipped, caplog.records, strict=True):
        assert "rank-00000.safetensors bytes [" in skip.reason
        assert str(skip.path) in record.getMessage()
        assert skip.reason in record.getMessage()


def test_none_verifies(folder):
    for sequence in (1, 2, 3, 4):
        damage(folder, sequence)
    tensors = live()
    with pytest.raises(CheckpointCorrupt, match="none of the 4 checkpoints") as raised:
        restore_newest(folder, into(tensors))
    for sequence in (1, 2, 3, 4):
        assert f"-{sequence:02x}: rank-00000.safetensors bytes" in str(raised.value)
    for name, tensor in tensors.items():
        assert (tensor == 77).all(), name


def test_a_late_fault_leaves_live_tensors_as_they_were(folder):
    """The fault is in the last extent of the last file; a transposed and a converted tensor stand beside plain ones."""
    for sequence in (1, 2, 3, 4):
        (file,) = folder.glob(f"step-*-{sequence:02x}/rank-00001.safetensors")
        data = bytearray(file.read_bytes())
        data[-1] ^= 128
        file.write_bytes(data)
    tensors = live() | {"model.w": torch.full((4, 6), 77.0).t()}
    with pytest.raises(CheckpointCorrupt):
        restore_newest(folder, into(tensors))
    for name, tensor in tensors.items():
        assert (tensor == 77).all(), name


def test_a_step_is_chosen_and_nothing_else_will_do(folder):
    tensors = live()
    assert restore_newest(folder, into(tensors), step=30).manifest.sequence == 3
    assert_equal(tensors, 30)
    assert restore_newest(folder, into(tensors), step=20).manifest.sequence == 4
    damage(folder, 4)
    assert restore_newest(folder, into(tensors), step=20).manifest.sequence == 2
    damage(folder, 3)
    with pytest.raises(CheckpointCorrupt, match="none of the 1 checkpoints"):
        restore_newest(folder, into(tensors), step=30)
    with pytest.raises(InvalidArgument, match=r"no readable checkpoint of step 25; it has \[10, 20, 30\]"):
        restore_newest(folder, into(tensors), step=25)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"model.v": torch.zeros(2)}, "holds no tensor 'model.v'"),
        ({"model.w": torch.zeros(4, 6)}, r"'model.w' is stored with shape \[6, 4\], the live one has \[4, 6\]"),
        ({"model.w": torch.zeros(6, 4, dtype=torch.float64)}, "stored as torch.float32, the live one is torch.float64"),
    ],
)
def test_live_objects_that_do_not_fit_are_an_error_and_no_fault(folder, change, words):
    tensors = live() | change
    with pytest.raises(InvalidArgument, match=words):
        restore_newest(folder, into(tensors))
    for name in set(tensors) - set(change):
        assert (tensors[name] == 77).all(), name


def test_what_the_caller_calls_corrupt_is_fallen_back_from(folder):
    tensors = live()

    def targets(manifest):
        if manifest.sequence > 2:
            raise CheckpointCorrupt(f"the values of {manifest.sequence} are odd")
        return into(tensors)(manifest)

    done = restore_newest(folder, targets)
    assert_equal(tensors, 20)
    assert [skip.reason for skip in done.skipped] == ["the values of 4 are odd", "the values of 3 are odd"]


def test_a_box_of_a_tensor_is_restored_from_the_boxes_it_meets(folder):
    tensor = torch.zeros(3, 2)
    restore_newest(folder, lambda manifest: [Target("model.w", tensor, (1, 2))])
    assert torch.equal(tensor, state(20)["model.w"][1:4, 2:])
    with pytest.raises(InvalidArgument, match=r"box \[4:7, 2:4\] is not in it"):
        restore_newest(folder, lambda manifest: [Target("model.w", tensor, (4, 2))])


def test_checkpoints_that_come_and_go_meanwhile(folder):
    """Between listing and reading the newest is pruned and a newer one committed: that one is restored."""
    tensors, tried = live(), []

    def targets(manifest):
        tried.append(manifest.sequence)
        if len(tried) == 1:
            for file in folder.glob("step-*-04/*"):
                file.unlink()
            write(folder, 50, 5)
        return into(tensors)(manifest)

    assert restore_newest(folder, targets).step == 50
    assert tried == [4, 5]
    assert_equal(tensors, 50)


def test_verify_names_file_bytes_and_tensor(folder):
    (path,) = folder.glob("step-*-04")
    assert verify_checkpoint(path) == []
    file = path / "rank-00001.safetensors"
    data = bytearray(file.read_bytes())
    data[-1] ^= 1  # the last byte of n
    file.write_bytes(data)
    (fault,) = verify_checkpoint(path)
    assert fault.file == "rank-00001.safetensors"
    assert "n" in fault.tensors
    assert fault.begin < len(data) == fault.end
    (path / "manifest.json").unlink()
    (fault,) = verify_checkpoint(path)
    assert fault.file == "manifest.json"


def test_a_checksum_that_this_build_lacks_is_no_damage(folder):
    (path,) = folder.glob("step-*-04")
    text = (path / "manifest.json").read_bytes()
    manifest = json.loads(text[: text.rindex(b"crc32c ")])
    manifest["checksum"] = "md5"
    (path / "manifest.json").write_bytes(sealed(json.dumps(manifest).encode()))
    assert "'md5' is unknown" in list_checkpoints(folder)[-1].fault


@pytest.fixture
def newest(folder):
    """The newest checkpoint, and the reads of it when memory holds neither old bytes nor more than one temporary."""
    (path,) = folder.glob("step-*-04")
    tensors = live() | {"model.w": torch.full((4, 6), 77.0).t()}

    def read():
        return _restore.read(Opened(path), into(tensors)(None), alone=False, free_bytes=1)

    return path, tensors, read


def test_with_too_little_memory_all_is_verified_first_and_nothing_placed_before_it_counts(newest):
    _, tensors, read = newest
    pending = read()
    assert pending.faults == []
    assert all((tensor == 77).all() for tensor in tensors.values())
    pending.rollback()
    assert all((tensor == 77).all() for tensor in tensors.values())
    pending = read()
    pending.place()
    assert_equal(tensors, 20)
    assert pending.bytes == sum(tensor.nbytes for tensor in tensors.values())


def test_with_too_little_memory_a_fault_leaves_live_tensors_as_they_were(newest):
    path, tensors, read = newest
    damage(path.parent, 4)
    pending = read()
    assert "rank-00000.safetensors bytes" in str(pending.faults[0])
    pending.rollback()
    assert all((tensor == 77).all() for tensor in tensors.values())


def test_with_too_little_memory_a_fault_between_the_readings_is_told(newest):
    path, _, read = newest
    pending = read()
    damage(path.parent, 4)
    with pytest.raises(CheckpointCorrupt, match="live tensors have changed"):
        pending.place()


def test_what_only_was_verified_is_taken_back_or_placed_when_all_ranks_agree(folder):
    (path,) = folder.glob("step-*-04")
    for agreed in (False, True):
        tensors = live()
        before = {name: tensor.clone() for name, tensor in tensors.items()}
        pending = _restore.read(Opened(path), into(tensors)(None), alone=False)
        assert pending.faults == []
        if agreed:
            pending.place()
            assert_equal(tensors, 20)
        else:
            pending.rollback()
            assert all(torch.equal(tensor, before[name]) for name, tensor in tensors.items())


def test_without_undo_a_fault_is_still_told_and_the_next_one_is_restored(folder):
    damage(folder, 4)
    tensors = live()
    assert restore_newest(folder, into(tensors), undo=False).manifest.sequence == 3
    assert_equal(tensors, 30)
