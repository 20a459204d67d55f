"""The segmenter against transformers' own Sam2Model, with tiny random weights."""

from pathlib import Path
from typing import Any

import pytest
import torch
from pydantic import ValidationError
from torch import Tensor

from aesampler.errors import ModelError
from lavida.model import tiny
from lavida.model.segmenter import Features, Segmenter, SegmenterSettings, TinySam, sam2_classes

SIDE, WIDTH = 64, 32


@pytest.fixture(scope="module")
def segmenter() -> Segmenter:
    """A tiny one whose weights are large enough to be told apart."""
    made = tiny.segmenter(TinySam(), seed=0)
    with torch.random.fork_rng():
        torch.manual_seed(1)
        for name, parameter in made.named_parameters():
            if parameter.ndim > 1 or "embed" in name:
                torch.nn.init.normal_(parameter, std=0.4)
        torch.nn.init.normal_(made.sam.no_memory_embedding)
    return made.eval().requires_grad_(False)


@pytest.fixture(scope="module")
def frames() -> Tensor:
    return torch.randn(5, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(2))


def asked(segmenter: Segmenter, frames: int) -> Tensor:
    """What Sam2Model puts in where it is asked for nothing: two points that are none."""
    return segmenter.sam.prompt_encoder.not_a_point_embed.weight.expand(frames, 2, -1)


