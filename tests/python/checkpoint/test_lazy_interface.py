"""LazyCheckpointer on one rank: files, arguments, progress, staging, statistics, and the end of its life."""

import json
import logging

import pytest
import torch

import hetsp_ext as hetsp
from hetsp_ext.errors import CheckpointBusy, CheckpointError, InvalidArgument
from tests.python.checkpoint.training import Holder, Training, checkpointer, same


def test_the_files_are_safetensors_and_a_manifest(tmp_path):
    safetensors = pytest.importorskip("safetensors")
    training = Training()
    training.step()
    with checkpointer(tmp_path, **training.objects) as lazy:
        lazy.save(12)
    (step,) = tmp_path.glob("step-*")
    assert step.name.startswith("step-0000000012-")
    assert sorted(path.name for path in step.iterdir()) == ["manifest.json", "rank-00000.safetensors"]
    manifest = json.loads((step / "manifest.json").read_text().splitlines()[0])
    assert (manifest["step"], manifest["sequence"], manifest["world"]) == (12, 1, 1)
    assert (tmp_path / "latest").read_text().startswith(step.name)
    with safetensors.safe_open(step / "rank-00000.safetensors", "pt") as file:
        assert torch.equal(file.get_tensor("model.0.weight"), training.model[0].weight)
        assert set(file.keys()) == set(manifest["tensors"])


def test_sequence_numbers_go_on_over_processes_and_steps_may_repeat(tmp_path):
    training = Training()
    for _ in range(2):
        with checkpointer(tmp_path, keep=9, **training.objects) as lazy:
            for step in (5, 3):
                training.step()
                lazy.save(step)
                state = training.state()
    with checkpointer(tmp_path, **training.objects) as lazy:
        training.step()
        assert lazy.restore() == 3
        assert same(training.state(), state)
    sequences = [json.loads(path.read_text().splitlines()[0])["sequence"] for path in tmp_path.glob("step-*/manifest.json")]
    assert sorted(sequences) == [1, 2, 3, 4]


def test_progress_is_told_phase_by_phase(tmp_path):
    told = []
    training = Training()
    with checkpointer(tmp_path, progress=told.append, **training.objects) as lazy:
        lazy.save(0)
        lazy.wait()
    assert [p.phase for p in told] == ["captured", "written", "manifest", "synced", "renamed", "committed", "latest"]
    assert {p.step for p in told} == {0}
    assert told[0].bytes == (next(tmp_path.glob("step-*/*.safetensors"))).stat().st_size


def test_a_progress_callback_that_fails_fails_nothing(tmp_path, caplog):
    def progress(_):
        raise RuntimeError("the bar is broken")

    with checkpointer(tmp_path, Holder(a=1), progress=progress) as lazy:
        lazy.save(0)
        lazy.wait()
    assert "the bar is broken" in caplog.text
    assert len(list(tmp_path.glob("step-*"))) == 1


def test_a_staging_path_commits_twice_and_each_level_restores(tmp_path):
    training = Training()
    told = []
    fast, slow = tmp_path / "fast", tmp_path / "slow"
    with checkpointer(slow, staging_path=fast, progress=told.append, **training.objects) as lazy:
        for step in range(3):
            training.step()
            lazy.save(step)
        lazy.wait()
        state = training.state()
        assert told[-1].phase == "drained"
        assert told[-1].path == str(slow)
    names = [sorted(path.name for path in level.glob("step-*")) for level in (fast, slow)]
    assert names[0] == names[1]
    assert len(names[0]) == 2
    for level in (fast, slow):
        other = Training(seed=5)
        with checkpointer(level, **other.objects) as lazy:
            assert lazy.restore() == 2
        assert same(other.state(), state)
    for path in fast.glob("step-*/*.safetensors"):  # a node's fast storage is gone after a crash
        path.unlink()
    other = Training(seed=6)
    with checkpointer(slow, staging_path=fast, **other.objects) as lazy:
        assert lazy.restore() == 2
    assert same(other.state(), state)


def test_two_writers_on_one_directory(tmp_path):
    training = Training()
    with checkpointer(tmp_path, **training.objects) as lazy:
        lazy.save(0)
        with pytest.raises(CheckpointBusy, match="another process saves to"):
            checkpointer(tmp_path, **training.objects)
        training.step()
        lazy.save(1)
        lazy.wait()
    with checkpointer(tmp_path, **training.objects) as lazy:
        assert lazy.restore() == 1


