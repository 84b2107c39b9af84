"""`hetsp simulate`: replays plans on a described cluster, and shows who computes, communicates and waits."""

import argparse
import json
from pathlib import Path
from typing import Any

from ..errors import InvalidArgument
from ..planner import Plan, plan, preset, presets
from ..simulator import figures, lanes, simulate
from .plan import read_lengths


def add_parser(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    parser = subparsers.add_parser("simulate", help="replay plans on a described cluster", description=__doc__)
    parser.add_argument("--preset", metavar="NAME", help="cost model and cluster: " + ", ".join(p.name for p in presets()))
    parser.add_argument("--gpus", type=int, metavar="N", help="ranks")
    work = parser.add_mutually_exclusive_group()
    work.add_argument("--lengths", metavar="1,2,3|FILE", help="tokens of each sequence of a step, as in `hetsp plan`")
    work.add_argument(
        "--plans", type=Path, metavar="FILE", help="plans to replay, one JSON object of `hetsp plan --json` a line"
    )
    parser.add_argument("--first", type=int, metavar="N", help="only the first N lengths")
    parser.add_argument("--max-length", type=int, metavar="TOKENS", help="context of the model (default: the longest sequence)")
    parser.add_argument("--strategy", default="auto", help="that plans the lengths, as in `hetsp plan`")
    parser.add_argument("--synchronisation", choices=("step", "micro_batch", "layer"), default="layer", help="where ranks wait")
    parser.add_argument("--no-overlap", action="store_true", help="computation hides no hop of a ring")
    parser.add_argument("--no-contention", action="store_true", help="messages do not share links")
    parser.add_argument("--routing", choices=("own-nic", "all-nics"), default="own-nic", help="of messages to other nodes")
    parser.add_argument("--json", action="store_true", help="one JSON object a plan")
    parser.add_argument("--draw", type=Path, metavar="FILE", help="timeline of the first plan, .svg or .json (a Chrome trace)")


def run(args: argparse.Namespace) -> int:
    if args.draw and args.draw.suffix not in (".svg", ".json"):
        raise InvalidArgument(f"--draw {args.draw}: must end in .svg or .json")
    if args.preset is None:
        raise InvalidArgument("--preset is missing; allowed: " + ", ".join(p.name for p in presets()))
    setting = preset(args.preset)
    for number, made in enumerate(plans_of(args, setting)):
        timeline = simulate(
            made,
            setting.cost_model,
            ranks_per_node=setting.ranks_per_node,
            overlap=setting.overlaps and not args.no_overlap,
            contention=not args.no_contention,
            routing=args.routing,
        )
        if args.json:
            record = {
                "plan": number,
                "digest": made.digest,
                "predicted": made.makespan,
                **figures(timeline),
                "busy_seconds": timeline.busy,
                "communication_seconds": timeline.communication,
                "wait_seconds": timeline.wait,
            }
            print(json.dumps(record))
        else:
            print(table(setting, made, timeline), end="")
        if number == 0 and args.draw:
            draw(args.draw, made, timeline, f"{args.preset}, {made.one_line()}, simulated {timeline.makespan:.3g} s")
    return 0


def plans_of(args: argparse.Namespace, setting: Any) -> list[Any]:
    """The plans of --plans, or the one that --strategy makes of --lengths."""
    if args.plans is not None:
        return read_plans(args.plans)
    if args.lengths is None:
        raise InvalidArgument("one of --lengths and --plans is needed")
    if args.gpus is None:
        raise InvalidArgument("--lengths needs --gpus")
    lengths = read_lengths(args.lengths)
    if args.first is not None:
        if args.first < 1:
            raise InvalidArgument(f"--first is {args.first}, must be at least 1")
        lengths = lengths[: args.first]
    longest = args.max_length if args.max_length is not None else max(lengths, default=1)
    cluster = setting.cluster(args.gpus, longest)
    return [
        plan(
            setting.sequences(lengths),
            cluster,
            setting.cost_model,
            strategy=args.strategy,
            synchronisation=args.synchronisation,
        )
    ]


def read_plans(path: Path) -> list[Any]:
    """Plans from a file with a JSON object a line. Raises InvalidArgument naming the line that is none."""
    try:
        lines = [line for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidArgument(f"--plans {path} cannot be read: {error}") from None
    made = []
    for number, line in enumerate(lines, start=1):
        try:
            data = json.loads(line)
        except ValueError as error:
            raise InvalidArgument(f"--plans {path}, line {number}: {error}") from None
        if not isinstance(data, dict):
            raise InvalidArgument(f"--plans {path}, line {number}: is no JSON object")
        made.append(Plan.from_dict(data))
    if not made:
        raise InvalidArgument(f"--plans {path} holds no plan")
    return made


def table(setting: Any, made: Any, timeline: Any) -> str:
    """The figures of one plan as lines to read."""
    shares = figures(timeline)
    most = max(range(made.ranks), key=lambda rank: timeline.busy[rank])
    least = min(range(made.ranks), key=lambda rank: timeline.busy[rank])
    lines = [
        f"{setting.name}: {len(made.sequences)} sequences, {sum(made.lengths)} tokens on {made.ranks} ranks, "
        f"{len(made.micro_batches)} micro-batches, {made.strategy}",
        f"  degrees        {made.one_line()}",
        f"  predicted      {made.makespan:10.4g} s",
        f"  simulated      {timeline.makespan:10.4g} s",
        f"  busy           {100 * shares['busy']:9.1f} %   rank {least}: {timeline.busy[least]:.4g} s, "
        f"rank {most}: {timeline.busy[most]:.4g} s",
        f"  communication  {100 * shares['communication']:9.1f} %   that no computation hides",
        f"  wait           {100 * shares['wait']:9.1f} %",
    ]
    if timeline.network_bytes:
        lines.append(f"  sent           {timeline.network_bytes / 1e9:10.4g} GB")
    return "\n".join(lines) + "\n"


def draw(path: Path, made: Any, timeline: Any, title: str) -> None:
    from ..timeline import Event, write_chrome_trace, write_svg

    ranks = [[Event(*event) for event in lane] for lane in lanes(timeline, made)]
    try:
        if path.suffix == ".json":
            write_chrome_trace(path, ranks)
        else:
            write_svg(path, ranks, title)
    except OSError as error:
        raise InvalidArgument(f"--draw {path} cannot be written: {error}") from None
    except ImportError as error:
        raise InvalidArgument(f"--draw {path}: matplotlib is absent ({error}); a .json trace needs none") from None
