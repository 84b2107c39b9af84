"""Every kind of damage in every region of a checkpoint is noticed, named, and fallen back from; and every check is needed.

The newest checkpoint is damaged, the one before it is whole. Regions are of one rank's file (the header's length, its text,
its padding, a tensor's data, the file as a whole), of the manifest, and of `latest`, which is a hint and whose damage is none.
"""

import ast
import inspect
import itertools
import json
import random
import re
import shutil
import types
from pathlib import Path

import pytest
import torch

from hetsp_ext.checkpoint import _opened, store
from hetsp_ext.checkpoint.store import Target, restore_newest, verify_checkpoint
from tests.support.checkpoints import crc32c, sealed, write_checkpoint

OLD, NEW = "step-0000000001-aa", "step-0000000002-bb"
FILE, OTHER = "rank-00001.safetensors", "rank-00002.safetensors"


def state(step):
    """The same layout at every step, so that a file of an older one fits in size and header."""
    draw = torch.Generator().manual_seed(step)
    return {
        "model.w": torch.randn(90, 8, generator=draw),
        "model.b": torch.randn(60, generator=draw),
        "adam.m": torch.randn(60, generator=draw),
    }


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    folder = tmp_path_factory.mktemp("whole")
    for step, name in enumerate((OLD, NEW), start=1):
        # Rank 0 holds w's first rows and b's... each rank holds as many bytes as any other, so files can be exchanged.
        write_checkpoint(folder / name, state(step), step=step, sequence=step, world=3, cuts={"model.w": [30, 60]})
    (folder / "latest").write_bytes(sealed(NEW.encode()))
    return folder


@pytest.fixture
def folder(whole, tmp_path):
    return shutil.copytree(whole, tmp_path / "c")


def regions(folder):
    """name -> (file, begin, end, names a tensor) of the newest checkpoint."""
    data = (folder / NEW / FILE).read_bytes()
    text = 8 + len(data[8:4096].rstrip(b" "))
    manifest = folder / NEW / "manifest.json"
    size = manifest.stat().st_size
    seal = size - len(manifest.read_bytes().splitlines()[-1]) - 1
    return {
        "header length": (FILE, 0, 8),
        "header": (FILE, 8, text),
        "padding": (FILE, text, 4096),
        "tensor": (FILE, 4096, 4096 + 30 * 8 * 4),
        "second tensor": (FILE, 4096 + 30 * 8 * 4, len(data)),
        "manifest": ("manifest.json", 0, seal),
        "seal": ("manifest.json", seal, size),
    }


def flip(draw, data, begin, end, _):
    at = draw.randrange(begin, end)
    return data[:at] + bytes([data[at] ^ 1 << draw.randrange(8)]) + data[at + 1 :]


def hole(draw, data, begin, end, _):
    at = draw.randrange(begin, end)
    length = min(draw.choice([1, 16, 512]), end - at)
    return data[:at] + bytes(length) + data[at + length :]


def cut(draw, data, begin, end, _):
    return data[: draw.randrange(begin, end)]


def delete(draw, data, begin, end, _):
    at = draw.randrange(begin, end)
    return data[:at] + data[at + draw.randrange(1, 9) :]


def swap(draw, data, begin, end, _):
    length = (end - begin) // 2
    return data[:begin] + data[begin + length : begin + 2 * length] + data[begin : begin + length] + data[begin + 2 * length :]


def grow(draw, data, begin, end, _):
    at = draw.randrange(begin, end + 1)
    return data[:at] + draw.randbytes(draw.choice([1, 8, 4096])) + data[at:]


def older(draw, data, begin, end, old):
    return data[:begin] + old[begin:end] + data[end:]


DAMAGES = [flip, hole, cut, delete, swap, grow, older]
REGIONS = ["header length", "header", "padding", "tensor", "second tensor", "manifest", "seal"]
# Blanks exchanged for blanks, and what an older file of this layout has there, too, are no damage.
SAME = [("padding", swap), ("padding", older), ("header length", older)]


def live():
    return {name: torch.full_like(tensor, 77) for name, tensor in state(1).items()}


def restore(folder):
    tensors = live()
    done = restore_newest(folder, lambda manifest: [Target(name, tensor) for name, tensor in tensors.items()])
    for name, tensor in state(done.step).items():
        assert torch.equal(tensors[name], tensor), name
    return done