@pytest.mark.parametrize(
    ("options", "what"),
    [
        ({"keep": 0}, "keep is 0; it must be an integer >= 1"),
        ({"keep": True}, "keep is True"),
        ({"ring_bytes": 1000}, "ring_bytes is 1000"),
        ({"every": 0}, "every is 0"),
        ({"every": 1.5}, "every is 1.5"),
        ({"timeout": 0}, "timeout is 0 s"),
        ({"progress": 3}, "progress is 3"),
        ({"io": "mmap"}, "mmap"),
        ({"checksum": "md5"}, "md5"),
        ({"process_group": object()}, "torch.distributed is not initialised"),
        ({"model": 3}, "'model', of type int, has no state_dict"),
    ],
)
def test_wrong_arguments_are_named(tmp_path, options, what):
    with pytest.raises(InvalidArgument, match=what):
        hetsp.LazyCheckpointer(tmp_path, Holder(a=1), **options)
    checkpointer(tmp_path, Holder(a=1)).close()  # and the directory is free


def test_a_step_may_be_any_integer_type(tmp_path):
    numpy = pytest.importorskip("numpy")
    with checkpointer(tmp_path, Holder(a=1)) as lazy:
        lazy.save(numpy.int64(7))
        lazy.wait()
        assert lazy.restore(numpy.int32(7)) == 7


def test_staging_path_must_be_another_directory(tmp_path):
    with pytest.raises(InvalidArgument, match="the same as path"):
        checkpointer(tmp_path, Holder(a=1), staging_path=tmp_path / ".." / tmp_path.name)


@pytest.mark.parametrize("step", [-1, 1.0, True, "3", None])
def test_a_step_is_a_natural_number(tmp_path, step):
    with checkpointer(tmp_path, Holder(a=1)) as lazy:
        with pytest.raises(InvalidArgument, match="step is"):
            lazy.save(step)
        lazy.wait()
        assert lazy.stats.started == 0


def test_state_that_cannot_be_held_is_refused_by_path_and_the_next_save_works(tmp_path):
    holder = Holder(a=1)
    with checkpointer(tmp_path, holder) as lazy:
        holder.state = {"a": {"b": {1, 2}}}
        with pytest.raises(InvalidArgument, match=r"'holder\.a\.b' is a builtins\.set"):
            checkpointer(tmp_path / "other", holder)
        with pytest.raises(InvalidArgument, match=r"'holder\.a\.b' is a builtins\.set"):
            lazy.save(0)
        holder.state = {"a": 1}
        lazy.save(1)
        lazy.wait()
        assert lazy.restore() == 1


def test_after_close_nothing_works_and_close_may_repeat(tmp_path):
    lazy = checkpointer(tmp_path, Holder(a=1))
    lazy.save(0)
    lazy.close()
    lazy.close()
    for call in (lambda: lazy.save(1), lazy.wait, lazy.restore):
        with pytest.raises(CheckpointError, match="closed"):
            call()
    assert len(list(tmp_path.glob("step-*"))) == 1
    assert "closed" in repr(lazy)


def test_an_error_in_the_with_block_still_commits_and_is_not_hidden(tmp_path):
    def train():
        with checkpointer(tmp_path, Holder(a=1)) as lazy:
            lazy.save(0)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        train()
    assert len(list(tmp_path.glob("step-*"))) == 1


def test_stats_say_what_it_cost(tmp_path):
    training = Training()
    with checkpointer(tmp_path, **training.objects) as lazy:
        for step in range(3):
            training.step()
            lazy.save(step)
        lazy.wait()
        assert [save.step for save in lazy.stats.committed] == [0, 1, 2]
        for save in lazy.stats.saves:
            assert 0 < save.blocked < save.durable
            assert save.stall >= 0
            assert 0 < save.capture <= save.write <= save.durable
            assert save.bytes > 4096
        assert repr(lazy.stats).startswith("<3 saves, 3 committed, 0 failed, 0 skipped; medians: ")
        assert str(tmp_path) in repr(lazy)


def test_one_line_says_that_the_ring_is_small(tmp_path, caplog):
    with caplog.at_level(logging.INFO, "hetsp_ext.checkpoint"):
        checkpointer(tmp_path, torch.nn.Linear(1000, 1000)).close()
        assert len(caplog.records) == 1
        assert "state of 0.00401 GB, ring of 0.00105 GB: a step waits for the disk where 0.00297 GB take longer" in caplog.text
        caplog.clear()
        checkpointer(tmp_path, torch.nn.Linear(10, 10)).close()
        assert caplog.records == []


def test_a_checkpointer_that_is_dropped_commits_and_takes_its_hooks_away(tmp_path):
    from torch.optim.optimizer import _global_optimizer_post_hooks, _global_optimizer_pre_hooks

    before = len(_global_optimizer_pre_hooks), len(_global_optimizer_post_hooks)
    lazy = checkpointer(tmp_path, Training().model)
    lazy.save(0)
    del lazy
    assert (len(_global_optimizer_pre_hooks), len(_global_optimizer_post_hooks)) == before
    assert len(list(tmp_path.glob("step-*"))) == 1
