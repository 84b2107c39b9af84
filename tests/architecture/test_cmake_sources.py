"""Every native source is named in its CMakeLists.txt, every test in its room's TESTS: no globs, no orphans."""

import re
from pathlib import PurePosixPath

from tests.architecture.tree import all_files, files, read


def listed(cmake: str) -> set[str]:
    """Source paths that a CMakeLists.txt names, relative to its folder."""
    return set(re.findall(r"[\w/.]+\.(?:cc|cu)\b", re.sub(r"#[^\n]*", "", cmake)))


def listed_tests(cmake: str) -> set[str]:
    """Stems after TESTS of hetsp_add_room."""
    stems = set()
    for block in re.findall(r"\bTESTS\b([^)]*)", re.sub(r"#[^\n]*", "", cmake)):
        for word in block.split():
            if word.isupper():
                break
            stems.add(word)
    return stems


def orphans(sources: list[str], cmakes: dict[str, str]) -> list[str]:
    """Sources that no CMakeLists.txt of a folder above them names; `cmakes`: folder -> text."""
    found = []
    for source in sources:
        path = PurePosixPath(source)
        named = any(
            str(path.relative_to(folder)) in listed(cmakes[str(folder)]) for folder in path.parents if str(folder) in cmakes
        )
        if not named:
            found.append(source)
    return found


def orphan_tests(tests: list[str], cmakes: dict[str, str]) -> list[str]:
    """tests/cpp/<room>/<stem>_test.cc that the room, or the edge of that name, does not list under TESTS."""
    found = []
    for test in tests:
        room = PurePosixPath(test).parts[2]
        stem = "/".join(PurePosixPath(test).parts[3:]).removesuffix("_test.cc")
        if stem not in listed_tests(cmakes.get(f"csrc/hetsp/{room}", "") or cmakes.get(f"csrc/{room}", "")):
            found.append(test)
    return found


def cmake_files() -> dict[str, str]:
    return {str(PurePosixPath(name).parent): read(name) for name in files("csrc/", "CMakeLists.txt")}


def test_every_source_is_named():
    assert orphans(files("csrc/", ".cc", ".cu"), cmake_files()) == []


def test_every_cpp_test_is_named():
    assert orphan_tests(files("tests/cpp/", "_test.cc"), cmake_files()) == []


def test_every_named_source_exists():
    for folder, text in cmake_files().items():
        for source in listed(text):
            assert f"{folder}/{source}" in all_files(), f"{folder}/CMakeLists.txt names {source}"


def test_no_globs():
    # A glob sees a new or deleted file only after the next configure: stale builds, invisible additions.
    cmakes = [name for name in all_files() if name.endswith(("CMakeLists.txt", ".cmake"))]
    assert [name for name in cmakes if re.search(r"\bGLOB(_RECURSE)?\b", read(name))] == []


def test_an_orphan_is_caught():
    cmakes = {"csrc/hetsp/base": "hetsp_add_room(NAME base\n  SOURCES a.cc cpu/c.cc  # b.cc\n  TESTS a\n  DEPENDS d)"}
    sources = ["csrc/hetsp/base/a.cc", "csrc/hetsp/base/b.cc", "csrc/hetsp/base/cpu/c.cc", "csrc/hetsp/base/cpu/a.cc"]
    assert orphans(sources, cmakes) == ["csrc/hetsp/base/b.cc", "csrc/hetsp/base/cpu/a.cc"]
    assert orphan_tests(["tests/cpp/base/a_test.cc", "tests/cpp/base/d_test.cc"], cmakes) == ["tests/cpp/base/d_test.cc"]
    cmakes = {"csrc/c10d": "hetsp_add_room(NAME c10d SOURCES a.cc TESTS a)\nadd_library(_c10d MODULE b.cc)"}
    assert orphan_tests(["tests/cpp/c10d/a_test.cc", "tests/cpp/c10d/b_test.cc"], cmakes) == ["tests/cpp/c10d/b_test.cc"]
