"""LazyCheckpointer and the life of its process: exits with a save in flight, forks, and the memory of many saves."""

import multiprocessing
import os
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
import torch

from hetsp_ext.errors import CheckpointError
from tests.python.checkpoint.training import Training, checkpointer, same

ROOT = Path(__file__).parents[3]


def run(script, *arguments):
    """A Python process of its own; what it printed, and its exit status."""
    return subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script), *map(str, arguments)],
        cwd=ROOT,  # for the tests' own modules; hetsp_ext is the one that runs these tests, installed or not
        capture_output=True,
        text=True,
        timeout=200,
    )


SAVE_AND_LEAVE = """
    import sys
    from tests.python.checkpoint.training import Training, checkpointer
    training = Training(width=8000)
    training.step()
    lazy = checkpointer(sys.argv[1], **training.objects)
    lazy.save(1)
    {leave}
"""


@pytest.mark.parametrize(
    ("leave", "status"),
    [("pass", 0), ("sys.exit(3)", 3), ("raise ValueError('training failed')", 1), ("lazy.save(2); del lazy", 0)],
    ids=["end", "exit", "error", "dropped"],
)
def test_a_save_in_flight_is_committed_when_the_interpreter_exits(tmp_path, leave, status):
    done = run(SAVE_AND_LEAVE.format(leave=leave), tmp_path)
    assert done.returncode == status, done.stderr
    want = Training(width=8000)
    want.step()
    got = Training(width=8000, seed=5)
    with checkpointer(tmp_path, **got.objects) as lazy:
        assert lazy.restore() in (1, 2)
    assert same(got.state(), want.state())
    assert not list(tmp_path.glob(".part-*"))


def _child(lazy, connection):
    try:
        lazy.save(5)
    except CheckpointError as error:
        connection.send(str(error))
    # Any optimizer's step meets the hooks; it must not wait for a capture that no thread of this process runs. A small one, for
    # OpenMP's threads are gone as well, and a large one would wait for them.
    torch.optim.SGD([torch.nn.Parameter(torch.zeros(3))], lr=0.1).step()
    lazy.fence()
    lazy.close()
    connection.send("lived")


def test_a_forked_child_cannot_save_and_disturbs_nothing(tmp_path):
    training = Training(width=8000)
    training.step()
    context = multiprocessing.get_context("fork")
    with checkpointer(tmp_path, **training.objects) as lazy:
        lazy.save(1)
        reader, writer = context.Pipe(duplex=False)
        child = context.Process(target=_child, args=(lazy, writer), daemon=True)
        child.start()
        for expected in (f"belongs to process {os.getpid()}", "lived"):
            assert reader.poll(60), "the child hangs"
            assert expected in reader.recv()
        child.join(60)
        assert child.exitcode == 0
        lazy.wait()
        state = training.state()
        training.step()
        lazy.save(2)
        lazy.wait()
        assert lazy.restore(1) == 1
        assert same(training.state(), state)


def test_workers_of_a_data_loader_come_and_go_inside_the_window(tmp_path):
    training = Training(width=8000)
    with checkpointer(tmp_path, **training.objects) as lazy:
        for step in range(2):
            training.step()
            lazy.save(step)
            batches = torch.utils.data.DataLoader(range(8), num_workers=2, multiprocessing_context="fork")
            assert sum(int(batch) for batch in batches) == 28
        lazy.wait()
        assert len(lazy.stats.committed) == 2


RESIDENT = """
    import sys, torch
    from tests.python.checkpoint.training import checkpointer

    def resident():
        return int(open("/proc/self/statm").read().split()[1]) * 4096

    torch.set_num_threads(1)
    model = torch.nn.Sequential(*[torch.nn.Linear(1024, 1024) for _ in range(8)])
    optimizer = torch.optim.AdamW(model.parameters(), fused=True)
    for parameter in model.parameters():
        parameter.grad = torch.ones_like(parameter)
    optimizer.step()
    ring = 16 << 20
    before = resident()
    lazy = checkpointer(sys.argv[1], model, optimizer, ring_bytes=ring)
    found = {}
    for number in range(1, 31):
        lazy.save(number)
        optimizer.step()
        lazy.wait()
        found[number] = resident()
    print(ring, found[3] - before, found[30] - before)
"""


def test_memory_is_the_ring_after_three_saves_and_after_thirty(tmp_path):
    done = run(RESIDENT, tmp_path)
    assert done.returncode == 0, done.stderr
    ring, third, thirtieth = map(int, done.stdout.split())
    assert thirtieth - third <= 1 << 20  # allocators round; a leak of one save's bookkeeping would be 27 times as much
    assert thirtieth <= ring + (16 << 20)
