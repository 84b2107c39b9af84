"""Some hundred cases of the fuzzer of manifests and headers, in a process of its own; and the fuzzer's own eyes."""

import subprocess
import sys
from pathlib import Path

import pytest

from hetsp_ext.errors import CheckpointCorrupt
from tests.fuzz import checkpoint_readers


def test_damaged_manifests_and_headers_are_refused_in_bounded_memory():
    run = subprocess.run(
        [sys.executable, "-m", "tests.fuzz.checkpoint_readers", "--cases", "600", "--seed", "7000000"],
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        timeout=250,
    )
    assert run.returncode == 0, run.stdout[-3000:] + run.stderr[-3000:]
    refused = int(run.stdout.split(" cases, ")[1].split()[0])
    assert 300 < refused < 600, "damage that is always or hardly ever refused tests one thing only"


@pytest.mark.parametrize("error", [KeyError, MemoryError, RecursionError, IndexError, checkpoint_readers.Hang])
def test_another_error_than_corrupt_is_a_finding(monkeypatch, tmp_path, error):
    def broken(path):
        raise error

    monkeypatch.setattr(checkpoint_readers, "read", broken)
    with pytest.raises(error):
        checkpoint_readers.one_case(1, tmp_path)


def test_an_accepted_damage_is_a_finding(monkeypatch, tmp_path):
    monkeypatch.setattr(checkpoint_readers, "read", lambda path: None)
    findings = 0
    for seed in range(40):
        try:
            assert not checkpoint_readers.one_case(seed, tmp_path)
        except AssertionError:
            findings += 1
    assert findings, "some cases keep the old seal, and must be refused"


def test_a_refusal_is_none(monkeypatch, tmp_path):
    def corrupt(path):
        raise CheckpointCorrupt("so it is")

    monkeypatch.setattr(checkpoint_readers, "read", corrupt)
    assert checkpoint_readers.one_case(1, tmp_path)
