"""The MLLM: parity with transformers, positions of kept tokens, lengths, what is trained, loading and its errors."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn import functional

from aesampler.errors import ModelError
from lavida.data import NO_TARGET, SEG, Batch, Collator, DataSettings
from lavida.model.compress import compress_tokens, kept_count
from lavida.model.mllm import LoraSettings, Mllm, MllmSettings
from lavida.model.mllm_tiny import FamilyName, TinyMllm

FAMILIES: tuple[FamilyName, ...] = ("qwen2-vl", "qwen2.5-vl", "llava-onevision")
CLIPS = ((5, 96, 128), (1, 64, 64), (4, 80, 60))
NAMES = (("fire", "smoke"), ("dog",), ("cat", "cow", "hand truck"))


def batch_of(model: Mllm, places: tuple[int, ...] = (0, 1, 2), still: bool = False) -> Batch:
    settings = DataSettings(train_tokens=(16, 30), image_tokens=(16, 30))
    collator = Collator(processor=model.processor, side=64, settings=settings, context=model.context)
    clips = []
    for place in places:
        t, h, w = CLIPS[place]
        random = np.random.default_rng(place)
        clip = random.integers(0, 256, (1 if still else t, h, w, 3), dtype=np.uint8)
        clips.append(np.repeat(clip, t, axis=0) if still else clip)
    return collator.clips_to_batch(clips, [NAMES[place] for place in places])


@pytest.fixture(scope="module", params=FAMILIES)
def model(request: pytest.FixtureRequest) -> Mllm:
    return Mllm.tiny(TinyMllm(family=request.param), lora=LoraSettings(), seed=1).eval()


@pytest.fixture(scope="module")
def qwen() -> Mllm:
    return Mllm.tiny(lora=LoraSettings(), seed=1).eval()


def visual_mask(model: Mllm, batch: Batch) -> Tensor:
    processor = model.processor
    return (batch.input_ids == processor.image_token_id) | (batch.input_ids == processor.video_token_id)


def visual_tokens(model: Mllm, batch: Batch) -> list[Tensor]:
    """The visual tokens of each sample, in the order of their placeholders, from transformers' own methods."""
    inner, vision = model.model.model, batch.vision
    if "frame_counts" in vision:
        parts = vision["pixel_values_videos"].split(vision["frame_counts"].tolist())
        return [inner.get_video_features(part[None]).pooler_output[0] for part in parts]
    images = iter(())
    if "pixel_values" in vision:
        images = iter(inner.get_image_features(vision["pixel_values"], vision["image_grid_thw"]).pooler_output)
    videos = iter(())
    if "pixel_values_videos" in vision:
        videos = iter(inner.get_video_features(vision["pixel_values_videos"], vision["video_grid_thw"]).pooler_output)
    is_video = (batch.input_ids == model.processor.video_token_id).any(1).tolist()
    return [next(videos if video else images) for video in is_video]


def positions(model: Mllm, batch: Batch) -> Tensor:
    """Of the whole sequences, [axes, B, L], from transformers."""
    if "frame_counts" in batch.vision:
        return (torch.arange(batch.input_ids.shape[1])[None] * batch.attention_mask)[None]
    image, video = model.processor.image_token_id, model.processor.video_token_id
    kinds = (batch.input_ids == image) + 2 * (batch.input_ids == video)
    grids = {name: value for name, value in batch.vision.items() if name.endswith("grid_thw")}
    found, _ = model.model.model.get_rope_index(
        batch.input_ids, mm_token_type_ids=kinds, attention_mask=batch.attention_mask, **grids
    )
    assert isinstance(found, Tensor)
    return found


@contextmanager
def given_to(module: nn.Module) -> Iterator[list[dict[str, Any]]]:
    """The keyword arguments of each call of a module."""
    calls: list[dict[str, Any]] = []
    hook = module.register_forward_pre_hook(
        lambda _, args, kwargs: calls.append({**dict(enumerate(args)), **kwargs}), with_kwargs=True
    )
    yield calls
    hook.remove()


# The forward


