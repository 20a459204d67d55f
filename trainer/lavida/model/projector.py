"""From what the language model says of a clip to one prompt for each frame: LAVIDA's multi-scale semantic projector.

    G_t = Linear(LayerNorm(e' + Attention(query e', keys and values v_t)))   e' = W_e e, v_t = W_v (F_t + position)  (7)
    s_t = W_s flatten(TwoWay(queries, [W_h h ; G_t]))                                                               (8)

with h the state at <SEG>, the same for every frame of a clip, e the text features of the listed names and F_t the
segmenter's image features. A two-way block is SAM's: self-attention of the queries, queries to keys, MLP, keys to
queries, each with its residual and LayerNorm; queries and keys keep adding what they were at first as their positions.
The last block has no keys to queries: nothing would read its result.

The other two kinds are the rows of the paper's Table 4. It does not describe them; ours are `mlp`: LISA's two-layer
MLP on h, the same prompt for all frames, seeing neither names nor pictures; `qformer`: the keys are those of `two-way`
but are never updated. At the paper's sizes (width 768, 48 queries, 5 blocks) and h of 3,584 the parameters are
52.8 M two-way, 48.1 M qformer, 3.0 M mlp, of which the last Linear alone takes 9.4 M.

Shapes: B clips, F frames of all clips together, N names of the longest list, P = h * w image positions, C width of
the segmenter (256), T of the text features (512), H of the language model (3584), D width inside, Q queries, K = 1 + N.
"""

from __future__ import annotations

from typing import Literal

import torch
from pydantic import BaseModel, ConfigDict, Field, model_validator
from torch import Tensor, nn


class ProjectorSettings(BaseModel):
    """Kind and sizes of the projector; the defaults are the paper's.

    heads are those of the blocks, text_heads those of eq. 7; attention inside has width / 2, as in SAM, but for the
    queries' self-attention. vision_norm: LayerNorm on the image features before their position is added (not in the
    paper: an untrained segmenter's features are far smaller than the positions, and drown in them).
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    kind: Literal["two-way", "mlp", "qformer"] = "two-way"
    width: int = Field(default=768, ge=2)
    queries: int = Field(default=48, ge=1)
    blocks: int = Field(default=5, ge=1)
    heads: int = Field(default=12, ge=1)
    mlp: int = Field(default=2048, ge=1)
    text_heads: int = Field(default=8, ge=1)
    vision_norm: bool = False

    @model_validator(mode="after")
    def _heads_fit(self) -> ProjectorSettings:
        for name in ("heads", "text_heads"):
            if self.width % (2 * getattr(self, name)):
                raise ValueError(f"width must be a multiple of 2 x {name}; got {self.width} and {getattr(self, name)}")
        return self


class Attention(nn.Module):
    """Multi-head attention whose heads together are `inner` wide; float [..., L, width] in and out."""

    def __init__(self, width: int, heads: int, inner: int) -> None:
        super().__init__()
        self.heads = heads
        self.query = nn.Linear(width, inner)
        self.key = nn.Linear(width, inner)
        self.value = nn.Linear(width, inner)
        self.out = nn.Linear(inner, width)

    def forward(self, query_BLD: Tensor, key_BKD: Tensor, value_BKD: Tensor, mask_BK: Tensor | None = None) -> Tensor:
        """Each query's mix of the values; keys where the bool mask is False are not seen."""
        query, key, value = (
            linear(x).unflatten(-1, (self.heads, -1)).transpose(1, 2)
            for linear, x in ((self.query, query_BLD), (self.key, key_BKD), (self.value, value_BKD))
        )
        seen = None if mask_BK is None else mask_BK[:, None, None, :]
        mixed = nn.functional.scaled_dot_product_attention(query, key, value, attn_mask=seen)
        out: Tensor = self.out(mixed.transpose(1, 2).flatten(2))
        return out


