"""`hetsp checkpoint`: what a folder of checkpoints holds, whether it is whole, and its tensors for other programs."""

import argparse
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import InvalidArgument

if TYPE_CHECKING:
    from ..checkpoint.store import CheckpointInfo

DESCRIPTION = """Looks at the checkpoints of hetsp.LazyCheckpointer, of `hetsp train --checkpoint-dir` and of the
torch.distributed.checkpoint plug. DIR is a folder of checkpoints, or one of them. Nothing in it is changed; a training run may
go on saving there. Exit status 1 where a checkpoint is faulty, 2 where there is none."""
FAULTS_SHOWN = 5  # of a checkpoint, to people; --json has all


def add_parser(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    parser = subparsers.add_parser("checkpoint", help="list, verify or export checkpoints", description=DESCRIPTION)
    actions = parser.add_subparsers(title="actions", dest="action", required=True, metavar="ACTION")
    ls = actions.add_parser("ls", help="list them, newest first", description=ls_.__doc__)
    verify = actions.add_parser("verify", help="read every byte and compare it with its checksum", description=verify_.__doc__)
    export = actions.add_parser("export", help="write whole tensors as model.safetensors", description=export_.__doc__)
    for action in (ls, verify, export):
        action.add_argument("dir", type=Path, metavar="DIR", help="a folder of checkpoints, or one checkpoint")
        action.add_argument("--json", action="store_true", help="one JSON object a checkpoint: step, path, ok, faults, ...")
    verify.add_argument("--step", type=int, metavar="N", help="only the checkpoint of this step (default: all)")
    export.add_argument("--step", type=int, metavar="N", help="the checkpoint of this step (default: the newest)")
    export.add_argument("--out", type=Path, required=True, metavar="DIR", help="folder to make, or an empty one")
    export.add_argument(
        "--prefix",
        default="",
        help="only tensors whose names begin with this, which is taken off: 'model.' gives the weights of `hetsp train`",
    )


def run(args: argparse.Namespace) -> int:
    return {"ls": ls_, "verify": verify_, "export": export_}[args.action](args)


def ls_(args: argparse.Namespace) -> int:
    """Lists checkpoints, newest first. Manifests, headers and the sizes of the files are checked; the data is not read."""
    return tell(args, [(info, outer_faults(info)) for info in found(args)])


def outer_faults(info: "CheckpointInfo") -> list[str]:
    """What is wrong with a checkpoint as far as its manifest and its files' sizes and headers tell."""
    from ..checkpoint._opened import Opened
    from ..errors import CheckpointCorrupt

    if info.fault is not None:
        return [info.fault]
    faults = []
    try:
        opened = Opened(info.path)
        for index in range(len(opened.manifest.files)):
            try:
                opened.header(index)
            except CheckpointCorrupt as error:
                faults.append(str(error))
    except CheckpointCorrupt as error:  # it was whole a moment ago
        faults.append(str(error))
    return faults


def verify_(args: argparse.Namespace) -> int:
    """Reads every byte of every checkpoint and compares it with the checksums in its manifest; names file, bytes and tensors
    of each fault."""
    from ..checkpoint.store import verify_checkpoint

    return tell(args, [(info, list(map(str, verify_checkpoint(info.path)))) for info in found(args)])


def export_(args: argparse.Namespace) -> int:
    """Writes the tensors of a checkpoint whole, whatever ranks they were saved by, as model.safetensors with an index: the
    layout of the Hugging Face hub. Every byte is verified on the way."""
    from ..checkpoint.store import export

    every = found(args)
    readable = [info for info in every if info.fault is None]
    if not readable:
        return tell(args, [(info, outer_faults(info)) for info in every])
    for info in every[: every.index(readable[0])]:
        print(f"hetsp checkpoint: {info.path} is passed over: {info.fault}", file=sys.stderr)
    files = export(readable[0].path, args.out, prefix=args.prefix)
    written = {"files": [str(file) for file in files]}
    if args.json:
        print(json.dumps(record(readable[0], []) | written))
    else:
        print("\n".join([f"step {readable[0].step} of {readable[0].path}:", *written["files"]]))
    return 0


def found(args: argparse.Namespace) -> "list[CheckpointInfo]":
    """The checkpoints that the request is about; InvalidArgument where there is none."""
    from ..checkpoint.store import list_checkpoints

    every = list_checkpoints(args.dir)
    if not every:
        raise InvalidArgument(f"{args.dir} holds no checkpoint" if args.dir.is_dir() else f"{args.dir} is not a folder")
    step = getattr(args, "step", None)
    chosen = [info for info in every if step is None or info.step == step]
    if not chosen:
        steps = ", ".join(str(info.step) for info in every if info.step is not None)
        raise InvalidArgument(f"--step is {step}; {args.dir} has checkpoints of steps {steps or 'that cannot be read'}")
    return chosen


def record(info: "CheckpointInfo", faults: list[str]) -> dict[str, Any]:
    return {
        "step": info.step,
        "path": str(info.path),
        "ok": not faults,
        "faults": faults,
        "sequence": info.sequence,
        "ranks": info.world,
        "bytes": info.bytes,
    }


def tell(args: argparse.Namespace, verdicts: "list[tuple[CheckpointInfo, list[str]]]") -> int:
    """Prints what was found of each, and gives the exit status."""
    if args.json:
        for info, faults in verdicts:
            print(json.dumps(record(info, faults)))
    else:
        rows = [("step", "ranks", "size", "verdict", "path")]
        for info, faults in verdicts:
            size = "?" if info.bytes is None else f"{info.bytes / 1e9:.3f} GB"
            verdict = f"{len(faults)} fault{'s' if len(faults) > 1 else ''}" if faults else "ok"
            rows.append((shown(info.step), shown(info.world), size, verdict, str(info.path)))
        widths = [max(len(row[column]) for row in rows) for column in range(4)]
        for row, (_, faults) in zip(rows, [(None, []), *verdicts], strict=True):
            cells = [cell.rjust(width) for cell, width in zip(row, widths, strict=False)]
            print("  ".join([*cells, row[-1]]))
            for fault in faults[:FAULTS_SHOWN]:
                print(f"    {fault}")
            if len(faults) > FAULTS_SHOWN:
                print(f"    and {len(faults) - FAULTS_SHOWN} more")
    return 1 if any(faults for _, faults in verdicts) else 0


def shown(number: int | None) -> str:
    return "?" if number is None else str(number)
