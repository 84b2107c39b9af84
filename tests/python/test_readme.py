"""The README's Python runs as a reader would paste it, one block after the other into one session."""

from tests.architecture.tree import read
from tools.readme_block import fenced_blocks


def test_the_python_of_the_readme_runs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # one block makes a folder
    blocks = [content for tag, content in fenced_blocks(read("README.md")) if tag == "python"]
    assert len(blocks) >= 2
    session: dict = {}
    for number, block in enumerate(blocks, start=1):
        exec(compile(block, f"README.md, Python block {number}", "exec"), session)
    assert session["first"] is None
    assert len(list((tmp_path / "checkpoints").glob("step-*"))) == 2
    for block in blocks[1:]:  # pasted again, it goes on where it ended
        exec(compile(block, "README.md, again", "exec"), session)
    assert session["first"] == 9
