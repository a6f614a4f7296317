"""The two-way transformer for many prompts on one image, with the same results for less work.

Source: `geosam.model.transformer`, whose weights it reads. An image has thousands of cells and a
prompt a handful of tokens, so whatever is done to cells once a prompt is what costs:

- In the first block the image is still the same for all prompts: its queries, keys and values are
  made once an image, not once a prompt; for a lone prompt not even once.
- Afterwards every prompt has an image of its own. Its cells are never projected: the projections of
  keys, values and queries are applied to the tokens on the other side of the product instead.
  With q a token's query, K the projection of keys and x a cell, q (K x) = (K^T q) x; a bias of keys
  moves all scores of a token alike and falls away in the softmax.

Cells may be in half precision: they are many, and what is done to them is simple. Tokens never are.
"""

from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor
from torch.nn import functional as F

from geosam.model.transformer import Attention, TwoWayBlock, TwoWayTransformer

SAMPLE = 16  # one key of so many is asked for the largest score


@dataclass(frozen=True, slots=True, eq=False)
class Projections:
    """What the first block makes of an image's cells; h is the number of heads, c of channels."""

    keys: Tensor  # (h, N, c), as tokens look at them
    values: Tensor  # (h, N, c)
    queries: Tensor  # (h, N, c), as cells look at tokens


@dataclass(frozen=True, slots=True, eq=False)
class OneImage:
    """What prompts without a mask share: the image's cells, N of them, and their projections."""

    cells: Tensor  # (1, N, C)
    code: Tensor  # (1, N, C), positional
    projections: Projections | None  # None: not worth making for a lone prompt

    @classmethod
    def of(
        cls, transformer: TwoWayTransformer, cells: Tensor, code: Tensor, *, lone: bool = False
    ) -> Self:
        """From an image's cells (1, N, C) and their positional code, in single precision.

        `lone`: a single prompt will look at it.
        """
        first = _blocks(transformer)[0]
        to_image, to_tokens = first.cross_attn_token_to_image, first.cross_attn_image_to_token
        dtype = first.norm4.weight.dtype  # which normalises cells
        projections = (
            None
            if lone
            else Projections(
                _heads(to_image.k_proj(cells + code), to_image)[0].to(dtype),
                _heads(to_image.v_proj(cells), to_image)[0].to(dtype),
                _heads(to_tokens.q_proj(cells + code), to_tokens)[0].to(dtype),
            )
        )
        return cls(cells.to(dtype), code.to(dtype), projections)


def cells_of(image: Tensor) -> Tensor:
    """An image (1, C, height, width) as cells (1, N, C); matrices turn fastest."""
    return image[0].flatten(1).T.contiguous()[None]  # (1, N, C)


