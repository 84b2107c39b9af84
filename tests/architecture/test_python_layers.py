"""Who may import whom inside hetsp_ext, and that every public name explains itself."""

import ast
import re
from pathlib import PurePosixPath

import pytest

from tests.architecture.tree import files, read

PACKAGE = "python/hetsp_ext/"

# Part (first component below hetsp_ext) -> parts it may import beside itself. Lower parts never import higher ones: the ops
# work without the planner, the planner without torch.distributed, and all of it without transformers or the command line.
LAYERS = {
    "errors": (),
    "_native": (),
    "capability": ("errors", "_native"),
    "attention": ("errors", "_native"),
    "kernels": ("errors", "_native", "attention"),
    "planner": ("errors", "_native"),
    "simulator": ("errors", "_native", "planner"),
    "calibration": ("errors", "planner", "simulator"),
    "lp": ("errors", "_native"),
    "checkpoint": ("errors", "_native"),
    "distributed": ("errors", "_c10d"),
    "documents": ("errors",),
    "runqueue": (),
    "sequence_parallel": ("errors", "_native", "attention", "planner", "documents", "runqueue"),
    "loss": ("errors", "planner", "sequence_parallel"),
}
# These parts are what a user could have written: they may import the package as a user would, and any part.
USERS = ("__init__", "__main__", "cli", "integrations", "train", "doctor", "device_trial", "trace", "timeline")


def part_of(path: str) -> str:
    return PurePosixPath(path.removeprefix(PACKAGE)).parts[0].removesuffix(".py")


def imported_parts(path: str, text: str) -> set[str]:
    """Parts of hetsp_ext that a module imports, wherever in it; "hetsp_ext" itself is the part "__init__"."""
    package = ["hetsp_ext", *PurePosixPath(path.removeprefix(PACKAGE)).parent.parts]
    found = set()
    for node in ast.walk(ast.parse(text)):
        names = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = ".".join(package[: len(package) - node.level + 1]) if node.level else ""
            module = ".".join(filter(None, (base, node.module)))
            names = [f"{module}.{alias.name}" for alias in node.names] if module == "hetsp_ext" else [module]
        for name in names:
            if name == "hetsp_ext" or name.startswith("hetsp_ext."):
                found.add(name.split(".")[1] if "." in name else "__init__")
    return found


def violations(path: str, text: str) -> list[str]:
    part = part_of(path)
    if part in USERS:
        return []
    if part not in LAYERS:
        return [f"{path}: {part} has no row in tests/architecture/test_python_layers.py: say what it may import"]
    wrong = imported_parts(path, text) - {part, *LAYERS[part]}
    return [f"{path}: imports {other}; {part} may import {', '.join(LAYERS[part]) or 'nothing'}" for other in sorted(wrong)]


def undocumented(path: str, text: str) -> list[str]:
    """Names of __all__ that are defined in this module without a docstring, and modules without one."""
    tree = ast.parse(text)
    found = [] if ast.get_docstring(tree) else [f"{path}: no module docstring"]
    public: list[str] = []
    for node in tree.body:
        if isinstance(node, ast.Assign) and any(isinstance(t, ast.Name) and t.id == "__all__" for t in node.targets):
            public = [element.value for element in ast.walk(node.value) if isinstance(element, ast.Constant)]
    for node in tree.body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef) and node.name in public and not ast.get_docstring(node):
            found.append(f"{path}: {node.name} is public and has no docstring")
    return found


def test_lower_parts_do_not_import_higher_ones():
    assert [problem for path in files(PACKAGE, ".py") for problem in violations(path, read(path))] == []


def test_public_names_have_docstrings():
    assert [problem for path in files(PACKAGE, ".py") for problem in undocumented(path, read(path))] == []


def test_every_public_name_of_the_package_exists_and_explains_itself():
    import hetsp_ext

    assert len(set(hetsp_ext.__all__)) == len(hetsp_ext.__all__)
    for name in hetsp_ext.__all__:
        value = getattr(hetsp_ext, name)
        assert isinstance(value, str) or (getattr(value, "__doc__", None) or "").strip(), f"hetsp_ext.{name} has no docstring"


def test_every_public_name_of_the_package_is_on_a_page():
    import hetsp_ext

    pages = "\n".join(map(read, ["README.md", *files("docs/", ".md")]))
    names = [name for name in hetsp_ext.__all__ if name != "__version__"]
    assert [name for name in names if not re.search(rf"(hetsp\.|hetsp_ext\.|`){name}\b", pages)] == []


@pytest.mark.parametrize(
    ("path", "text", "part"),
    [
        ("attention/ops.py", "from hetsp_ext.train import main", "imports train"),
        ("attention/ops.py", "from ..planner import plan", "imports planner"),
        ("attention/ops.py", "def f():\n    from .. import planner", "imports planner"),
        ("planner/plan.py", "import hetsp_ext", "imports __init__"),
        ("errors.py", "from . import _native", "imports _native"),
        ("novel.py", "", "novel has no row"),
    ],
)
def test_a_wrong_import_is_caught(path, text, part):
    (problem,) = violations(PACKAGE + path, text)
    assert part in problem


def test_an_allowed_import_passes():
    assert (
        violations(PACKAGE + "attention/ops.py", "import torch\nfrom .fake import x\nfrom ..errors import InvalidArgument")
        == []
    )
    assert violations(PACKAGE + "cli/plan.py", "import hetsp_ext") == []


def test_a_missing_docstring_is_caught():
    text = '"""Module."""\n__all__ = ["f", "G"]\ndef f(): pass\nclass G: pass\ndef private(): pass\n'
    assert len(undocumented("a.py", text)) == 2
    assert undocumented("a.py", "x = 1\n") == ["a.py: no module docstring"]
