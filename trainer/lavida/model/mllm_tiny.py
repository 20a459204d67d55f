"""MLLMs of a few layers with random weights, made offline: the same classes as the large ones, for tests and for CPUs.

The tokenizer is a byte-level BPE with Qwen's special tokens, trained here on the prompts' own words; the processor is
built from its parts, with a short chat template of ours. Nothing is read from disk or from a hub. About 0.2 million
parameters at the default sizes, 58 thousand of them embeddings and head.
"""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from aesampler import _torchvision
from lavida.data import prompts

FamilyName = Literal["qwen2-vl", "qwen2.5-vl", "llava-onevision"]

SPECIAL = (
    *("<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|vision_start|>", "<|vision_end|>"),
    *("<|image_pad|>", "<|video_pad|>"),
)
CHAT = """\
{%- for message in messages -%}
<|im_start|>{{ message.role }}
{% for part in message.content -%}
{%- if part.type == 'image' -%}<|vision_start|><|image_pad|><|vision_end|>
{%- elif part.type == 'video' -%}<|vision_start|><|video_pad|><|vision_end|>
{%- else -%}{{ part.text }}{%- endif -%}
{%- endfor -%}<|im_end|>
{% endfor -%}
"""


class TinyMllm(BaseModel):
    """The sizes of a tiny MLLM.

    vision_*: of its vision tower. patch: pixels of a patch's side; a visual token is 2 x 2 patches. image_side: of
    LLaVA-OneVision's frames, in pixels, a multiple of 2 patches. vocabulary: tokens of the BPE, at least the 256 bytes,
    the specials apart. Heads share one width, which must be a multiple of 4 (rotary positions) in the language model.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    family: FamilyName = "qwen2-vl"
    hidden: int = Field(default=64, ge=8)
    layers: int = Field(default=2, ge=1)
    heads: int = Field(default=4, ge=1)
    kv_heads: int = Field(default=2, ge=1)
    mlp: int = Field(default=128, ge=1)
    vision_width: int = Field(default=32, ge=8)
    vision_layers: int = Field(default=1, ge=1)
    vision_heads: int = Field(default=2, ge=1)
    patch: int = Field(default=14, ge=2)
    image_side: int = Field(default=56, ge=4)
    vocabulary: int = Field(default=512, ge=257)
    context: int = Field(default=4096, ge=64)

    @model_validator(mode="after")
    def _fits(self) -> TinyMllm:
        faults = {
            "hidden": self.hidden % (4 * self.heads) == 0,
            "kv_heads": self.heads % self.kv_heads == 0,
            "vision_width": self.vision_width % (4 * self.vision_heads) == 0,
            "image_side": self.image_side % (2 * self.patch) == 0 or self.family != "llava-onevision",
        }
        if wrong := [name for name, sound in faults.items() if not sound]:
            raise ValueError(f"{', '.join(wrong)}: hidden and vision_width are multiples of 4 heads, heads of kv_heads")
        return self


def tiny_processor(tiny: TinyMllm) -> Any:
    """The processor of a tiny MLLM, `<SEG>` not yet added."""
    transformers = _transformers()
    tokenizer = _tokenizer(tiny)
    if tiny.family == "llava-onevision":
        size = {"height": tiny.image_side, "width": tiny.image_side}
        return transformers.LlavaOnevisionProcessor(
            image_processor=transformers.LlavaOnevisionImageProcessor(
                size=size, image_grid_pinpoints=[[size["height"]] * 2]
            ),
            tokenizer=tokenizer,
            video_processor=transformers.LlavaOnevisionVideoProcessor(size=size),
            num_image_tokens=(tiny.image_side // tiny.patch) ** 2,
            vision_feature_select_strategy="full",
            image_token="<|image_pad|>",
            video_token="<|video_pad|>",
            chat_template=CHAT,
        )
    of = {"qwen2-vl": transformers.Qwen2VLProcessor, "qwen2.5-vl": transformers.Qwen2_5_VLProcessor}[tiny.family]
    return of(
        image_processor=transformers.Qwen2VLImageProcessor(patch_size=tiny.patch),
        tokenizer=tokenizer,
        video_processor=transformers.Qwen2VLVideoProcessor(patch_size=tiny.patch),
        chat_template=CHAT,
    )


def tiny_config(tiny: TinyMllm, processor: Any) -> Any:
    """The transformers config of a tiny MLLM whose tokens are the processor's."""
    transformers = _transformers()
    tokenizer = processor.tokenizer
    text: dict[str, Any] = {
        "vocab_size": len(tokenizer),
        "hidden_size": tiny.hidden,
        "intermediate_size": tiny.mlp,
        "num_hidden_layers": tiny.layers,
        "num_attention_heads": tiny.heads,
        "num_key_value_heads": tiny.kv_heads,
        "max_position_embeddings": tiny.context,
        "bos_token_id": None,
        "eos_token_id": tokenizer.convert_tokens_to_ids("<|im_end|>"),
        "pad_token_id": tokenizer.pad_token_id,
        "tie_word_embeddings": False,
    }
    ids: dict[str, Any] = {"tie_word_embeddings": False}
    for name in ("image", "video"):
        ids[f"{name}_token_id"] = getattr(processor, f"{name}_token_id")
    if tiny.family == "llava-onevision":
        vision = {
            "model_type": "siglip_vision_model",
            "hidden_size": tiny.vision_width,
            "intermediate_size": 2 * tiny.vision_width,
            "num_hidden_layers": tiny.vision_layers + 1,
            "num_attention_heads": tiny.vision_heads,
            "image_size": tiny.image_side,
            "patch_size": tiny.patch,
            "vision_use_head": False,
        }
        text |= {"model_type": "qwen2"}
        pins = [[tiny.image_side] * 2]
        ids["image_token_index"] = ids.pop("image_token_id")
        ids["video_token_index"] = ids.pop("video_token_id")
        return transformers.LlavaOnevisionConfig(
            vision_config=vision, text_config=text, image_grid_pinpoints=pins, vision_feature_layer=-1, **ids
        )
    # A quarter of the rotary pairs tells time, the rest rows and columns, as in the large ones (16, 24, 24 of 64).
    pairs = tiny.hidden // tiny.heads // 2
    time = max(1, pairs // 4)
    rows = (pairs - time) // 2
    sections = [time, rows, pairs - time - rows]
    text["rope_parameters"] = {"rope_type": "default", "rope_theta": 1e6, "mrope_section": sections}
    ids["vision_start_token_id"] = tokenizer.convert_tokens_to_ids("<|vision_start|>")
    ids["vision_end_token_id"] = tokenizer.convert_tokens_to_ids("<|vision_end|>")
    vision = {"depth": tiny.vision_layers, "num_heads": tiny.vision_heads, "patch_size": tiny.patch}
    if tiny.family == "qwen2-vl":
        vision |= {"embed_dim": tiny.vision_width, "hidden_size": tiny.hidden, "mlp_ratio": 2}
        return transformers.Qwen2VLConfig(vision_config=vision, text_config=text, **ids)
    vision |= {
        "hidden_size": tiny.vision_width,
        "intermediate_size": 2 * tiny.vision_width,
        "out_hidden_size": tiny.hidden,
        "window_size": 4 * tiny.patch,
        "fullatt_block_indexes": [tiny.vision_layers - 1],
    }
    return transformers.Qwen2_5_VLConfig(vision_config=vision, text_config=text, **ids)


def _transformers() -> Any:
    _torchvision.importable()
    import transformers

    return transformers


def _tokenizer(tiny: TinyMllm) -> Any:
    import tokenizers
    from tokenizers import decoders, models, pre_tokenizers, trainers

    bpe = tokenizers.Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=tiny.vocabulary,
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    words = [*prompts.USER, *(answer.removesuffix(prompts.SEG) for answer in prompts.ANSWER), "user assistant\n"]
    bpe.train_from_iterator(words, trainer)
    tokenizer = _transformers().PreTrainedTokenizerFast(
        tokenizer_object=bpe, pad_token="<|endoftext|>", eos_token="<|im_end|>", clean_up_tokenization_spaces=False
    )
    tokenizer.add_tokens(list(SPECIAL), special_tokens=True)
    return tokenizer
