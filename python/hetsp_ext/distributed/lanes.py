"""The connections of a rank: Gloo contexts over loopback, over the control network, and one per rail that can be renewed.

Gloo's eager constructor hangs for several times its timeout where the far end is silent. So it is never called on hope: first
both ends meet on a TCP connection of their own between the two NICs, which a dead or silent NIC refuses within a quarter of a
second; on it they agree on a generation, and it then serves as the store over which Gloo exchanges its addresses. That needs
no other network, so that a rail revives whatever has become of MASTER_ADDR.

    caller (lower rank)                      listener
    connect to the NIC, HELLO(job, rank, rail, generation had)
                                             OFFER(1 + the larger generation had by either)
    GO                                       both build the context, the caller as rank 0
    BUILT                                    BUILT, and each waits for the other's

An end that fails closes the connection: then the other one fails too, instead of keeping a context that leads nowhere, and both
ask again. The last BUILT may still be lost, which no exchange can rule out. Then one end has a context whose other half was
given up, and finds out as with any connection that ends: the receives that it has posted fail when the close arrives, and where
not even that gets through nobody answers the rail's first probe (rail.h: 0.2 s if nothing was measured before, never over
1.25 s). So it asks again too, for a later generation; the other end is still asking.
"""

import atexit
import selectors
import socket
import struct
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import torch.distributed as dist

from ..errors import HetspError

if TYPE_CHECKING:
    from torch.distributed import ProcessGroupGloo, Store

__all__ = ["Door", "End", "Rails", "mesh", "reach"]

HELLO = struct.Struct("<8sQHHI")  # magic, job, rank, rail, generation had
MAGIC = b"hetsprl1"
CONTROL = 0xFFFF  # in place of a rail: only asks whether it is reached
OFFER = struct.Struct("<I")
FIELD = struct.Struct("<II")  # bytes of a key, bytes of its value
ANSWER = b"\x01"
BUILT = b"\x01"
IP_FREEBIND, IPV6_FREEBIND = 15, 78  # linux/in.h, linux/in6.h
ATTEMPT = 1.5  # seconds between a call that was taken and its offer, before another call
PROBE = 0.25  # seconds that a NIC has to answer a connection
RETRY = 0.05  # seconds between connections that were refused
BUILD = timedelta(seconds=2)  # for Gloo, once the path is known to work
MESH_SECONDS = 20.0  # for contexts of many ranks over such paths: all of a large machine start at once


class PairStore(dist.Store):
    """A store of two, over one socket: what one sets goes to the other at once."""

    def __init__(self, connection: socket.socket) -> None:
        super().__init__()
        self.connection = connection
        self.values: dict[str, bytes] = {}

    def set(self, key: str, value: bytes | str) -> None:
        data, name = value.encode() if isinstance(value, str) else bytes(value), key.encode()
        self.values[key] = data
        self.connection.sendall(FIELD.pack(len(name), len(data)) + name + data)

    def get(self, key: str) -> bytes:
        while key not in self.values:
            name, data = FIELD.unpack(receive(self.connection, FIELD.size))
            arrived = receive(self.connection, name).decode()
            self.values[arrived] = receive(self.connection, data)
        return self.values[key]

    def wait(self, keys: list[str], timeout: timedelta | None = None) -> None:
        for key in keys:
            self.get(key)

    def check(self, keys: list[str]) -> bool:
        return all(key in self.values for key in keys)


def receive(connection: socket.socket, count: int) -> bytes:
    data = b""
    while len(data) < count:
        piece = connection.recv(count - len(data))
        if not piece:
            raise ConnectionError("closed by the other end")
        data += piece
    return data


def gloo(store: "Store", rank: int, size: int, address: str, timeout: timedelta) -> "ProcessGroupGloo":
    options = dist.ProcessGroupGloo._Options()  # type: ignore[attr-defined]
    options._timeout = timeout
    options._threads = 1  # for collectives, of which there are none
    options._devices = [dist.ProcessGroupGloo.create_device(hostname=address, lazy_init=False)]
    return dist.ProcessGroupGloo(store, rank, size, options)


left_behind: list[threading.Thread] = []


@atexit.register
def wait_for_those_left_behind() -> None:
    """A thread that comes out of C++ while the interpreter ends would take the process down with it."""
    for thread in left_behind:
        thread.join(6 * MESH_SECONDS)


def within(seconds: float, what: str, build: Callable[[], Any]) -> Any:
    """build(), or HetspError when it takes longer: a constructor that hangs is left behind in its thread until it gives up."""
    left_behind[:] = [thread for thread in left_behind if thread.is_alive()]
    outcome: list[Any] = []

    def run() -> None:
        try:
            outcome.append((build(), None))
        except Exception as error:
            outcome.append((None, error))

    thread = threading.Thread(target=run, name=f"hetsp {what}", daemon=True)
    thread.start()
    thread.join(seconds)
    if not outcome:
        left_behind.append(thread)
        raise HetspError(f"{what} took longer than {seconds:.1f} s")
    value, error = outcome[0]
    if error is not None:
        raise HetspError(f"{what} failed: {str(error).strip().splitlines()[0]}") from error
    return value


