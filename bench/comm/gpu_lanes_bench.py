"""Two ranks on one GPU, over lanes of NCCL and through host memory: what works, whether the bytes are right, how fast it is.

    python -m bench.comm.gpu_lanes_bench [--device cuda|cpu] [--limit SECONDS] [--megabytes N] [--out FILE]

A machine with one GPU cannot show what lanes are for, but it can show that they work: NCCL from 2.30 takes two ranks on one GPU
(NCCL_MULTI_RANK_GPU_ENABLE=1), earlier ones refuse it unless each rank has a host id of its own (NCCL_HOSTID), which makes NCCL
use sockets between them, here over loopback. Both are tried, one after the other, with the ranks as one node (a local link) and
as two (a rail, with addresses of loopback). A try is a step after the other, each with its result, so that the last line says
where it ended; it has a time limit, and none hides the next. Exit status: 0 where lanes came up and every byte was right in at
least one try of each kind. --device cpu shows that the script runs where there is no GPU: lanes are absent then, in words.
"""

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

QUIET = {"NCCL_P2P_DISABLE": "1", "NCCL_SHM_DISABLE": "1", "NCCL_IB_DISABLE": "1", "NCCL_SOCKET_IFNAME": "lo"}
WAYS = {"multi-rank": {"NCCL_MULTI_RANK_GPU_ENABLE": "1"}, "host ids": {**QUIET, "NCCL_HOSTID": "hetsp-{rank}"}}
KINDS = {"one node": [[0, 1]], "two nodes": [[0], [1]]}
COMMON = {"HETSP_GPU_LANES": "1", "CUDA_DEVICE_MAX_CONNECTIONS": "32", "NCCL_DEBUG": "WARN"}


def topology(kind: str) -> dict[str, Any]:
    return {
        "nodes": [
            {"ranks": ranks, "nics": [{"name": "lo", "address": f"127.0.{node + 1}.1"}], "control": "127.0.0.1"}
            for node, ranks in enumerate(KINDS[kind])
        ]
    }


def steps(rank: int, kind: str, device: str, store: str, megabytes: int) -> Iterator[dict[str, Any]]:
    """What one rank does, with a record after each step."""
    import torch
    import torch.distributed as dist

    import hetsp_ext as hetsp

    peer = 1 - rank
    if device == "cuda":
        torch.cuda.set_device(0)
    dist.init_process_group(
        "hetsp", init_method=f"file://{store}", rank=rank, world_size=2, timeout=timedelta(seconds=60),
        pg_options={"topology": topology(kind)},
    )  # fmt: skip
    why = hetsp.distributed.statistics()["gpu"]["why"]
    yield {"step": "group", "lanes": not why, "why": why}

    generator = torch.Generator(device).manual_seed(17)
    for dtype in (torch.float32, torch.bfloat16, torch.int64):
        for count in (1, 1000, 1_048_577):
            data = [(torch.rand(count, generator=generator, device=device) * 100).to(dtype) for _ in range(2)]
            got = torch.empty_like(data[peer])
            for work in dist.batch_isend_irecv([dist.P2POp(dist.isend, data[rank], peer), dist.P2POp(dist.irecv, got, peer)]):
                work.wait()
            assert torch.equal(got, data[peer]), f"{count} elements of {dtype} are not what was sent"
    yield {"step": "send and receive", "equal": True}

    rows = [[3, 70_001], [123_457, 5]]
    whole = torch.arange(sum(rows[rank]) * 4, device=device, dtype=torch.float32).view(-1, 4) + rank
    out = torch.empty(sum(row[rank] for row in rows), 4, device=device)
    dist.all_to_all_single(out, whole, [row[rank] for row in rows], rows[rank])
    starts = [sum(rows[source][:rank]) for source in range(2)]
    wholes = [torch.arange(sum(row) * 4, device=device, dtype=torch.float32).view(-1, 4) + s for s, row in enumerate(rows)]
    expected = torch.cat([wholes[s][starts[s] : starts[s] + rows[s][rank]] for s in range(2)])
    assert torch.equal(out, expected), "all_to_all_single with uneven splits is not right"
    yield {"step": "all to all", "equal": True}

    # After a long kernel on the current stream, and read by a later one: what streams have to do with it.
    size = 4096 if device == "cuda" else 256
    matrix = torch.full((size, size), 1.0 / size, device=device)
    product = matrix
    for _ in range(20):
        product = product @ matrix
    product = product + rank
    got = torch.empty_like(product)
    first, second = (dist.isend, dist.irecv) if rank == 0 else (dist.irecv, dist.isend)
    works = [call(product if call is dist.isend else got, peer) for call in (first, second)]
    for under_way in works:
        assert under_way is not None  # only where a rank is not of the group
        under_way.wait()
    assert torch.allclose(got, product - rank + peer), (
        "a message has overtaken the kernel that makes it, or a reader the message"
    )
    yield {"step": "streams", "equal": True}

    payload = torch.ones(megabytes << 20, dtype=torch.uint8, device=device)
    times = []
    for _ in range(5):
        dist.barrier()
        began = time.perf_counter()
        dist.send(payload, peer) if rank == 0 else dist.recv(payload, peer)
        times.append(time.perf_counter() - began)
    gpu = hetsp.distributed.statistics()["gpu"]
    yield {
        "step": "bandwidth",
        "megabytes": megabytes,
        "GB/s": round((megabytes << 20) / sorted(times)[2] / 1e9, 3),
        "gpu": gpu,
    }
    assert not why or gpu["chunks_sent"] == 0
    dist.destroy_process_group()
    yield {"step": "end"}


