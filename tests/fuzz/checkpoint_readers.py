"""Damages manifests and headers of checkpoints and reads them: whatever comes, the answer is CheckpointCorrupt or a sound one.

    python -m tests.fuzz.checkpoint_readers --cases 100000 --seed 1

Most cases carry a seal and lengths that are right, so that the damage reaches the parsers behind them. The process runs under
an address-space limit: a length that is believed before it is checked ends in MemoryError, which is a finding. So is any other
exception, a reader that is still busy after 30 s, a damaged text whose seal was not renewed and that is accepted, and an
accepted checkpoint with boxes outside its files.
"""

from __future__ import annotations

import argparse
import json
import random
import resource
import signal
import sys
import tempfile
from pathlib import Path
from typing import Any

import torch

from hetsp_ext.checkpoint._opened import Opened
from hetsp_ext.errors import CheckpointCorrupt
from tests.support.checkpoints import crc32c, sealed, write_checkpoint

ROOM_BYTES = 256 << 20  # beyond what the process has mapped when it begins
LONGEST_SECONDS = 30
NUMBERS = [-1, 0, 1, 2**31, 2**63 - 1, 2**63, 10**40, 1.5]
JUNK: list[Any] = [None, True, "", "x", "\x00", "F32", "../x", "é" * 9, [], {}, [[]], {"a": []}, *NUMBERS]
DEEP = [b"[" * 3000, b'{"a":' * 3000]
TEXTS = [b"NaN", b"1e999", b"-0", b'"\\ud800"', b"\xff\xfe", b"9" * 6000, b"\x00" * 40, b"true", b",", b"}", *DEEP]


class Hang(Exception):
    """A reader took too long."""


def damage_bytes(draw: random.Random, text: bytes) -> bytes:
    """The text with some of its bytes changed."""
    data = bytearray(text)
    for _ in range(draw.choice([1, 1, 1, 2, 8])):
        at = draw.randrange(len(data) + 1)
        length = min(draw.choice([1, 1, 4, 64, 1000]), len(data) - at)
        kind = draw.randrange(6)
        if kind == 0 and at < len(data):
            data[at] ^= 1 << draw.randrange(8)
        elif kind == 1:
            del data[at : at + length]
        elif kind == 2:
            data[at:at] = data[at : at + length]
        elif kind == 3:
            data[at:at] = draw.choice(TEXTS)
        elif kind == 4:
            data[at : at + length] = bytes(length)
        else:
            data[at : at + length] = draw.randbytes(length)
    return bytes(data)


def damage_json(draw: random.Random, value: Any) -> Any:
    """The value with something in it replaced, removed, doubled or exchanged."""
    value = json.loads(json.dumps(value))
    for _ in range(draw.choice([1, 1, 1, 2, 5])):
        holders = [value] if isinstance(value, dict | list) and value else []
        for holder in holders:  # grows while it is walked
            inner = holder.values() if isinstance(holder, dict) else holder
            holders += [item for item in inner if isinstance(item, dict | list) and item]
        if not holders:
            return draw.choice(JUNK)
        holder = draw.choice(holders)
        keys = list(holder) if isinstance(holder, dict) else list(range(len(holder)))
        key, other = draw.choice(keys), draw.choice(keys)
        kind = draw.randrange(6)
        if kind == 0:
            holder[key] = draw.choice(JUNK)
        elif kind == 1:
            del holder[key]
        elif kind == 2:
            holder[key], holder[other] = holder[other], holder[key]
        elif kind == 3 and isinstance(holder[key], int):
            holder[key] += draw.choice([-1, 1, 4, 4096, -4096, 1 << 40])
        elif kind == 4 and isinstance(holder, list):
            holder.insert(key, holder[other])
        elif isinstance(holder, dict):
            holder[f"{key}{draw.choice(['', 'x', '~1'])}"] = holder[other]
    return value


def damage_manifest(draw: random.Random, path: Path, manifest: dict[str, Any]) -> bool:
    """Writes a damaged manifest; whether the damage is hidden behind a seal that is right."""
    file = path / "manifest.json"
    whole = file.read_bytes()
    if draw.random() < 0.25:
        damaged = damage_bytes(draw, whole)
        file.write_bytes(damaged)
        return damaged == whole
    text = json.dumps(manifest).encode()
    text = damage_bytes(draw, text) if draw.random() < 0.3 else json.dumps(damage_json(draw, manifest)).encode()
    file.write_bytes(sealed(text))
    return True


