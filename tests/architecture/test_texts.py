"""The texts a reader meets first: README blocks that run, links that resolve, no word that only its writer understands."""

import re
from pathlib import PurePosixPath

import pytest

from tests.architecture.tree import ROOT, all_files, files, line_of, read
from tools.readme_block import fenced_blocks

TEXT = (".md", ".py", ".cc", ".h", ".cu", ".cuh", ".sh", ".toml", ".txt", ".cmake", ".in", ".yml", ".json", "run")
# Each pattern is written so that this file does not contain what it forbids.
FORBIDDEN = [
    (r"/(home|root|Users)/[a-z]", "a path of one person's machine"),
    (r"(?<![\w.])/(work|tmp)/[a-z]", "a path of one machine"),
    (
        r"(?i)\b(files\.pythonhosted|pypi|test\.pypi|registry\.npmjs|deb\.debian|download\.pytorch)\.(org|com)\b",
        "a package index host",
    ),
    (r"(?i)\b(T" + "ODO|F" + r"IXME|X" + r"XX)\b", "an open end: name its condition in prose, or finish it"),
]


def forbidden(name: str, text: str) -> list[str]:
    return [
        f"{name}:{line_of(text, match.start())}: {match.group(0)!r}: {why}"
        for pattern, why in FORBIDDEN
        for match in re.finditer(pattern, text)
    ]


def broken_links(name: str, text: str, known: set[str]) -> list[str]:
    """Relative links of a Markdown file that lead to no file or folder of the tree; `known`: all files."""
    folders = {str(parent) for path in known for parent in PurePosixPath(path).parents}
    found = []
    for target in re.findall(r"\]\(([^)\s]+)\)", re.sub(r"```.*?```", "", text, flags=re.DOTALL)):
        if re.match(r"[a-z]+:", target) or target.startswith("#"):
            continue
        parts: list[str] = []
        for part in (*PurePosixPath(name).parent.parts, *PurePosixPath(target.partition("#")[0]).parts):
            if part == "..":
                parts = parts[:-1]
            elif part != ".":
                parts.append(part)
        path = "/".join(parts)
        if path not in known and path not in folders:
            found.append(f"{name}: link to {target}")
    return found


def readme_problems(text: str) -> list[str]:
    """The first two fenced blocks are commands, tagged sh, without prompts, for `bash -c` at the root."""
    blocks = fenced_blocks(text)
    if len(blocks) < 2:
        return ["README.md has fewer than two fenced blocks"]
    found = []
    for number, (tag, content) in enumerate(blocks[:2], start=1):
        if tag != "sh":
            found.append(f"README block {number} is tagged {tag!r}, must be 'sh'")
        if re.search(r"^\s*[$>]\s", content, flags=re.MULTILINE):
            found.append(f"README block {number} has a prompt")
        if not 1 <= len(content.splitlines()) <= 4:
            found.append(f"README block {number} has {len(content.splitlines())} lines, must have 1 to 4")
        for script in re.findall(r"^(?:\./)?(tools/\S+)", content, flags=re.MULTILINE):
            if not (ROOT / script).is_file():
                found.append(f"README block {number} runs {script}, which does not exist")
    return found


def test_no_forbidden_words():
    assert [problem for name in files("", *TEXT) for problem in forbidden(name, read(name))] == []


def test_links_resolve():
    known = set(all_files())
    assert [problem for name in files("", ".md") for problem in broken_links(name, read(name), known)] == []


def test_readme_blocks():
    assert readme_problems(read("README.md")) == []


def test_scripts_run_where_they_are_called():
    for name in (*files("tools/", ".sh"), ".ci/run"):
        assert (ROOT / name).stat().st_mode & 0o111, f"{name} is not executable"
        assert read(name).startswith("#!/usr/bin/env bash\n"), name


@pytest.mark.parametrize(
    "text",
    [
        "see /ho" + "me/someone/notes",
        "cd /wo" + "rk/main",
        "from https://pyp" + "i.org/simple",
        "// TO" + "DO later",
    ],
)
def test_a_forbidden_word_is_caught(text):
    assert len(forbidden("a.md", "first line\n" + text)) == 1


def test_a_broken_link_is_caught():
    known = {"README.md", "docs/a.md", "bench/README.md"}
    text = "[a](docs/a.md#part) [b](docs) [c](https://x.org) [d](#here) [e](docs/b.md)\n```\n[f](none.md)\n```\n"
    assert broken_links("README.md", text, known) == ["README.md: link to docs/b.md"]
    assert broken_links("docs/a.md", "[up](../README.md) [wrong](README.md)", known) == ["docs/a.md: link to README.md"]


def test_a_wrong_readme_is_caught():
    assert readme_problems("no block") == ["README.md has fewer than two fenced blocks"]
    problems = readme_problems("```\ntools/none.sh\n```\n```sh\n$ ls\n```\n")
    assert problems == [
        "README block 1 is tagged '', must be 'sh'",
        "README block 1 runs tools/none.sh, which does not exist",
        "README block 2 has a prompt",
    ]
