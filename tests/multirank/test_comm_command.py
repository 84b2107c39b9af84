"""`hetsp comm` with ranks of its own; nodes are addresses of loopback."""

import json
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from hetsp_ext import cli
from hetsp_ext.distributed import backend
from hetsp_ext.distributed.bench import Request, bench_table, flows_of
from hetsp_ext.distributed.topology import parse
from hetsp_ext.errors import InvalidArgument


def hetsp(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-m", "hetsp_ext", "comm", *arguments], capture_output=True, text=True, timeout=240)


def nodes(ranks: list[list[int]], nics: int = 2) -> dict[str, Any]:
    return {
        "nodes": [
            {"ranks": own, "nics": [{"name": f"nic{k}", "address": f"127.0.{n + 1}.{k + 1}"} for k in range(nics)]}
            for n, own in enumerate(ranks)
        ]
    }


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "topology.json"
    path.write_text(json.dumps(nodes([[0, 2], [1]])))
    return path


def test_topology_of_a_file_is_that_of_its_ranks(file: Path) -> None:
    run = hetsp("topology", "--json", "--topology", str(file))
    assert run.returncode == 0, run.stderr
    record = json.loads(run.stdout)
    assert [node["ranks"] for node in record["nodes"]] == [[0, 2], [1]]
    assert [nic["owner"] for node in record["nodes"] for nic in node["nics"]] == [0, 2, 1, 1]
    assert record["rails"] == [
        {"nodes": [0, 1], "rail": 0, "ranks": [0, 1], "up": True},
        {"nodes": [0, 1], "rail": 1, "ranks": [2, 1], "up": True},
    ]


def test_an_interrupt_in_the_midst_of_a_measurement_is_no_traceback() -> None:
    command = [sys.executable, "-m", "hetsp_ext", "comm", "bench", "--repeat", "1000", "--sizes", "64M"]
    run = subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # a shell's background jobs ignore it
    )
    assert run.stderr is not None
    first = run.stderr.readline()
    run.send_signal(signal.SIGINT)
    _, rest = run.communicate(timeout=100)
    assert run.returncode == 130, first + rest
    assert rest.splitlines()[-1] == "hetsp comm: stopped by SIGINT, and all ranks with it", first + rest
    assert "Traceback" not in rest, rest


def test_topology_without_a_word_is_this_machine() -> None:
    run = hetsp("topology", "--ranks", "3")
    assert run.returncode == 0, run.stderr
    assert run.stdout.startswith("node 0  ranks 0, 1, 2  control 127.0.0.1")
    assert "one node" in run.stdout
    assert "GPU memory " in run.stdout.splitlines()[-1]


def test_a_wrong_topology_is_one_line_and_no_traceback(file: Path) -> None:
    given = nodes([[0], [1]])
    given["nodes"][1]["nics"][1]["address"] = "192.0.2.99"
    file.write_text(json.dumps(given))
    run = hetsp("topology", "--topology", str(file))
    assert run.returncode == 2
    assert "NIC 'nic1' of node 1: '192.0.2.99' is not on this machine" in run.stderr
    assert "Traceback" not in run.stderr


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["bench", "--routes", "fast"], "route is 'fast'; allowed are routed, direct, gloo"),
        (["bench", "--sizes", "1M,x"], "--sizes has 'x'"),
        (["bench", "--sizes", "0"], "size is 0; allowed are 1 to"),
        (["bench", "--flows", "1,-2"], "--flows has '-2'"),
        (["bench", "--repeat", "0"], "repeat is 0"),
        (["bench", "--ranks", "1"], "--ranks is 1; a flow needs at least 2"),
        (["topology", "--ranks", "-1"], "--ranks is -1; at least 1"),
        (["topology", "--ranks", "0"], "--ranks is 0; at least 1"),
        (["topology", "--ranks", "100000"], "--ranks is 100000; at most 1024 processes"),
        (["topology", "--timeout", "0"], "--timeout is 0"),
        (["topology", "--timeout", "nan"], "--timeout is nan"),
        (["bench", "--timeout", "inf"], "--timeout is inf"),
        (["topology", "--topology", "absent.json"], "'absent.json', which cannot be read"),
    ],
)
def test_a_wrong_request_is_one_line(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("RANK", raising=False)
    monkeypatch.setattr(backend, "missing", lambda: "")
    assert cli.main(["comm", *arguments]) == 2
    assert message in capsys.readouterr().err


def test_flows_join_the_first_two_nodes_or_the_halves_of_one() -> None:
    assert flows_of(parse(nodes([[0, 2, 5], [1, 3], [4]]), 6, "T")) == [(0, 1), (2, 3)]
    assert flows_of(parse(nodes([[0, 1, 2, 3, 4]]), 5, "T")) == [(0, 2), (1, 3)]


def test_a_request_is_checked() -> None:
    with pytest.raises(InvalidArgument, match="flows is 0"):
        Request(flows=(0,))


def test_the_table_has_a_line_per_record() -> None:
    record = {
        "route": "routed", "bytes": 3 << 20, "flows": 2, "seconds": 0.5, "least_seconds": 0.4, "most_seconds": 0.75,
        "bytes_per_second": 4 * 3 * (1 << 20), "nic_bytes": [{"node": 0, "nic": f"nic{k}", "bytes": 1 << 20} for k in range(4)],
    }  # fmt: skip
    head, line = bench_table([record]).splitlines()
    assert line.split() == ["3", "MiB", "2", "routed", "0.500000", "12.6", "101", "0.80", "to", "1.50", "4"]
    assert len(head) == len(line)


@pytest.mark.skipif(bool(backend.missing()), reason=f"no group of backend hetsp here: {backend.missing()}")
def test_bench_measures_every_route_size_and_flow(file: Path) -> None:
    file.write_text(json.dumps(nodes([[0, 1], [2, 3]])))
    sizes = ["--sizes", "1K,1M", "--flows", "1,2,4", "--repeat", "2"]
    run = hetsp("bench", "--topology", str(file), *sizes, "--routes", "routed,direct,gloo", "--json")
    assert run.returncode == 0, run.stderr
    records = [json.loads(line) for line in run.stdout.splitlines()]
    assert {(each["route"], each["bytes"], each["flows"]) for each in records} == {
        (route, size, flows) for route in ("routed", "direct", "gloo") for size in (1024, 1 << 20) for flows in (1, 2)
    }
    for each in records:
        assert each["bytes_per_second"] == pytest.approx(each["flows"] * each["bytes"] / each["seconds"])
        nics = {nic["nic"] for nic in each["nic_bytes"] if nic["node"] == 0 and nic["bytes"] >= each["bytes"]}
        if each["route"] == "direct" and each["flows"] == 1 and each["bytes"] > 1024:
            assert nics == {"nic0"}
    assert "12/12" in run.stderr