def test_uncompressed_it_is_transformers_own_forward(model: Mllm) -> None:
    places = (0, 1, 2) if "qwen" in model.model.config.model_type else (2,)
    batch = batch_of(model, places)
    vision: dict[str, Any] = dict(batch.vision)
    if "frame_counts" in vision:
        vision = {"pixel_values_videos": vision["pixel_values_videos"][None]}
    else:
        ids = batch.input_ids
        vision["mm_token_type_ids"] = (ids == model.processor.image_token_id).int() + 2 * (
            ids == model.processor.video_token_id
        ).int()
    with torch.no_grad():
        theirs = model.model(
            input_ids=batch.input_ids, attention_mask=batch.attention_mask, output_hidden_states=True, **vision
        )
        ours = model(batch, ratio=1.0)
    states = theirs.hidden_states[-1]
    assert torch.allclose(ours.seg_BD, states[torch.arange(len(batch)), batch.seg_position], atol=1e-5)
    loss = functional.cross_entropy(theirs.logits[:, :-1].flatten(0, 1), batch.labels[:, 1:].flatten(), reduction="sum")
    assert ours.text_loss_sum.item() == pytest.approx(loss.item(), rel=1e-5)
    assert ours.text_tokens.item() == (batch.labels[:, 1:] != NO_TARGET).sum().item()
    assert ours.lengths.tolist() == batch.attention_mask.sum(1).tolist()


@pytest.mark.parametrize("ratio", [1.0, 0.5, 0.2])
def test_kept_tokens_keep_their_positions_and_the_rest_is_left_out(model: Mllm, ratio: float) -> None:
    batch = batch_of(model)
    with torch.no_grad(), given_to(model.language) as calls, given_to(model.language.layers[0]) as layers:  # type: ignore[index, arg-type]
        output = model(batch, ratio=ratio)
        tokens = visual_tokens(model, batch)
    (call,) = calls
    whole = positions(model, batch)
    closing = 1 if "frame_counts" in batch.vision else 0
    table = model.get_input_embeddings()(batch.input_ids)
    for row, x in enumerate(tokens):
        m = len(x) - closing
        z, kept = compress_tokens(x[:m], ratio)
        kept = torch.cat([kept, torch.arange(m, len(x))])
        z = torch.cat([z, x[m:]])
        assert len(z) == kept_count(m, ratio) + closing
        visual = visual_mask(model, batch)[row].nonzero()[:, 0]
        text = (batch.attention_mask[row].bool() & ~visual_mask(model, batch)[row]).nonzero()[:, 0]
        places, order = torch.cat([text, visual[kept]]).sort()
        length = len(places)
        assert output.lengths[row].item() == length
        # what the language model was given, token by token
        given = call["position_ids"]
        given = given if given.ndim == 3 else given[None]
        assert torch.equal(given[:, row, :length], whole[:, row, places])
        expected = torch.cat([table[row, text], z])[order]
        assert torch.equal(call["inputs_embeds"][row, :length], expected)
        assert call["attention_mask"][row].tolist() == [1] * length + [0] * (call["attention_mask"].shape[1] - length)
    # the sequence that was really used
    assert layers[0][0].shape[:2] == (3, output.lengths.max().item())
    if ratio < 1:
        assert len(set(output.lengths.tolist())) == 3


def test_time_row_and_column_differ_in_the_3d_families(qwen: Mllm) -> None:
    batch = batch_of(qwen, (0,))
    with torch.no_grad(), given_to(qwen.language) as calls:
        qwen(batch, ratio=0.3)
    assert calls[0]["position_ids"].shape[0] == 3
    t, h, w = calls[0]["position_ids"][:, 0]
    assert not torch.equal(t, h)
    assert not torch.equal(h, w)
    # 1-D positions would give another state
    with torch.no_grad():
        kept = calls[0] | {"position_ids": None}
        plain = qwen.language(**kept).last_hidden_state[0, -1]
        assert not torch.allclose(plain, qwen(batch, ratio=0.3).seg_BD[0], atol=1e-4)


@pytest.mark.parametrize("ratio", [1.0, 0.25])
def test_a_sample_is_the_same_alone_and_in_a_batch(model: Mllm, ratio: float) -> None:
    with torch.no_grad():
        together = model(batch_of(model), ratio=ratio)
        alone = [model(batch_of(model, (place,)), ratio=ratio) for place in range(3)]
    assert together.lengths.tolist() == [each.lengths.item() for each in alone]
    assert torch.allclose(together.seg_BD, torch.cat([each.seg_BD for each in alone]), atol=1e-5)
    assert together.text_loss_sum.item() == pytest.approx(sum(each.text_loss_sum.item() for each in alone), rel=1e-5)
    assert together.text_tokens.item() == sum(each.text_tokens.item() for each in alone)


