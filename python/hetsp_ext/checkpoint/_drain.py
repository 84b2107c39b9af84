"""Copies a committed checkpoint from fast storage into a `.part` directory on slow storage, and verifies the copy.

The page cache is written through in pieces and given back at once, so that draining a checkpoint larger than memory neither
evicts training's pages nor grows. What was copied is read back and compared with the manifest's hashes before it is published:
the second level is as trustworthy as the first.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from .._native import core
from ..errors import CheckpointCorrupt
from ._manifest import Manifest

PIECE = 8 << 20  # bytes


def drain(source: Path, level: Any, uid: str) -> Manifest:
    """Fills level's .part-<uid> with the files of the checkpoint in `source`, durable and verified; returns its manifest."""
    path = os.fspath(source / "manifest.json")
    manifest = Manifest.from_json(path, core.read_sealed(path))
    part = Path(level.directory.begin(uid))
    for file in manifest.files:
        _copy(source / file.name, part / file.name)
        extents = [(extent.begin, extent.end, extent.hash) for extent in file.extents]
        faults = core.verify_file(os.fspath(part / file.name), file.bytes, file.header_hash, extents, manifest.checksum)
        if faults:
            begin, end, what = faults[0]
            raise CheckpointCorrupt(f"{part / file.name} bytes [{begin}, {end}): {what}, after it was copied from {source}")
    return manifest


def _copy(source: Path, destination: Path) -> None:
    read = os.open(source, os.O_RDONLY | os.O_CLOEXEC)
    try:
        write = os.open(destination, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644)
        try:
            at = 0
            while copied := os.sendfile(write, read, at, PIECE):
                os.fdatasync(write)
                os.posix_fadvise(write, at, copied, os.POSIX_FADV_DONTNEED)
                os.posix_fadvise(read, at, copied, os.POSIX_FADV_DONTNEED)
                at += copied
            os.fsync(write)
        finally:
            os.close(write)
    finally:
        os.close(read)