def assert_found(folder, file, tensor=None):
    """The damaged file is named with its bytes or its tensor, and the older checkpoint is what is restored."""
    (skip,) = restore(folder).skipped
    assert skip.path.name == NEW
    assert file in skip.reason
    faults = verify_checkpoint(folder / NEW)
    assert {fault.file for fault in faults} == {file}
    if tensor is not None:
        assert tensor in skip.reason
        assert any(tensor in fault.tensors and fault.begin is not None for fault in faults)
    return skip.reason


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize(("region", "damage"), [case for case in itertools.product(REGIONS, DAMAGES) if case not in SAME])
def test_damage_is_named_and_fallen_back_from(folder, region, damage, seed):
    file, begin, end = regions(folder)[region]
    path = folder / NEW / file
    data = path.read_bytes()
    old = (folder / OLD / file).read_bytes()
    draw = random.Random(f"{region} {damage.__name__} {seed}")
    damaged = damage(draw, data, begin, end, old)
    while damaged == data and damage in (hole, delete):
        damaged = damage(draw, data, begin, end, old)
    assert damaged != data
    path.write_bytes(damaged)
    same_place = damage in (flip, hole, swap, older)
    tensor = {"tensor": "model.w", "second tensor": "model.b"}.get(region) if same_place else None
    assert_found(folder, file, tensor)


def test_a_file_that_is_gone(folder):
    (folder / NEW / FILE).unlink()
    assert "No such file" in assert_found(folder, FILE)


def test_an_older_copy_of_a_file(folder):
    shutil.copy(folder / OLD / FILE, folder / NEW / FILE)
    assert "of checkpoint aa, not of bb" in assert_found(folder, FILE)


def test_an_older_copy_of_the_manifest(folder):
    shutil.copy(folder / OLD / "manifest.json", folder / NEW / "manifest.json")
    done = restore(folder)
    assert done.step == 1
    assert [(skip.path.name, "is the file of rank" in skip.reason) for skip in done.skipped] in ([], [(NEW, True)])
    assert verify_checkpoint(folder / NEW)


def test_a_manifest_that_is_gone(folder):
    (folder / NEW / "manifest.json").unlink()
    assert_found(folder, "manifest.json")


def test_files_of_two_ranks_that_changed_places(folder):
    one, two = folder / NEW / FILE, folder / NEW / OTHER
    assert one.stat().st_size == two.stat().st_size
    data = one.read_bytes()
    one.write_bytes(two.read_bytes())
    two.write_bytes(data)
    (skip,) = restore(folder).skipped
    assert re.search(r"is the file of rank [12] of checkpoint bb", skip.reason)
    assert {fault.file for fault in verify_checkpoint(folder / NEW)} == {FILE, OTHER}


def test_a_file_that_is_a_directory(folder):
    (folder / NEW / FILE).unlink()
    (folder / NEW / FILE).mkdir()
    assert_found(folder, FILE)


def test_a_whole_directory_that_is_empty(folder):
    shutil.rmtree(folder / NEW)
    (folder / NEW).mkdir()
    assert_found(folder, "manifest.json")


@pytest.mark.parametrize(
    "content", [None, b"", b"\0" * 40, b"step-9-zz", sealed(OLD.encode()), sealed(b"../../etc"), b"\xff" * 9]
)
def test_damage_to_latest_is_none(folder, content):
    if content is None:
        (folder / "latest").unlink()
    else:
        (folder / "latest").write_bytes(content)
    done = restore(folder)
    assert (done.step, done.skipped) == (2, ())


# Every check is needed: without any single one of them some damage is missed, or named as what it is not.

LIES = {
    "a box missing": lambda m: m["tensors"]["model.w"]["boxes"].pop(),
    "a key of another tensor": lambda m: m["tensors"]["model.b"]["boxes"][0].update(key="model.w"),
    "a key that is nowhere": lambda m: m["tensors"]["model.b"]["boxes"][0].update(key="model.v"),
    "another uid": lambda m: m.update(uid="cc"),
}


