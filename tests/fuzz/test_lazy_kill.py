"""A hundred deaths of a checkpointing process, in a process of their own; and the judge's own eyes."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.fuzz import lazy_kill


def test_no_announced_checkpoint_is_lost_by_a_kill(tmp_path):
    done = subprocess.run(
        [sys.executable, "-m", "tests.fuzz.lazy_kill", "--runs", "100", "--seed", "4", "--folder", str(tmp_path)],
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        timeout=280,
    )
    assert done.returncode == 0, done.stdout + done.stderr[-3000:]
    announced = int(done.stdout.split(" runs, ")[1].split()[0])
    assert announced > 50, "children that commit nothing have nothing to lose"


@pytest.mark.parametrize(
    ("lines", "announced", "what"),
    [
        (["restored None []"], 0, None),
        (["restored 3 [3.0]"], 3, None),
        (["restored 4 [4.0]"], 3, None),
        (["restored None []"], 3, "step 3 was announced, and nothing was restored"),
        (["restored 2 [2.0]"], 3, "step 3 was announced, and step 2 was restored"),
        (["restored 3 [2.0, 3.0]"], 3, "restored with the numbers [2.0, 3.0]"),
        (["restored 3 [4.0]"], 3, "restored with the numbers [4.0]"),
        (["failed CheckpointCorrupt: none"], 0, "it failed: CheckpointCorrupt: none"),
    ],
)
def test_the_judge_sees(lines, announced, what):
    wrong, _ = lazy_kill.judge(lines, announced)
    assert wrong is None if what is None else what in wrong


def test_what_is_announced_counts_for_the_next():
    assert lazy_kill.judge(["restored 3 [3.0]", "committed 4", "committed 5"], 3) == (None, 5)
