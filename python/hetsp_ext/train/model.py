"""The model of the main job: transformers' own Llama with random weights, over byte tokens."""

import copy
import json
from pathlib import Path
from typing import Any

import torch
from transformers import LlamaConfig, LlamaForCausalLM

from ..errors import InvalidArgument
from ..integrations import transformers as integration

__all__ = ["BYTES", "build_model", "model_config"]

BYTES = 256
SIZES = ("hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads")
# Ids after the bytes, for whoever goes on with the saved model; the documents of the main job do not use them.
SPECIALS = {"bos_token_id": 256, "eos_token_id": 257, "pad_token_id": 258}
BUILT_IN: dict[str, dict[str, int]] = {
    "tiny": {
        "num_hidden_layers": 2,
        "hidden_size": 64,
        "intermediate_size": 192,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
    },
    "small": {
        "num_hidden_layers": 6,
        "hidden_size": 256,
        "intermediate_size": 704,
        "num_attention_heads": 8,
        "num_key_value_heads": 4,
    },
}


def model_config(name: str, max_length: int) -> LlamaConfig:
    """The config of a built-in size, or of a file as transformers writes it (config.json).

    Raises:
        InvalidArgument: an unknown name, a file that is no Llama config or leaves its sizes open, or a vocabulary that does not
            hold the bytes.
    """
    if name in BUILT_IN:
        # max_position_embeddings is a note to users of the model; the rotary embedding allocates nothing for it.
        sizes: dict[str, Any] = {**BUILT_IN[name], **SPECIALS, "vocab_size": BYTES + len(SPECIALS)}
        return LlamaConfig(**sizes, max_position_embeddings=max_length, tie_word_embeddings=False)
    if not name.endswith(".json"):
        raise InvalidArgument(f"--model is {name!r}; allowed are {', '.join(BUILT_IN)}, or a file whose name ends in .json")
    try:
        values: dict[str, Any] = json.loads(Path(name).read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise InvalidArgument(f"--model file {name!r} cannot be read as JSON: {error}") from error
    if not isinstance(values, dict) or values.get("model_type", "llama") != "llama":
        kind = values.get("model_type") if isinstance(values, dict) else type(values).__name__
        raise InvalidArgument(f"--model file {name!r} describes {kind!r}; a config of model_type 'llama' is needed")
    try:
        config = LlamaConfig(**values)
    except Exception as error:  # whatever transformers' own validation raises about a user's file
        raise InvalidArgument(f"--model file {name!r} is no valid Llama config: {error}") from error
    if config.vocab_size < BYTES:
        raise InvalidArgument(
            f"--model file {name!r} has vocab_size {config.vocab_size}; the {BYTES} byte tokens need at least {BYTES}"
        )
    if config.attention_dropout:
        raise InvalidArgument(f"--model file {name!r} has attention_dropout {config.attention_dropout}; it must be 0")
    for size in SIZES:
        if size not in values:  # transformers would take that of a model with 7 billion parameters
            raise InvalidArgument(f"--model file {name!r} has no {size}; it needs {', '.join(SIZES)}")
    return config


def build_model(
    config: LlamaConfig,
    dtype: torch.dtype,
    seed: int,
    *,
    attention: str = integration.NAME,
    device: torch.device | None = None,
) -> LlamaForCausalLM:
    """A model with the weights that `seed` gives: the same on every rank and for every attention.

    The weights are drawn in float32 and then converted, so that all dtypes start from the same model.
    """
    integration.register()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        # A copy: transformers writes the attention into the config that it is given, and models share this one.
        model = LlamaForCausalLM._from_config(copy.deepcopy(config), attn_implementation=attention, dtype=torch.float32)
    if dtype == torch.float64:
        keep_float64(model)
    torch.nn.Module.to(model, device=device, dtype=dtype)
    return model.train()


def keep_float64(model: torch.nn.Module) -> None:
    """Llama's own norm computes in float32 whatever its input; torch's, with the same weight, computes in its input's dtype."""
    for name, module in list(model.named_modules()):
        if type(module).__name__ == "LlamaRMSNorm":
            norm = torch.nn.RMSNorm(module.weight.shape, eps=module.variance_epsilon)
            norm.weight = module.weight
            model.set_submodule(name, norm)