def damage_header(draw: random.Random, path: Path, manifest: dict[str, Any]) -> bool:
    """Writes a damaged header, with the manifest made to agree with it as far as it can."""
    entry = draw.choice(manifest["files"])
    file = path / entry["name"]
    data = file.read_bytes()
    header, rest = data[: entry["header_bytes"]], data[entry["header_bytes"] :]
    if draw.random() < 0.2:
        lengths = [0, 1, 2, 7, len(header), len(data), 1 << 20, 100_000_001, 1 << 40, (1 << 63) - 8, (1 << 64) - 1]
        header = draw.choice(lengths).to_bytes(8, "little") + header[8:]
    else:
        text = header[8:].rstrip()
        content = json.loads(text)
        text = damage_bytes(draw, text) if draw.random() < 0.3 else json.dumps(damage_json(draw, content)).encode()
        text += b" " * draw.choice([0, -(8 + len(text)) % 4096])
        header = len(text).to_bytes(8, "little") + text
    file.write_bytes(header + rest)
    shift = len(header) - entry["header_bytes"]
    entry["header_bytes"], entry["bytes"], entry["header_hash"] = len(header), len(header) + len(rest), crc32c(header)
    entry["extents"] = [[begin + shift, end + shift, hash_] for begin, end, hash_ in entry["extents"]]
    (path / "manifest.json").write_bytes(sealed(json.dumps(manifest).encode()))
    return True


def make(path: Path, draw: random.Random) -> dict[str, Any]:
    """A small checkpoint of random shape."""
    rows = draw.randrange(1, 12)
    tensors = {"model.w": torch.ones(rows, 3), "b": torch.zeros(draw.randrange(4), dtype=torch.bfloat16), "n": torch.zeros(())}
    world = draw.randrange(1, 4)
    cuts = {"model.w": sorted(draw.randrange(rows + 1) for _ in range(world - 1))}
    planner_data = draw.choice([None, {"bytes": [], "paths": {"model.w": ["model", 3]}}])
    trees = [{"dict": [["a", {"tensor": "n"}], [3, {"float": "7ff0000000000000"}]]}]
    return write_checkpoint(path, tensors, world=world, cuts=cuts, trees=trees, planner_data=planner_data)


def read(path: Path) -> None:
    """Opens all of a checkpoint and checks that what was accepted makes sense."""
    opened = Opened(path)
    for index in range(len(opened.manifest.files)):
        opened.header(index)
    for name in opened.manifest.tensors:
        for stored in opened.stored(name):
            entry = opened.manifest.files[stored.file]
            end = stored.begin + stored.box.elements * opened.dtype(name).itemsize
            assert entry.header_bytes <= stored.begin <= end <= entry.bytes == (path / entry.name).stat().st_size, name


def one_case(seed: int, folder: Path) -> bool:
    """Whether the damaged checkpoint was refused; raises for a finding."""
    draw = random.Random(seed)
    path = folder / f"step-{seed}-aa"
    manifest = make(path, draw)
    hidden = draw.choice([damage_manifest, damage_header])(draw, path, manifest)
    signal.alarm(LONGEST_SECONDS)
    try:
        read(path)
    except CheckpointCorrupt:
        return True
    finally:
        signal.alarm(0)
    assert hidden, "damaged, its seal not renewed, and accepted"
    return False


def main() -> int:
    """Runs the cases; each finding is printed with its seed, by which it comes again."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0, help="of the first case; the others follow")
    arguments = parser.parse_args()

    def hang(*_: Any) -> None:
        raise Hang

    signal.signal(signal.SIGALRM, hang)
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    limit = pages * resource.getpagesize() + ROOM_BYTES
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    refused, findings = 0, 0
    for seed in range(arguments.seed, arguments.seed + arguments.cases):
        with tempfile.TemporaryDirectory() as folder:
            try:
                refused += one_case(seed, Path(folder))
            except BaseException as error:
                findings += 1
                print(f"seed {seed}: {type(error).__name__}: {str(error)[:300]}")
                if isinstance(error, KeyboardInterrupt):
                    break
    print(f"{arguments.cases} cases, {refused} refused, {findings} findings")
    return 1 if findings else 0


if __name__ == "__main__":
    sys.exit(main())
