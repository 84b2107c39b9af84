"""hetsp_ext as the attention of a transformers model, without touching the model's code.

    register()
    model = LlamaForCausalLM._from_config(config, attn_implementation="hetsp")
    model.model(**model_inputs(shard)).last_hidden_state      # sequence-parallel, one shard per micro-batch
    model(ids, position_ids=..., cu_seq_lens_q=..., ...)      # packed, as transformers' padding-free collators pass it
    model(ids)                                                # plain

No mask is ever built: which keys a query sees follows from the layout, from cu_seq_lens, or from the position ids, together
with the window, softcap and sink that the model asks for. What cannot be honoured is refused by name, never dropped.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from transformers import AttentionInterface
from transformers.masking_utils import AttentionMaskInterface

import hetsp_ext

from ..errors import InvalidArgument

__all__ = ["NAME", "attention", "model_inputs", "no_mask", "register"]

NAME = "hetsp"

# Keywords that reach the attention and do not change it.
HARMLESS = frozenset(
    {
        "cache_position",
        "logits_to_keep",
        "num_items_in_batch",
        "output_hidden_states",
        "output_router_logits",
        "past_key_values",
        "position_embeddings",
        "return_dict",
        "use_cache",
    }
)
# Mask functions of transformers.masking_utils that attention() rebuilds from its own arguments.
CAUSAL, FULL, WINDOW = "causal_mask_function", "bidirectional_mask_function", "sliding_window_overlay.<locals>.inner_mask"
PACKED, REMAPPED = (
    "packed_sequence_mask_function.<locals>.inner_mask",
    "remap_positions_for_packed_sequence.<locals>.inner_mask",
)
BOTH = "and_masks.<locals>.and_mask"


def register() -> None:
    """Makes attn_implementation="hetsp" known to transformers; calling it again changes nothing."""
    AttentionInterface.register(NAME, attention)
    AttentionMaskInterface.register(NAME, no_mask)


def model_inputs(shard: Any) -> dict[str, Any]:
    """What a transformers base model takes for a shard: ids and positions, int64 [1, tokens], and its layout.

    A shard without tokens gives one token that belongs to no document, since transformers' models cannot be called on none:
    take `last_hidden_state[0, : shard.labels.numel()]`, and every parameter still gets a gradient, of zeros.
    """
    tokens, position_ids = shard.tokens, shard.position_ids
    if tokens.numel() == 0:
        tokens = position_ids = torch.zeros(1, dtype=torch.int64, device=tokens.device)
    return {
        "input_ids": tokens[None],
        "position_ids": position_ids[None],
        "hetsp_layout": shard.layout,
        "use_cache": False,
    }


def no_mask(*, mask_function: Callable, attention_mask: Tensor | None = None, **_: Any) -> None:
    """transformers' mask factory. Builds nothing, but refuses a model or a caller that needs more than attention() sees."""
    if attention_mask is not None and not attention_mask.all():
        raise InvalidArgument(
            "attention_mask hides tokens, which attn_implementation='hetsp' does not honour; "
            "pack the sequences without padding and pass cu_seq_lens_q and cu_seq_lens_k, or position_ids that restart"
        )
    refuse_unknown_mask(mask_function)


def refuse_unknown_mask(mask_function: Callable) -> None:
    name = mask_function.__qualname__
    if name == BOTH:
        for part in closure(mask_function)["mask_functions"]:
            refuse_unknown_mask(part)
    elif name == REMAPPED:
        refuse_unknown_mask(closure(mask_function)["mask_function"])
    elif name not in (CAUSAL, FULL, WINDOW, PACKED):
        raise InvalidArgument(
            f"the model masks its attention by {name.split('.')[0]!r}, which attn_implementation='hetsp' does not honour; "
            "it honours causal, full, sliding-window and packed masks"
        )


def closure(function: Callable) -> dict[str, Any]:
    cells = getattr(function, "__closure__", None) or ()
    return {name: cell.cell_contents for name, cell in zip(function.__code__.co_freevars, cells, strict=True)}


