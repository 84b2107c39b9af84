"""Groups that form, or fail with the same words on every rank: ranks are threads, nodes are addresses of loopback."""

import copy
import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

import pytest
import torch
import torch.distributed as dist

from hetsp_ext.distributed import group, lanes, meeting
from hetsp_ext.distributed.agreement import agree
from hetsp_ext.errors import HetspError, InvalidArgument, PeerLost

TIMEOUT = timedelta(seconds=20)


def nodes(counts: list[int], nics: int) -> dict[str, Any]:
    first = [sum(counts[:index]) for index in range(len(counts))]
    return {
        "nodes": [
            {
                "ranks": list(range(first[index], first[index] + count)),
                "nics": [{"name": f"rail{nic}", "address": f"127.0.{index + 1}.{nic + 1}"} for nic in range(nics)],
                "control": "127.0.0.1",
            }
            for index, count in enumerate(counts)
        ]
    }


def on_ranks(size: int, function: Callable[[int, Any], Any]) -> list[Any]:
    """function(rank, store) in a thread for each rank; its results or exceptions."""
    store, outcomes = dist.HashStore(), [None] * size

    def run(rank: int) -> None:
        try:
            outcomes[rank] = function(rank, store)
        except Exception as error:
            outcomes[rank] = error

    threads = [threading.Thread(target=run, args=(rank,), daemon=True) for rank in range(size)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
        assert not thread.is_alive(), "a rank hangs"
    return outcomes


@contextmanager
def formed(size: int, option: Callable[[int], Any], ranks: list[int] | None = None, world: int = 0) -> Iterator[list[Any]]:
    ranks = ranks or list(range(size))
    outcomes = on_ranks(size, lambda rank, store: group.form(store, rank, ranks, world or size, TIMEOUT, option(rank)))
    try:
        yield outcomes
    finally:
        for outcome in outcomes:
            if isinstance(outcome, group.Formed):
                outcome.close()


def carries(sender: Any, receiver: Any, to: int, source: int) -> bool:
    """Whether a context takes a message from rank `source` of its own to rank `to`."""
    sent, got = torch.arange(1000.0) + to, torch.zeros(1000)
    receive, send = receiver.recv([got], source, 5), sender.send([sent], to, 5)
    receive.wait()
    send.wait()
    return torch.equal(sent, got)


def rails_of(outcomes: list[Any]) -> dict[tuple[int, int, int], Any]:
    return {(rank, peer, rail): context for rank, each in enumerate(outcomes) for peer, rail, _, context in each.rails}


@pytest.mark.parametrize("shared", [True, False])
@pytest.mark.parametrize(("counts", "nics"), [([2, 2], 2), ([1, 3], 2), ([2, 1], 4), ([1, 1, 2], 1), ([3], 1), ([1], 0)])
def test_every_connection_is_there_and_carries(counts: list[int], nics: int, shared: bool) -> None:
    size = sum(counts)
    with formed(size, lambda _: {"topology": nodes(counts, nics), "shared_memory": shared}) as outcomes:
        assert all(isinstance(each, group.Formed) for each in outcomes), outcomes
        assert len({(each.job, each.topology) for each in outcomes}) == 1
        assert outcomes[0].job > 0
        topology = outcomes[0].topology
        rails = rails_of(outcomes)
        assert set(rails) == {(rank, peer, rail) for rank in range(size) for peer, rail, _, _ in topology.rails_of(rank)}
        for (rank, peer, rail), context in rails.items():
            assert carries(context, rails[peer, rank, rail], int(rank < peer), int(rank > peer))
        for a in range(size):
            for b in range(size):
                if a != b:
                    assert carries(outcomes[a].control, outcomes[b].control, b, a)
                if a != b and topology.node_of(a) == topology.node_of(b):
                    if shared:
                        assert outcomes[a].local is None
                        assert os.path.samestat(os.fstat(outcomes[a].shared.segments[b]), os.fstat(outcomes[b].shared.own))
                        continue
                    place = topology.nodes[topology.node_of(a)].ranks.index
                    assert carries(outcomes[a].local, outcomes[b].local, place(b), place(a))


def test_a_subgroup_forms_from_the_topology_of_all() -> None:
    given = nodes([2, 2, 1], 2)
    with formed(2, lambda _: {"topology": given}, ranks=[3, 1], world=5) as outcomes:
        assert [node.ranks for node in outcomes[0].topology.nodes] == [(1,), (0,)]
        assert set(rails_of(outcomes)) == {(0, 1, 0), (0, 1, 1), (1, 0, 0), (1, 0, 1)}


def test_a_group_is_made_again_over_the_same_store() -> None:
    """As after destroy_process_group under torchrun, whose store stays and whose names begin again."""

    def run(rank: int, store: Any) -> list[int]:
        jobs = []
        for again in range(3):
            try:
                size = 3 if again == 1 else 4
                option = {"topology": nodes([2, 2], 1)}
                formed = group.form(store, rank, [0, 1, 2, 3], 4 if size == 4 else 3, TIMEOUT, option)
            except InvalidArgument:  # the world is too small, so that the second one fails
                jobs.append(0)
                continue
            agree(store, "used", rank, 4, TIMEOUT, lambda: rank, len)
            formed.close()
            jobs.append(formed.job)
        return jobs

    outcomes = on_ranks(4, run)
    (jobs,) = {tuple(each) for each in outcomes}
    assert jobs[1] == 0
    assert jobs[0] > 0 < jobs[2] != jobs[0]


def renewed(outcomes: list[Any], a: int, b: int, rail: int, after: tuple[int, int], late: float = 0.0) -> list[Any]:
    def run(place: int, _: Any) -> Any:
        rank, peer = ((a, b), (b, a))[place]
        time.sleep(late * place)
        return outcomes[rank].connect(peer, rail, after[place])

    return on_ranks(2, run)


@pytest.mark.parametrize(("after", "late"), [((1, 1), 0.0), ((1, 4), 0.0), ((3, 1), 0.0), ((1, 1), 1.8)])
def test_a_rail_is_renewed_with_one_generation_above_both(after: tuple[int, int], late: float) -> None:
    with formed(2, lambda _: {"topology": nodes([1, 1], 2)}) as outcomes:
        for pair in ((0, 1), (1, 0)):
            ends = renewed(outcomes, *pair, 1, after, late)
            assert [generation for _, generation in ends] == [max(after) + 1] * 2
            first, second = (context for context, _ in ends)
            assert carries(first, second, int(pair[0] < pair[1]), int(pair[0] > pair[1]))


def carries_both_ways(ends: list[Any]) -> bool:
    return carries(ends[0][0], ends[1][0], 1, 0) and carries(ends[1][0], ends[0][0], 0, 1)


@pytest.mark.parametrize("how", ["fails", "hangs"])
@pytest.mark.parametrize("place", [0, 1])
def test_a_rail_that_one_end_cannot_build_is_built_by_neither(place: int, how: str, monkeypatch: pytest.MonkeyPatch) -> None:
    real, other_is_built, faulty = lanes.gloo, threading.Event(), threading.Event()

    def gloo(store: Any, rank: int, size: int, address: str, timeout: timedelta) -> Any:
        context = real(store, rank, size, address, timeout)
        if not faulty.is_set():
            return context
        if rank != place:
            other_is_built.set()
            return context
        del context
        assert other_is_built.wait(10)
        if how == "hangs":
            time.sleep(1.0)
        raise RuntimeError("connectFullMesh failed")

    monkeypatch.setattr(lanes, "gloo", gloo)
    with formed(2, lambda _: {"topology": nodes([1, 1], 1)}) as outcomes:
        monkeypatch.setattr(lanes, "BUILD", timedelta(seconds=0.5))
        faulty.set()
        ends = on_ranks(2, lambda rank, _: outcomes[rank].connect.within(1 - rank, 0, 1, 1.5))
        assert [type(end) for end in ends] == [HetspError] * 2
        words = "failed: connectFullMesh failed" if how == "fails" else "took longer than 0.5 s"
        assert words in str(ends[place])
        faulty.clear()
        ends = renewed(outcomes, 0, 1, 0, (1, 1))
        assert [generation for _, generation in ends] == [2, 2]
        assert carries_both_ways(ends)


@pytest.mark.parametrize("place", [0, 1])
def test_an_end_whose_last_word_was_lost_is_found_out_and_asked_again(place: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both have built, and only one knows it of the other."""
    real, lost = lanes.PairStore.get, []

    def get(self: Any, key: str) -> bytes:
        value = real(self, key)
        if key == f"built/{1 - place}" and not lost:
            lost.append(key)
            raise TimeoutError("timed out")
        return value

    with formed(2, lambda _: {"topology": nodes([1, 1], 1)}) as outcomes:
        monkeypatch.setattr(lanes.PairStore, "get", get)
        ends = on_ranks(2, lambda rank, _: outcomes[rank].connect.within(1 - rank, 0, 1, 1.5))
        assert isinstance(ends[place], HetspError)
        context, generation = ends[1 - place]
        assert generation == 2
        with pytest.raises(RuntimeError):  # what an engine waits with: the given up end is closed, and this one hears it
            context.recv([torch.zeros(1)], place, 1).wait()
        after = [1, 1]
        after[1 - place] = generation
        ends = renewed(outcomes, 0, 1, 0, (after[0], after[1]))
        assert [generation for _, generation in ends] == [3, 3]
        assert carries_both_ways(ends)


def test_waiting_for_a_rail_ends_when_the_group_closes() -> None:
    with formed(2, lambda _: {"topology": nodes([1, 1], 1)}) as outcomes:

        def run(rank: int, _: Any) -> Any:
            if rank == 2:
                time.sleep(0.3)
                outcomes[0].close()
                return outcomes[1].close()
            return outcomes[rank].connect(1 - rank, 0, 1) if rank == 1 else None

        _, error, _ = on_ranks(3, run)
        assert isinstance(error, HetspError)
        assert "rail 0 to rank 0: the group is closed" in str(error)
        with pytest.raises(HetspError, match="closed"):
            outcomes[0].connect(1, 0, 1)


def test_strangers_at_the_door_change_nothing() -> None:
    import socket

    door = lanes.Door(job=7)
    place = ("127.0.0.1", door.listen("127.0.0.1"))
    door.start()
    try:
        for words in (b"GET / HTTP/1.0\r\n\r\n", b"", lanes.HELLO.pack(lanes.MAGIC, 8, 1, 0, 0)):
            with socket.create_connection(place, timeout=5) as stranger:
                stranger.sendall(words)
                stranger.shutdown(socket.SHUT_WR)
                assert stranger.recv(1) == b""
        assert lanes.reach(7, 0, {1: place}, 1.0) == []
        assert lanes.reach(8, 0, {1: place}, 0.2) == [1]
        assert door.caller(1, 0, time.monotonic()) is None
    finally:
        door.close()
    assert not door.thread.is_alive()


def errors(size: int, option: Callable[[int], Any], kind: type[HetspError]) -> str:
    """The one message that all ranks raise."""
    with formed(size, option) as outcomes:
        assert {type(each) for each in outcomes} == {kind}, outcomes
        (message,) = {str(each) for each in outcomes}
        return message


def changed(**more: Any) -> dict[str, Any]:
    other = copy.deepcopy(nodes([2, 2], 2))
    other["nodes"][1].update(more)
    return other


@pytest.mark.parametrize(
    ("other", "words"),
    [
        (
            {"topology": changed(nics=[{"address": "127.0.2.9"}])},
            ["rank 3", "nodes[1].nics has 1 entries there and 2 on rank 0"],
        ),
        (
            {"topology": changed(control="127.0.0.2")},
            ["rank 3", "nodes[1].control is '127.0.0.2' there", "'127.0.0.1' on rank 0"],
        ),
        ({}, ["rank 3 (discovered)", "rank 0 (the option topology)", "one is given on rank 0 alone"]),
        ({"topology": {"nodes": 5}}, ["rank 3: the option topology: nodes is 5"]),
        ({"topology": nodes([2, 2], 2), "direct_bytes": 5}, ["rank 3 has the chunk_bytes and direct_bytes [0, 5]", "[0, 0]"]),
        ({"topology": nodes([2, 2], 2), "chunks": 5}, ["rank 3: pg_options", "the key 'chunks'"]),
    ],
)
def test_what_one_rank_has_wrong_all_ranks_say_alike(other: dict[str, Any], words: list[str]) -> None:
    good = {"topology": nodes([2, 2], 2)}
    message = errors(4, lambda rank: other if rank == 3 else good, InvalidArgument)
    for word in words:
        assert word in message


def test_what_all_have_wrong_is_not_blamed_on_one() -> None:
    assert errors(2, lambda _: {"topology": {"nodes": 5}}, InvalidArgument).startswith("the option topology: nodes is 5")


@pytest.mark.parametrize(
    ("nic", "words"),
    [
        ({"name": "absent7"}, ["nodes[1].nics[0] is 'absent7'", "it has"]),
        ({"name": "absent7", "address": "192.0.2.77"}, ["NIC 'absent7' of node 1: '192.0.2.77' is not on this machine"]),
    ],
)
def test_a_nic_that_is_not_there_is_named(nic: dict[str, str], words: list[str]) -> None:
    given = nodes([1, 1], 1)
    given["nodes"][1]["nics"] = [nic]
    message = errors(2, lambda _: {"topology": given}, InvalidArgument)
    for word in words:
        assert word in message


def test_a_nic_is_known_by_its_name_alone() -> None:
    given = {"nodes": [{"ranks": [0], "nics": [{"name": "lo"}]}]}
    with formed(1, lambda _: {"topology": given}) as (only,):
        assert only.topology.nodes[0].nics[0].address == "127.0.0.1"


def test_nodes_without_a_rail_between_them_are_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a NIC that answers nothing looks like from here: calls from its address fail."""
    real = lanes.call
    dead = {"127.0.1.1", "127.0.2.2"}

    def call(own: str, peer: tuple[str, int], hello: bytes, seconds: float) -> Any:
        if own and (own in dead or peer[0] in dead):
            raise TimeoutError("timed out")
        return real(own, peer, hello, seconds)

    monkeypatch.setattr(lanes, "call", call)
    monkeypatch.setattr(meeting, "RAIL_SECONDS", 0.5)
    message = errors(2, lambda _: {"topology": nodes([1, 1], 2)}, PeerLost)
    assert message.startswith("rank 1 and the other ranks of node 1 cannot be reached from node 0 over any NIC")
    assert "rail0 to rail0, rail1 to rail1" in message
    dead.remove("127.0.2.2")
    with formed(2, lambda _: {"topology": nodes([1, 1], 2)}) as outcomes:
        assert [[(rail, context is None) for _, rail, _, context in each.rails] for each in outcomes] == [
            [(0, True), (1, False)]
        ] * 2
        dead.clear()
        assert [generation for _, generation in renewed(outcomes, 0, 1, 0, (0, 0))] == [1, 1]


def test_a_control_address_that_is_silent_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    real = lanes.reach
    monkeypatch.setattr(
        lanes, "reach", lambda job, rank, peers, seconds: sorted({*real(job, rank, peers, seconds), *({2} - {rank})})
    )
    message = errors(3, lambda _: {"topology": nodes([2, 1], 1)}, PeerLost)
    assert message.startswith("rank 2 on node 1 cannot be reached at its control address 127.0.0.1 by ranks [0, 1]")


def test_a_rank_that_does_not_come_is_named() -> None:
    def run(rank: int, store: Any) -> Any:
        return agree(store, "see", rank, 3, timedelta(seconds=0.5), lambda: rank, sum) if rank < 2 else None

    *came, _ = on_ranks(3, run)
    assert [type(each) for each in came] == [PeerLost] * 2
    assert {str(each) for each in came} == {"rank 2 did not come: no word from ranks [2] within 0.5 s"}


def test_a_rank_that_fails_for_other_reasons_is_told() -> None:
    def possible(rank: int) -> None:
        if rank == 1:
            raise OSError(5, "no such thing")

    outcomes = on_ranks(3, lambda rank, store: group.form(store, rank, range(3), 3, TIMEOUT, None, lambda: possible(rank)))
    assert {(type(each), str(each)) for each in outcomes} == {(HetspError, "rank 1: OSError: [Errno 5] no such thing")}
    assert isinstance(outcomes[1].__cause__, OSError)


def test_all_agree_on_what_rank_0_decides() -> None:
    run = lambda rank, store: agree(store, "s", rank, 5, TIMEOUT, lambda: rank * rank, lambda all_of: {"sum": sum(all_of)})  # noqa: E731
    assert on_ranks(5, run) == [{"sum": 30}] * 5
