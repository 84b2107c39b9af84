"""The disk's own rate: fio's direct writes of as many bytes, in the same folder, in the same minute."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path


def absent() -> str | None:
    return None if shutil.which("fio") else "fio is not installed"


def seconds(place: Path, size: int, *, write: bool = True, jobs: int = 1) -> float:
    """Seconds for `size` bytes in 8 MiB requests past the page cache, one per job at a time, the last fsync included."""
    path = place / "fio.bin"
    part = size // jobs - size // jobs % (8 << 20)
    options = {"rw": "write" if write else "read", "bs": "8M", "direct": 1, "size": part, "end_fsync": 1}
    options |= {"numjobs": jobs, "offset_increment": part, "group_reporting": 1}
    command = ["fio", "--name=disk", f"--filename={path}", "--output-format=json", "--ioengine=psync"]
    command += [f"--{name}={value}" for name, value in options.items()]
    try:
        run = subprocess.run(command, capture_output=True, text=True, timeout=300, check=True)
    finally:
        if write:
            path.unlink(missing_ok=True)
    job = json.loads(run.stdout[run.stdout.index("{") :])["jobs"][0]
    return (job["job_runtime"] if jobs == 1 else job["write" if write else "read"]["runtime"]) / 1e3
