"""Where the documents of a step come from, without reading more of them than a rank needs.

A source knows the lengths of a step's sequences before it reads a byte, so a step is planned first and each rank then reads
only the token ranges that the plan gives it.
"""

import hashlib
import os
import random
import sysconfig
from bisect import bisect_right
from collections.abc import Iterator, Mapping, Sequence
from itertools import accumulate
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import torch

from .errors import InvalidArgument

__all__ = ["FolderSource", "SequenceSource", "StepSequences", "standard_library"]

# A batch is topped up with later documents that still fit; after this many that do not, it is closed.
MISFITS_PER_BATCH = 8
# A file with a NUL byte in its first kibibyte is not text: the rule of git and grep.
TEXT_PROBE_BYTES = 1024
SKIPPED_FOLDERS = frozenset({"__pycache__", "dist-packages", "site-packages"})


@runtime_checkable
class SequenceSource(Protocol):
    """Sequences by step. Every rank holds one, built alike; equal arguments give equal answers on every rank."""

    def lengths(self, step: int) -> list[int]:
        """Tokens of each sequence of a step (counted from 0), known without reading the sequences."""
        ...

    def read(self, sequence: tuple[int, int], begin: int, end: int, fields: Sequence[str]) -> dict[str, torch.Tensor]:
        """The positions [begin, end) of the sequence (step, index): per field a tensor whose first dimension is end - begin."""
        ...


class StepSequences:
    """The sequences of one step of a source, as `hetsp_ext.shard` takes them."""

    def __init__(self, source: SequenceSource, step: int) -> None:
        self.source = source
        self.step = step
        self.lengths = source.lengths(step)

    def __len__(self) -> int:
        return len(self.lengths)

    def read(self, sequence: int, begin: int, end: int, fields: Sequence[str] = ("tokens",)) -> dict[str, torch.Tensor]:
        """The positions [begin, end) of the step's sequence `sequence`; see SequenceSource.read."""
        return self.source.read((self.step, sequence), begin, end, fields)


