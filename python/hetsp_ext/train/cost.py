"""What the planner is told about the machine: how fast a rank computes and sends.

Only the ratios matter to a plan; the run fits one factor to its first measured step (step.py) and prints predictions with it.
They are constants, not measurements at start-up, so that the same documents get the same plan everywhere. `--cost-model`, a
file of `hetsp calibrate`, takes their place.
"""

from dataclasses import dataclass

import torch
from transformers import LlamaConfig

import hetsp_ext

from ..calibration import Setting
from .ranks import threads_per_rank

__all__ = ["Rates", "cluster_of", "cost_model_of", "rates_of", "setting_of"]


@dataclass(frozen=True)
class Rates:
    """How fast a rank computes and sends."""

    attention_flops: float  # FLOP/s, forward + backward, exact causal work
    linear_flops: float  # FLOP/s in the linear modules
    link_bytes: float  # bytes/s between two ranks
    hop_seconds: float  # start-up of a message


# CPU: model `tiny` in float32 on one core of a 2-core Zen 1 at 2 GHz, measured: attention 14 GFLOP/s at 2048 tokens and more,
# the rest of the step 16 to 25; the link is an estimate of Gloo over loopback. GPU: estimates of an H100 with NVLink, bfloat16.
CPU = Rates(attention_flops=14e9, linear_flops=20e9, link_bytes=0.5e9, hop_seconds=2e-4)
GPU = Rates(attention_flops=300e12, linear_flops=400e12, link_bytes=200e9, hop_seconds=2e-5)


def rates_of(device: torch.device) -> Rates:
    """What is assumed of this kind of device."""
    return GPU if device.type == "cuda" else CPU


def cost_model_of(
    config: LlamaConfig, dtype: torch.dtype, device: torch.device, rates: Rates | None = None
) -> hetsp_ext.CostModel:
    """Seconds of forward and backward on this kind of device, for computation in `dtype`; `rates` instead of rates_of."""
    rates = rates or rates_of(device)
    shape = hetsp_ext.ModelShape(**sizes_of(config), bytes=dtype.itemsize, gradient_bytes=max(dtype.itemsize, 4))
    return hetsp_ext.cost_model_from_model(
        shape, rates.attention_flops, rates.linear_flops, rates.link_bytes, rates.hop_seconds
    )


def sizes_of(config: LlamaConfig) -> dict[str, int]:
    """The model's sizes under the names of ModelShape."""
    return {
        "layers": config.num_hidden_layers,
        "hidden": config.hidden_size,
        "intermediate": config.intermediate_size,
        "heads": config.num_attention_heads,
        "kv_heads": config.num_key_value_heads or config.num_attention_heads,
        "head_dim": config.head_dim or config.hidden_size // config.num_attention_heads,
        "vocabulary": config.vocab_size,
    }


def setting_of(config: LlamaConfig, dtype: str, device: torch.device, ranks: int) -> Setting:
    """What a run's times depend on, to be compared with a cost model's."""
    threads = threads_per_rank(ranks) if device.type == "cpu" else 1
    return Setting(device=device.type, ranks=ranks, threads=threads, dtype=dtype, model=sizes_of(config))


def cluster_of(ranks: int, tokens_per_rank: int) -> hetsp_ext.Cluster:
    """`ranks` ranks that hold `tokens_per_rank` tokens of a micro-batch each."""
    return hetsp_ext.Cluster(ranks=ranks, tokens_per_rank=tokens_per_rank)
