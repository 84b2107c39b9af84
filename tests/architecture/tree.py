"""Reads the source tree for the architecture tests: which files there are, and what is code in them and what is prose."""

from __future__ import annotations

import re
import subprocess
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


@cache
def all_files() -> tuple[str, ...]:
    """Paths of all files that are tracked or could be (new and not ignored), relative to the root.

    Outside a git work tree (an unpacked source distribution): every file that is not hidden and not a build product.
    """
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard"]
    if (ROOT / ".git").exists():
        names = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout.splitlines()
    else:
        hidden = re.compile(r"(^|/)(\.|build|__pycache__)|\.egg-info")
        paths = (str(path.relative_to(ROOT)) for path in ROOT.rglob("*"))
        names = [path for path in paths if path == ".ci/run" or not hidden.search(path)]
    return tuple(sorted(name for name in set(names) if (ROOT / name).is_file()))


def files(under: str, *suffixes: str) -> list[str]:
    """Files below the folder `under` ("" for the whole tree) that end in one of `suffixes`."""
    found = [name for name in all_files() if name.startswith(under) and name.endswith(suffixes)]
    assert found, f"no {'/'.join(suffixes)} file under {under!r}: this check looks in the wrong place"
    return found


def read(name: str) -> str:
    """Text of one file; `name` is relative to the root."""
    return (ROOT / name).read_text(encoding="utf-8")


def includes(text: str) -> list[str]:
    """What a C++ text includes, with the delimiters: '<vector>', '"hetsp/base/error.h"'."""
    return re.findall(r"^\s*#\s*include\s*(<[^>]+>|\"[^\"]+\")", text, flags=re.MULTILINE)


def without_comments(text: str) -> str:
    """A C++ text without its comments; prose may name what code may not. Line numbers are kept."""

    def blank(match: re.Match[str]) -> str:
        token = match.group(0)
        return "\n" * token.count("\n") if token.startswith("/") else token

    return re.sub(r"//[^\n]*|/\*.*?\*/|\"(?:\\.|[^\"\\\n])*\"|'(?:\\.|[^'\\\n])*'", blank, text, flags=re.DOTALL)


def line_of(text: str, offset: int) -> int:
    """1-based line of a character offset."""
    return text.count("\n", 0, offset) + 1