def attend(
    transformer: TwoWayTransformer, image: OneImage, tokens: Tensor, own: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """What `TwoWayTransformer.forward` gives.

    Args:
        transformer: its weights are used.
        image: shared by the prompts.
        tokens: (P, T, C).
        own: (P, N, C), the cells as each prompt has them, of prompts that change the image by a
            mask; then nothing but the code is shared.

    Returns:
        tokens (P, T, C) and cells (P, N, C).
    """
    if own is None:
        return attend_to(transformer, image.cells, image.code, tokens, image.projections)
    return attend_to(transformer, own, image.code, tokens)


def attend_to(
    transformer: TwoWayTransformer,
    cells: Tensor,
    code: Tensor,
    tokens: Tensor,
    shared: Projections | None = None,
) -> tuple[Tensor, Tensor]:
    """What `TwoWayTransformer.forward` gives, for cells that prompts share or have of their own.

    Args:
        transformer: its weights are used.
        cells: (P, N, C), or (1, N, C) if all prompts share them.
        code: (1 or P, N, C), positional.
        tokens: (P, T, C).
        shared: the projections of cells that several prompts share.

    Returns:
        tokens (P, T, C) and cells (P, N, C).
    """
    token_code = tokens
    for i, layer in enumerate(_blocks(transformer)):
        tokens = _among_tokens(layer, tokens, token_code)
        keys = cells + code
        known = shared if i == 0 else None
        seen = (
            _look(layer.cross_attn_token_to_image, tokens + token_code, keys, cells)
            if known is None
            else _shared_look(layer.cross_attn_token_to_image, tokens + token_code, known)
        )
        tokens = layer.norm2(tokens + seen)
        tokens = layer.norm3(tokens + layer.mlp(tokens))
        queries = None if known is None else known.queries
        cells = layer.norm4(
            _look_back(
                layer.cross_attn_image_to_token, cells, keys, tokens + token_code, tokens, queries
            )
        )
    final = transformer.final_attn_token_to_image
    seen = _look(final, tokens + token_code, cells + code, cells)
    return transformer.norm_final_attn(tokens + seen), cells


def _blocks(transformer: TwoWayTransformer) -> list[TwoWayBlock]:
    return [layer for layer in transformer.layers if isinstance(layer, TwoWayBlock)]


def _among_tokens(layer: TwoWayBlock, tokens: Tensor, code: Tensor) -> Tensor:
    if layer.first:
        return layer.norm1(layer.self_attn(tokens, tokens, tokens))  # type: ignore[no-any-return]
    q = tokens + code
    return layer.norm1(tokens + layer.self_attn(q, q, tokens))  # type: ignore[no-any-return]


def _shared_look(attention: Attention, tokens: Tensor, image: Projections) -> Tensor:
    """Tokens (P, T, C) look at the image that they share."""
    q = _scaled(attention.q_proj(tokens), attention)  # (P, h, T, c)
    prompts, _, count, _ = q.shape
    q = q.transpose(0, 1).flatten(1, 2)  # (h, P*T, c)
    out = _see(q, image.keys, image.values)  # (h, P*T, c)
    out = torch.unflatten(out, 1, (prompts, count)).permute(1, 2, 0, 3).flatten(2)  # (P, T, h*c)
    return attention.out_proj(out)  # type: ignore[no-any-return]  # (P, T, C)


def _look(attention: Attention, tokens: Tensor, keys: Tensor, values: Tensor) -> Tensor:
    """Tokens (P, T, C) look at cells of their own: keys (P, N, C) and values (P, N, C)."""
    heads = attention.heads
    q = _scaled(attention.q_proj(tokens), attention)  # (P, h, T, c)
    reach = (q @ _by_head(attention.k_proj.weight, heads)).flatten(1, 2)  # (P, h*T, C)
    seen = _see(reach, keys, values)  # (P, h*T, C)
    out = torch.unflatten(seen, 1, (heads, -1)) @ _by_head(attention.v_proj.weight, heads).mT
    out = out.transpose(1, 2).flatten(2) + attention.v_proj.bias  # (P, T, h*c)
    return attention.out_proj(out)  # type: ignore[no-any-return]  # (P, T, C)


def _see(queries: Tensor, keys: Tensor, values: Tensor) -> Tensor:
    """Attention (B, Q, c) of a few queries that have the scale in them to many keys (B, N, c).

    On a CPU plain products are faster than torch's attention, in half precision twice as fast. That
    rounds large scores most, and those count: so about as much as the largest is taken off all.
    """
    q = queries.to(keys.dtype)
    if keys.is_cuda:
        q, k, v = (x[:, None] for x in (q, keys, values))  # one head each
        return F.scaled_dot_product_attention(q, k, v, scale=1.0)[:, 0].to(queries.dtype)
    most = (q @ keys[:, ::SAMPLE].mT).amax(-1, keepdim=True).detach()  # (B, Q, 1)
    scores = torch.baddbmm(-most, q, keys.mT)  # (B, Q, N)
    return (F.softmax(scores, dim=-1) @ values).to(queries.dtype)


def _look_back(
    attention: Attention,
    cells: Tensor,
    keys: Tensor,
    token_keys: Tensor,
    token_values: Tensor,
    shared: Tensor | None,
) -> Tensor:
    """Cells (1 or P, N, C) plus what they see of the tokens, (P, N, C).

    `keys` are the cells with their positional code; `shared` their queries (h, N, c), if made.
    """
    heads = attention.heads
    k = _scaled(attention.k_proj(token_keys), attention)  # (P, h, T, c)
    dtype = cells.dtype
    if shared is None:
        reach = (k @ _by_head(attention.q_proj.weight, heads)).flatten(1, 2)  # (P, h*T, C)
        offset = (
            k @ torch.unflatten(attention.q_proj.bias, 0, (heads, -1))[..., None]
        )  # (P, h, T, 1)
        offset, reach = offset.flatten(1, 2).to(dtype), reach.to(dtype)
        scores = torch.baddbmm(offset, reach, keys.mT)  # (P, h*T, N)
        scores = torch.unflatten(scores, 1, (heads, -1))  # (P, h, T, N)
    else:
        by_head = k.transpose(0, 1).flatten(1, 2).to(dtype) @ shared.mT  # (h, P*T, N)
        scores = torch.unflatten(by_head, 1, (len(k), -1)).transpose(0, 1)  # (P, h, T, N)
    weights = F.softmax(scores, dim=2).flatten(1, 2)  # (P, h*T, N)
    v = _heads(attention.v_proj(token_values), attention)  # (P, h, T, c)
    back = v @ torch.unflatten(attention.out_proj.weight.mT, 0, (heads, -1))  # (P, h, T, C)
    back = back + attention.out_proj.bias / heads  # each head's weights sum to 1
    cells = cells.expand(len(weights), -1, -1)
    return torch.baddbmm(cells, weights.mT, back.flatten(1, 2).to(dtype))  # (P, N, C)


def _heads(projected: Tensor, attention: Attention) -> Tensor:
    """(P, N, h*c) -> (P, h, N, c)."""
    return torch.unflatten(projected, -1, (attention.heads, -1)).transpose(1, 2)


def _scaled(projected: Tensor, attention: Attention) -> Tensor:
    """(P, N, h*c) -> (P, h, N, c), with the scale of the scores in it."""
    split = _heads(projected, attention)
    return split * float(split.shape[-1] ** -0.5)


def _by_head(weight: Tensor, heads: int) -> Tensor:
    """(h*c, C) -> (h, c, C)."""
    return torch.unflatten(weight, 0, (heads, -1))
