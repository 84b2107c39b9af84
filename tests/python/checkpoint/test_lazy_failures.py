"""What goes wrong with a save fails that save alone: training goes on, and every earlier checkpoint is as it was."""

import ctypes
import errno
import os
import shutil
import subprocess

import pytest
import torch

from hetsp_ext.errors import CheckpointError, CheckpointMutated, CheckpointWriteError
from tests.python.checkpoint.training import Holder, Training, checkpointer, same

ELEMENTS = 8 << 20  # a state whose capture takes longer than the write that follows save()


def large_model():
    model = torch.nn.Module()
    model.first = torch.nn.Parameter(torch.randn(ELEMENTS))
    model.last = torch.nn.Parameter(torch.randn(ELEMENTS))
    return model


WRITERS = {
    "in place": lambda t: t.detach().add_(1),
    "a view": lambda t: t.detach()[1000:].mul_(2),
    "foreach": lambda t: torch._foreach_add_([t.detach()], 1),
    "data": lambda t: t.data.add_(1),
    "numpy": lambda t: t.detach().numpy().__imul__(2),
    "raw pointer": lambda t: ctypes.memset(t.data_ptr(), 1, t.nbytes),
}


@pytest.mark.parametrize("name", WRITERS)
def test_mutation_inside_the_window_is_refused_or_too_late_to_matter(tmp_path, caplog, name):
    """A write that the capture has outrun is harmless, so the file holds the old values; one that it has not must be seen."""
    model = large_model()
    refused = 0
    with checkpointer(tmp_path, model) as lazy:
        lazy.save(0)
        lazy.wait()
        first = model.first.detach().clone()
        for attempt in range(1, 20):
            if refused and attempt > 3:
                break
            want = model.last.detach().clone()
            lazy.save(attempt)
            WRITERS[name](model.last)
            changed = model.last.detach().clone()
            lazy._wait_all()
            if lazy.stats.saves[-1].error is not None:
                refused += 1
                with pytest.raises(CheckpointMutated, match=rf"'model\.last'.*step {attempt}"):
                    lazy.wait()
                assert f"the checkpoint of step {attempt} fails: 'model.last' changed in place" in caplog.text
                assert len(list(tmp_path.glob(f"step-{attempt:010d}-*"))) == 0
            else:
                assert lazy.restore() == attempt
                assert torch.equal(model.last, want)
            with torch.no_grad():
                model.last.copy_(changed)
        assert refused > 0
        assert lazy.restore() in range(20)
        assert torch.equal(model.first, first)
    assert not list(tmp_path.glob(".part-*"))


def test_mutation_is_raised_once_by_the_next_save_which_has_started_all_the_same(tmp_path):
    model = large_model()
    with checkpointer(tmp_path, model) as lazy:
        lazy.save(1)
        model.last.detach().add_(1)
        for save in lazy._pending:
            save.done.wait()
        with pytest.raises(CheckpointMutated, match="step 1"):
            lazy.save(2)
        lazy.save(3)
        lazy.wait()
        assert [save.step for save in lazy.stats.committed] == [2, 3]
        assert [save.step for save in lazy.stats.failed] == [1]


def test_debug_finds_one_changed_element(tmp_path):
    """The probes sample; one element between them, changed behind the version's back, takes a hash of everything."""
    model = large_model()
    with checkpointer(tmp_path, model, debug=True) as lazy:
        lazy.save(0)
        lazy.wait()
        lazy.save(1)
        model.last.detach().numpy()[123_457] += 1
        with pytest.raises(CheckpointMutated, match=r"'model\.last'"):
            lazy.wait()
        assert lazy.restore() == 0


def test_batch_statistics_and_counters_may_change_inside_the_window(tmp_path):
    training = Training(width=4000)
    with checkpointer(tmp_path, debug=True, **training.objects) as lazy:
        training.step()
        state = training.state()
        lazy.save(1)
        training.model(torch.randn(9, 16))
        training.loader.batch()
        torch.rand(3)
        lazy.wait()
        lazy.restore()
        assert same(training.state(), state)


