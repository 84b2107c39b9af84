"""The native directory of checkpoints from Python: types, errors, phases. Its protocol is tested in tests/cpp/checkpoint."""

import errno
import os
import subprocess
import sys
import threading

import pytest

from hetsp_ext._native import core
from hetsp_ext.errors import CheckpointBusy, CheckpointCorrupt, CheckpointWriteError, InvalidArgument


def save(directory, uid, name, **options):
    directory.begin(uid)
    directory.write(uid, "rank-00000.safetensors", b"\0data")
    return directory.publish(uid, name, b'{"version": 1}', **options)


def test_a_save_and_what_is_left(tmp_path):
    directory = core.CheckpointDirectory(str(tmp_path / "a" / "b"))
    phases = []
    assert directory.lock()
    assert directory.lock()
    assert directory.locked
    assert save(directory, "u-1", "step-0000000001-u-1", on_phase=phases.append) is None
    assert phases == ["manifest", "synced", "renamed", "committed", "latest"]
    assert directory.names() == ["step-0000000001-u-1"]
    assert directory.latest() == directory.names()[0]
    path = directory.find(directory.names()[0])
    assert core.read_sealed(f"{path}/manifest.json") == b'{"version": 1}'
    assert sorted(os.listdir(path)) == ["manifest.json", "rank-00000.safetensors"]
    save(directory, "u-2", "step-0000000002-u-2", checksum="crc32c")
    assert core.read_sealed(directory.find(directory.latest()) + "/manifest.json", "crc32c") == b'{"version": 1}'
    assert directory.prune(directory.names()) == ["step-0000000001-u-1"]
    directory.begin("u-3")
    directory.discard("u-3")
    assert directory.clean() == []
    assert repr(directory) == f"<hetsp_ext.CheckpointDirectory {tmp_path}/a/b, locked>"


def test_a_named_checkpoint_is_replaced(tmp_path):
    directory = core.CheckpointDirectory(str(tmp_path))
    for uid in ("a", "b", "c"):
        assert save(directory, uid, "mine", replace=True, latest=False) is None
    assert sorted(os.listdir(tmp_path)) == [".lock", "mine"]


def test_errors_are_typed_and_say_where(tmp_path):
    directory = core.CheckpointDirectory(str(tmp_path))
    save(directory, "a", "step-1")
    with pytest.raises(CheckpointWriteError) as caught:
        save(directory, "b", "step-1")
    error = caught.value
    assert isinstance(error, OSError)
    assert error.errno == errno.ENOTEMPTY
    assert error.filename == f"{tmp_path}/step-1"
    assert "rename" in str(error)
    assert "Directory not empty (ENOTEMPTY)" in str(error)
    assert str(tmp_path) in str(error)
    with pytest.raises(InvalidArgument, match="uid is"):
        directory.begin("a/b")
    with pytest.raises(InvalidArgument, match="checksum"):
        save(directory, "c", "step-2", checksum="md5")
    (tmp_path / "f").write_bytes(b"text\ncrc32c 00000000\n")
    with pytest.raises(CheckpointCorrupt, match="f is damaged: its seal says crc32c 00000000"):
        core.read_sealed(str(tmp_path / "f"))
    with pytest.raises(OSError, match="No such file") as missing:
        core.read_sealed(str(tmp_path / "g"))
    assert missing.value.errno == errno.ENOENT


def test_an_exception_of_the_callback_comes_through(tmp_path):
    directory = core.CheckpointDirectory(str(tmp_path))

    def refuse(phase):
        if phase == "synced":
            raise KeyError(phase)

    with pytest.raises(KeyError):
        save(directory, "a", "step-1", on_phase=refuse)
    assert directory.names() == []
    directory.discard("a")
    assert save(directory, "b", "step-1") is None


def test_another_process_is_told_that_the_directory_is_busy(tmp_path):
    directory = core.CheckpointDirectory(str(tmp_path))
    hold = (
        "import sys, hetsp_ext._native as n; d = n.core.CheckpointDirectory(sys.argv[1]);"
        "print(d.lock(), flush=True); sys.stdin.read()"
    )
    with subprocess.Popen([sys.executable, "-c", hold, str(tmp_path)], stdin=-1, stdout=-1, text=True) as other:
        assert other.stdout.readline() == "True\n"
        assert not directory.lock()
        assert not directory.locked
        with pytest.raises(CheckpointBusy, match=str(tmp_path)):
            directory.clean()
        waiting = threading.Thread(target=directory.lock, args=(True,))
        waiting.start()  # waits without the GIL
        other.kill()
        waiting.join()
    assert directory.locked


def test_a_text_is_sealed_once():
    sealed = core.seal(b"a\0b", "crc32c")
    assert sealed.startswith(b"a\0b\ncrc32c ")
    assert sealed.endswith(b"\n")
    with pytest.raises(InvalidArgument, match="sealed already"):
        core.seal(sealed)
