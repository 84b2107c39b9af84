"""A cost model measured on the machine at hand: what `hetsp calibrate` writes, and `plan`, `simulate` and `train` read.

See docs/calibrate.md. The measuring itself is train/calibrate.py.
"""

from .cost_file import cost_of_record, cost_record, read_cost_model, write_cost_model
from .fit import Fit, Point, fit
from .measured import PARTS, RANK_PARTS, MeasuredCost, Setting
from .measurement import Measurement, fit_parts, measured_cost

__all__ = [
    "PARTS",
    "RANK_PARTS",
    "Fit",
    "MeasuredCost",
    "Measurement",
    "Point",
    "Setting",
    "cost_of_record",
    "cost_record",
    "fit",
    "fit_parts",
    "measured_cost",
    "read_cost_model",
    "write_cost_model",
]
