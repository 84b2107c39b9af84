"""Files stay small enough to read: aim at 100 lines; over 400 the head comment says why, none is over 600."""

from tests.architecture.tree import all_files, read

REASON_FROM, LIMIT = 400, 600  # lines
SUFFIXES = (".cc", ".h", ".cu", ".cuh", ".py", ".sh", ".cmake", "CMakeLists.txt")
HEAD = 25  # lines in which the reason must stand, as "Long because ..."


def violation(name: str, text: str) -> str | None:
    lines = text.splitlines()
    if len(lines) > LIMIT:
        return f"{name}: {len(lines)} lines, the limit is {LIMIT}: split it by noun"
    if len(lines) > REASON_FROM and "Long because" not in "\n".join(lines[:HEAD]):
        return f'{name}: {len(lines)} lines; over {REASON_FROM} the head comment says "Long because ..."'
    return None


def test_files_are_small():
    problems = [violation(name, read(name)) for name in all_files() if name.endswith(SUFFIXES)]
    assert [problem for problem in problems if problem] == []


def test_a_long_file_is_caught():
    assert violation("a.h", "x\n" * 400) is None
    assert "Long because" in violation("a.h", "x\n" * 401)
    assert violation("a.h", "// Long because it is a table.\n" + "x\n" * 450) is None
    assert "split it" in violation("a.h", "// Long because it is a table.\n" + "x\n" * 600)
