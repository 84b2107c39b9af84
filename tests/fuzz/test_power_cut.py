"""Power cuts at each phase of a commit, where this process may mount file systems; and the judge's own eyes."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.fuzz import power_cut


def why_not(folder: Path) -> str | None:
    """Why an ext4 image cannot be mounted here."""
    if os.geteuid() != 0:
        return "mounting a file system needs root"
    for tool in ("unshare", "mkfs.ext4", "mount", "umount"):
        if shutil.which(tool) is None:
            return f"{tool} is not installed"
    image, mount = folder / "try.img", folder / "try"
    with image.open("wb") as file:
        file.truncate(16 << 20)
    mount.mkdir()
    script = f"mkfs.ext4 -q -F '{image}' && mount -o loop '{image}' '{mount}' && umount '{mount}'"
    tried = subprocess.run(["unshare", "--mount", "sh", "-c", script], capture_output=True, text=True)
    return f"no ext4 image can be mounted here: {tried.stderr.strip()}" if tried.returncode else None


def test_what_was_announced_survives_a_power_cut_at_every_phase(tmp_path):
    if reason := why_not(tmp_path):
        pytest.skip(reason)
    command = ["unshare", "--mount", sys.executable, "-m", "tests.fuzz.power_cut", "--folder", str(tmp_path)]
    done = subprocess.run(command, cwd=Path(__file__).parents[2], capture_output=True, text=True, timeout=280)
    assert done.returncode == 0, done.stdout + done.stderr[-3000:]
    assert done.stdout.count(": intact, announced") == len(power_cut.PHASES)
    assert "after committed: intact, announced 2" in done.stdout


def test_the_judge_sees(tmp_path):
    folder = tmp_path / "checkpoints"
    power_cut.save(folder, 1, str)
    assert power_cut.judge(folder, 0) is None
    assert power_cut.judge(folder, 1) is None
    assert power_cut.judge(folder, 2) == "step 2 was announced, [1] is there"
    (tmp_path / "control").touch()
    assert power_cut.judge(folder, 1) == "the cut was none: a file that was not synced is there"
    (folder / "latest").write_bytes(bytes(9))
    assert power_cut.judge(folder, 1) == "latest is None"
    (file,) = folder.glob("step-*/rank-*")
    file.write_bytes(bytes(file.stat().st_size))
    assert "all bytes are 0" in power_cut.judge(folder, 1)