def run_rank(given: list[str]) -> None:
    rank, kind, device, store, megabytes = given
    try:
        for record in steps(int(rank), kind, device, store, int(megabytes)):
            print(json.dumps(record), flush=True)
    except Exception as error:
        print(json.dumps({"step": "failed", "error": f"{type(error).__name__}: {error}"[:600]}), flush=True)
        os._exit(1)  # what hangs in a destructor must not hide that


def attempt(way: str, kind: str, device: str, megabytes: int, limit: float, lanes: bool = True) -> dict[str, Any]:
    """Two processes, for at most `limit` seconds; the records of rank 0, and where each rank ended."""
    with tempfile.TemporaryDirectory() as folder:
        ranks = []
        for rank in range(2):
            extra = {name: value.format(rank=rank) for name, value in {**COMMON, **WAYS[way]}.items()}
            if not lanes:
                extra["HETSP_GPU_LANES"] = "0"
            with Path(folder, f"errors{rank}").open("w") as errors:
                command = [sys.executable, "-m", "bench.comm.gpu_lanes_bench", "--rank", str(rank), kind, device]
                command += [f"{folder}/store", str(megabytes)]
                ranks.append(
                    subprocess.Popen(
                        command, stdout=subprocess.PIPE, stderr=errors, text=True, start_new_session=True,
                        env={**os.environ, **extra},
                    )
                )  # fmt: skip
        until, outputs = time.monotonic() + limit, []
        for process in ranks:
            try:
                outputs.append(process.communicate(timeout=max(0.1, until - time.monotonic()))[0])
            except subprocess.TimeoutExpired:
                for each in ranks:
                    if each.poll() is None:
                        os.killpg(each.pid, signal.SIGKILL)
                outputs.append(process.communicate()[0])
        records = [[json.loads(line) for line in output.splitlines() if line.startswith('{"step"')] for output in outputs]
        words = [Path(folder, f"errors{rank}").read_text().strip().splitlines()[-3:] for rank in range(2)]
    ended = [each[-1] if each else {"step": "nothing"} for each in records]
    return {
        "way": way if lanes else "host memory", "kind": kind, "steps": records[0],
        "whole": all(each["step"] == "end" for each in ended), "lanes": any(each.get("lanes") for each in records[0]),
        "ended": ended, "said": words,
    }  # fmt: skip


def line(result: dict[str, Any]) -> str:
    steps_of = {each["step"]: each for each in result["steps"]}
    speed = steps_of.get("bandwidth", {}).get("GB/s")
    state = "every byte right" if result["whole"] else f"ended at {result['ended']} {result['said']}"
    carried = "by NCCL" if result["lanes"] else f"through host memory ({steps_of.get('group', {}).get('why', 'no group')})"
    return f"{result['way']:<12} {result['kind']:<10} {carried}: {state}" + (f", {speed} GB/s" if speed else "")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--limit", type=float, default=30.0, help="seconds of one try")
    parser.add_argument("--megabytes", type=int, default=64)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--rank", nargs=5, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.rank:
        run_rank(given.rank)
        return 0
    tries = [(way, kind, True) for way in WAYS for kind in KINDS] + [("host ids", kind, False) for kind in KINDS]
    results = []
    for way, kind, lanes in tries:
        results.append(attempt(way, kind, given.device, given.megabytes, given.limit, lanes))
        print(line(results[-1]), flush=True)
    if given.out:
        given.out.write_text(json.dumps(results, indent=1) + "\n")
    wanted = given.device == "cuda"
    good = {each["kind"] for each in results if each["whole"] and each["lanes"] == wanted}
    return 0 if good == set(KINDS) else 1


if __name__ == "__main__":
    sys.exit(main())
