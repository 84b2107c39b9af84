"""The topology as JSON: what is accepted, what every error names, and the rules of rails and owners."""

import random

import pytest

from hetsp_ext.distributed.options import VARIABLE, Options
from hetsp_ext.distributed.topology import Nic, Node, Topology, parse
from hetsp_ext.errors import InvalidArgument


def two_nodes() -> dict:
    return {
        "nodes": [
            {"ranks": [0, 1], "nics": [{"name": "nic0", "address": "10.200.0.1"}], "control": "10.255.0.1"},
            {"ranks": [2, 3], "nics": [{"name": "nic0", "address": "10.200.0.2", "rate": 5e7}]},
        ]
    }


def test_what_the_contract_shows_is_read() -> None:
    topology = parse(two_nodes(), 4, "T")
    assert topology.nodes[0] == Node((0, 1), (Nic("nic0", "10.200.0.1", 0.0),), "10.255.0.1")
    assert topology.nodes[1] == Node((2, 3), (Nic("nic0", "10.200.0.2", 5e7),), "")
    assert parse({"nodes": topology.as_records()}, 4, "T") == topology


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda t: t.pop("nodes"), ["nodes is None", "a list of at least 1"]),
        (lambda t: t.update(nodes={}), ["nodes is {}"]),
        (lambda t: t.update(hosts=1), ["the key 'hosts'", "allowed are nodes"]),
        (lambda t: t["nodes"].append(7), ["nodes[2] is 7", "control, nics, ranks"]),
        (lambda t: t["nodes"][0].update(nic=[]), ["nodes[0] has the key 'nic'", "control, nics, ranks"]),
        (lambda t: t["nodes"][0].update(ranks=[]), ["nodes[0].ranks is []"]),
        (lambda t: t["nodes"][0].update(ranks=[0, "1"]), ["nodes[0].ranks holds '1'"]),
        (lambda t: t["nodes"][0].update(ranks=[0, True]), ["nodes[0].ranks holds True"]),
        (lambda t: t["nodes"][0].update(ranks=[0, -1]), ["nodes[0].ranks holds -1"]),
        (lambda t: t["nodes"][0].update(ranks=[0]), ["rank 1 is on no node", "0 to 3"]),
        (lambda t: t["nodes"][0].update(ranks=[0, 1, 2]), ["rank 2 is in nodes[0] and in nodes[1]"]),
        (lambda t: t["nodes"][0].update(ranks=[0, 0, 1]), ["rank 0 is in nodes[0] and in nodes[0]"]),
        (lambda t: t["nodes"][1].update(ranks=[2, 3, 4]), ["nodes[1] has rank 4", "0 to 3"]),
        (lambda t: t["nodes"][1].update(nics=[]), ["nodes[1] has no nics"]),
        (lambda t: t["nodes"][1].pop("nics"), ["nodes[1] has no nics"]),
        (lambda t: t["nodes"][1]["nics"].append({}), ["nodes[1].nics[1] is {}", "a name or an address"]),
        (lambda t: t["nodes"][1]["nics"].append({"name": "nic0"}), ["nodes[1].nics names 'nic0' 2 times"]),
        (lambda t: t["nodes"][1]["nics"].append({"name": 3}), ["nodes[1].nics[1].name is 3"]),
        (lambda t: t["nodes"][1]["nics"].append({"speed": 3}), ["nodes[1].nics[1] has the key 'speed'"]),
        (lambda t: t["nodes"][1]["nics"][0].update(address="10.200.0"), ["nodes[1].nics[0].address is '10.200.0'"]),
        (lambda t: t["nodes"][1]["nics"][0].update(address=10), ["nodes[1].nics[0].address is 10"]),
        (lambda t: t["nodes"][1]["nics"][0].update(rate=-1), ["nodes[1].nics[0].rate is -1"]),
        (lambda t: t["nodes"][1]["nics"][0].update(rate=float("nan")), ["nodes[1].nics[0].rate is nan"]),
        (lambda t: t["nodes"][1]["nics"][0].update(address="10.200.0.1"), ["'10.200.0.1'", "nodes[0].nics[0]"]),
        (lambda t: t["nodes"][1].update(control="mgmt"), ["nodes[1].control is 'mgmt'"]),
    ],
)
def test_what_is_wrong_is_named(change, words) -> None:
    given = two_nodes()
    change(given)
    with pytest.raises(InvalidArgument) as caught:
        parse(given, 4, "HETSP_TOPOLOGY")
    assert str(caught.value).startswith("HETSP_TOPOLOGY: ")
    for word in words:
        assert word in str(caught.value)


