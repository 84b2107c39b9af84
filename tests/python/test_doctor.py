"""What `hetsp doctor` says of checkpoint I/O: as it is here, and where something is refused."""

import errno
from pathlib import Path
from typing import Any

import pytest

from hetsp_ext import doctor


class Engine:
    """Stands for core.CheckpointEngine on a machine that has less than this one."""

    def __init__(self, answer: Any) -> None:
        self.answer = answer

    def probe(self, place: str) -> dict[str, Any]:
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer


def findings(monkeypatch: pytest.MonkeyPatch, answer: Any) -> list[tuple[str, bool, str]]:
    monkeypatch.setattr(doctor, "core", type("core", (), {"CheckpointEngine": Engine(answer)}))
    return [(finding.name, finding.present, finding.detail) for finding in doctor.checkpoint_io()]


def test_the_current_folder_is_tried_and_left_as_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    io, checksum = doctor.checkpoint_io()
    assert (io.name, checksum.name) == ("checkpoint I/O", "checkpoint checksum")
    assert str(tmp_path) in io.detail
    assert checksum.detail.split(":")[0] in ("xxh3-128", "crc32c")
    assert list(tmp_path.iterdir()) == []
    assert {io.name, checksum.name} <= {finding.name for finding in doctor.examine()}


def test_what_is_refused_is_said_with_its_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    reasons = ["io_uring_setup: Operation not permitted (EPERM)", "open with O_DIRECT: Invalid argument (EINVAL)"]
    (name, present, detail), (_, hashed, why) = findings(
        monkeypatch, {"io": "buffered", "reasons": reasons, "checksum": "crc32c"}
    )
    assert (name, present) == ("checkpoint I/O", False)
    assert all(reason in detail for reason in reasons)
    assert not hashed
    assert why == "crc32c: hetsp_ext was built where xxhash.h was not found"
    (_, present, detail), (_, hashed, why) = findings(
        monkeypatch, {"io": "direct", "reasons": reasons[:1], "checksum": "xxh3-128"}
    )
    assert present
    assert detail.startswith("pwrite with O_DIRECT")
    assert detail.endswith(reasons[0])
    assert hashed
    assert why == "xxh3-128"


def test_a_folder_that_cannot_be_written_is_a_finding(monkeypatch: pytest.MonkeyPatch) -> None:
    ((_, present, detail),) = findings(monkeypatch, OSError(errno.EROFS, "Read-only file system"))
    assert not present
    assert detail.endswith(": Read-only file system")