def mesh(store: "Store", rank: int, size: int, address: str, what: str) -> "ProcessGroupGloo":
    """A context of all ranks at once, each at its own address; they are known to reach each other."""
    timeout = timedelta(seconds=MESH_SECONDS)
    return within(MESH_SECONDS, what, lambda: gloo(store, rank, size, address, timeout))


class Door:
    """Listens on addresses of this rank, and keeps the newest caller of each rail until connect() takes it."""

    def __init__(self, job: int) -> None:
        self.job = job
        self.changed = threading.Condition()
        self.callers: dict[tuple[int, int], tuple[socket.socket, int]] = {}  # (rank, rail) -> connection, generation had
        self.closed = False
        self.selector = selectors.DefaultSelector()
        self.waker, self.wakened = socket.socketpair()
        self.selector.register(self.wakened, selectors.EVENT_READ, "wake")
        self.thread = threading.Thread(target=self.serve, name="hetsp door", daemon=True)

    def listen(self, address: str) -> int:
        """Opens one more address, before start(); returns the port. An address that is gone for now may come back later."""
        six = ":" in address
        listener = socket.socket(socket.AF_INET6 if six else socket.AF_INET, socket.SOCK_STREAM)
        listener.setsockopt(socket.IPPROTO_IPV6 if six else socket.IPPROTO_IP, IPV6_FREEBIND if six else IP_FREEBIND, 1)
        listener.bind((address, 0))
        listener.listen(128)
        listener.setblocking(False)
        self.selector.register(listener, selectors.EVENT_READ, "listener")
        return int(listener.getsockname()[1])

    def start(self) -> None:
        self.thread.start()

    def serve(self) -> None:
        while True:
            for key, _ in self.selector.select():
                if key.data == "wake":
                    for other in list(self.selector.get_map().values()):
                        other.fileobj.close()  # type: ignore[union-attr]
                    self.selector.close()
                    return
                try:
                    self.greet(key.fileobj) if key.data == "caller" else self.admit(key.fileobj)  # type: ignore[arg-type]
                except OSError:  # whoever called is gone
                    continue

    def admit(self, listener: socket.socket) -> None:
        connection, _ = listener.accept()
        connection.setblocking(False)
        self.selector.register(connection, selectors.EVENT_READ, "caller")

    def greet(self, connection: socket.socket) -> None:
        self.selector.unregister(connection)
        try:
            hello = connection.recv(HELLO.size)  # 24 bytes on a fresh connection arrive in one piece
            magic, job, rank, rail, had = HELLO.unpack(hello)
        except (OSError, struct.error):
            connection.close()
            return
        if magic != MAGIC or job != self.job:
            connection.close()
        elif rail == CONTROL:
            connection.send(ANSWER)
            connection.close()
        else:
            with self.changed:
                stale = self.callers.pop((rank, rail), None)
                self.callers[rank, rail] = (connection, had)
                self.changed.notify_all()
            if stale is not None:
                stale[0].close()

    def caller(self, rank: int, rail: int, deadline: float) -> tuple[socket.socket, int] | None:
        """The connection on which the rank asks for the rail; None if it does not until the deadline."""
        with self.changed:
            left = max(0.0, deadline - time.monotonic())
            self.changed.wait_for(lambda: self.closed or (rank, rail) in self.callers, left)
            return self.callers.pop((rank, rail), None)

    def close(self) -> None:
        """Ends the listening, and every wait for a caller."""
        with self.changed:
            if self.closed:
                return
            self.closed = True
            for connection, _ in self.callers.values():
                connection.close()
            self.callers.clear()
            self.changed.notify_all()
        self.waker.send(b"x")
        if self.thread.is_alive() and self.thread is not threading.current_thread():
            self.thread.join()
        self.waker.close()


def call(own: str, peer: tuple[str, int], hello: bytes, seconds: float) -> socket.socket:
    """A connection from one NIC to another on which hello has been sent. Raises OSError."""
    connection = socket.create_connection(peer, timeout=seconds, source_address=(own, 0) if own else None)
    try:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        connection.sendall(hello)
    except OSError:
        connection.close()
        raise
    return connection