def test_gaps_in_positions_are_no_borders(model: Mllm) -> None:
    """transformers takes a jump of 1-D positions for the border of packed sequences where no mask is given."""
    batch = batch_of(model, (2,))
    with torch.no_grad():
        before = model(batch, ratio=0.2).seg_BD
        ids = batch.input_ids.clone()
        ids[0, 0] = (ids[0, 0] + 7) % 256
        after = model(replace(batch, input_ids=ids), ratio=0.2).seg_BD
    assert not torch.allclose(before, after, atol=1e-7)


def test_logits_are_made_of_the_answer_alone(model: Mllm) -> None:
    batch = batch_of(model)
    with torch.no_grad(), given_to(model.get_output_embeddings()) as calls:
        output = model(batch, ratio=0.5)
    assert [call[0].shape for call in calls] == [(output.text_tokens.item(), model.hidden_size)]


def test_static_patches_are_left_out_where_asked_for(model: Mllm) -> None:
    still, moving = batch_of(model, still=True), batch_of(model)
    with torch.no_grad():
        whole = model(still).lengths
        pruned = model(still, prune=0.01).lengths
        assert model(moving, prune=1e-9).lengths.tolist() == model(moving).lengths.tolist()
        both = model(still, ratio=0.5, prune=0.01).lengths
    closing = 1 if "frame_counts" in still.vision else 0
    visual = visual_mask(model, still).sum(1) - closing
    frames = torch.tensor([-(-CLIPS[row][0] // (1 if closing else 2)) for row in range(3)])
    assert (whole - pruned).tolist() == (visual - visual // frames).tolist()
    assert (pruned - both).tolist() == [int(n) - kept_count(int(n), 0.5) for n in visual // frames]


def test_another_number_of_placeholders_is_an_error(qwen: Mllm) -> None:
    batch = batch_of(qwen, (1,))
    ids = batch.input_ids.clone()
    ids[0, (ids[0] == qwen.processor.image_token_id).nonzero()[0]] = 65
    wrong = replace(batch, input_ids=ids, keys=("shard/7",))
    with pytest.raises(ModelError, match="shard/7: visual tokens and their placeholders differ in number"):
        qwen(wrong)


# What is trained


def test_lora_embeddings_and_head_are_trained_and_nothing_else(model: Mllm) -> None:
    asked = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    layers = len(model.language.layers)  # type: ignore[arg-type]
    lora = {
        f"model.model.language_model.layers.{layer}.self_attn.{projection}.lora_{side}.default.weight"
        for layer in range(layers)
        for projection in ("q_proj", "v_proj")
        for side in "AB"
    }
    a_sides = {name for name in lora if "lora_A" in name}  # which B, zero at first, lets no gradient reach
    assert asked == lora | {"model.lm_head.weight", "model.model.language_model.embed_tokens.weight"}
    model.zero_grad()
    output = model(batch_of(model), ratio=0.5)
    (output.text_loss_sum + output.seg_BD.sum()).backward()
    assert {name for name, parameter in model.named_parameters() if parameter.grad is not None} == asked
    changing = [parameter.grad for name, parameter in model.named_parameters() if name in asked - a_sides]
    assert all(gradient is not None and gradient.abs().sum() > 0 for gradient in changing)


def test_lora_has_the_papers_values_and_changes_nothing_at_first(model: Mllm) -> None:
    layer: Any = model.language.layers[0].self_attn.q_proj  # type: ignore[index, union-attr]
    assert layer.r["default"] == 8
    assert layer.lora_alpha["default"] == 16
    assert layer.scaling["default"] == 2
    assert layer.lora_dropout["default"].p == 0.05
    assert layer.lora_B["default"].weight.abs().sum() == 0
    assert not any("lora_" in name for name, _ in model.vision.named_parameters())


def test_compression_has_no_gradient_and_its_absence_has(qwen: Mllm) -> None:
    qwen.vision.requires_grad_(True)
    try:
        for ratio, reached in [(0.5, False), (1.0, True)]:
            qwen.zero_grad()
            qwen(batch_of(qwen), ratio=ratio).seg_BD.sum().backward()
            found = [parameter.grad is not None for parameter in qwen.vision.parameters()]
            assert any(found) == reached
    finally:
        qwen.vision.requires_grad_(False)


def test_checkpointing_changes_nothing_but_computes_again(model: Mllm) -> None:
    batch = batch_of(model)
    layer = model.language.layers[-1]  # type: ignore[index]
    projection: Any = layer.self_attn.o_proj  # type: ignore[union-attr]
    found = {}
    for on in (False, True):
        model.checkpointing(on)
        model.train()
        torch.manual_seed(0)  # of LoRA's dropout
        model.zero_grad()
        with given_to(projection) as calls:
            model(batch, ratio=0.5).text_loss_sum.backward()
        found[on] = {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
        assert len(calls) == 1 + on
    model.checkpointing(False)
    model.eval()
    assert found[False].keys() == found[True].keys()
    assert all(torch.allclose(found[False][name], found[True][name], atol=1e-6) for name in found[True])


def test_bfloat16(model: Mllm) -> None:
    family = model.processor.__class__.__name__
    tiny = {"Qwen2VLProcessor": "qwen2-vl", "Qwen2_5_VLProcessor": "qwen2.5-vl"}.get(family, "llava-onevision")
    half = Mllm.tiny(TinyMllm.model_validate({"family": tiny}), lora=LoraSettings(), seed=1, dtype=torch.bfloat16)
    half.eval()
    with torch.no_grad():
        whole = model(batch_of(model), ratio=0.5)
        output = half(batch_of(half), ratio=0.5)
    assert output.seg_BD.dtype == torch.float32
    assert functional.cosine_similarity(output.seg_BD, whole.seg_BD).min() > 0.98
    for parameter in half.parameters():
        if parameter.requires_grad:
            parameter.data = parameter.data.float()
    with torch.autocast("cpu", torch.bfloat16):
        output = half(batch_of(half), ratio=0.5)
    output.text_loss_sum.backward()
    assert torch.isfinite(output.text_loss_sum)
    assert half.get_input_embeddings().weight.grad.dtype == torch.float32  # type: ignore[union-attr]


# Tiny ones, folders, errors


def test_a_tiny_one_is_drawn_by_its_seed_alone() -> None:
    torch.manual_seed(7)
    before = torch.get_rng_state()
    one = Mllm.tiny(lora=LoraSettings(), seed=3)
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(8)
    same = Mllm.tiny(lora=LoraSettings(), seed=3).state_dict()
    assert all(torch.equal(value, same[name]) for name, value in one.state_dict().items())
    other = Mllm.tiny(lora=LoraSettings(), seed=4).state_dict()
    assert not torch.equal(other["model.lm_head.weight"], same["model.lm_head.weight"])
    assert sum(parameter.numel() for parameter in one.parameters()) < 250_000


def test_tiny_sizes_that_do_not_fit_are_refused() -> None:
    side: dict[str, Any] = {"family": "llava-onevision", "image_side": 60}
    for wrong in ({"hidden": 36}, {"kv_heads": 3}, {"vision_width": 12}, side):
        with pytest.raises(ValueError, match=next(reversed(wrong))):
            TinyMllm.model_validate(wrong)
    assert MllmSettings().ratio == 0.5
    assert MllmSettings().prune is None
    with pytest.raises(ValueError, match="ratio"):
        MllmSettings(ratio=0)


def saved(model: Mllm, folder: Path) -> Path:
    """`model` as a lab has it: transformers' own files, no `<SEG>`, no LoRA."""
    bare = Mllm.tiny(TinyMllm(family=family_name(model)), seed=2)
    bare.model.save_pretrained(folder)
    bare.processor.save_pretrained(folder)
    return folder


def family_name(model: Mllm) -> FamilyName:
    named: dict[str, FamilyName] = {"qwen2_vl": "qwen2-vl", "qwen2_5_vl": "qwen2.5-vl"}
    return named.get(model.model.config.model_type, "llava-onevision")


def test_a_folder_is_loaded(model: Mllm, tmp_path: Path) -> None:
    folder = saved(model, tmp_path / "mllm")
    loaded = Mllm.build(MllmSettings(model=str(folder))).eval()
    expected = Mllm.tiny(TinyMllm(family=family_name(model)), seed=2).eval()
    with torch.no_grad():
        assert torch.equal(loaded(batch_of(loaded), ratio=0.5).seg_BD, expected(batch_of(expected), ratio=0.5).seg_BD)
    assert any("lora_" in name for name, _ in loaded.named_parameters())


def test_seg_gets_a_row_of_its_own(tmp_path: Path) -> None:
    from lavida.model.mllm_tiny import tiny_config, tiny_processor
    from lavida.model.pretrained import blank

    processor = tiny_processor(TinyMllm())
    model = blank(tiny_config(TinyMllm(), processor), torch.float32)
    rows = len(processor.tokenizer)
    assert model.get_input_embeddings().weight.shape[0] == rows
    model.save_pretrained(tmp_path)
    processor.save_pretrained(tmp_path)
    loaded = Mllm.from_pretrained(str(tmp_path))
    assert loaded.processor.tokenizer.convert_tokens_to_ids(SEG) == rows
    assert loaded.model.config.get_text_config().vocab_size == rows + 1
    for layer, old in (
        (loaded.get_input_embeddings(), model.get_input_embeddings()),
        (loaded.get_output_embeddings(), model.get_output_embeddings()),
    ):
        weight: Any = layer.weight
        assert weight.shape[0] == rows + 1
        assert torch.equal(weight[:rows], old.weight)
        assert torch.allclose(weight[rows], old.weight.mean(0), atol=1e-6)
    loaded(batch_of(loaded, (1,)))


def test_a_skeleton_and_a_state_dict_make_the_same_model(model: Mllm, tmp_path: Path) -> None:
    model.save_skeleton(tmp_path)
    assert not list(tmp_path.glob("*.safetensors"))
    again = Mllm.from_skeleton(tmp_path, lora=LoraSettings())
    again.load_state_dict(model.state_dict())
    again.eval()
    with torch.no_grad():
        assert torch.equal(again(batch_of(again), ratio=0.5).seg_BD, model(batch_of(model), ratio=0.5).seg_BD)
    asked = [name for name, parameter in again.named_parameters() if parameter.requires_grad]
    assert asked == [name for name, parameter in model.named_parameters() if parameter.requires_grad]


def refused(source: str | Path, **options: Any) -> str:
    with pytest.raises(ModelError) as caught:
        Mllm.from_pretrained(str(source), **options)
    error = caught.value
    assert "\n" not in str(error)
    assert error.__cause__ is None
    assert error.__suppress_context__ or error.__context__ is None
    return str(error)


def test_wrong_folders_and_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    assert "no such folder, and no name of the hub" in refused(tmp_path / "nowhere")
    assert "the folder holds no MLLM; got no config.json" in refused(tmp_path)
    message = refused("Qwen/Qwen2-VL-70B-Instrukt")
    assert message.startswith("Qwen/Qwen2-VL-70B-Instrukt: the MLLM cannot be loaded; got ")
    assert message.endswith("or a hub name that can be reached")
    (tmp_path / "config.json").write_text('{"model_type": "bert"}')
    assert "of no supported family; got bert; allowed: qwen2_vl, qwen2_5_vl, llava_onevision" in refused(tmp_path)
    (tmp_path / "config.json").write_text('{"model_type": "nonsense"}')
    assert "the MLLM cannot be loaded" in refused(tmp_path)
    (tmp_path / "config.json").write_text("{")
    assert "the MLLM cannot be loaded" in refused(tmp_path)


def test_missing_and_broken_weights(qwen: Mllm, tmp_path: Path) -> None:
    folder = saved(qwen, tmp_path)
    weights = folder / "model.safetensors"
    state = load_file(weights)
    lost = next(name for name in state if name.endswith("layers.1.mlp.up_proj.weight"))
    save_file({name: value for name, value in state.items() if name != lost}, weights, {"format": "pt"})
    message = refused(folder)
    assert "weights are missing or do not fit; got 1, " in message
    assert "layers.1.mlp.up_proj.weight first" in message
    weights.write_bytes(weights.read_bytes()[:1000])
    assert "the MLLM cannot be loaded" in refused(folder)
    weights.unlink()
    assert "the MLLM cannot be loaded" in refused(folder)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"model_type": "qwen2_vl"}))
    (folder / "tokenizer.json").unlink()
    assert "the MLLM cannot be loaded" in refused(folder)


def test_lora_of_no_such_projection() -> None:
    with pytest.raises(ModelError, match="LoRA finds no such projection; got query"):
        Mllm.tiny(lora=LoraSettings(targets=("query",)))
