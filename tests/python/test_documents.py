"""Documents: cut and counted, dealt alike on every rank, read by ranges."""

import json
import re
from collections import Counter
from pathlib import Path

import pytest
import torch

from hetsp_ext.documents import FolderSource, SequenceSource, StepSequences, standard_library
from hetsp_ext.errors import InvalidArgument


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Files of 1 ... 700 distinct-looking bytes, an empty one, a binary one, and places that are passed over."""
    for index, size in enumerate([1, 2, 63, 64, 65, 128, 129, 700]):
        path = tmp_path / ("deep" if index % 2 else "") / f"{index}.txt"
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(bytes((7 * index + position) % 250 + 1 for position in range(size)))
    (tmp_path / "empty.txt").touch()
    (tmp_path / "image.txt").write_bytes(b"\x89PNG\0\0")
    for hidden in (".git", "site-packages", "__pycache__"):
        (tmp_path / hidden).mkdir()
        (tmp_path / hidden / "passed_over.txt").write_text("not data")
    return tmp_path


def contents(source: FolderSource, steps: int) -> list[bytes]:
    documents = []
    for step in range(steps):
        view = StepSequences(source, step)
        documents += [bytes(view.read(i, 0, n)["tokens"].tolist()) for i, n in enumerate(view.lengths)]
    return documents


def test_every_byte_is_dealt_once_an_epoch(folder: Path) -> None:
    source = FolderSource(folder, max_length=64, batch_tokens=100)
    assert isinstance(source, SequenceSource)
    assert source.files == 8
    assert source.files_cut == 4
    assert source.files_passed_over == 2
    assert source.tokens == 1 + 2 + 63 + 64 + 65 + 128 + 129 + 700
    assert source.documents == 1 + 1 + 1 + 1 + 2 + 2 + 3 + 11
    files = [path.read_bytes() for path in folder.glob("**/[0-9].txt")]
    expected = Counter(data[begin : begin + 64] for data in files for begin in range(0, len(data), 64))
    # Whole epochs later every document has been dealt equally often, up to those still waiting for a batch that has room.
    dealt = Counter(contents(source, 400))
    epochs = sum(dealt.values()) / source.documents
    assert epochs > 10
    assert set(dealt) == set(expected)
    assert all(abs(dealt[document] / expected[document] - epochs) <= 3 for document in expected)


@pytest.mark.parametrize("step", [0, 1, 7, 40, 173])
def test_a_position_goes_on_where_another_source_stopped(folder: Path, step: int) -> None:
    whole = FolderSource(folder, max_length=64, batch_tokens=100, seed=3)
    expected = [whole._batch(each) for each in range(step + 30)]
    position = json.loads(json.dumps(whole.position(step)))
    assert len(position["waiting"]) <= 8, "a position does not grow with the steps"
    resumed = FolderSource(folder, max_length=64, batch_tokens=100, seed=3)
    resumed.start_at(position)
    assert [resumed._batch(each) for each in range(step, step + 30)] == expected[step:]
    assert resumed.position(step + 30) == whole.position(step + 30)
    assert resumed._batch(0) == expected[0], "earlier steps are dealt again"
    assert resumed._batch(step + 3) == expected[step + 3]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"step": -1}, "position has step -1"),
        ({"drawn": 2.0}, "drawn 2.0"),
        ({"waiting": [22]}, "must be a list of documents below 22"),
        ({"waiting": None}, "waits for None"),
    ],
)
def test_what_is_no_position_is_refused(folder: Path, change: dict[str, object], message: str) -> None:
    source = FolderSource(folder, max_length=64, batch_tokens=100)
    before = source._batch(5)
    with pytest.raises(InvalidArgument, match=re.escape(message)):
        source.start_at({"step": 1, "drawn": 5, "waiting": []} | change)
    assert source._batch(5) == before


def test_batches_are_full_and_within_the_limit(folder: Path) -> None:
    source = FolderSource(folder, max_length=64, batch_tokens=200)
    sizes = [sum(source.lengths(step)) for step in range(50)]
    assert max(sizes) <= 200
    assert sum(sizes) >= 0.8 * 50 * 200


def test_ranks_agree_whatever_they_ask_first(folder: Path) -> None:
    one, other = (FolderSource(folder, max_length=64, batch_tokens=128, seed=5) for _ in range(2))
    late = one.lengths(30)
    assert [other.lengths(step) for step in range(31)] == [one.lengths(step) for step in range(31)]
    assert other.lengths(30) == late
    assert one.fingerprint() == other.fingerprint()


def test_seed_and_epoch_change_the_order(folder: Path) -> None:
    order = [contents(FolderSource(folder, max_length=64, batch_tokens=700, seed=seed), 4) for seed in (0, 1)]
    assert order[0] != order[1]
    source = FolderSource(folder, max_length=700, batch_tokens=10_000)
    per_epoch = source.documents
    drawn = contents(source, 3)
    assert drawn[:per_epoch] != drawn[per_epoch : 2 * per_epoch]
    assert Counter(drawn[:per_epoch]) == Counter(drawn[per_epoch : 2 * per_epoch])


def test_read_returns_the_range_and_reads_no_more(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = FolderSource(folder, max_length=300, batch_tokens=300)
    step = next(step for step in range(50) if 300 in source.lengths(step))
    index = source.lengths(step).index(300)
    whole = source.read((step, index), 0, 300)["tokens"]
    asked: list[int] = []

    class Recorder:
        def __init__(self, file: object) -> None:
            self.file = file

        def __enter__(self) -> "Recorder":
            return self

        def __exit__(self, *_: object) -> None:
            self.file.close()

        def seek(self, offset: int) -> None:
            self.file.seek(offset)

        def read(self, size: int = -1) -> bytes:
            asked.append(size)
            return self.file.read(size)

    real_open = open
    monkeypatch.setattr("builtins.open", lambda *args, **kwargs: Recorder(real_open(*args, **kwargs)))
    part = source.read((step, index), 17, 91)["tokens"]
    assert asked == [74]
    assert part.dtype == torch.int64
    assert torch.equal(part, whole[17:91])
    assert source.read((step, index), 300, 300)["tokens"].shape == (0,)


def test_the_standard_library_is_data() -> None:
    source = FolderSource(standard_library(), "*.py")
    assert source.documents > 500
    assert source.files_cut > 0
    lengths = source.lengths(0)
    assert 0.9 * 32768 <= sum(lengths) <= 32768
    assert max(lengths) <= 16384


def test_errors_name_the_value(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    empty = tmp_path_factory.mktemp("empty")
    with pytest.raises(InvalidArgument, match="is not a folder"):
        FolderSource(folder / "0.txt")
    with pytest.raises(InvalidArgument, match="holds no text: 0 files match"):
        FolderSource(empty)
    (empty / "a.txt").touch()
    with pytest.raises(InvalidArgument, match="holds no text: 1 files match"):
        FolderSource(empty)
    with pytest.raises(InvalidArgument, match="batch_tokens is 10, less than max_length 20"):
        FolderSource(folder, max_length=20, batch_tokens=10)
    with pytest.raises(InvalidArgument, match="max_length is 0"):
        FolderSource(folder, max_length=0)
    source = FolderSource(folder, max_length=64, batch_tokens=64)
    with pytest.raises(InvalidArgument, match="no field 'images'"):
        source.read((0, 0), 0, 1, ["tokens", "images"])
    with pytest.raises(InvalidArgument, match="sequence 99 of step 0"):
        source.read((0, 99), 0, 1)
    with pytest.raises(InvalidArgument, match=r"range \[0, 65\)"):
        source.read((0, 0), 0, 65)
    with pytest.raises(InvalidArgument, match="step is -1"):
        source.lengths(-1)


def test_files_that_change_or_refuse_are_named(folder: Path) -> None:
    source = FolderSource(folder, "7.txt", max_length=700, batch_tokens=700)
    (folder / "deep" / "7.txt").write_bytes(b"short now")
    with pytest.raises(InvalidArgument, match=r"7\.txt' has become shorter than the 700 bytes"):
        source.read((0, 0), 0, 700)
    (folder / "deep" / "7.txt").unlink()
    with pytest.raises(InvalidArgument, match=r"7\.txt' cannot be read: No such file"):
        source.read((0, 0), 0, 700)


def test_an_unreadable_file_is_named(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real_open = open

    def refuse(path: Path, *args: object) -> object:  # root reads every file, so a mode of 000 would not refuse everywhere
        if Path(path).name == "0.txt":
            raise PermissionError(13, "Permission denied", str(path))
        return real_open(path, *args)

    monkeypatch.setattr("builtins.open", refuse)
    with pytest.raises(InvalidArgument, match=r"0\.txt' cannot be read: Permission denied"):
        FolderSource(folder)
