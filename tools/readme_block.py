"""Prints the N-th fenced block of README.md, so that CI runs what a reader would paste: python3 tools/readme_block.py N"""

import re
import sys
from pathlib import Path

README = Path(__file__).resolve().parent.parent / "README.md"


def fenced_blocks(text: str) -> list[tuple[str, str]]:
    """(tag, content) of every fenced block of a Markdown text, in order."""
    return re.findall(r"^```(\w*)\n(.*?)^```$", text, flags=re.MULTILINE | re.DOTALL)


if __name__ == "__main__":
    number = int(sys.argv[1])
    tag, content = fenced_blocks(README.read_text(encoding="utf-8"))[number - 1]
    if tag != "sh":
        raise SystemExit(f"README block {number} is tagged {tag!r}, must be 'sh'")
    print(content, end="")
