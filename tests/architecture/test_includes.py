"""Who may include whom in csrc: the rooms of docs/architecture.md, as a table that is checked."""

from pathlib import PurePosixPath

import pytest

from tests.architecture.tree import files, includes, read, without_comments


def room_stems(cmake: str) -> frozenset[str]:
    """Stems of the sources that a CMakeLists.txt gives to hetsp_add_room."""
    call = read(cmake).partition("hetsp_add_room(")[2].partition(")")[0]
    stems = frozenset(word.removesuffix(".cc") for word in call.split() if word.endswith(".cc"))
    assert stems, f"{cmake} declares no room"
    return stems


# Room -> what its files may include beside their own room: rooms, or single headers. Add a row with the room, and to a row
# only with a reason; the table must stay free of cycles.
ROOMS = {
    "base": (),
    "device": ("base",),
    "attention": ("base", "device"),
    "lp": ("base",),
    "packing": ("base", "lp"),
    "planner": ("base", "packing"),
    "simulator": ("base", "planner"),
    # The coverage proof of a schedule runs on the very segments that the kernels take, so that type alone is shared.
    "sequence_parallel": ("base", "planner", "attention/segment.h"),
    # Memory on the way to a disk or a device, and copies into it: for checkpoints, and for offload later.
    "staging": ("base", "device"),
    # Writes and reads byte spans: it knows no tensors, models or plans. Of devices it knows that they fail.
    "checkpoint": ("base", "device/device.h", "staging"),
    # A protocol over an abstract transport: it knows ranks and NICs, no models, plans or tensors.
    "comm": ("base",),
}
# Headers of the system and of optional libraries that one room or edge alone may include: file access has one door.
ROOM_HEADERS = {
    "base": ("<sys/mman.h>", "<sys/syscall.h>"),
    "c10d": ("<dlfcn.h>",),
    "staging": ("<sys/mman.h>",),
    "checkpoint": (
        *("<dirent.h>", "<fcntl.h>", "<sys/eventfd.h>", "<sys/file.h>", "<sys/mman.h>", "<sys/stat.h>"),
        *("<liburing.h>", "<xxhash.h>"),
    ),
}
# The same for single files of an edge: what ranks of one node do with each other's memory, and how they notice their deaths.
FILE_HEADERS = {
    "csrc/c10d/bell.cc": ("<linux/futex.h>", "<sys/syscall.h>"),
    "csrc/c10d/sentinel.cc": ("<poll.h>", "<sys/eventfd.h>"),
    "csrc/c10d/shared_node.cc": ("<sys/mman.h>", "<sys/stat.h>"),
}
# The edges, where torch (its stable ABI only) and Python live: rooms or headers of the core, folders of foreign headers.
EDGES = {
    "torch_ops": (("base", "device", "attention"), ("torch/csrc/stable/", "torch/headeronly/")),
    # Torch's C++ classes have no stable ABI: this extension is built for one torch, and is the only one that includes them.
    # Chunks in the memory of a GPU: copies by staging's run time, and libnccl found at run time.
    "c10d": (
        ("base", "comm", "device/device.h", "staging/device_runtime.h"),
        ("torch/csrc/", "torch/version.h", "ATen/", "c10/", "pybind11/"),
    ),
    "bindings": (
        (
            *("base", "checkpoint", "device/device.h", "lp", "planner", "sequence_parallel", "simulator"),
            "attention/segment.h",
        ),
        ("nanobind/",),
    ),
}
# Stems of an edge that keep its foreign headers out: the sources of its library that builds and is tested without them.
FREE = {"c10d": room_stems("csrc/c10d/CMakeLists.txt")}
# ".h" headers that belong to the compiler or the system, not to a foreign library.
SYSTEM = {"<immintrin.h>", "<cpuid.h>", "<pthread.h>", "<sched.h>", "<unistd.h>"}
CUDA = ("cuda_", "cuda.h", "cooperative_groups", "cub/", "mma.h")


def is_cuda(path: str) -> bool:
    return path.endswith((".cu", ".cuh"))


def in_rooms(name: str, rooms: tuple[str, ...]) -> bool:
    return any(name == f"hetsp/{room}" or name.startswith(f"hetsp/{room}/") for room in rooms)


def violations(path: str, text: str) -> list[str]:
    """Includes of one file of csrc that its place does not allow; `path` starts with csrc/."""
    parts = PurePosixPath(path).parts
    core = parts[1] == "hetsp"
    own = parts[2] if core else parts[1]
    if own not in (ROOMS if core else EDGES):
        return [f"{path}: {own} has no row in tests/architecture/test_includes.py: say what it may include, and why"]
    rooms, foreign = (ROOMS[own], ()) if core else EDGES[own]
    if PurePosixPath(path).stem in FREE.get(own, ()):
        foreign = ()
    system = (*ROOM_HEADERS.get(own, ()), *FILE_HEADERS.get(path, ()))
    home = f"hetsp/{own}/" if core else f"{own}/"

    found = []
    for include in includes(without_comments(text)):
        name = include.strip('<>"')
        if name.startswith(CUDA):
            if not is_cuda(path):
                found.append(f"{path}: {include} belongs in .cu and .cuh files only")
        elif include.startswith('"'):
            if not name.startswith(home) and not in_rooms(name, rooms):
                found.append(f"{path}: {include} is not among what {own} may include: {', '.join(rooms) or 'nothing'}")
        elif ("/" in name or name.endswith(".h")) and include not in (*SYSTEM, *system) and not name.startswith(foreign):
            allowed = ", ".join((*foreign, *system)) or "the standard library only"
            found.append(f"{path}: {include} is a foreign header; {own} may include {allowed}")
    return found


