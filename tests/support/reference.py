"""The slow, obvious attention: float64, dense, one document and one head at a time, gradients by autograd."""

from __future__ import annotations

import torch


def visible(n_q: int, n_k: int, left: int, right: int) -> torch.Tensor:
    """bool [n_q, n_k]: bottom-right aligned window, -1: unbounded."""
    distance = torch.arange(n_k)[None, :] - torch.arange(n_q)[:, None] - (n_k - n_q)
    mask = torch.ones(n_q, n_k, dtype=torch.bool)
    if left >= 0:
        mask &= distance >= -left
    if right >= 0:
        mask &= distance <= right
    return mask


def attention(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    *,
    window: tuple[int, int] = (-1, 0),
    scale: float | None = None,
    softcap: float = 0.0,
    sink: torch.Tensor | None = None,
) -> torch.Tensor:
    """One document: q [n_q, heads, d], k [n_k, kv_heads, d], v [n_k, kv_heads, d_v] -> [n_q, heads, d_v]."""
    heads, shared = q.shape[1], q.shape[1] // k.shape[1]
    mask = visible(q.shape[0], k.shape[0], *window)
    outs = []
    for head in range(heads):
        score = (q.shape[2] ** -0.5 if scale is None else scale) * (q[:, head] @ k[:, head // shared].T)
        if softcap > 0:
            score = softcap * torch.tanh(score / softcap)
        score = score.masked_fill(~mask, -torch.inf)
        if sink is not None:
            score = torch.cat([score, sink[head].expand(score.shape[0], 1)], dim=1)
        weight = torch.softmax(score, dim=1)[:, : k.shape[0]]
        outs.append(torch.where(mask.any(1)[:, None], weight, 0.0) @ v[:, head // shared])
    return torch.stack(outs, dim=1)