def test_it_is_sam_2(segmenter: Segmenter, frames: Tensor) -> None:
    with torch.no_grad():
        theirs = segmenter.sam(pixel_values=frames, multimask_output=True)
        features = segmenter.encode(frames)
        segmenter.train()
        found = segmenter.decode(features, asked(segmenter, 5))
        segmenter.eval()
    torch.testing.assert_close(found.masks, theirs.pred_masks[:, 0], rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(found.iou, theirs.iou_scores[:, 0], rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(found.objects, theirs.object_score_logits[:, 0, 0], rtol=1e-4, atol=1e-5)
    assert found.masks.shape == (5, 3, SIDE // 4, SIDE // 4)
    assert found.masks.std() > 0.1
    for ours, sams in zip((*features.fine, features.decoded), theirs.image_embeddings, strict=True):
        torch.testing.assert_close(ours, sams, rtol=1e-4, atol=1e-5)


def test_features_are_those_of_the_image_encoder(segmenter: Segmenter, frames: Tensor) -> None:
    with torch.no_grad():
        features, seen = segmenter.encode(frames), segmenter.sam.vision_encoder(frames)
    torch.testing.assert_close(features.image, seen.fpn_hidden_states[-1])
    torch.testing.assert_close(features.place, seen.fpn_position_encoding[-1][0])
    added = (features.decoded - features.image)[3, :, 1, 2]
    torch.testing.assert_close(added, segmenter.sam.no_memory_embedding[0, 0], rtol=1e-4, atol=1e-5)


def test_evaluation_gives_the_mask_of_highest_iou(segmenter: Segmenter, frames: Tensor) -> None:
    prompts = 10 * torch.randn(5, 1, WIDTH, generator=torch.Generator().manual_seed(3))
    assert segmenter.sam.mask_decoder.dynamic_multimask_via_stability
    with torch.no_grad():
        features = segmenter.encode(frames)
        one = segmenter.decode(features, prompts)
        three = segmenter.train().decode(features, prompts)
        segmenter.eval()
    best = three.iou.argmax(1)
    assert len(set(best.tolist())) > 1
    assert one.masks.shape == (5, 1, 16, 16)
    assert torch.equal(one.masks[:, 0], three.masks[torch.arange(5), best])
    assert torch.equal(one.iou[:, 0], three.iou.max(1).values)
    assert torch.equal(one.objects, three.objects)


@pytest.mark.parametrize("at_once", [1, 2, 5])
def test_frames_are_encoded_a_few_at_a_time(segmenter: Segmenter, frames: Tensor, at_once: int) -> None:
    chunked = Segmenter(segmenter.sam, frames_at_once=at_once)
    sizes: list[int] = []
    hook = segmenter.sam.vision_encoder.register_forward_pre_hook(lambda _, given: sizes.append(len(given[0])))
    with torch.no_grad():
        found, whole = chunked.encode(frames), segmenter.encode(frames)
    hook.remove()
    assert sizes == {1: [1] * 5, 2: [2, 2, 1], 5: [5]}[at_once] + [5]
    for ours, theirs in zip((found.image, *found.fine), (whole.image, *whole.fine), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-6)


def test_the_encoder_keeps_no_graph_unless_it_is_trained(frames: Tensor) -> None:
    made = tiny.segmenter(TinySam(), seed=0)
    made.sam.vision_encoder.requires_grad_(False)
    features = made.encode(frames[:1])
    assert not features.image.requires_grad
    assert all(fine.requires_grad for fine in features.fine)  # through conv_s0 and conv_s1, of the mask decoder
    made.sam.vision_encoder.requires_grad_(True)
    assert made.encode(frames[:1]).image.requires_grad
    with torch.no_grad():
        assert not made.encode(frames[:1]).image.requires_grad


def test_gradients_reach_the_prompt_and_the_whole_mask_decoder(frames: Tensor) -> None:
    made = tiny.segmenter(TinySam(), seed=0).train()
    made.requires_grad_(False)
    made.sam.mask_decoder.requires_grad_(True)
    made.sam.prompt_encoder.no_mask_embed.requires_grad_(True)
    prompts = torch.randn(2, 1, WIDTH, requires_grad=True)
    found = made.decode(made.encode(frames[:2]), prompts)
    (found.masks.sum() + found.iou.sum() + found.objects.sum()).backward()
    assert prompts.grad is not None
    assert prompts.grad.abs().min() > 0
    reached = {name for name, parameter in made.named_parameters() if parameter.grad is not None}
    decoder = {f"sam.mask_decoder.{name}" for name, _ in made.sam.mask_decoder.named_parameters()}
    assert reached == decoder | {"sam.prompt_encoder.no_mask_embed.weight"}


def test_one_picture_for_several_prompts(segmenter: Segmenter, frames: Tensor) -> None:
    prompts = torch.randn(3, 1, WIDTH, generator=torch.Generator().manual_seed(4))
    order = torch.tensor([1, 0, 1])
    with torch.no_grad():
        once = segmenter.decode(segmenter.encode(frames[:2]).repeat(order), prompts)
        each = segmenter.decode(segmenter.encode(frames[order]), prompts)
    torch.testing.assert_close(once.masks, each.masks, rtol=1e-4, atol=1e-5)
    assert once.objects.shape == (3,)


def test_a_bfloat16_encoder_leaves_the_decoder_in_float32(frames: Tensor) -> None:
    made = tiny.segmenter(TinySam(), seed=0).eval()
    with torch.no_grad():
        exact = made.encode(frames)
        made.sam.vision_encoder.to(torch.bfloat16)
        features = made.encode(frames)
        with torch.autocast("cpu", torch.bfloat16):
            found = made.decode(features, torch.randn(5, 1, WIDTH))
    tensors = (features.image, features.decoded, *features.fine, features.place, found.masks, found.iou, found.objects)
    assert {tensor.dtype for tensor in tensors} == {torch.float32}
    assert (features.image - exact.image).norm() < 0.05 * exact.image.norm()
    assert torch.equal(features.place, exact.place)


def test_the_seed_alone_draws_a_tiny_one(frames: Tensor) -> None:
    torch.manual_seed(5)
    before = torch.random.get_rng_state()

    def image(seed: int) -> Features:
        with torch.no_grad():
            return tiny.segmenter(TinySam(), seed=seed).encode(frames[:1])

    first = image(1)
    assert torch.equal(torch.random.get_rng_state(), before)
    torch.manual_seed(6)
    assert torch.equal(image(1).image, first.image)
    assert not torch.equal(image(2).image, first.image)


@pytest.mark.parametrize("side", [32, 96, 128])
def test_tiny_sizes(side: int) -> None:
    made = tiny.segmenter(TinySam(side=side, width=16, channels=4), seed=0).eval()
    with torch.no_grad():
        features = made.encode(torch.randn(1, 3, side, side))
        found = made.decode(features, torch.randn(1, 1, 16))
    assert (made.side, made.width) == (side, 16)
    assert features.image.shape == (1, 16, side // 16, side // 16)
    assert found.masks.shape == (1, 1, side // 4, side // 4)


@pytest.mark.parametrize("sizes", [{"side": 80}, {"side": 0}, {"width": 20}, {"depth": 1}])
def test_tiny_sizes_that_do_not_fit(sizes: dict[str, int]) -> None:
    with pytest.raises(ValidationError):
        TinySam(**sizes)


def test_frames_of_another_size(segmenter: Segmenter) -> None:
    with pytest.raises(ModelError, match="frames of another size than the segmenter's; got 32x64; allowed: 64x64"):
        segmenter.encode(torch.zeros(1, 3, 32, 64))


def test_weights_of_a_folder(segmenter: Segmenter, frames: Tensor, tmp_path: Path) -> None:
    segmenter.sam.save_pretrained(tmp_path)
    loaded = Segmenter.load(SegmenterSettings(model=str(tmp_path), frames_at_once=2)).eval()
    assert loaded.frames_at_once == 2
    with torch.no_grad():
        assert torch.equal(loaded.encode(frames[:2]).image, segmenter.encode(frames[:2]).image)
    assert {parameter.dtype for parameter in loaded.parameters()} == {torch.float32}


def test_weights_of_a_video_model_as_the_hub_has_them(tmp_path: Path, frames: Tensor) -> None:
    """SAM 2.1 is published as a video model: the same parts and a memory, which is not loaded."""
    from transformers import Sam2VideoConfig, Sam2VideoModel

    config = tiny.sam2(TinySam())
    names = ("vision_config", "prompt_encoder_config", "mask_decoder_config")
    parts = {name: getattr(config, name).to_dict() for name in names}
    sizes = ("attention_hidden_size", "encoder_hidden_size", "fuser_embed_dim", "fuser_intermediate_dim")
    widths = [
        *(f"memory_{size}" for size in (*sizes, "attention_feed_forward_hidden_size")),
        "mask_downsampler_embed_dim",
    ]
    memory = {"memory_encoder_output_channels": 16, "memory_attention_num_layers": 1, "image_size": SIDE}
    memory |= {"memory_attention_rope_feat_sizes": [4, 4], **dict.fromkeys(widths, WIDTH)}
    video = Sam2VideoModel(Sam2VideoConfig(**parts, **memory)).eval()
    video.save_pretrained(tmp_path)
    loaded = Segmenter.load(SegmenterSettings(model=str(tmp_path))).eval()
    with torch.no_grad():
        seen = video.vision_encoder(frames[:1]).fpn_hidden_states[-1]
        assert torch.equal(loaded.encode(frames[:1]).image, seen)
    state, theirs = loaded.sam.state_dict(), video.state_dict()
    assert all(torch.equal(tensor, theirs[name]) for name, tensor in state.items())


def test_what_cannot_be_loaded_is_one_line(
    segmenter: Segmenter, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)

    def line(name: str) -> str:
        with pytest.raises(ModelError) as caught:
            Segmenter.load(SegmenterSettings(model=name))
        assert "\n" not in str(caught.value)
        return str(caught.value)

    assert "facebook/sam2.1-hiera-smal: the SAM 2 cannot be loaded" in line("facebook/sam2.1-hiera-smal")
    assert "no/such/name: no such folder, and no name of the hub" in line("no/such/name")
    assert "the folder holds no SAM 2; got no config.json" in line(str(tmp_path))
    segmenter.sam.save_pretrained(tmp_path)
    whole = (tmp_path / "model.safetensors").read_bytes()
    for weights in (None, whole[:5000], b""):
        (tmp_path / "model.safetensors").unlink(missing_ok=True)
        if weights is not None:
            (tmp_path / "model.safetensors").write_bytes(weights)
        assert "the SAM 2 cannot be loaded" in line(str(tmp_path))


def test_another_model_in_the_folder(tmp_path: Path) -> None:
    from lavida.model.mllm import Mllm

    Mllm.tiny().model.save_pretrained(tmp_path)
    with pytest.raises(ModelError, match=f"{tmp_path}: "):
        Segmenter.load(SegmenterSettings(model=str(tmp_path)))


def test_weights_of_another_model(segmenter: Segmenter, tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    segmenter.sam.save_pretrained(tmp_path)
    state = load_file(tmp_path / "model.safetensors")
    kept: dict[str, Any] = {name: state[name] for name in state if not name.startswith("mask_decoder.iou")}
    save_file(kept, tmp_path / "model.safetensors", metadata={"format": "pt"})
    line = "these are not the weights of a SAM 2 model; got nothing that fits mask_decoder[.]iou"
    with pytest.raises(ModelError, match=line):
        Segmenter.load(SegmenterSettings(model=str(tmp_path)))


def test_a_blank_one_of_a_saved_configuration(segmenter: Segmenter, frames: Tensor, tmp_path: Path) -> None:
    segmenter.save_config(tmp_path)
    blank = Segmenter.blank(tmp_path).eval()
    assert blank.sam.config.to_dict() == segmenter.sam.config.to_dict()
    blank.load_state_dict(segmenter.state_dict())
    with torch.no_grad():
        assert torch.equal(blank.encode(frames).image, segmenter.encode(frames).image)
    assert isinstance(blank.sam, sam2_classes()[0])