def test_a_file_in_the_way_fails_one_save(tmp_path, caplog):
    training = Training()
    with checkpointer(tmp_path, **training.objects) as lazy:
        training.step()
        lazy.save(1)
        lazy.wait()
        state = training.state()
        (tmp_path / f".part-{lazy._uid(1)}" / "rank-00000.safetensors").write_bytes(b"x")
        training.step()
        lazy.save(2)
        training.step()  # training goes on
        with pytest.raises(CheckpointWriteError, match="EEXIST") as error:
            lazy.wait()
        assert error.value.errno == errno.EEXIST
        assert error.value.filename.endswith("rank-00000.safetensors")
        assert isinstance(error.value, OSError)
        assert "the checkpoint of step 2 is not kept" in caplog.text
        assert lazy.restore() == 1
        assert same(training.state(), state)
        lazy.save(3)
        lazy.wait()
    assert not list(tmp_path.glob(".part-*"))


def test_a_directory_that_vanishes_fails_saves_and_not_training(tmp_path):
    path = tmp_path / "gone"
    training = Training()
    with checkpointer(path, **training.objects) as lazy:
        lazy.save(0)
        lazy.wait()
        shutil.rmtree(path)
        for step in (1, 2):
            training.step()
            lazy.save(step)
            with pytest.raises(OSError, match="ENOENT"):
                lazy.wait()
        path.mkdir()
        lazy.save(3)
        try:
            lazy.wait()  # the part directory may have been asked for while there was none
        except CheckpointWriteError:
            lazy.save(4)
            lazy.wait()
        assert len(list(path.glob("step-*"))) == 1


def test_close_raises_the_last_error_unless_wait_has(tmp_path):
    def broken():
        lazy = checkpointer(tmp_path, Holder(a=1))
        (tmp_path / f".part-{lazy._uid(0)}").mkdir(exist_ok=True)
        (tmp_path / f".part-{lazy._uid(0)}" / "rank-00000.safetensors").write_bytes(b"x")
        lazy.save(0)
        return lazy

    lazy = broken()
    with pytest.raises(CheckpointWriteError):
        lazy.close()
    lazy = broken()
    with pytest.raises(CheckpointWriteError):
        lazy.wait()
    lazy.close()
    with pytest.raises(CheckpointError, match="closed"):
        lazy.save(1)


@pytest.fixture
def small_disk(tmp_path):
    """A file system of 8 MiB of its own, and a function that remounts it with other options."""
    place = tmp_path / "disk"
    place.mkdir()
    done = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=8m", "tmpfs", place], capture_output=True, text=True)
    if done.returncode:
        pytest.skip(f"mounting a tmpfs is not allowed here: {done.stderr.strip()}")
    try:
        yield place, lambda options: subprocess.run(["mount", "-o", f"remount,{options}", place], check=True)
    finally:
        subprocess.run(["umount", "-l", place], check=True)


def test_a_full_disk(small_disk):
    """ENOSPC is reported with path and errno; the checkpoint before is whole; with room again, saves succeed again."""
    place, _ = small_disk
    model = torch.nn.Linear(700, 1000)  # 2.8 MB: keep=2 leaves no room for a third, and a failed one gives its room back
    with checkpointer(place, model, keep=2) as lazy:
        for step in range(2):
            lazy.save(step)
            lazy.wait()
        want = model.weight.detach().clone()
        lazy.save(2)
        with pytest.raises(CheckpointWriteError, match="ENOSPC") as error:
            lazy.wait()
        assert error.value.errno == errno.ENOSPC
        assert str(place) in error.value.filename
        with torch.no_grad():
            model.weight.zero_()
        assert lazy.restore() == 1
        assert torch.equal(model.weight, want)
        shutil.rmtree(min(place.glob("step-*")))
        lazy._levels[0].committed.pop(0)
        lazy.save(3)
        lazy.wait()
        assert lazy.restore() == 3


def test_a_read_only_disk(small_disk):
    place, remount = small_disk
    model = torch.nn.Linear(30, 30)
    with checkpointer(place, model) as lazy:
        lazy.save(0)
    names = sorted(path.name for path in place.iterdir())
    remount("ro")
    with pytest.raises(CheckpointWriteError, match="EROFS") as error:
        checkpointer(place, model)
    assert error.value.errno == errno.EROFS
    remount("rw")
    with checkpointer(place, model) as lazy:
        assert lazy.restore() == 0
    assert sorted(path.name for path in place.iterdir()) == names


def test_a_directory_that_cannot_be_made(tmp_path):
    (tmp_path / "file").write_text("x")
    with pytest.raises(OSError, match=r"ENOTDIR|EEXIST") as error:
        checkpointer(tmp_path / "file" / "below", Holder(a=1))
    assert error.value.errno in (errno.ENOTDIR, errno.EEXIST)
    assert os.path.isfile(tmp_path / "file")