def damages(folder):
    """A damaged copy at a time: one for each way in which a checkpoint is told from a whole one."""
    pristine = {path: path.read_bytes() for path in (folder / NEW).iterdir()}
    file, manifest = folder / NEW / FILE, folder / NEW / "manifest.json"
    data, old = file.read_bytes(), (folder / OLD / FILE).read_bytes()

    def lie(change):
        text = manifest.read_bytes()
        content = json.loads(text[: text.rindex(b"crc32c ")])
        change(content)
        manifest.write_bytes(sealed(json.dumps(content).encode()))

    actions = {
        "flip in data": lambda: file.write_bytes(data[:-1] + bytes([data[-1] ^ 1])),
        "flip in padding": lambda: file.write_bytes(data[:4000] + b"\t" + data[4001:]),
        "shorter header": lambda: file.write_bytes((2000).to_bytes(8, "little") + data[8:]),
        "longer header": lambda: file.write_bytes((1 << 40).to_bytes(8, "little") + data[8:]),
        "shorter file": lambda: file.write_bytes(data[:-4]),
        "no file": file.unlink,
        "no manifest": manifest.unlink,
        "older file": lambda: file.write_bytes(old),
        "other rank's file": lambda: shutil.copy(folder / NEW / OTHER, file),
        **{name: (lambda change=change: lie(change)) for name, change in LIES.items()},
    }
    for name, action in actions.items():
        action()
        yield name
        for path, content in pristine.items():
            path.write_bytes(content)


def outcomes(folder):
    """damage -> what restoring says about the newest checkpoint, or the error that it ends in."""
    found = {}
    for name in damages(folder):
        try:
            done = restore(folder)
            found[name] = [re.sub(r"/\S*/", "", skip.reason) for skip in done.skipped]
        except Exception as error:
            found[name] = repr(error)
    return found


class WithoutCheck(ast.NodeTransformer):
    """Takes the n-th `if ...: raise CheckpointCorrupt` or `except ...: raise CheckpointCorrupt` out of a module."""

    def __init__(self, number):
        self.number, self.seen, self.removed = number, 0, None

    def _is_it(self, body):
        statement = body[0]
        raises = isinstance(statement, ast.Raise) and "CheckpointCorrupt" in ast.unparse(statement)
        self.seen += raises
        return raises and self.seen - 1 == self.number

    def visit_If(self, node):
        self.generic_visit(node)
        if self._is_it(node.body):
            self.removed = f"if {ast.unparse(node.test)}"
            node.test = ast.Constant(False)
        return node

    def visit_ExceptHandler(self, node):
        self.generic_visit(node)
        if self._is_it(node.body):
            self.removed = f"except {ast.unparse(node.type)}"
            node.body = [ast.Raise()]
        return node


def module_without(number):
    transformer = WithoutCheck(number)
    tree = ast.fix_missing_locations(transformer.visit(ast.parse(inspect.getsource(_opened))))
    module = types.ModuleType(_opened.__name__)
    module.__package__ = _opened.__package__
    exec(compile(tree, "_opened.py", "exec"), module.__dict__)
    return module, transformer.removed


def test_no_check_of_an_opened_checkpoint_is_superfluous(folder, monkeypatch):
    counter = WithoutCheck(-1)
    counter.visit(ast.parse(inspect.getsource(_opened)))
    assert counter.seen >= 6
    want = outcomes(folder)
    assert all(len(reasons) == 1 for reasons in want.values()), want
    needless = []
    for number in range(counter.seen):
        module, removed = module_without(number)
        monkeypatch.setattr(store, "Opened", module.Opened)
        if outcomes(folder) == want:
            needless.append(removed)
    assert needless == []


def test_the_native_checks_are_needed(folder, monkeypatch):
    """Without the header's hash a tab in the padding passes; without the extents' a bit of the data does."""
    want, file_spec = outcomes(folder), _opened.core.FileSpec

    def missed(changed_spec):
        monkeypatch.setattr(_opened.core, "FileSpec", changed_spec)
        return {name for name, reasons in outcomes(folder).items() if reasons != want[name]}

    def without_header_hash(path, size, header_hash, extents):
        return file_spec(path, size, "", extents)

    def with_the_extents_there_are(path, size, header_hash, extents):
        data = Path(path).read_bytes()
        return file_spec(path, size, header_hash, [(begin, end, crc32c(data[begin:end])) for begin, end, _ in extents])

    assert missed(without_header_hash) == {"flip in padding"}
    assert missed(with_the_extents_there_are) == {"flip in data"}
