"""`hetsp simulate`: replays plans on a described cluster, and shows who computes, communicates and waits.

With --cost-model the cluster is the machine that `hetsp calibrate` measured, and the plans are those of `hetsp train`."""

import argparse
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ..errors import InvalidArgument
from ..planner import Cluster, plan, preset, presets, read_plans
from ..simulator import ROUTINGS, figures, lanes, simulate
from ..simulator.reproduce import NAMES, reproduce
from ._cost_model import add_cost_model, cost_model_of
from ._lengths import MOST_TOKENS, ranks, read_lengths, tokens


def add_parser(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    parser = subparsers.add_parser("simulate", help="replay plans on a described cluster", description=__doc__)
    parser.add_argument("--preset", metavar="NAME", help="cost model and cluster: " + ", ".join(p.name for p in presets()))
    add_cost_model(parser)
    parser.add_argument("--gpus", type=ranks, metavar="N", help="ranks")
    work = parser.add_mutually_exclusive_group()
    work.add_argument("--lengths", metavar="1,2,3|FILE", help="tokens of each sequence of a step, as in `hetsp plan`")
    work.add_argument(
        "--plans", type=Path, metavar="FILE", help="plans to replay, one JSON object of `hetsp plan --json` a line"
    )
    work.add_argument("--reproduce", choices=NAMES, help="a paper's published table beside the simulated one; needs no preset")
    parser.add_argument("--data", type=Path, metavar="DIR", help="with --reproduce: lengths_wikipedia.npz and its like")
    parser.add_argument("--batches", type=int, metavar="N", help="with --reproduce: steps to average (default: 4)")
    parser.add_argument("--first", type=int, metavar="N", help="only the first N lengths")
    parser.add_argument(
        "--max-length", type=tokens, metavar="TOKENS", help="context of the model, such as 384K (default: the longest sequence)"
    )
    parser.add_argument("--strategy", default="auto", help="that plans the lengths, as in `hetsp plan`")
    parser.add_argument("--degrees", choices=("any", "pow2"), help="with --preset: ranks of a group (default: pow2)")
    parser.add_argument(
        "--synchronisation",
        choices=("step", "micro_batch", "layer"),
        help="where ranks wait (default: as the preset's system; with --cost-model: step)",
    )
    parser.add_argument("--no-overlap", action="store_true", help="computation hides no hop of a ring")
    parser.add_argument("--no-contention", action="store_true", help="messages do not share links")
    parser.add_argument("--routing", choices=ROUTINGS, default=ROUTINGS[0], help="of a ring's messages to other nodes")
    parser.add_argument("--json", action="store_true", help="one JSON object a plan")
    parser.add_argument("--draw", type=Path, metavar="FILE", help="timeline of the first plan, .svg or .json (a Chrome trace)")


def run(args: argparse.Namespace) -> int:
    if args.reproduce is not None:
        return run_reproduction(args)
    for name in ("data", "batches"):
        if getattr(args, name) is not None:
            raise InvalidArgument(f"--{name} {getattr(args, name)} is for --reproduce")
    if args.draw and args.draw.suffix not in (".svg", ".json"):
        raise InvalidArgument(f"--draw {args.draw}: must end in .svg or .json")
    measured = cost_model_of(args)
    if measured is None and args.preset is None:
        raise InvalidArgument("--preset is missing; allowed: " + ", ".join(p.name for p in presets()))
    refuse_what_was_not_measured(args)
    name = args.preset or str(args.cost_model)
    setting = preset(args.preset) if measured is None else None
    for number, made in enumerate(plans_of(args, lambda lengths: planned(args, lengths, setting, measured))):
        timeline = replayed(args, made, setting, measured)
        if args.json:
            record = {
                "plan": number,
                "digest": made.digest,
                "predicted": made.makespan,
                **figures(timeline),
                **({} if measured is None else {"step_seconds": timeline.makespan + measured.step_seconds}),
                "busy_seconds": timeline.busy,
                "communication_seconds": timeline.communication,
                "wait_seconds": timeline.wait,
            }
            print(json.dumps(record))
        else:
            print(table(name, made, timeline), end="")
        if number == 0 and args.draw:
            draw(args.draw, made, timeline, f"{name}, {made.one_line()}, simulated {timeline.makespan:.3g} s")
    return 0


def refuse_what_was_not_measured(args: argparse.Namespace) -> None:
    """A calibration knows one tier of links, hides nothing, and says nothing of memory."""
    if args.cost_model is None:
        return
    for name in ("max_length", "degrees", "no_overlap", "no_contention"):
        if getattr(args, name) not in (None, False):
            raise InvalidArgument(
                f"--{name.replace('_', '-')} is for --preset; --cost-model {args.cost_model} does not know it"
            )
    if args.routing != ROUTINGS[0]:
        raise InvalidArgument(f"--routing {args.routing} is for --preset; --cost-model {args.cost_model} knows one node")


def replayed(args: argparse.Namespace, made: Any, setting: Any, measured: Any) -> Any:
    """The plan's timeline, on a preset's cluster or on the machine that was measured."""
    if measured is not None:
        return measured.timeline(made)
    return simulate(
        made,
        setting.cost_model,
        ranks_per_node=setting.ranks_per_node,
        overlap=setting.overlaps and not args.no_overlap,
        contention=not args.no_contention,
        routing=args.routing,
    )


def planned(args: argparse.Namespace, lengths: list[int], setting: Any, measured: Any) -> Any:
    """What --strategy makes of the lengths: as `hetsp train` plans on what was measured, else disjoint groups."""
    if measured is not None:
        sequences, cluster = measured.sequences(lengths), Cluster(args.gpus, min(max(1, sum(lengths)), MOST_TOKENS))
        how = {"strategy": args.strategy, "synchronisation": args.synchronisation or "step"}
        return plan(sequences, cluster, measured.cost_model, **how)
    longest = args.max_length if args.max_length is not None else max([1, *lengths])
    return plan(
        setting.sequences(lengths),
        setting.cluster(args.gpus, longest),
        setting.cost_model,
        strategy=args.strategy,
        executable=setting.executable,
        exclusive=True,
        degrees=args.degrees or "pow2",
        synchronisation=args.synchronisation or setting.synchronisation,
        simulated=True,
        overlap=setting.overlaps and not args.no_overlap,
    )


def plans_of(args: argparse.Namespace, planned: Callable[[list[int]], Any]) -> list[Any]:
    """The plans of --plans, or the one that is planned for --lengths."""
    if args.plans is not None:
        try:
            made = list(read_plans(args.plans))
        except OSError as error:
            raise InvalidArgument(f"--plans {args.plans} cannot be read: {error}") from None
        if not made:
            raise InvalidArgument(f"--plans {args.plans} holds no plan")
        return made
    if args.lengths is None:
        raise InvalidArgument("one of --lengths and --plans is needed")
    if args.gpus is None:
        raise InvalidArgument("--lengths needs --gpus")
    lengths = read_lengths(args.lengths)
    if args.first is not None:
        if args.first < 1:
            raise InvalidArgument(f"--first is {args.first}, must be at least 1")
        lengths = lengths[: args.first]
    return [planned(lengths)]


def run_reproduction(args: argparse.Namespace) -> int:
    def progress(line: str) -> None:
        if sys.stderr.isatty():
            print(f"\r\033[K{line}", end="", file=sys.stderr, flush=True)

    report = reproduce(args.reproduce, args.data, 4 if args.batches is None else args.batches, progress)
    progress("")
    print(json.dumps(report.as_dict()) if args.json else report, end="\n" if args.json else "")
    return 0


def table(name: str, made: Any, timeline: Any) -> str:
    """The figures of one plan as lines to read."""
    shares = figures(timeline)
    most = max(range(made.ranks), key=lambda rank: timeline.busy[rank])
    least = min(range(made.ranks), key=lambda rank: timeline.busy[rank])
    lines = [
        f"{name}: {len(made.sequences)} sequences, {sum(made.lengths)} tokens on {made.ranks} ranks, "
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
        raise InvalidArgument(f"--draw {path} cannot be written: {error.strerror}") from None
    except ImportError:
        raise InvalidArgument(
            f"--draw {path}: matplotlib is not installed: pip install 'hetsp_ext[train]'; a .json trace needs none"
        ) from None
