"""Sequences shared by any number of ranks: agree on a plan, read one's own tokens, attend across ranks.

The idea, the proofs and the limits are in docs/sequence_parallel.md.
"""

from .agreement import agree
from .attention import sequence_parallel_attention
from .layout import ShardLayout
from .shard import Shard, shard
from .trace import TraceEvent

__all__ = ["Shard", "ShardLayout", "TraceEvent", "agree", "sequence_parallel_attention", "shard"]