class FolderSource:
    """The text files of a folder as byte tokens (0 ... 255), one document a file.

    A file longer than `max_length` becomes several documents of that length and a rest; nothing is dropped. Documents are
    shuffled anew each epoch and dealt to steps in that order; one that does not fit into its batch any more opens the next.
    The order depends on the seed, the files' relative names and their sizes alone.

    Args:
        folder: searched with its subfolders; hidden ones, site-packages and files that are not text are passed over.
        pattern: glob for the files' names, such as "*.txt".
        max_length: tokens of the longest document.
        batch_tokens: most tokens of one step; at least max_length.
        seed: of the shuffles.

    Attributes:
        files, documents, tokens: what the folder holds, after cutting.
        files_cut: files longer than max_length.
        files_passed_over: empty files and files that are not text.

    Raises:
        InvalidArgument: no such folder, no text in it, a file that cannot be read, or a limit that is not positive.
    """

    def __init__(
        self, folder: str | Path, pattern: str = "*", *, max_length: int = 16384, batch_tokens: int = 32768, seed: int = 0
    ) -> None:
        if max_length < 1:
            raise InvalidArgument(f"max_length is {max_length} tokens; at least 1 is needed")
        if batch_tokens < max_length:
            raise InvalidArgument(
                f"batch_tokens is {batch_tokens}, less than max_length {max_length}: a document of that length fits no batch"
            )
        self.folder = Path(folder)
        self.max_length = max_length
        self.batch_tokens = batch_tokens
        self.seed = seed
        self._names: list[str] = []
        self._sizes: list[int] = []
        self.files_passed_over = 0
        self._scan(pattern)
        pieces = [-(-size // max_length) for size in self._sizes]
        self._first_document = list(accumulate(pieces, initial=0))
        self.files = len(self._names)
        self.documents = self._first_document[-1]
        self.tokens = sum(self._sizes)
        self.files_cut = sum(count > 1 for count in pieces)
        self.start_at({"step": 0, "drawn": 0, "waiting": []})

    def _scan(self, pattern: str) -> None:
        if not self.folder.is_dir():
            raise InvalidArgument(f"data folder {str(self.folder)!r} is not a folder")
        paths = sorted(path.relative_to(self.folder).as_posix() for path in walk(self.folder) if path.match(pattern))
        for name in paths:
            try:
                size = os.stat(self.folder / name).st_size
                with open(self.folder / name, "rb") as file:
                    text = size > 0 and b"\0" not in file.read(TEXT_PROBE_BYTES)
            except OSError as error:
                raise InvalidArgument(f"data file {str(self.folder / name)!r} cannot be read: {error.strerror}") from error
            if text:
                self._names.append(name)
                self._sizes.append(size)
            else:
                self.files_passed_over += 1
        if not self._names:
            raise InvalidArgument(
                f"data folder {str(self.folder)!r} holds no text: {len(paths)} files match {pattern!r}, all empty or binary"
            )

    def position(self, step: int) -> dict[str, Any]:
        """Where the documents of `step` begin, for `start_at`: plain values, as few after many steps as after none."""
        self._batch(step)
        drawn, waiting = self._begins[step - self._first_step]
        return {"step": step, "drawn": drawn, "waiting": list(waiting)}

    def start_at(self, position: Mapping[str, Any]) -> None:
        """Goes on from a `position` of a source with the same fingerprint, without dealing the steps before it.

        Earlier steps can still be asked for; they are then dealt from the first.

        Raises:
            InvalidArgument: no position of this source.
        """
        step: Any = position.get("step")
        drawn: Any = position.get("drawn")
        waiting: Any = position.get("waiting")
        if not all(type(count) is int and count >= 0 for count in (step, drawn)):
            raise InvalidArgument(f"position has step {step!r}, drawn {drawn!r}; both must be integers of at least 0")
        if not isinstance(waiting, list) or not all(type(item) is int and 0 <= item < self.documents for item in waiting):
            raise InvalidArgument(f"position waits for {waiting!r}, must be a list of documents below {self.documents}")
        self._first_step: int = step
        self._drawn: int = drawn  # from the stream, since the first epoch
        self._waiting: list[int] = list(waiting)  # drawn from the stream, not yet in a batch
        self._stream = self._shuffled(*divmod(drawn, self.documents))
        self._batches: list[list[int]] = []  # of _first_step and later
        self._begins: list[tuple[int, list[int]]] = []  # (drawn, waiting) before each of _batches

    def _shuffled(self, epoch: int, skipped: int) -> Iterator[int]:
        while True:
            order = list(range(self.documents))
            random.Random(f"{self.seed}/{epoch}").shuffle(order)
            yield from order[skipped:]
            epoch, skipped = epoch + 1, 0

    def _document(self, document: int) -> tuple[int, int, int]:
        """(file, its first byte, tokens) of a document."""
        file = bisect_right(self._first_document, document) - 1
        begin = (document - self._first_document[file]) * self.max_length
        return file, begin, min(self.max_length, self._sizes[file] - begin)

    def _draw(self) -> int:
        self._drawn += 1
        return next(self._stream)

    def _next_batch(self) -> list[int]:
        batch: list[int] = []
        room = self.batch_tokens
        misfits: list[int] = []
        waiting, self._waiting = self._waiting, []
        while room > 0 and len(misfits) < MISFITS_PER_BATCH:
            document = waiting.pop(0) if waiting else self._draw()
            tokens = self._document(document)[2]
            if tokens <= room:
                batch.append(document)
                room -= tokens
            else:
                misfits.append(document)
        self._waiting = misfits + waiting
        return batch

    def _batch(self, step: int) -> list[int]:
        if step < 0:
            raise InvalidArgument(f"step is {step}; steps are counted from 0")
        if step < self._first_step:
            self.start_at({"step": 0, "drawn": 0, "waiting": []})
        while len(self._batches) <= step - self._first_step:
            self._begins.append((self._drawn, list(self._waiting)))
            self._batches.append(self._next_batch())
        return self._batches[step - self._first_step]

    def lengths(self, step: int) -> list[int]:
        """Tokens of each document of a step (counted from 0)."""
        return [self._document(document)[2] for document in self._batch(step)]

    def read(
        self, sequence: tuple[int, int], begin: int, end: int, fields: Sequence[str] = ("tokens",)
    ) -> dict[str, torch.Tensor]:
        """Field "tokens": int64 [end - begin], each in 0 ... 255. Reads these bytes of the file and no others."""
        unknown = [field for field in fields if field != "tokens"]
        if unknown:
            raise InvalidArgument(f"a folder of text has no field {unknown[0]!r}; it has: 'tokens'")
        step, index = sequence
        batch = self._batch(step)
        if not 0 <= index < len(batch):
            raise InvalidArgument(f"sequence {index} of step {step} does not exist; that step has {len(batch)}")
        file, first, tokens = self._document(batch[index])
        if not 0 <= begin <= end <= tokens:
            raise InvalidArgument(
                f"range [{begin}, {end}) is not within the {tokens} tokens of sequence {index} of step {step}"
            )
        path = self.folder / self._names[file]
        try:
            with open(path, "rb") as stream:
                stream.seek(first + begin)
                data = stream.read(end - begin)
        except OSError as error:
            raise InvalidArgument(f"data file {str(path)!r} cannot be read: {error.strerror}") from error
        if len(data) != end - begin:
            raise InvalidArgument(
                f"data file {str(path)!r} has become shorter than the {self._sizes[file]} bytes it had at the start"
            )
        return {
            "tokens": torch.frombuffer(bytearray(data), dtype=torch.uint8).long() if data else torch.empty(0, dtype=torch.long)
        }

    def fingerprint(self) -> str:
        """Equal on two ranks if and only if they deal the same documents to the same steps."""
        state = [self.seed, self.max_length, self.batch_tokens, *zip(self._names, self._sizes, strict=True)]
        return hashlib.sha256(repr(state).encode()).hexdigest()


def walk(folder: Path) -> Iterator[Path]:
    """The regular files below a folder, without hidden ones and installed packages."""

    def fail(error: OSError) -> None:
        raise InvalidArgument(f"data folder {error.filename!r} cannot be read: {error.strerror}") from error

    for parent, folders, names in os.walk(folder, onerror=fail):
        folders[:] = [name for name in folders if not name.startswith(".") and name not in SKIPPED_FOLDERS]
        yield from (path for name in names if not name.startswith(".") and (path := Path(parent, name)).is_file())


def standard_library() -> Path:
    """The folder of the running Python's own standard library: text that every machine has."""
    return Path(sysconfig.get_path("stdlib"))