def attention(
    module: torch.nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float | None = None,
    dropout: float = 0.0,
    *,
    hetsp_layout: Any = None,
    sliding_window: int | None = None,
    softcap: float | None = None,
    s_aux: Tensor | None = None,
    is_causal: bool | None = None,
    position_ids: Tensor | None = None,
    cu_seq_lens_q: Tensor | None = None,
    cu_seq_lens_k: Tensor | None = None,
    max_length_q: int | None = None,
    max_length_k: int | None = None,
    **others: Any,
) -> tuple[Tensor, None]:
    """transformers' attention function.

    Args:
        module: the attention layer; its `is_causal` holds where the keyword is not given.
        query: [batch, heads, queries, dim], rotary embedding applied.
        key, value: [batch, kv heads, keys, dim], not repeated for grouped queries.
        attention_mask: must be None.
        hetsp_layout: a shard's layout: the tokens are this rank's part of the micro-batch (batch 1).
        cu_seq_lens_q, cu_seq_lens_k, max_length_q, max_length_k: packed documents (batch 1), as transformers names them.
        position_ids: [batch, queries]; without a layout and cu_seq_lens, a document begins where they do not count on by one.
        sliding_window: keys a query sees, itself included. softcap, s_aux: as in Gemma 2 and GPT-OSS.

    Returns:
        [batch, queries, heads, dim], and None for the weights, which never exist.

    Raises:
        InvalidArgument: naming what the call asks for and this attention cannot honour.
    """
    refuse(attention_mask, dropout, others)
    causal = getattr(module, "is_causal", True) if is_causal is None else is_causal
    if sliding_window is not None and not causal:
        raise InvalidArgument(f"sliding_window {sliding_window} without causal attention is not honoured")
    options: dict[str, Any] = {
        "softmax_scale": scaling,
        "causal": causal,
        "window_size": (-1, -1) if sliding_window is None else (sliding_window - 1, 0),
        "softcap": softcap or 0.0,
        "sink": s_aux,
    }
    batch, queries, keys = query.shape[0], query.shape[2], key.shape[2]
    packed = hetsp_layout is not None or cu_seq_lens_q is not None
    if packed and batch != 1:
        raise InvalidArgument(f"batch is {batch}; packed documents and a hetsp_layout need batch 1")
    q, k, v = (x.transpose(1, 2).reshape(-1, x.shape[1], x.shape[3]) for x in (query, key, value))
    if hetsp_layout is not None:
        if hetsp_layout.tokens == 0 and queries == 1:  # the token that model_inputs put in: it sees nothing
            none = hetsp_ext.sequence_parallel_attention(q[:0], k[:0], v[:0], hetsp_layout, **options)
            gradients_of_zeros = 0.0 * (q.sum() + k.sum() + v.sum())
            out = torch.cat([none, none.new_zeros(1, *none.shape[1:]) + gradients_of_zeros])
        else:
            out = hetsp_ext.sequence_parallel_attention(q, k, v, hetsp_layout, **options)
        return out.unflatten(0, (batch, queries)), None
    if cu_seq_lens_q is None:
        cu_seq_lens_q, cu_seq_lens_k = boundaries(batch, queries, keys, position_ids, query.device)
        max_length_q, max_length_k = queries, keys
    elif cu_seq_lens_k is None:
        cu_seq_lens_k, max_length_k = cu_seq_lens_q, max_length_q
    out = hetsp_ext.varlen_attention(
        q, k, v, cu_seq_lens_q, cu_seq_lens_k, max_length_q or queries, max_length_k or keys, **options, return_lse=False
    )
    return out.unflatten(0, (batch, queries)), None


def refuse(attention_mask: Tensor | None, dropout: float, others: dict[str, Any]) -> None:
    if attention_mask is not None:
        raise InvalidArgument(
            f"attention_mask of shape {tuple(attention_mask.shape)} is not honoured by attn_implementation='hetsp'; "
            "pass cu_seq_lens_q and cu_seq_lens_k, or a hetsp_layout"
        )
    if dropout > 0.0:
        raise InvalidArgument(f"dropout is {dropout}; attn_implementation='hetsp' has none: set attention_dropout to 0")
    for name, value in others.items():
        if name not in HARMLESS and value is not None and value is not False:
            raise InvalidArgument(
                f"{name} is not honoured by attn_implementation='hetsp'; it honours hetsp_layout, cu_seq_lens_q/k, "
                "max_length_q/k, position_ids, sliding_window, softcap, s_aux and is_causal"
            )


def boundaries(batch: int, queries: int, keys: int, position_ids: Tensor | None, device: torch.device) -> tuple[Tensor, Tensor]:
    """cu_seqlens of queries and keys of a call that names neither documents nor a layout."""
    rows_q, rows_k = (torch.arange(batch + 1, device=device, dtype=torch.int32) * count for count in (queries, keys))
    if position_ids is None or position_ids.numel() == 0:
        return rows_q, rows_k
    if queries != keys:
        # A cache. The newest key stands beside the newest query, unless the cache is a larger buffer filled from the left.
        reached = int(position_ids.max()) + 1
        if keys > reached:
            raise InvalidArgument(
                f"keys hold {keys} positions, but position_ids reach only {reached}: a static cache is not honoured"
            )
        return rows_q, rows_k
    positions = position_ids.expand(batch, queries)
    begins = torch.ones(batch, queries, dtype=torch.bool, device=device)
    begins[:, 1:] = positions[:, 1:] != positions[:, :-1] + 1
    starts = begins.flatten().nonzero().flatten().to(torch.int32)
    both = torch.cat([starts, rows_q[-1:]])
    return both, both
