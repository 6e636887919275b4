"""Attention of every token to every token, by PyTorch's kernel.

In each head of d features, ``softmax(q k / sqrt(d)) v`` (Vaswani et al. 2017).
"""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional


def attend(qkv: Tensor, heads: int, norms: tuple[nn.RMSNorm, nn.RMSNorm] | None = None) -> Tensor:
    """Attention with ``heads`` heads.

    PyTorch's fused kernels have no forward-mode and no second derivatives. Where those are taken, of a flow map or a
    likelihood that is trained, evaluate the network within ``torch.nn.attention.sdpa_kernel(SDPBackend.MATH)``.

    Args:
        qkv: queries, keys and values side by side, ``(B, N, 3 D)``, and the heads side by side in each D.
        heads: the number of heads, a divisor of D.
        norms: normalisations of the queries and keys of a head, ``(..., D / heads)``.

    Returns:
        ``(B, N, D)``.
    """
    q, k, v = qkv.unflatten(-1, (3, heads, -1)).permute(2, 0, 3, 1, 4)
    if norms is not None:
        # In the type of its weights, which autocast leaves wide; the kernel wants one type for all three.
        q, k = (norm(part.to(norm.weight.dtype)).to(v.dtype) for norm, part in zip(norms, (q, k), strict=True))
    return functional.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)