class Block(nn.Module):
    """One block of eq. 8; with `two_way` the keys are updated too."""

    def __init__(self, width: int, heads: int, mlp: int, *, two_way: bool) -> None:
        super().__init__()
        self.itself = Attention(width, heads, width)
        self.norm_itself = nn.LayerNorm(width)
        self.to_keys = Attention(width, heads, width // 2)
        self.norm_to_keys = nn.LayerNorm(width)
        self.mlp = nn.Sequential(nn.Linear(width, mlp), nn.ReLU(), nn.Linear(mlp, width))
        self.norm_mlp = nn.LayerNorm(width)
        self.to_queries = Attention(width, heads, width // 2) if two_way else None
        self.norm_to_queries = nn.LayerNorm(width) if two_way else None

    def forward(
        self, queries_FQD: Tensor, keys_FKD: Tensor, query_place_FQD: Tensor, key_place_FKD: Tensor, mask_FK: Tensor
    ) -> tuple[Tensor, Tensor]:
        """The new queries and keys; masked keys are updated, and never read."""
        placed = queries_FQD + query_place_FQD
        queries_FQD = self.norm_itself(queries_FQD + self.itself(placed, placed, queries_FQD))
        seen = self.to_keys(queries_FQD + query_place_FQD, keys_FKD + key_place_FKD, keys_FKD, mask_FK)
        queries_FQD = self.norm_to_keys(queries_FQD + seen)
        queries_FQD = self.norm_mlp(queries_FQD + self.mlp(queries_FQD))
        if self.to_queries is not None and self.norm_to_queries is not None:
            told = self.to_queries(keys_FKD + key_place_FKD, queries_FQD + query_place_FQD, queries_FQD)
            keys_FKD = self.norm_to_queries(keys_FKD + told)
        return queries_FQD, keys_FKD


class Grounding(nn.Module):
    """Eq. 7: what each frame shows of each listed name, [F, N, D]."""

    def __init__(self, width: int, heads: int, text: int, vision: int, *, vision_norm: bool) -> None:
        super().__init__()
        self.text = nn.Linear(text, width)
        self.vision_norm = nn.LayerNorm(vision) if vision_norm else None
        self.vision = nn.Linear(vision, width)
        self.attention = Attention(width, heads, width // 2)
        self.norm = nn.LayerNorm(width)
        self.out = nn.Linear(width, width)

    def project(self, text_BNT: Tensor, image_FChw: Tensor, place_Chw: Tensor) -> tuple[Tensor, Tensor]:
        """The two sides that eq. 7 compares: e' [B, N, D] and v [F, P, D]."""
        image_FPC = image_FChw.flatten(2).transpose(1, 2)
        if self.vision_norm is not None:
            image_FPC = self.vision_norm(image_FPC)
        return self.text(text_BNT), self.vision(image_FPC + place_Chw.flatten(1).T)

    def forward(self, text_BNT: Tensor, image_FChw: Tensor, place_Chw: Tensor, owner_F: Tensor) -> Tensor:
        """G [F, N, D]; rows of padded names hold nothing of use."""
        text_BND, image_FPD = self.project(text_BNT, image_FChw, place_Chw)
        text_FND = text_BND[owner_F]
        out: Tensor = self.out(self.norm(text_FND + self.attention(text_FND, image_FPD, image_FPD)))
        return out


class Projector(nn.Module):
    """Equations 7 and 8: a prompt token for each frame.

    hidden, text, vision: the widths H, T and C of what comes in; what goes out has width C.
    """

    def __init__(self, settings: ProjectorSettings, *, hidden: int, text: int, vision: int) -> None:
        super().__init__()
        self.settings = settings
        width = settings.width
        self.hidden = nn.Linear(hidden, width)
        if settings.kind == "mlp":
            self.out = nn.Sequential(nn.ReLU(), nn.Linear(width, vision))
            return
        self.grounding = Grounding(width, settings.text_heads, text, vision, vision_norm=settings.vision_norm)
        self.queries = nn.Parameter(torch.randn(settings.queries, width))
        two_way = [settings.kind == "two-way" and place < settings.blocks - 1 for place in range(settings.blocks)]
        self.blocks = nn.ModuleList(Block(width, settings.heads, settings.mlp, two_way=each) for each in two_way)
        self.out = nn.Sequential(nn.Flatten(), nn.Linear(settings.queries * width, vision))

    def forward(
        self,
        *,
        said_BH: Tensor,
        text_BNT: Tensor,
        listed_BN: Tensor,
        image_FChw: Tensor,
        place_Chw: Tensor,
        owner_F: Tensor,
    ) -> Tensor:
        """The prompts [F, 1, C].

        said_BH: the state at <SEG>. listed_BN: bool, False where a list is shorter than N; its padding is not seen.
        place_Chw: the segmenter's encoding of the positions. owner_F: int64, the clip of each frame.
        """
        said_F1D = self.hidden(said_BH)[owner_F].unsqueeze(1)
        if self.settings.kind == "mlp":
            prompts: Tensor = self.out(said_F1D)
            return prompts
        keys_FKD = torch.cat([said_F1D, self.grounding(text_BNT, image_FChw, place_Chw, owner_F)], dim=1)
        mask_FK = nn.functional.pad(listed_BN, (1, 0), value=True)[owner_F]
        queries_FQD = place_FQD = self.queries.expand(len(owner_F), -1, -1)
        place_FKD = keys_FKD
        for block in self.blocks:
            queries_FQD, keys_FKD = block(queries_FQD, keys_FKD, place_FQD, place_FKD, mask_FK)
        prompts = self.out(queries_FQD)
        return prompts.unsqueeze(1)
