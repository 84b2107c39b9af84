"""What torch.distributed.checkpoint keeps beside the tensors, as data: {"bytes": [names], "paths": {name: [keys]} or null}.

`bytes` names the U8 tensors that are no tensors of the program but serialized objects; `paths` is the default planner's map
from flattened names to the keys of the nested state, by which it is put together again.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ..errors import CheckpointCorrupt, InvalidArgument

Key = str | int


@dataclass(frozen=True)
class PlannerData:
    """See the module's comment; a manifest without any has no bytes and no paths."""

    bytes: frozenset[str] = frozenset()
    paths: dict[str, tuple[Key, ...]] | None = None

    @classmethod
    def of_planner(cls, bytes_: frozenset[str], planner_data: Any) -> PlannerData:
        """From the planner_data of a torch.distributed.checkpoint Metadata.

        Raises InvalidArgument for what other planners than the default one may put there: pickling it would make the
        manifest a program.
        """
        if planner_data is None:
            return cls(bytes_)
        if not isinstance(planner_data, dict):
            raise InvalidArgument(f"planner_data is a {type(planner_data).__name__}; allowed: a dict of names to paths, None")
        for name, path in planner_data.items():
            if not _is_path(name, path, tuple):
                raise InvalidArgument(f"planner_data[{name!r}] is {path!r}; allowed: a tuple of str and int under a str")
        return cls(bytes_, dict(planner_data))

    def to_json(self) -> Any:
        """For the manifest."""
        paths = None if self.paths is None else {name: list(path) for name, path in self.paths.items()}
        return {"bytes": sorted(self.bytes), "paths": paths}

    @classmethod
    def from_json(cls, where: str, value: Any, tensors: Any) -> PlannerData:
        """Reads to_json's; CheckpointCorrupt naming `where` unless it is of that form, with names of `tensors` in `bytes`."""
        if value is None:
            return cls()
        if not isinstance(value, dict) or set(value) != {"bytes", "paths"}:
            raise CheckpointCorrupt(f"{where}: planner_data must be an object of bytes and paths")
        names, paths = value["bytes"], value["paths"]
        if not isinstance(names, list) or not all(isinstance(name, str) and name in tensors for name in names):
            raise CheckpointCorrupt(f"{where}: planner_data.bytes must list tensors")
        if any(tensors[name].dtype != "U8" or len(tensors[name].shape) != 1 for name in names):
            raise CheckpointCorrupt(f"{where}: planner_data.bytes must list tensors of type U8 with one dimension")
        if paths is None:
            return cls(frozenset(names))
        if not isinstance(paths, dict) or not all(_is_path(name, path, list) for name, path in paths.items()):
            raise CheckpointCorrupt(f"{where}: planner_data.paths must map names to lists of strings and integers")
        return cls(frozenset(names), {name: tuple(path) for name, path in paths.items()})


def _is_path(name: Any, path: Any, kind: type[list[Any]] | type[tuple[Any, ...]]) -> bool:
    return isinstance(name, str) and isinstance(path, kind) and all(type(key) in (str, int) for key in path)
