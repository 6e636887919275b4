"""Attention of every token to every token, by PyTorch's kernel.

In each head of d features, ``softmax(q k / sqrt(d)) v`` (Vaswani et al. 2017).
"""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional


def attend(qkv: Tensor, heads: int, norms: tuple[nn.Module, nn.Module] | None = None) -> Tensor:
    """Attention with ``heads`` heads.

    Args:
        qkv: queries, keys and values side by side, ``(B, N, 3 D)``, and the heads side by side in each D.
        heads: the number of heads, a divisor of D.
        norms: normalisations of the queries and keys of a head, ``(..., D / heads)``.

    Returns:
        ``(B, N, D)``.
    """
    q, k, v = qkv.unflatten(-1, (3, heads, -1)).permute(2, 0, 3, 1, 4)
    if norms is not None:
        # The values' type: a normalisation may widen under autocast, and the kernel wants one type for all three.
        q, k = norms[0](q).to(v.dtype), norms[1](k).to(v.dtype)
    return functional.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)