@pytest.mark.parametrize("seed", range(30))
def test_rails_join_owners_and_both_ends_see_the_same(seed: int) -> None:
    draw = random.Random(seed)
    counts = [draw.choice([1, 1, 2, 3, 5]) for _ in range(draw.choice([1, 2, 2, 3]))]
    shuffled = draw.sample(range(sum(counts)), sum(counts))
    nodes = []
    for index, count in enumerate(counts):
        ranks = sorted(shuffled.pop() for _ in range(count))
        nics = [{"address": f"10.0.{index}.{nic}"} for nic in range(draw.choice([1, 2, 4, 7]))]
        nodes.append({"ranks": ranks, "nics": nics})
    topology = parse({"nodes": nodes}, sum(counts), "T")
    ends = {
        (rank, peer, rail): (own, other) for rank in range(sum(counts)) for peer, rail, own, other in topology.rails_of(rank)
    }
    expected = {}
    for a, one in enumerate(nodes):
        for b, two in enumerate(nodes):
            for rail in range(min(len(one["nics"]), len(two["nics"]))) if a != b else ():
                owners = [each["ranks"][rail % len(each["ranks"])] for each in (one, two)]
                expected[owners[0], owners[1], rail] = (Nic(address=f"10.0.{a}.{rail}"), Nic(address=f"10.0.{b}.{rail}"))
    assert ends == expected


def test_a_subgroup_has_the_nodes_of_its_ranks_in_its_own_numbers() -> None:
    topology = parse(two_nodes(), 4, "T")
    assert [node.ranks for node in topology.of_group([3, 0, 2]).nodes] == [(1,), (0, 2)]
    assert topology.of_group([2, 3]).nodes == (Node((0, 1), topology.nodes[1].nics, ""),)


def test_options_come_from_the_dict_and_then_from_the_environment(tmp_path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "t.json").write_text('{"nodes": []}')
    monkeypatch.delenv(VARIABLE, raising=False)
    assert Options.of(None) == Options()
    assert Options.of({"topology": tmp_path / "t.json", "chunk_bytes": 65536}).topology == {"nodes": []}
    monkeypatch.setenv(VARIABLE, str(tmp_path / "t.json"))
    assert Options.of({}) == Options({"nodes": []}, VARIABLE)
    assert Options.of({"topology": {"nodes": [1]}}).topology == {"nodes": [1]}


@pytest.mark.parametrize(
    ("given", "words"),
    [
        (7, ["are 7", "a dict", "topology, chunk_bytes, direct_bytes"]),
        ({"chunks": 1}, ["the key 'chunks'", "topology, chunk_bytes, direct_bytes"]),
        ({"chunk_bytes": 1}, ["chunk_bytes is 1", "4096"]),
        ({"chunk_bytes": "1M"}, ["chunk_bytes is '1M'"]),
        ({"direct_bytes": -1}, ["direct_bytes is -1"]),
        ({"topology": "absent.json"}, ["the option topology", "'absent.json'", "No such file"]),
    ],
)
def test_wrong_options_are_named(given, words) -> None:
    with pytest.raises(InvalidArgument) as caught:
        Options.of(given)
    for word in words:
        assert word in str(caught.value)


def test_a_file_that_holds_nothing_is_no_topology(tmp_path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "t.json").write_text("null")
    monkeypatch.setenv(VARIABLE, str(tmp_path / "t.json"))
    with pytest.raises(InvalidArgument, match="which holds null; an object"):
        Options.of(None)


@pytest.mark.parametrize("content", [b"", b"{nodes}", b'"\xe9"', b"[" * 100_000], ids=["empty", "cut", "latin", "deep"])
def test_a_file_that_is_no_json_is_named(content: bytes, tmp_path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "t.json").write_bytes(content)
    monkeypatch.setenv(VARIABLE, str(tmp_path / "t.json"))
    with pytest.raises(InvalidArgument, match=r"HETSP_TOPOLOGY names .*t\.json', which is not JSON"):
        Options.of(None)


def test_topology_is_plain_data() -> None:
    assert Topology((Node((0,)),)).as_records() == [{"ranks": [0], "nics": [], "control": ""}]
