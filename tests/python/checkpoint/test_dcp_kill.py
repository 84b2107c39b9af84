"""kill -9 while dcp.save uses one path again and again: what was announced, or something newer, always loads whole."""

from __future__ import annotations

import os
import random
import signal
import time

import pytest
import torch
import torch.distributed.checkpoint as dcp

from hetsp_ext.checkpoint import _dcp_write
from hetsp_ext.checkpoint.dcp import HetspStorageReader, HetspStorageWriter
from hetsp_ext.checkpoint.store import verify_checkpoint
from tests.support.ranks import context

pytestmark = pytest.mark.filterwarnings("ignore:torch.distributed is")
ELEMENTS = 200_000
PHASES = ["manifest", "synced", "renamed", "committed", "latest"]


def save_for_ever(path, first, phase, announce):
    """Saves states of one number each, first, first + 1, ..., and announces each when dcp.save has returned."""
    torch.set_num_threads(1)
    writer = HetspStorageWriter(path, ring_bytes=8 << 20)
    if phase is not None:

        class DiesAtPhase(_dcp_write.Saving):
            def __init__(self, path):
                super().__init__(path)
                self._directory = Directory(self._directory)

        class Directory:
            """Ends the process when the third save reaches the phase."""

            saves = 0

            def __init__(self, directory):
                self.directory = directory

            def __getattr__(self, name):
                return getattr(self.directory, name)

            def publish(self, *arguments, **options):
                Directory.saves += 1
                dies = Directory.saves == 3

                def on_phase(reached):
                    if dies and reached == phase:
                        os.kill(os.getpid(), signal.SIGKILL)

                self.directory.publish(*arguments, **options, on_phase=on_phase)

        _dcp_write.Saving = DiesAtPhase
    value = first
    while True:
        state = {"a": torch.full((ELEMENTS,), float(value)), "b": torch.full((3,), value), "value": value}
        dcp.save(state, storage_writer=writer, no_dist=True)
        announce.send(value)
        value += 1


def loaded(path):
    state = {"a": torch.zeros(ELEMENTS), "b": torch.zeros(3, dtype=torch.int64), "value": 0}
    dcp.load(state, storage_reader=HetspStorageReader(path), no_dist=True)
    assert (state["a"] == state["value"]).all(), "a mixture"
    assert (state["b"] == state["value"]).all(), "a mixture"
    return state["value"]


def run_until_killed(path, first, phase, delay):
    """The value announced last."""
    reader, writer = context.Pipe(duplex=False)
    child = context.Process(target=save_for_ever, args=(path, first, phase, writer), daemon=True)
    child.start()
    writer.close()
    announced = first - 1
    try:
        if phase is None:
            assert reader.poll(60)
            announced = reader.recv()
            time.sleep(delay)
            child.kill()
        while reader.poll(60):
            announced = reader.recv()
    except EOFError:
        pass
    finally:
        child.kill()
        child.join()
    assert child.exitcode == -signal.SIGKILL
    return announced


@pytest.mark.parametrize("phase", PHASES)
def test_killed_at_a_phase_of_the_commit(tmp_path, phase):
    announced = run_until_killed(tmp_path / "c", 1, phase, 0)
    assert announced == 2
    committed = PHASES.index(phase) >= PHASES.index("renamed")
    assert loaded(tmp_path / "c") == (3 if committed else 2)
    assert verify_checkpoint(tmp_path / "c") == []
    dcp.save({"w": torch.ones(3)}, storage_writer=HetspStorageWriter(tmp_path / "c", ring_bytes=8 << 20))
    assert os.listdir(tmp_path) == ["c"], "the next save has removed what the dead one left"


@pytest.mark.parametrize("seed", range(2))
def test_killed_at_random(tmp_path, seed):
    draw, value = random.Random(seed), 0
    for _ in range(8):
        announced = run_until_killed(tmp_path / "c", value + 1, None, draw.random() * 0.15)
        found = loaded(tmp_path / "c")
        assert announced <= found <= announced + 1
        value = found
