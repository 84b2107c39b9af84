"""Plan, shard and run training steps over sequences of wildly different lengths. See docs/architecture.md."""

from . import _native as _native
from . import distributed, errors, lp
from .attention import (
    attention_delta,
    attention_lists,
    merge_attention,
    piece_segments,
    pieces_attention,
    segment_attention,
    varlen_attention,
    varlen_segments,
)
from .capability import cpu_capabilities, cpu_capability, set_cpu_capability
from .checkpoint import LazyCheckpointer
from .documents import FolderSource, SequenceSource, StepSequences, standard_library
from .kernels import cuda_kernels, set_cuda_kernels
from .loss import chunked_cross_entropy, token_mean
from .planner import (
    Cluster,
    CostModel,
    ModelShape,
    Network,
    Plan,
    PlanAhead,
    Preset,
    Sequence,
    cost_model_from_model,
    cost_model_on_network,
    plan,
    preset,
    presets,
    read_plans,
    remap,
    write_plans,
)
from .sequence_parallel import Shard, ShardLayout, TraceEvent, agree, sequence_parallel_attention, shard
from .simulator import simulate

__version__ = "0.1.0"
__all__ = [
    "Cluster",
    "CostModel",
    "FolderSource",
    "LazyCheckpointer",
    "ModelShape",
    "Network",
    "Plan",
    "PlanAhead",
    "Preset",
    "Sequence",
    "SequenceSource",
    "Shard",
    "ShardLayout",
    "StepSequences",
    "TraceEvent",
    "__version__",
    "agree",
    "attention_delta",
    "attention_lists",
    "chunked_cross_entropy",
    "cost_model_from_model",
    "cost_model_on_network",
    "cpu_capabilities",
    "cpu_capability",
    "cuda_kernels",
    "distributed",
    "errors",
    "lp",
    "merge_attention",
    "piece_segments",
    "pieces_attention",
    "plan",
    "preset",
    "presets",
    "read_plans",
    "remap",
    "segment_attention",
    "sequence_parallel_attention",
    "set_cpu_capability",
    "set_cuda_kernels",
    "shard",
    "simulate",
    "standard_library",
    "token_mean",
    "varlen_attention",
    "varlen_segments",
    "write_plans",
]
