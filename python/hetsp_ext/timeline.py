"""What every rank did in a step, measured or simulated, as an SVG to look at and a Chrome trace to search in a browser
(chrome://tracing, ui.perfetto.dev)."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

__all__ = ["Event", "write_chrome_trace", "write_svg"]


class Event(NamedTuple):
    """A range on one rank; times in seconds from the start of the step."""

    name: str
    kind: str  # "step", or what attention did: "attend", "wait", "post", ...; simulated: "linear", "attention", ...
    begin: float
    end: float


# Inside a step's bars: waiting stands out, computing does not. Colours from the Okabe-Ito palette, legible to all.
COLOURS = {"attend": "#0072B2", "wait": "#D55E00", "post": "#F0E442", "merge": "#56B4E9", "accumulate": "#009E73"}
SIMULATED_COLOURS = {"linear": "#56B4E9", "attention": "#0072B2", "fixed": "#999999", "communication": "#D55E00"}
STEP_COLOURS = {
    "plan": "#CC79A7",
    "read": "#999999",
    "forward": "#B8D4E8",
    "backward": "#D9E8B8",
    "gradient sum": "#E69F00",
}
OTHER = "#CCCCCC"


def write_chrome_trace(path: Path, ranks: Sequence[Sequence[Event]]) -> None:
    """One thread per rank. The format is the Trace Event Format's complete events ("X"), microseconds."""
    records: list[dict[str, object]] = []
    for rank, events in enumerate(ranks):
        records.append({"name": "thread_name", "ph": "M", "pid": 0, "tid": rank, "args": {"name": f"rank {rank}"}})
        for event in events:
            begin, length = 1e6 * event.begin, 1e6 * (event.end - event.begin)
            records.append(
                {"name": event.name, "cat": event.kind, "ph": "X", "pid": 0, "tid": rank, "ts": begin, "dur": length}
            )
    path.write_text(json.dumps({"traceEvents": records, "displayTimeUnit": "ms"}))


def write_svg(path: Path, ranks: Sequence[Sequence[Event]], title: str) -> None:
    """A lane per rank: the parts of the step as tall bars, attention's own events as thinner bars on them."""
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure
    from matplotlib.patches import Patch

    figure = Figure(figsize=(12, 1.2 + min(0.6 * len(ranks), 20.0)), layout="constrained")
    axes = figure.add_subplot()
    used: dict[str, str] = {}
    for rank, events in enumerate(ranks):
        for kind, colour, bars in lanes(events):
            used.setdefault(kind, colour)
            height = 0.4 if kind in COLOURS or kind == "communication" else 0.8
            axes.broken_barh(bars, (rank - height / 2, height), facecolors=colour, linewidth=0)
    named = range(0, len(ranks), 1 + len(ranks) // 64)  # all, while their names find room
    axes.set_yticks(named, [f"rank {rank}" for rank in named])
    axes.set_ylim(len(ranks) - 0.5, -0.5)
    axes.set_xlim(left=0)
    axes.set_xlabel("seconds")
    axes.set_title(title, loc="left", fontsize=10)
    handles = [Patch(facecolor=colour, label=kind) for kind, colour in used.items()]
    figure.legend(handles=handles, loc="outside right upper", fontsize=8, frameon=False)
    FigureCanvasSVG(figure).print_svg(str(path), metadata={"Date": None})


def lanes(events: Sequence[Event]) -> list[tuple[str, str, list[tuple[float, float]]]]:
    """(kind, colour, bars as (begin, length)) with the step's own parts first, so that the others are drawn on them."""
    bars: dict[tuple[int, str], list[tuple[float, float]]] = {}
    for event in events:
        kind = event.name.rstrip("0123456789 ") if event.kind == "step" else event.kind
        bars.setdefault((event.kind != "step", kind), []).append((event.begin, event.end - event.begin))
    colours = {**STEP_COLOURS, **COLOURS, **SIMULATED_COLOURS}
    return [(kind, colours.get(kind, OTHER), bars[order, kind]) for order, kind in sorted(bars)]
