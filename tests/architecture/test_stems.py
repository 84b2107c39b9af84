"""One noun, one stem: a source has its header, a source of the core has its test, and no folder is a drawer."""

from pathlib import PurePosixPath

from tests.architecture.tree import all_files, files

# Sources of the core without a test of their stem, each with the test that covers it: internal parts of one public thing,
# reached through it. A new public source gets a test of its own stem.
PLANNER = "tests/cpp/planner/planner_test.cc"
EXCLUSIVE = "tests/cpp/planner/exclusive_test.cc"
SEARCH = "tests/cpp/packing/search_test.cc"
SIMPLEX = "tests/cpp/lp/simplex_test.cc"
CHECKSUM = "tests/cpp/checkpoint/checksum_test.cc"
ENGINE = "tests/cpp/comm/engine_test.cc"
TESTED_ELSEWHERE = {
    "csrc/hetsp/attention/cpu/no_tile_amx/table.cc": "tests/cpp/attention/cpu_isa_test.cc",
    "csrc/hetsp/attention/cpu/no_tile_bf16/table.cc": "tests/cpp/attention/cpu_isa_test.cc",
    "csrc/hetsp/attention/cpu/tile/tables.cc": "tests/cpp/attention/cpu_isa_test.cc",
    "csrc/hetsp/attention/cpu/tile_bf16/backward.cc": "tests/cpp/attention/tile_backward_test.cc",
    "csrc/hetsp/attention/cpu/tile_bf16/forward.cc": "tests/cpp/attention/tile_forward_test.cc",
    "csrc/hetsp/attention/cpu/tile_bf16/table.cc": "tests/cpp/attention/cpu_isa_test.cc",
    "csrc/hetsp/checkpoint/copying.cc": "tests/cpp/checkpoint/capture_test.cc",
    "csrc/hetsp/checkpoint/no_xxh3/xxh3.cc": CHECKSUM,
    "csrc/hetsp/checkpoint/xxh3/xxh3.cc": CHECKSUM,
    "csrc/hetsp/checkpoint/xxh3/xxh3_isa.cc": CHECKSUM,
    "csrc/hetsp/comm/courier.cc": ENGINE,
    "csrc/hetsp/comm/router.cc": ENGINE,
    "csrc/hetsp/device/no_cuda/device.cc": "tests/python/test_native.py",
    "csrc/hetsp/lp/dictionary.cc": SIMPLEX,
    "csrc/hetsp/lp/dual_simplex.cc": SIMPLEX,
    "csrc/hetsp/lp/pricing.cc": SIMPLEX,
    "csrc/hetsp/lp/primal_simplex.cc": SIMPLEX,
    "csrc/hetsp/lp/ratio_test.cc": SIMPLEX,
    "csrc/hetsp/packing/greedy.cc": SEARCH,
    "csrc/hetsp/packing/order.cc": SEARCH,
    "csrc/hetsp/packing/partition.cc": SEARCH,
    "csrc/hetsp/packing/passes.cc": SEARCH,
    "csrc/hetsp/packing/prices.cc": SEARCH,
    "csrc/hetsp/packing/refine.cc": SEARCH,
    "csrc/hetsp/packing/ruin.cc": SEARCH,
    "csrc/hetsp/packing/bisection.cc": "tests/cpp/packing/pack_test.cc",
    "csrc/hetsp/planner/assignment.cc": PLANNER,
    "csrc/hetsp/planner/auto.cc": PLANNER,
    "csrc/hetsp/planner/balance.cc": PLANNER,
    "csrc/hetsp/planner/board.cc": PLANNER,
    "csrc/hetsp/planner/cluster.cc": PLANNER,
    "csrc/hetsp/planner/describe.cc": PLANNER,
    "csrc/hetsp/planner/kind.cc": "tests/cpp/planner/draft_test.cc",
    "csrc/hetsp/planner/pack_step.cc": EXCLUSIVE,
    "csrc/hetsp/planner/plan.cc": PLANNER,
    "csrc/hetsp/planner/strategies.cc": PLANNER,
    "csrc/hetsp/planner/strategies/megatron.cc": EXCLUSIVE,
    "csrc/hetsp/planner/strategies/zeppelin.cc": EXCLUSIVE,
    "csrc/hetsp/staging/stream_lines.cc": "tests/cpp/staging/stream_copy_test.cc",
    "csrc/hetsp/simulator/task_graph.cc": "tests/cpp/simulator/event_loop_test.cc",
}
# Sources that implement part of another header: one strategy each; and a stub in its own folder.
DECLARED_ELSEWHERE = {
    "csrc/hetsp/attention/cpu/no_tile_amx/table.cc": "csrc/hetsp/attention/cpu/tile_bf16/table.h",
    "csrc/hetsp/attention/cpu/no_tile_bf16/table.cc": "csrc/hetsp/attention/cpu/tile_bf16/table.h",
    "csrc/hetsp/attention/cuda/hopper/backward_bf16_128.cu": "csrc/hetsp/attention/cuda/hopper/backward_launch.cuh",
    "csrc/hetsp/attention/cuda/hopper/backward_bf16_64.cu": "csrc/hetsp/attention/cuda/hopper/backward_launch.cuh",
    "csrc/hetsp/attention/cuda/hopper/backward_f16_128.cu": "csrc/hetsp/attention/cuda/hopper/backward_launch.cuh",
    "csrc/hetsp/attention/cuda/hopper/backward_f16_64.cu": "csrc/hetsp/attention/cuda/hopper/backward_launch.cuh",
    "csrc/hetsp/attention/cuda/hopper/backward_split_bf16_128.cu": "csrc/hetsp/attention/cuda/hopper/backward_split_launch.cuh",
    "csrc/hetsp/attention/cuda/hopper/backward_split_bf16_192.cu": "csrc/hetsp/attention/cuda/hopper/backward_split_launch.cuh",
    "csrc/hetsp/attention/cuda/hopper/backward_split_bf16_256.cu": "csrc/hetsp/attention/cuda/hopper/backward_split_launch.cuh",
    "csrc/hetsp/attention/cuda/hopper/backward_split_f16_128.cu": "csrc/hetsp/attention/cuda/hopper/backward_split_launch.cuh",
    "csrc/hetsp/attention/cuda/hopper/backward_split_f16_192.cu": "csrc/hetsp/attention/cuda/hopper/backward_split_launch.cuh",
    "csrc/hetsp/attention/cuda/hopper/backward_split_f16_256.cu": "csrc/hetsp/attention/cuda/hopper/backward_split_launch.cuh",
    "csrc/hetsp/attention/cuda/hopper/launch_backward.cu": "csrc/hetsp/attention/cuda/hopper/backward.h",
    "csrc/hetsp/attention/cuda/hopper/launch_backward_split.cu": "csrc/hetsp/attention/cuda/hopper/backward_split.h",
    "csrc/hetsp/planner/auto.cc": "csrc/hetsp/planner/strategies.h",
}
DRAWERS = ("util", "utils", "common", "helper", "helpers", "misc")
BACKENDS = ("cpu", "cuda", "no_cuda", "xxh3", "no_xxh3", "io_uring", "no_io_uring")


