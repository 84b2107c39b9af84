"""A torch.distributed backend that sends the traffic of a busy pair of ranks over every NIC of its node: `hetsp`.

Importing hetsp_ext makes the name known: torch.distributed.init_process_group("hetsp"), new_group(backend="hetsp"),
"cpu:hetsp,cuda:hetsp". docs/distributed.md tells how nodes and NICs are found, and how to say them.
"""

from .backend import register
from .report import report
from .statistics import statistics

__all__ = ["report", "statistics"]

register()
