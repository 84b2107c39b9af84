"""How ranks of a node come to memory of each other, and what keeps them from it: in one process, and with a foreign user."""

import os
import secrets
import socket
import sys
import threading
from pathlib import Path

import pytest

from hetsp_ext.distributed.shared import HELLO, MAGIC, NOEXEC_SEAL, Shared, abstract_name
from hetsp_ext.errors import HetspError

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="anonymous files with seals are Linux's")
SIZE = 1 << 20


def meet(segments: list[Shared], seconds: float = 10.0) -> list[str]:
    """All at once; what kept each from it."""
    failures = [""] * len(segments)

    def one(index: int) -> None:
        try:
            segments[index].meet(seconds)
        except HetspError as error:
            failures[index] = str(error)

    threads = [threading.Thread(target=one, args=(index,)) for index in range(len(segments))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return failures


def opened(job: int, ranks: list[int], size: int = SIZE) -> list[Shared]:
    return [Shared(job, rank, ranks, size) for rank in ranks]


def descriptors() -> set[str]:
    return set(os.listdir("/proc/self/fd"))


@pytest.mark.parametrize("ranks", [[0, 1], [3, 5, 8, 9], [7, 2, 4]])
def test_every_rank_gets_the_memory_of_every_other_and_leaves_nothing(ranks: list[int]) -> None:
    before = descriptors()
    job = secrets.randbits(60)
    segments = opened(job, ranks)
    names = [abstract_name(job, rank).replace("\0", "@") for rank in ranks]
    assert any(name in Path("/proc/net/unix").read_text() for name in names)
    assert meet(segments) == [""] * len(ranks)
    for own in segments:
        os.pwrite(own.own, f"rank {own.rank}".encode(), 100)
    for own in segments:
        memory, ends = own.hand_over()
        assert memory == own.own
        assert sorted(peer for peer, _, _ in ends) == sorted(set(ranks) - {own.rank})
        for peer, segment, watched in ends:
            assert os.pread(segment, 6, 100) == f"rank {peer}".encode()
            with pytest.raises(OSError, match="Operation not permitted"):  # its size is sealed
                os.ftruncate(segment, 4096)
            for descriptor in watched:
                os.close(descriptor)
        own.close()
    assert descriptors() <= before
    assert not any(name in Path("/proc/net/unix").read_text() for name in names)


def test_a_rank_that_does_not_come_is_waited_for_no_longer_than_it_may_take() -> None:
    job = secrets.randbits(60)
    alone = Shared(job, 0, [0, 1], SIZE)
    try:
        with pytest.raises(HetspError, match="rank 0 does not share memory"):
            alone.meet(0.2)
    finally:
        alone.close()
    early = Shared(job, 1, [0, 1], SIZE)
    try:
        with pytest.raises(HetspError, match="rank 1 does not share memory"):  # nobody listens there
            early.meet(0.2)
    finally:
        early.close()


def test_strangers_are_sent_away_and_the_neighbours_meet() -> None:
    job = secrets.randbits(60)
    segments = opened(job, [0, 1])
    strangers = []
    hellos = [
        b"",
        b"what?",
        HELLO.pack(MAGIC, job + 1, SIZE, 1),
        HELLO.pack(MAGIC, job, SIZE + 1, 1),
        HELLO.pack(MAGIC, job, SIZE, 9),
    ]
    for hello in hellos:
        stranger = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        stranger.connect(abstract_name(job, 0))
        stranger.sendall(hello)
        stranger.shutdown(socket.SHUT_WR)
        strangers.append(stranger)
    try:
        assert meet(segments) == ["", ""]
        assert os.fstat(segments[0].segments[1]).st_size == SIZE
    finally:
        for each in (*strangers, *segments):
            each.close()


def test_a_file_whose_size_may_change_is_no_memory_to_share() -> None:
    """Who could cut it off could end the others by a bus error."""
    job = secrets.randbits(60)
    segments = opened(job, [0, 1])
    os.close(segments[1].own)
    segments[1].own = os.memfd_create("loose", os.MFD_ALLOW_SEALING)
    os.ftruncate(segments[1].own, SIZE)
    try:
        failures = meet(segments, 1.0)
        assert "not a sealed file" in failures[0]
        assert failures[1]
    finally:
        for each in segments:
            each.close()


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() != 0, reason="only root can be two users")
def test_another_user_is_refused_by_name() -> None:
    job = secrets.randbits(60)
    own = Shared(job, 0, [0, 1], SIZE)
    child = os.fork()
    if child == 0:
        try:
            os.setuid(65534)
            Shared(job, 1, [0, 1], SIZE).meet(5.0)
        except HetspError:
            os._exit(7)
        finally:
            os._exit(1)
    try:
        with pytest.raises(HetspError, match="does not share memory with user 65534: it is user 0"):
            own.meet(1.0)
    finally:
        own.close()
    _, status = os.waitpid(child, 0)
    assert os.waitstatus_to_exitcode(status) == 7


def test_a_kernel_that_does_not_know_the_newest_seal_does_without(monkeypatch: pytest.MonkeyPatch) -> None:
    real, asked = os.memfd_create, []

    def before_6_3(name: str, flags: int) -> int:
        asked.append(flags)
        if flags & NOEXEC_SEAL:
            raise OSError(22, "Invalid argument")
        return real(name, flags)

    monkeypatch.setattr(os, "memfd_create", before_6_3)
    segments = opened(secrets.randbits(60), [0, 1])
    try:
        assert meet(segments) == ["", ""]
        assert len(asked) == 4
    finally:
        for each in segments:
            each.close()


def test_a_machine_without_anonymous_files_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> int:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(os, "memfd_create", refuse)
    before = descriptors()
    with pytest.raises(HetspError, match=r"no shared memory on rank 3.*Operation not permitted"):
        Shared(1, 3, [3, 4], SIZE)
    assert descriptors() <= before