def test_every_include_is_allowed():
    sources = files("csrc/", ".cc", ".h", ".cu", ".cuh")
    assert [problem for path in sources for problem in violations(path, read(path))] == []


def test_the_table_has_no_cycle():
    state: dict[str, str] = {}

    def visit(room: str) -> None:
        assert state.get(room) != "open", f"{room} includes itself through other rooms"
        if state.get(room) == "done":
            return
        state[room] = "open"
        for other in ROOMS[room]:
            visit(other.partition("/")[0])
        state[room] = "done"

    for room in ROOMS:
        visit(room)


def test_cmake_links_as_the_table_says():
    # A room that links more than it may include would let a forbidden include compile.
    for room, allowed in ROOMS.items():
        text = read(f"csrc/hetsp/{room}/CMakeLists.txt")
        words = text.replace(")", " ").split()
        depends = words[words.index("DEPENDS") + 1 :] if "DEPENDS" in words else []
        depends = [word for word in depends[: next((i for i, w in enumerate(depends) if w.isupper()), len(depends))]]
        assert set(depends) <= {other.partition("/")[0] for other in allowed}, f"csrc/hetsp/{room}/CMakeLists.txt"


@pytest.mark.parametrize(
    ("path", "text", "part"),
    [
        ("csrc/hetsp/base/a.h", '#include "hetsp/attention/params.h"\n', "base may include: nothing"),
        ("csrc/hetsp/attention/a.cc", '#include "hetsp/planner/plan.h"\n', "not among what attention may include"),
        ("csrc/hetsp/planner/a.cc", '  #  include "hetsp/attention/segment.h"\n', "not among what planner may include"),
        ("csrc/hetsp/sequence_parallel/a.cc", '#include "hetsp/attention/params.h"\n', "not among"),
        ("csrc/hetsp/planner/a.cc", '#include "torch_ops/cuda_stream.h"\n', "not among"),
        ("csrc/hetsp/planner/a.cc", '#include "plan.h"\n', "not among"),  # relative: the direction could not be read off
        ("csrc/hetsp/base/a.cc", "#include <ATen/Parallel.h>\n", "foreign header"),
        ("csrc/hetsp/base/a.cc", "#include <Python.h>\n", "foreign header"),
        ("csrc/hetsp/base/a.cc", "#include <nanobind/nanobind.h>\n", "foreign header"),
        ("csrc/hetsp/planner/a.cc", "#include <fcntl.h>\n", "planner may include the standard library only"),
        ("csrc/hetsp/checkpoint/a.cc", "#include <sys/socket.h>\n", "checkpoint may include <dirent.h>"),
        ("csrc/hetsp/device/a.cc", "#include <cuda_runtime.h>\n", "belongs in .cu and .cuh"),
        ("csrc/torch_ops/a.cc", "#include <cuda_runtime_api.h>\n", "belongs in .cu and .cuh"),
        ("csrc/torch_ops/a.cc", "#include <ATen/ATen.h>\n", "foreign header"),  # the stable ABI only
        ("csrc/torch_ops/a.cc", '#include "hetsp/planner/plan.h"\n', "not among"),
        ("csrc/bindings/a.cc", "#include <torch/csrc/stable/library.h>\n", "foreign header"),
        ("csrc/c10d/wire.cc", "#include <ATen/ATen.h>\n", "c10d may include <dlfcn.h>"),
        ("csrc/c10d/wire.cc", "#include <poll.h>\n", "c10d may include <dlfcn.h>"),
        ("csrc/c10d/driver.h", "#include <torch/csrc/utils/pybind.h>\n", "foreign header"),
        ("csrc/hetsp/utils/a.cc", "", "utils has no row"),
    ],
)
def test_a_violation_is_caught(path, text, part):
    (problem,) = violations(path, text)
    assert part in problem


@pytest.mark.parametrize(
    ("path", "text"),
    [
        ("csrc/hetsp/attention/cpu/a.cc", '#include <immintrin.h>\n#include <vector>\n#include "hetsp/attention/cpu/a.h"\n'),
        ("csrc/hetsp/attention/cuda/a.cuh", "#include <cuda_runtime.h>\n"),
        ("csrc/hetsp/base/a.h", "// as in\n// #include <torch/torch.h>\n/* #include <Python.h> */\n"),
        (
            "csrc/torch_ops/a.cc",
            '#include <torch/csrc/stable/ops.h>\n#include "torch_ops/b.h"\n#include "hetsp/base/error.h"\n',
        ),
        ("csrc/c10d/sentinel.cc", "#include <poll.h>\n"),
        ("csrc/c10d/work.h", '#include <ATen/ATen.h>\n#include "c10d/task_thread.h"\n'),
    ],
)
def test_what_is_allowed_passes(path, text):
    assert violations(path, text) == []
