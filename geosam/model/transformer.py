"""The two-way transformer: prompt tokens and image tokens attend to each other.

Source: Kirillov et al. 2023, "Segment Anything", app. A; segment_anything/modeling/transformer.py.
"""

from torch import Tensor, nn
from torch.nn import functional as F

from geosam.model.config import TwoWayConfig
from geosam.model.layers import LayerNorm


class Attention(nn.Module):
    """Multi-head attention that may narrow the width inside."""

    def __init__(self, width: int, heads: int, downsample: int = 1) -> None:
        super().__init__()
        self.heads = heads
        inner = width // downsample
        self.q_proj = nn.Linear(width, inner)
        self.k_proj = nn.Linear(width, inner)
        self.v_proj = nn.Linear(width, inner)
        self.out_proj = nn.Linear(inner, width)

    def forward(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """Q (P, Nq, C), k and v (P, Nk, C) -> (P, Nq, C)."""
        q, k, v = (
            projected.unflatten(-1, (self.heads, -1)).transpose(1, 2)  # (P, heads, N, c)
            for projected in (self.q_proj(q), self.k_proj(k), self.v_proj(v))
        )
        # A handful of tokens on one side: plain products beat fused kernels, above all backwards.
        q = q * q.shape[-1] ** -0.5
        if q.shape[-2] > k.shape[-2]:  # softmax is fastest with the longer side last in memory
            attention = F.softmax(k @ q.transpose(-2, -1), dim=-2)  # (P, heads, Nk, Nq)
            out = attention.transpose(-2, -1) @ v  # (P, heads, Nq, c)
        else:
            out = F.softmax(q @ k.transpose(-2, -1), dim=-1) @ v  # (P, heads, Nq, c)
        return self.out_proj(out.transpose(1, 2).flatten(2))  # type: ignore[no-any-return]  # (P, Nq, C)


class TwoWayBlock(nn.Module):
    """Tokens attend to themselves, to the image, pass an MLP, then the image attends to them."""

    def __init__(self, config: TwoWayConfig, *, first: bool) -> None:
        super().__init__()
        width, heads, downsample = config.width, config.heads, config.attention_downsample
        self.first = first
        self.self_attn = Attention(width, heads)
        self.norm1 = LayerNorm(width)
        self.cross_attn_token_to_image = Attention(width, heads, downsample)
        self.norm2 = LayerNorm(width)
        self.mlp = nn.Sequential(
            nn.Linear(width, config.mlp_width), nn.ReLU(), nn.Linear(config.mlp_width, width)
        )
        self.norm3 = LayerNorm(width)
        self.cross_attn_image_to_token = Attention(width, heads, downsample)
        self.norm4 = LayerNorm(width)

    def forward(
        self, tokens: Tensor, image: Tensor, token_pe: Tensor, image_pe: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Tokens (P, T, C) and image (P, N, C), each with its positional code, to the same."""
        if self.first:
            tokens = self.self_attn(tokens, tokens, tokens)
        else:
            q = tokens + token_pe
            tokens = tokens + self.self_attn(q, q, tokens)
        tokens = self.norm1(tokens)
        keys = image + image_pe
        tokens = self.norm2(tokens + self.cross_attn_token_to_image(tokens + token_pe, keys, image))
        tokens = self.norm3(tokens + self.mlp(tokens))
        queries = tokens + token_pe
        image = self.norm4(image + self.cross_attn_image_to_token(keys, queries, tokens))
        return tokens, image


class TwoWayTransformer(nn.Module):
    """Blocks of two-way attention, then a last look of the tokens at the image."""

    def __init__(self, config: TwoWayConfig) -> None:
        super().__init__()
        self.layers = nn.ModuleList(TwoWayBlock(config, first=i == 0) for i in range(config.depth))
        self.final_attn_token_to_image = Attention(
            config.width, config.heads, config.attention_downsample
        )
        self.norm_final_attn = LayerNorm(config.width)

    def forward(self, image: Tensor, image_pe: Tensor, tokens: Tensor) -> tuple[Tensor, Tensor]:
        """Image (P, C, h, w), its positional code (1 or P, C, h, w), tokens (P, T, C).

        Returns:
            tokens (P, T, C) and image (P, h * w, C).
        """
        image = image.flatten(2).transpose(1, 2)  # (P, h*w, C)
        image_pe = image_pe.flatten(2).transpose(1, 2)  # (1 or P, h*w, C)
        token_pe = tokens
        for layer in self.layers:
            tokens, image = layer(tokens, image, token_pe, image_pe)
        attended = self.final_attn_token_to_image(tokens + token_pe, image + image_pe, image)
        return self.norm_final_attn(tokens + attended), image
