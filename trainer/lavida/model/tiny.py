"""A random SAM 2 small enough for a test: transformers' own classes, all sizes shrunk.

Hiera wants more of its sizes than its configuration says: the width has to change at every pooled stage, and a global
block may not be the first of a pooled stage (it would divide by a window of zero). The features of an untrained one
have a standard deviation of about .05.
"""

from __future__ import annotations

from typing import Any

from aesampler import rng
from lavida.model.pretrained import drawn_from
from lavida.model.segmenter import Segmenter, TinySam, sam2_classes


def sam2(sizes: TinySam) -> Any:
    """The configuration of a SAM 2 of these sizes: one or two blocks a stage, two decoder layers."""
    patches = sizes.side // 4
    widths = [sizes.channels * 2**stage for stage in range(4)]
    _, config_class = sam2_classes()
    return config_class(
        vision_config={
            "backbone_config": {
                "model_type": "sam2_hiera_det_model",
                "hidden_size": widths[0],
                "image_size": [sizes.side, sizes.side],
                "patch_kernel_size": [7, 7],
                "patch_stride": [4, 4],
                "patch_padding": [3, 3],
                "blocks_per_stage": list(sizes.blocks),
                "embed_dim_per_stage": widths,
                "num_attention_heads_per_stage": list(sizes.heads),
                "window_size_per_stage": list(sizes.windows),
                "window_positional_embedding_background_size": [2, 2],
                "global_attention_blocks": list(sizes.whole),
            },
            "backbone_channel_list": widths[::-1],
            "backbone_feature_sizes": [[patches >> level] * 2 for level in range(3)],
            "fpn_hidden_size": sizes.width,
        },
        prompt_encoder_config={
            "hidden_size": sizes.width,
            "image_size": sizes.side,
            "patch_size": 16,
            "mask_input_channels": 16,
        },
        mask_decoder_config={
            "hidden_size": sizes.width,
            "mlp_dim": 2 * sizes.width,
            "num_attention_heads": 2,
            "iou_head_hidden_dim": sizes.width,
        },
    )


def segmenter(sizes: TinySam, *, seed: int, frames_at_once: int = 8) -> Segmenter:
    """A random segmenter of these sizes, drawn by `seed`."""
    model_class, _ = sam2_classes()
    with drawn_from(rng.order(seed, "lavida", "sam2")):
        return Segmenter(model_class(sam2(sizes)), frames_at_once=frames_at_once)
