"""Power cuts of a real file system: an ext4 image is shut down without its journal while a checkpoint is being committed.

    unshare --mount python -m tests.fuzz.power_cut --folder FOLDER [--delays 0 8]        # as root

For each phase a forked child saves once, whole, and saves again until that phase; then EXT4_IOC_SHUTDOWN drops all that is in
memory only, at once or some seconds later (the journal commits every 5 s, data after 30 s). The image is mounted again, its
journal replayed, and judged: every name that is there verifies, and the newest announced one or a newer one is there. A file
written without fsync just before the cut must be gone, else the cut was none.

It models the loss of the page cache and of the journal's open transaction, not a disk that loses what it acknowledged.
"""

from __future__ import annotations

import argparse
import ctypes
import fcntl
import json
import os
import struct
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from hetsp_ext._native import core

SHUTDOWN, NO_LOG_FLUSH = 0x8004587D, 2
PHASES = ("written", "manifest", "synced", "renamed", "committed", "latest", "returned")
HEADER = b" " * 4096
DATA_BYTES = 3_000_000


def data_of(step: int) -> bytes:
    return bytes((step * 31 + i) % 251 for i in range(1000)) * (DATA_BYTES // 1000)


def save(folder: Path, step: int, on_phase: Callable[[str], object]) -> None:
    """One save of one rank, the whole protocol."""
    directory = core.CheckpointDirectory(str(folder))
    uid, data = f"u-{step}", bytearray(data_of(step))
    part = Path(directory.begin(uid))
    engine = core.CheckpointEngine(1 << 20, 256 << 10)
    address = ctypes.addressof(ctypes.c_char.from_buffer(data))
    capture = engine.begin(str(part / "rank-00000"), HEADER, [address], [len(data)], [0])
    capture.wait_written()
    on_phase("written")
    manifest = {"step": step, "size": capture.bytes, "header": capture.header_hash, "extents": capture.extents}
    directory.publish(uid, f"step-{step:010d}-{uid}", json.dumps(manifest).encode(), on_phase, engine.checksum)
    engine.close()
    on_phase("returned")


def child(folder: Path, phase: str, delay: float, announce: int) -> None:
    """Two saves; the power goes at `phase` of the second."""
    save(folder, 1, lambda reached: reached == "committed" and os.write(announce, b"1"))

    def cut(reached: str) -> None:
        if reached == "committed":
            os.write(announce, b"2")
        if reached == phase:
            time.sleep(delay)
            (folder.parent / "control").write_bytes(b"x" * 4096)
            descriptor = os.open(folder.parent, os.O_RDONLY)
            fcntl.ioctl(descriptor, SHUTDOWN, struct.pack("I", NO_LOG_FLUSH))
            os._exit(0)

    save(folder, 2, cut)


def judge(folder: Path, announced: int) -> str | None:
    """What is wrong with the directory after the cut."""
    directory = core.CheckpointDirectory(str(folder))
    steps = []
    for name in directory.names():
        path = Path(directory.find(name))
        manifest = json.loads(core.read_sealed(str(path / "manifest.json")))
        checksum = (path / "manifest.json").read_text().splitlines()[-1].split()[0]
        extents = [tuple(extent) for extent in manifest["extents"]]
        faults = core.verify_file(str(path / "rank-00000"), manifest["size"], manifest["header"], extents, checksum)
        if faults:
            return f"{name}: {faults}"
        if (path / "rank-00000").read_bytes() != HEADER + data_of(manifest["step"]):
            return f"{name}: verifies, and holds something else"
        steps.append(manifest["step"])
    if announced and max(steps, default=0) < announced:
        return f"step {announced} was announced, {steps} is there"
    if announced and directory.latest() not in directory.names():
        return f"latest is {directory.latest()}"
    return "the cut was none: a file that was not synced is there" if (folder.parent / "control").exists() else None


def run(*command: object) -> None:
    subprocess.run([str(word) for word in command], check=True, capture_output=True)


def one(image: Path, mount: Path, phase: str, delay: float) -> tuple[str | None, int]:
    """A fresh file system, a cut at `phase`, a verdict; and the step that had been announced."""
    image.unlink(missing_ok=True)
    with image.open("wb") as file:
        file.truncate(96 << 20)
    run("mkfs.ext4", "-q", "-F", image)
    run("mount", "-o", "loop", image, mount)
    try:
        (mount / "run").mkdir()
        reader, writer = os.pipe()
        pid = os.fork()
        if pid == 0:
            try:
                child(mount / "run" / "checkpoints", phase, delay, writer)
            finally:
                os._exit(3)
        os.close(writer)
        with os.fdopen(reader, "rb") as pipe:
            announced = max([0, *map(int, pipe.read().decode())])
        if status := os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]):
            return f"the child ended with {status}", announced
        run("umount", mount)
        run("mount", "-o", "loop", image, mount)
        return judge(mount / "run" / "checkpoints", announced), announced
    finally:
        run("umount", mount)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, required=True, help="where the image and its mount point are made")
    parser.add_argument("--delays", type=float, nargs="+", default=[0.0], help="seconds from a phase to the cut")
    options = parser.parse_args()
    mount = options.folder / "mount"
    mount.mkdir()
    failed = 0
    for delay in options.delays:
        for phase in PHASES:
            verdict, announced = one(options.folder / "disk.img", mount, phase, delay)
            print(f"cut {delay:g} s after {phase}: {verdict or 'intact'}, announced {announced}", flush=True)
            failed += verdict is not None
    (options.folder / "disk.img").unlink()
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
