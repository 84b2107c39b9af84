"""The memory that ranks of a node share: each makes one anonymous file, and hands its descriptor to the others.

The file has no name and no place in /dev/shm: it is gone with the last process that has it, however that ends, and no limit of
a container's /dev/shm counts. Its size is sealed, so that nobody can cut it off under the others. Descriptors travel over Unix
sockets of the abstract namespace, which reach exactly as far as a node does: the same network namespace of the same kernel. The
socket between two ranks stays open, and silent: when it closes, the other process has ended.
"""

import errno
import fcntl
import mmap
import os
import socket
import struct
import time
from collections.abc import Sequence
from contextlib import suppress

from ..errors import HetspError

__all__ = ["Shared", "abstract_name"]

HELLO = struct.Struct("<8sQQI")  # magic, job, bytes, rank
MAGIC = b"hetspshm"
NOEXEC_SEAL = 8  # MFD_NOEXEC_SEAL of linux/memfd.h
CREDENTIALS = struct.Struct("iII")  # pid, uid, gid: struct ucred of SO_PEERCRED


def abstract_name(job: int, rank: int) -> str:
    """Where a rank listens for its neighbours."""
    return f"\0hetsp-{job:016x}-{rank}"


class Shared:
    """This rank's segment, and those of its neighbours once they have met. Every failure is a HetspError that says why."""

    def __init__(self, job: int, rank: int, ranks: Sequence[int], size: int) -> None:
        self.job, self.rank, self.size = job, rank, size
        self.peers = [peer for peer in ranks if peer != rank]
        self.own = -1
        self.segments: dict[int, int] = {}
        self.mapped: list[mmap.mmap] = []
        self.sockets: dict[int, socket.socket] = {}
        self.processes: dict[int, int] = {}  # pidfds, where the kernel has them and the process can be seen
        self.listener: socket.socket | None = None
        self.refused = ""  # why the last one was sent away
        try:
            self.own = segment(size)
            self.listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            self.listener.bind(abstract_name(job, rank))
            self.listener.listen(128)
        except (OSError, AttributeError) as error:  # AttributeError: not Linux
            self.close()
            raise HetspError(f"no shared memory on rank {rank}: {error}") from error

    def meet(self, seconds: float) -> None:
        """Exchanges descriptors with every neighbour; all of them must do so within so many seconds."""
        deadline = time.monotonic() + seconds
        try:
            for peer in self.peers:  # the kernel takes the connection before the other end looks
                if peer < self.rank:
                    connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
                    self.sockets[peer] = connection
                    connection.settimeout(seconds)
                    connection.connect(abstract_name(self.job, peer))
                    self.give(connection)
            assert self.listener is not None
            while len(self.sockets) < len(self.peers):
                self.listener.settimeout(max(0.01, deadline - time.monotonic()))
                connection, _ = self.listener.accept()
                self.admit(connection, deadline)
            for peer in self.peers:
                if peer < self.rank:
                    self.take(self.sockets[peer], peer, deadline)
            for descriptor in (self.own, *self.segments.values()):  # all at once: each alone may have room where all have none
                self.mapped.append(mmap.mmap(descriptor, self.size))
        except OSError as error:
            self.unmap()
            reason = self.refused or f"rank {self.rank} does not share memory: {error or type(error).__name__}"
            raise HetspError(reason) from error

    def give(self, connection: socket.socket) -> None:
        socket.send_fds(connection, [HELLO.pack(MAGIC, self.job, self.size, self.rank)], [self.own])

    def admit(self, connection: socket.socket, deadline: float) -> None:
        """A neighbour of a higher rank; strangers are sent away."""
        try:
            peer = self.take(connection, None, deadline)
        except (OSError, HetspError) as error:
            connection.close()
            self.refused = str(error)
            return
        self.sockets[peer] = connection
        self.give(connection)

    def take(self, connection: socket.socket, expected: int | None, deadline: float) -> int:
        connection.settimeout(max(0.01, deadline - time.monotonic()))
        pid, user, _ = CREDENTIALS.unpack(connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, CREDENTIALS.size))
        hello, descriptors, _, _ = socket.recv_fds(connection, HELLO.size, 1)
        try:
            if user != os.geteuid():
                raise HetspError(f"rank {self.rank} does not share memory with user {user}: it is user {os.geteuid()}")
            if len(hello) != HELLO.size or len(descriptors) != 1:
                raise HetspError(f"rank {self.rank} does not share memory: a neighbour sent none")
            magic, job, size, peer = HELLO.unpack(hello)
            wanted = (MAGIC, self.job, self.size)
            if (magic, job, size) != wanted or peer not in self.peers or peer in self.segments or expected not in (None, peer):
                raise HetspError(f"rank {self.rank} does not share memory: a stranger called")
            check(descriptors[0], size)
        except BaseException:
            for descriptor in descriptors:
                os.close(descriptor)
            raise
        self.segments[peer] = descriptors[0]
        if pid > 0:
            with suppress(OSError, AttributeError):  # no such call, or another namespace of processes
                self.processes[peer] = os.pidfd_open(pid)
        return peer

    def hand_over(self) -> tuple[int, list[tuple[int, int, list[int]]]]:
        """What the native backend takes: segments that stay this object's, and descriptors to watch that become its own."""
        ends = []
        self.unmap()
        for peer in self.peers:
            watched = [self.sockets.pop(peer).detach()]
            if peer in self.processes:
                watched.append(self.processes.pop(peer))
            ends.append((peer, self.segments[peer], watched))
        return self.own, ends

    def unmap(self) -> None:
        """Makes room for whoever maps the segments to use them."""
        for memory in self.mapped:
            memory.close()
        self.mapped.clear()

    def close(self) -> None:
        """Closes what has not been handed over."""
        self.unmap()
        for connection in self.sockets.values():
            connection.close()
        for descriptor in (*self.segments.values(), *self.processes.values(), *([self.own] if self.own >= 0 else [])):
            os.close(descriptor)
        if self.listener is not None:
            self.listener.close()
        self.sockets, self.segments, self.processes, self.own, self.listener = {}, {}, {}, -1, None


def segment(size: int) -> int:
    """An anonymous file of so many zeros, whose size stays."""
    flags = os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING
    try:
        descriptor = os.memfd_create("hetsp", flags | NOEXEC_SEAL)  # all that sysctl vm.memfd_noexec = 2 allows
    except OSError as error:
        if error.errno != errno.EINVAL:  # Linux before 6.3 does not know it
            raise
        descriptor = os.memfd_create("hetsp", flags)
    try:
        os.ftruncate(descriptor, size)
        fcntl.fcntl(descriptor, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL)
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


def check(descriptor: int, size: int) -> None:
    """That the file is as large as it says, and will stay so."""
    if os.fstat(descriptor).st_size != size or not fcntl.fcntl(descriptor, fcntl.F_GET_SEALS) & fcntl.F_SEAL_SHRINK:
        raise HetspError(f"the memory of a neighbour is not a sealed file of {size} bytes")
