"""The option --cost-model, which takes the place of a preset."""

import argparse
from pathlib import Path
from typing import Any

from ..calibration import read_cost_model
from ..errors import InvalidArgument

__all__ = ["add_cost_model", "cost_model_of"]


def add_cost_model(parser: argparse.ArgumentParser) -> None:
    """Declares it."""
    parser.add_argument("--cost-model", type=Path, metavar="FILE", help="what `hetsp calibrate` measured, in place of --preset")


def cost_model_of(args: argparse.Namespace) -> Any:
    """The `MeasuredCost` of --cost-model; None without it. Raises InvalidArgument beside --preset, and for a wrong file."""
    if args.cost_model is None:
        return None
    if args.preset is not None:
        raise InvalidArgument(
            f"--cost-model {args.cost_model} and --preset {args.preset} are both given; they are alternatives"
        )
    return read_cost_model(args.cost_model)