def header_missing(source: str, known: set[str]) -> bool:
    """A source of the core without a header of its stem in its folder or, for a backend's folder, in the room above."""
    path = PurePosixPath(source)
    folders = [path.parent] + [path.parent.parent] * (path.parent.name in BACKENDS)
    return not any(f"{folder}/{path.stem}{suffix}" in known for folder in folders for suffix in (".h", ".cuh"))


def test_missing(source: str, known: set[str]) -> bool:
    """A source of the core without tests/cpp/<room>/<stem>_test.cc; backends share the room's test or have their own."""
    path = PurePosixPath(source)
    room = path.parts[2]
    stems = {path.stem, f"{path.parent.name}_{path.stem}", f"{path.parent.name}/{path.stem}"}
    return not any(f"tests/cpp/{room}/{stem}_test.cc" in known for stem in stems)


test_missing.__test__ = False  # a rule, not a test


def test_every_source_has_its_header():
    known = set(all_files())
    missing = {source for source in files("csrc/hetsp/", ".cc", ".cu") if header_missing(source, known)}
    assert sorted(missing - DECLARED_ELSEWHERE.keys()) == []


def test_every_source_has_its_test():
    known = set(all_files())
    missing = {source for source in files("csrc/hetsp/", ".cc") if test_missing(source, known)}
    assert sorted(missing - TESTED_ELSEWHERE.keys()) == []


def test_exceptions_name_what_exists():
    known = set(all_files())
    rows = [*TESTED_ELSEWHERE.items(), *DECLARED_ELSEWHERE.items()]
    assert [name for row in rows for name in row if name not in known] == [], "gone: remove the row"


def test_no_drawers():
    named = [
        name for name in all_files() if PurePosixPath(name).stem in DRAWERS or set(PurePosixPath(name).parts) & set(DRAWERS)
    ]
    assert named == [], "name the thing, not the drawer"


def named_twice(names: list[str]) -> list[str]:
    """Test modules that share their name with another: pytest imports each by its name alone, and stops at the second."""
    stems = [PurePosixPath(name).name for name in names]
    return sorted(name for name, stem in zip(names, stems, strict=True) if stems.count(stem) > 1)


def test_no_two_test_modules_share_a_name():
    assert named_twice([name for name in files("tests/", ".py") if PurePosixPath(name).name.startswith("test_")]) == []


def test_a_violation_is_caught():
    assert named_twice(["tests/a/test_x.py", "tests/b/test_x.py", "tests/b/test_y.py"]) == [
        "tests/a/test_x.py",
        "tests/b/test_x.py",
    ]
    known = {"csrc/hetsp/r/a.h", "tests/cpp/r/a_test.cc", "csrc/hetsp/r/cpu/b.h", "tests/cpp/r/cpu_b_test.cc"}
    assert not header_missing("csrc/hetsp/r/a.cc", known)
    assert not header_missing("csrc/hetsp/r/cuda/a.cu", known)
    assert not header_missing("csrc/hetsp/r/cpu/b.cc", known)
    assert header_missing("csrc/hetsp/r/b.cc", known)
    assert header_missing("csrc/hetsp/r/deep/a.cc", known)
    assert not test_missing("csrc/hetsp/r/cpu/b.cc", known)
    assert test_missing("csrc/hetsp/r/c.cc", known)