def reach(job: int, rank: int, peers: dict[int, tuple[str, int]], seconds: float) -> list[int]:
    """Those of the ranks whose control address does not answer within so many seconds; asks again and again until then."""
    deadline = time.monotonic() + seconds

    def answers(peer: int) -> bool:
        while True:
            try:
                with call("", peers[peer], HELLO.pack(MAGIC, job, rank, CONTROL, 0), PROBE * 4) as connection:
                    receive(connection, len(ANSWER))
                return True
            except OSError:
                if time.monotonic() >= deadline:
                    return False
                time.sleep(RETRY)

    with ThreadPoolExecutor(min(64, len(peers) or 1), "hetsp reach") as pool:
        return [peer for peer, answered in zip(peers, pool.map(answers, peers), strict=True) if not answered]


@dataclass(frozen=True)
class End:
    """Of one rail: this rank's NIC and where the other one listens."""

    own: str
    place: tuple[str, int]


class Rails:
    """Makes and renews the contexts of the rails that this rank owns an end of; a callable, as the native backend wants it."""

    def __init__(self, job: int, rank: int, ends: dict[tuple[int, int], End], door: Door) -> None:
        self.job, self.rank, self.ends, self.door = job, rank, ends, door

    def __call__(self, peer: int, rail: int, after: int) -> tuple["ProcessGroupGloo", int]:
        """A fresh context with the peer over the rail, and its generation, above `after` and equal at both ends.

        Both ends must ask for it. Waits until the path works, however long that takes; raises HetspError once the door is
        closed. From any thread, one for each rail at a time.
        """
        while True:
            try:
                return self.within(peer, rail, after, ATTEMPT)
            except HetspError:
                if self.door.closed:
                    raise

    def within(self, peer: int, rail: int, after: int, seconds: float) -> tuple["ProcessGroupGloo", int]:
        """The same, with a limit to the time until both ends have met; HetspError after that."""
        deadline = time.monotonic() + seconds
        meet = self.calls if self.rank < peer else self.answers
        last = "the other end does not ask for it"
        while time.monotonic() < deadline and not self.door.closed:
            try:
                connection, generation = meet(peer, rail, after, deadline)
            except OSError as error:
                last = str(error)
                time.sleep(RETRY)
                continue
            with connection:
                connection.settimeout(BUILD.total_seconds())
                return self.build(connection, peer, rail), generation
        if self.door.closed:
            raise HetspError(f"rail {rail} to rank {peer}: the group is closed")
        raise HetspError(f"rail {rail} to rank {peer} is down: {last}")

    def calls(self, peer: int, rail: int, after: int, deadline: float) -> tuple[socket.socket, int]:
        end = self.ends[peer, rail]
        connection = call(end.own, end.place, HELLO.pack(MAGIC, self.job, self.rank, rail, after), PROBE)
        try:
            connection.settimeout(max(RETRY, deadline - time.monotonic()))
            (generation,) = OFFER.unpack(receive(connection, OFFER.size))
            connection.sendall(ANSWER)
        except OSError:
            connection.close()
            raise
        return connection, int(generation)

    def answers(self, peer: int, rail: int, after: int, deadline: float) -> tuple[socket.socket, int]:
        met = self.door.caller(peer, rail, deadline)
        if met is None:
            raise TimeoutError("nobody called")
        connection, had = met
        generation = max(had, after) + 1
        try:
            connection.settimeout(PROBE)
            connection.sendall(OFFER.pack(generation))
            receive(connection, len(ANSWER))
        except OSError:
            connection.close()
            raise
        return connection, generation

    def build(self, connection: socket.socket, peer: int, rail: int) -> "ProcessGroupGloo":
        store = PairStore(connection)
        place = 0 if self.rank < peer else 1
        address = self.ends[peer, rail].own

        def built() -> "ProcessGroupGloo":
            context = gloo(store, place, 2, address, BUILD)
            try:
                store.set(f"built/{place}", BUILT)
                store.get(f"built/{1 - place}")
            except BaseException:
                del context  # the error holds this frame, and must not hold the other end's hope
                raise
            return context

        try:
            return within(BUILD.total_seconds(), f"rail {rail} to rank {peer}", built)
        except HetspError:
            with suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)  # close() alone tells nobody while a thread left behind reads from it
            raise

    def all_within(self, seconds: float) -> dict[tuple[int, int], tuple["ProcessGroupGloo", int]]:
        """The first contexts of all rails at once; those that fail within the time are left out."""
        made: dict[tuple[int, int], tuple[ProcessGroupGloo, int]] = {}
        deadline = time.monotonic() + seconds

        def make(peer: int, rail: int) -> None:
            while (left := deadline - time.monotonic()) > 0 and not self.door.closed:
                try:
                    made[peer, rail] = self.within(peer, rail, 0, min(left, ATTEMPT))
                    return
                except HetspError:
                    continue

        threads = [threading.Thread(target=make, args=key, name=f"hetsp rail {key[1]}", daemon=True) for key in self.ends]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return made

    def close(self) -> None:
        """Ends the listening; calls that wait raise at once, and so do later ones."""
        self.door.close()
