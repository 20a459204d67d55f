"""LavidaModel: what it computes, what it trains, and what is kept on disk; tiny random models, nothing is fetched."""

import json
import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from pydantic import ValidationError
from torch import Tensor

from aesampler.errors import ModelError, StorageError
from lavida.data import Batch
from lavida.model import PAPER, LavidaModel, ModelConfig, Output, folder
from lavida.model.lavida import both, squashed
from lavida.model.mllm import MllmOutput

LISTS = (("red circle",), ("a dog", "blue square", "person"))


@pytest.fixture(autouse=True)
def offline(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)


@pytest.fixture(scope="module")
def clips() -> list[np.ndarray]:
    """A clip of 5 frames and a picture, of different sizes."""
    drawn = np.random.default_rng(0)
    return [drawn.integers(0, 256, (5, 60, 80, 3), np.uint8), drawn.integers(0, 256, (1, 50, 40, 3), np.uint8)]


def lively(model: LavidaModel) -> LavidaModel:
    """Weights large enough that every input shows in every output."""
    with torch.random.fork_rng():
        torch.manual_seed(1)
        for name, parameter in model.named_parameters():
            if name.startswith(("segmenter", "projector", "mllm")) and (parameter.ndim > 1 or "embed" in name):
                torch.nn.init.normal_(parameter.data, std=0.3 if "mllm" not in name else 0.1)
    return model


@pytest.fixture(scope="module")
def model() -> LavidaModel:
    return lively(LavidaModel.tiny(0)).eval()


def run(model: LavidaModel, clips: Sequence[np.ndarray], lists: Any = LISTS) -> Output:
    with torch.no_grad():
        return model(model.collator(training=False).clips_to_batch(clips, lists))


def everything(output: Output) -> Tensor:
    """A number that all of the output goes into, as the loss does."""
    parts = (output.text_loss_sum, output.object_logits, output.mask_logits, output.iou_scores)
    return torch.stack([part.square().sum() for part in parts]).sum()


# What it computes


def test_shapes(model: LavidaModel, clips: list[np.ndarray]) -> None:
    output = run(model, clips)
    assert output.object_logits.shape == (6,)
    assert output.mask_logits.shape == (6, 1, 16, 16)
    assert output.iou_scores.shape == (6, 1)
    assert output.lengths.shape == (2,)
    assert output.text_loss_sum.shape == output.text_tokens.shape == ()
    kinds = (output.text_loss_sum, output.object_logits, output.mask_logits, output.iou_scores)
    assert {tensor.dtype for tensor in kinds} == {torch.float32}
    model.train()
    assert run(model, clips).mask_logits.shape == (6, 3, 16, 16)
    model.eval()


def test_the_parts_are_wired_as_equations_5_to_9_say(
    model: LavidaModel, clips: list[np.ndarray], monkeypatch: pytest.MonkeyPatch
) -> None:
    """With h given, the output is that of the parts, one frame and one list at a time."""
    batch = model.collator(training=False).clips_to_batch(clips, LISTS)
    said = torch.randn(2, model.mllm.hidden_size, generator=torch.Generator().manual_seed(0))
    asked: dict[str, Any] = {}

    def mllm(given: Batch, **options: Any) -> MllmOutput:
        asked.update(options)
        number = torch.tensor(7)
        return MllmOutput(seg_BD=said, text_loss_sum=torch.tensor(3.0), text_tokens=number, lengths=number.expand(2))

    monkeypatch.setattr(model.mllm, "forward", mllm)
    with torch.no_grad():
        output = model(batch)
        for frame, owner in enumerate(batch.owner.tolist()):
            names = list(LISTS[owner])
            vectors = model.text.clip.text(names) * model.text.width**0.5
            features = model.segmenter.encode(batch.frames[frame : frame + 1])
            prompt = model.projector(
                said_BH=said[owner : owner + 1],
                text_BNT=vectors[None],
                listed_BN=torch.ones(1, len(names), dtype=torch.bool),
                image_FChw=features.image,
                place_Chw=features.place,
                owner_F=torch.zeros(1, dtype=torch.int64),
            )
            found = model.segmenter.decode(features, prompt)
            torch.testing.assert_close(output.object_logits[frame], found.objects[0], rtol=1e-3, atol=1e-3)
            torch.testing.assert_close(output.mask_logits[frame], found.masks[0], rtol=1e-3, atol=1e-3)
    assert asked == {"ratio": 0.5, "prune": None}
    assert output.text_loss_sum == 3.0
    assert output.object_logits.std() > 0.01


def test_a_mixed_batch_is_scored_as_each_alone(model: LavidaModel, clips: list[np.ndarray]) -> None:
    together = run(model, clips)
    alone = [run(model, [clip], [names]) for clip, names in zip(clips, LISTS, strict=True)]
    for field in ("object_logits", "mask_logits", "iou_scores", "lengths"):
        parts = torch.cat([getattr(each, field) for each in alone])
        torch.testing.assert_close(getattr(together, field), parts, rtol=1e-3, atol=1e-3)
    total = sum(each.text_loss_sum for each in alone)
    torch.testing.assert_close(together.text_loss_sum, total, rtol=1e-4, atol=1e-4)


def test_names_and_pixels_matter(model: LavidaModel, clips: list[np.ndarray]) -> None:
    before = run(model, clips).object_logits
    other = run(model, clips, (("tv",), LISTS[1])).object_logits
    assert not torch.allclose(other[:5], before[:5], atol=1e-3)
    torch.testing.assert_close(other[5:], before[5:], rtol=1e-3, atol=1e-3)
    darker = run(model, [clips[0] // 2, clips[1]]).object_logits
    assert not torch.allclose(darker[:5], before[:5], atol=1e-3)


def test_features_are_computed_once_for_many_lists(
    model: LavidaModel, clips: list[np.ndarray], monkeypatch: pytest.MonkeyPatch
) -> None:
    collator = model.collator(training=False)
    batch = collator.clips_to_batch([clips[1], clips[1]], LISTS)
    with torch.no_grad():
        expected = model(batch)
        features = model.encode_frames(batch.frames[:1]).repeat(torch.tensor([0, 0]))
        monkeypatch.setattr(model.segmenter, "encode", None)
        found = model(batch, features)
    torch.testing.assert_close(found.object_logits, expected.object_logits, rtol=1e-4, atol=1e-4)


def test_scores_of_logits(model: LavidaModel) -> None:
    """Pixels of a frame that shows nothing, as the object's logit says, have no score, whatever is drawn in it."""
    logits = torch.zeros(2, 3, 2, 2)
    logits[0, 1] = torch.tensor([[-4.0, 4.0], [-4.0, 4.0]])
    logits[1, 2] = 2.0
    number = torch.tensor(0)
    output = Output(
        text_loss_sum=number,
        text_tokens=number,
        object_logits=torch.tensor([1.0, -30.0]),
        mask_logits=logits,
        iou_scores=torch.tensor([[0.1, 0.9, 0.2], [0.1, 0.2, 0.3]]),
        lengths=number,
    )
    torch.testing.assert_close(model.frame_scores(output), (torch.tensor([1.0, -30.0]) / 4).sigmoid())
    # The centres of 4 columns lie at -1/4, 1/4, 3/4 and 5/4 of the two old ones; beyond the edge nothing changes.
    drawn = torch.tensor([-4.0, -2.0, 2.0, 4.0]).expand(2, 4)
    torch.testing.assert_close(model.mask_logits(output, 2, 4)[0], drawn)
    product = torch.tensor(1.0).sigmoid() * drawn.sigmoid()
    pixels = model.pixel_scores(output, 2, 4)
    torch.testing.assert_close(pixels[0], (product.logit() / 4).sigmoid())
    assert pixels[1].max() < 0.001


def test_confident_scores_keep_their_order() -> None:
    """A sigmoid in float32 is 1.0 from 17 on."""
    logits = torch.linspace(-40, 40, 2001)
    assert (squashed(logits).diff() > 0).all()
    assert (both(logits, torch.tensor(50.0)).diff() > 0).all()
    assert squashed(torch.tensor(0.0)) == 0.5
    for one, other in ((1e4, -1e4), (-1e4, 1e4), (-1e4, -1e4), (1e4, 1e4)):
        assert both(torch.tensor(one), torch.tensor(other)).isfinite()


def test_score(model: LavidaModel, clips: list[np.ndarray]) -> None:
    output = run(model, clips)
    found = model.score(clips, LISTS)
    np.testing.assert_array_equal(np.concatenate([each.frames for each in found]), model.frame_scores(output))
    assert [each.frames.dtype for each in found] == [np.float32] * 2
    assert [each.pixels.shape for each in found] == [(5, 60, 80), (1, 50, 40)]
    exact = model.pixel_scores(output, 50, 40)[5:]
    np.testing.assert_allclose(found[1].pixels, exact, atol=1e-6)
    without = model.score(clips, LISTS, pixels=False, collator=model.collator(training=False))
    assert [each.pixels for each in without] == [None, None]
    np.testing.assert_array_equal(without[0].frames, found[0].frames)
    model.train()
    assert np.array_equal(model.score(clips, LISTS, pixels=False)[0].frames, found[0].frames)
    assert model.training
    model.eval()
    with pytest.raises(ModelError, match="a prompt needs a name"):
        model.score(clips, [[], ["tv"]])


def test_bfloat16_holds_what_is_frozen(clips: list[np.ndarray]) -> None:
    model, exact = LavidaModel.tiny(0, dtype="bfloat16"), LavidaModel.tiny(0)
    trained = set(model.trained_parameters())
    for name, parameter in model.named_parameters():
        large = name.startswith(("mllm.", "segmenter.sam.vision_encoder."))
        assert parameter.dtype == (torch.bfloat16 if large and name not in trained else torch.float32), name
    output = model(model.collator(training=True).clips_to_batch(clips, LISTS))
    assert {output.object_logits.dtype, output.mask_logits.dtype, output.text_loss_sum.dtype} == {torch.float32}
    everything(output).backward()
    assert all(parameter.grad.dtype == torch.float32 for parameter in model.trained_parameters().values())
    torch.testing.assert_close(
        run(model.eval(), clips).text_loss_sum, run(exact.eval(), clips).text_loss_sum, rtol=0.02, atol=0
    )


# What it trains


def paper(name: str) -> bool:
    """The paper's trained parameters, by their names in transformers, peft and ours."""
    return (
        "lora_" in name
        or name in ("mllm.model.lm_head.weight", "mllm.model.model.language_model.embed_tokens.weight")
        or name.startswith(("projector.", "segmenter.sam.mask_decoder."))
        or name == "segmenter.sam.prompt_encoder.no_mask_embed.weight"
    )


@pytest.mark.parametrize("kind", ["two-way", "qformer", "mlp"])
def test_gradients_reach_what_the_paper_trains_and_nothing_else(kind: str, clips: list[np.ndarray]) -> None:
    model = lively(LavidaModel.tiny(0, projector={"kind": kind})).train()
    names = {name for name, _ in model.named_parameters()}
    expected = {name for name in names if paper(name)}
    lora = sorted(name for name in expected if "lora_" in name)
    assert len(lora) == 2 * 2 * 2  # A and B, of q and v, of two layers
    assert all(".q_proj." in name or ".v_proj." in name for name in lora)
    everything(model(model.collator(training=True).clips_to_batch(clips, LISTS))).backward()
    reached = {name for name, parameter in model.named_parameters() if parameter.grad is not None}
    assert reached == expected == set(model.trained_parameters())


def test_a_step_changes_what_is_trained_and_nothing_else(clips: list[np.ndarray]) -> None:
    model = lively(LavidaModel.tiny(0)).train()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    optimizer = torch.optim.AdamW(model.trained_parameters().values(), lr=1e-2)
    everything(model(model.collator(training=True).clips_to_batch(clips, LISTS))).backward()
    optimizer.step()
    changed = {name for name, tensor in model.state_dict().items() if not torch.equal(tensor, before[name])}
    # The decoder's single mask never comes out: its gradient is zero, and a bias of zero stays zero.
    single = {name for name in model.trained_parameters() if "output_hypernetworks_mlps.0." in name}
    assert changed | single == set(model.trained_parameters())


def test_other_parts_can_be_trained(clips: list[np.ndarray]) -> None:
    model = lively(LavidaModel.tiny(0, mllm={"ratio": 1.0}))
    model.train_only(["text_encoder", "vision_encoder", "mllm", "projector"])
    assert not any(name.startswith("segmenter.sam.mask") for name in model.trained_parameters())
    first = model.text(LISTS)[0]
    everything(model(model.collator(training=True).clips_to_batch(clips, LISTS))).backward()
    assert [name for name, parameter in model.trained_parameters().items() if parameter.grad is None] == []
    torch.optim.SGD(model.trained_parameters().values(), lr=0.1).step()
    moved = model.text(LISTS)[0]
    assert not torch.allclose(moved, first)
    model.train_only(["projector"])
    torch.testing.assert_close(model.text(LISTS)[0], moved)  # nothing stale was kept
    assert all(parameter.grad is None for parameter in model.parameters())


def test_names_are_encoded_once(model: LavidaModel, monkeypatch: pytest.MonkeyPatch) -> None:
    first, listed = model.text((("bus", "tree"), ("tree",)))
    assert listed.tolist() == [[True, True], [True, False]]
    assert torch.equal(first[1, 1], torch.zeros(32))
    torch.testing.assert_close(first[0].norm(dim=1), torch.full((2,), 32**0.5))
    monkeypatch.setattr(model.text.clip, "encode", None)
    assert torch.equal(model.text((("tree", "bus"),))[0], first[:1, [1, 0]])


# How it is made


def test_the_seed_alone_draws_a_tiny_model() -> None:
    torch.manual_seed(3)
    before = torch.random.get_rng_state()
    first = LavidaModel.tiny(5).state_dict()
    assert torch.equal(torch.random.get_rng_state(), before)
    torch.manual_seed(4)
    again, other = LavidaModel.tiny(5).state_dict(), LavidaModel.tiny(6).state_dict()
    assert all(torch.equal(tensor, again[name]) for name, tensor in first.items())
    same = {name for name, tensor in first.items() if torch.equal(tensor, other[name]) and tensor.unique().numel() > 1}
    assert same == set()


def test_a_tiny_model_by_the_configuration_of_a_run() -> None:
    text = """
        mllm: {model: tiny, tiny: {hidden: 32}}
        segmenter: {model: tiny, tiny: {side: 96}}
        text: {model: tiny}
        projector: {kind: qformer, width: 32, queries: 2, blocks: 1, heads: 2, mlp: 16, text_heads: 2}
        inputs: {eval_tokens: [4, 16]}
        dtype: float32
        trained: [projector]
    """
    model = LavidaModel.build(ModelConfig.model_validate(yaml.safe_load(text)))
    assert (model.segmenter.side, model.mllm.hidden_size, model.projector.settings.kind) == (96, 32, "qformer")
    assert {name.split(".")[0] for name in model.trained_parameters()} == {"projector"}
    assert model.collator(training=False).settings.eval_tokens == (4, 16)


def test_the_papers_configuration() -> None:
    config = ModelConfig()
    assert config.trained == PAPER
    assert config.dtype == "bfloat16"
    assert (config.mllm.model, config.mllm.ratio) == ("Qwen/Qwen2-VL-7B-Instruct", 0.5)
    assert (config.projector.width, config.projector.queries, config.projector.blocks) == (768, 48, 5)
    assert (config.text.model, config.text.pretrained) == ("ViT-B-32", "openai")
    assert ModelConfig.model_validate_json(config.model_dump_json()) == config


@pytest.mark.parametrize(
    "wrong",
    [{"projektor": {}}, {"dtype": "float16"}, {"trained": ["head"]}, {"text": {"prompt": "a photo"}}, {"seed": -1}],
)
def test_configurations_that_do_not_do(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        ModelConfig.model_validate(wrong)


@pytest.fixture(scope="module")
def parts(model: LavidaModel, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The three models as others publish them, each in a folder."""
    made = tmp_path_factory.mktemp("parts")
    bare = LavidaModel.tiny(0, mllm={"lora": None})
    bare.mllm.model.save_pretrained(made / "mllm")
    bare.mllm.processor.save_pretrained(made / "mllm")
    model.segmenter.sam.save_pretrained(made / "sam2")
    from lavida.clip import Clip

    Clip.tiny(0).save(made / "clip")
    return made


def of_parts(parts: Path, **changes: Any) -> ModelConfig:
    named: dict[str, Any] = {"mllm": {"model": str(parts / "mllm")}, "segmenter": {"model": str(parts / "sam2")}}
    return ModelConfig.tiny(**named, text={"model": str(parts / "clip")}, **changes)


def test_a_model_of_parts_in_folders(parts: Path, model: LavidaModel, clips: list[np.ndarray], tmp_path: Path) -> None:
    built = LavidaModel.build(of_parts(parts)).eval()
    theirs = model.segmenter.state_dict()
    assert all(torch.equal(tensor, theirs[name]) for name, tensor in built.segmenter.state_dict().items())
    torch.testing.assert_close(built.text(LISTS)[0], model.text(LISTS)[0])
    assert set(built.trained_parameters()) == set(model.trained_parameters())
    built.save_pretrained(tmp_path / "light", frozen=False)
    built.save_pretrained(tmp_path / "whole")
    sizes = [sum(file.stat().st_size for file in path.rglob("*.safetensors")) for path in sorted(tmp_path.iterdir())]
    assert sizes[0] < sizes[1] / 2
    for name in ("light", "whole"):
        again = LavidaModel.from_pretrained(tmp_path / name)
        assert torch.equal(run(again, clips).mask_logits, run(built, clips).mask_logits)


@pytest.mark.parametrize("part", ["mllm", "segmenter", "text"])
def test_a_part_that_is_missing_is_named(parts: Path, part: str, tmp_path: Path) -> None:
    config = of_parts(parts).model_dump()
    config[part]["model"] = str(tmp_path / "nothing")
    with pytest.raises(ModelError, match="nothing") as caught:
        LavidaModel.build(ModelConfig.model_validate(config))
    assert "\n" not in str(caught.value)


# How it is kept


def test_a_saved_model_is_the_same_model(model: LavidaModel, clips: list[np.ndarray], tmp_path: Path) -> None:
    model.save_pretrained(tmp_path / "model")
    again = LavidaModel.from_pretrained(tmp_path / "model")
    assert not again.training
    assert again.config == model.config
    state, theirs = again.state_dict(), model.state_dict()
    assert state.keys() == theirs.keys()
    assert all(torch.equal(tensor, theirs[name]) for name, tensor in state.items())
    assert set(again.trained_parameters()) == set(model.trained_parameters())
    for left, right in zip(model.score(clips, LISTS), again.score(clips, LISTS), strict=True):
        assert np.array_equal(left.frames, right.frames)
        assert np.array_equal(left.pixels, right.pixels)


def test_saving_twice_gives_the_same_bytes(model: LavidaModel, tmp_path: Path) -> None:
    model.save_pretrained(tmp_path / "a")
    LavidaModel.from_pretrained(tmp_path / "a").save_pretrained(tmp_path / "b")

    def files(name: str) -> dict[str, bytes]:
        root = tmp_path / name
        return {path.relative_to(root).as_posix(): path.read_bytes() for path in root.rglob("*") if path.is_file()}

    first = files("a")
    assert {"config.json", "model.safetensors", "sam2/config.json", "mllm/config.json", "mllm/tokenizer.json"} <= set(
        first
    )
    assert files("b") == first
    assert not any(str(tmp_path).encode() in data for data in first.values())
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "b"]


def test_a_large_model_is_written_in_several_files(
    model: LavidaModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(folder, "SHARD", "1MB")
    model.save_pretrained(tmp_path / "model")
    shards = sorted((tmp_path / "model").glob("*.safetensors"))
    assert len(shards) > 1
    again = LavidaModel.from_pretrained(tmp_path / "model").state_dict()
    assert all(torch.equal(tensor, again[name]) for name, tensor in model.state_dict().items())
    shards[0].unlink()
    with pytest.raises(ModelError, match="a file of weights is missing"):
        LavidaModel.from_pretrained(tmp_path / "model")


def test_a_tied_head_stays_tied(clips: list[np.ndarray], tmp_path: Path) -> None:
    model = LavidaModel.tiny(0).eval()
    model.mllm.model.config.tie_word_embeddings = True
    model.mllm.model.config.get_text_config().tie_word_embeddings = True
    model.mllm.model.tie_weights()
    model.save_pretrained(tmp_path / "model")
    again = LavidaModel.from_pretrained(tmp_path / "model")
    assert again.mllm.get_output_embeddings().weight is again.mllm.get_input_embeddings().weight
    assert torch.equal(run(again, clips).text_loss_sum, run(model, clips).text_loss_sum)
    assert set(again.trained_parameters()) == {
        name for name in LavidaModel.tiny(0).trained_parameters() if "lm_head" not in name
    }


def test_what_was_trained_before_is_kept_without_the_frozen_weights(clips: list[np.ndarray], tmp_path: Path) -> None:
    model = LavidaModel.tiny(0)
    model.train_only(["text_encoder", "vision_encoder"])
    with torch.no_grad():
        for parameter in model.trained_parameters().values():
            parameter.add_(0.1)
    model.train_only(PAPER)
    model.save_pretrained(tmp_path / "model", frozen=False)
    again = LavidaModel.from_pretrained(tmp_path / "model")
    assert again.changed == model.changed == {*PAPER, "text_encoder", "vision_encoder"}
    assert torch.equal(run(again, clips).object_logits, run(model.eval(), clips).object_logits)


def test_another_dtype_on_loading(model: LavidaModel, tmp_path: Path) -> None:
    model.save_pretrained(tmp_path / "model")
    again = LavidaModel.from_pretrained(tmp_path / "model", dtype="bfloat16")
    assert again.mllm.vision.dtype == torch.bfloat16
    assert again.projector.hidden.weight.dtype == torch.float32
    with pytest.raises(ModelError, match=r"config\.json: dtype"):
        LavidaModel.from_pretrained(tmp_path / "model", dtype="int8")


def test_a_gathered_state_can_be_written(model: LavidaModel, tmp_path: Path) -> None:
    state = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    state["projector.queries"] += 1.0
    model.save_pretrained(tmp_path / "model", state=state)
    again = LavidaModel.from_pretrained(tmp_path / "model")
    assert torch.equal(again.projector.queries, model.projector.queries + 1.0)


def test_a_failed_save_leaves_the_older_model(
    model: LavidaModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "model"
    model.save_pretrained(path)
    before = (path / "model.safetensors").read_bytes()

    def full(*args: Any, **options: Any) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("huggingface_hub.save_torch_state_dict", full)
        with pytest.raises(StorageError, match="No space left"):
            model.save_pretrained(path)
    assert (path / "model.safetensors").read_bytes() == before
    model.save_pretrained(path)
    assert [entry.name for entry in tmp_path.iterdir()] == ["model"]


def test_nothing_else_is_overwritten(model: LavidaModel, tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(ModelError, match="this is there already, and is no model of ours"):
        model.save_pretrained(tmp_path)
    assert (tmp_path / "notes.txt").read_text() == "mine"


@pytest.fixture(scope="module")
def saved(model: LavidaModel, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("saved") / "model"
    model.save_pretrained(path)
    return path


def _drop(path: Path, name: str) -> None:
    (path / name).unlink()


def _head(path: Path, **changes: Any) -> None:
    head = json.loads((path / "config.json").read_text())
    (path / "config.json").write_text(json.dumps(head | changes))


@pytest.mark.parametrize(
    ("spoil", "line"),
    [
        (lambda path: _drop(path, "config.json"), "not a LAVIDA model: no config.json"),
        (lambda path: (path / "config.json").write_text("{"), "config.json: not JSON"),
        (lambda path: _head(path, format=None, model_type="qwen2_vl"), "not a LAVIDA model; got a qwen2_vl model"),
        (lambda path: _head(path, version=9), "a LAVIDA model of another version; got 9; allowed: 1"),
        (lambda path: _head(path, model={"seeds": 1}), "seeds: not a configuration that this version reads"),
        (lambda path: _drop(path, "model.safetensors"), "model.safetensors: a file of weights is missing"),
        (lambda path: (path / "model.safetensors").write_bytes(b"1" * 100), "a file of weights cannot be read"),
        (lambda path: shutil.rmtree(path / "sam2"), "sam2"),
        (lambda path: shutil.rmtree(path / "mllm"), "mllm"),
        (lambda path: shutil.rmtree(path / "clip"), "clip"),
    ],
)
def test_folders_that_are_no_whole_model(saved: Path, tmp_path: Path, spoil: Any, line: str) -> None:
    path = tmp_path / "spoilt"
    shutil.copytree(saved, path)
    spoil(path)
    with pytest.raises(ModelError) as caught:
        LavidaModel.from_pretrained(path)
    assert line in str(caught.value)
    assert "\n" not in str(caught.value)


def test_weights_of_another_model(saved: Path, tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    path = tmp_path / "spoilt"
    shutil.copytree(saved, path)
    state = load_file(path / "model.safetensors")
    save_file(
        {name: tensor for name, tensor in state.items() if name != "projector.queries"}, path / "model.safetensors"
    )
    with pytest.raises(ModelError, match=r"weights are missing; got 1 of \d+ tensors, projector.queries among them"):
        LavidaModel.from_pretrained(path)
    save_file(state | {"projector.queries": torch.zeros(3, 3)}, path / "model.safetensors")
    with pytest.raises(
        ModelError, match=r"projector.queries: the weights are those of another model; got \[3, 3\], not"
    ):
        LavidaModel.from_pretrained(path)
    save_file(state | {"projector.more": torch.zeros(3)}, path / "model.safetensors")
    with pytest.raises(ModelError, match=r"projector.more: the weights are those of another model; got nothing"):
        LavidaModel.from_pretrained(path)


@pytest.mark.parametrize("name", ["no-such-folder", "/no/such/folder", "some-lab/lavida-8b"])
def test_names_that_are_nowhere(name: str) -> None:
    with pytest.raises(ModelError, match=f"{name}: no such folder"):
        LavidaModel.from_pretrained(name)


def test_scores_do_not_depend_on_what_else_is_in_the_batch(model: LavidaModel, clips: list[np.ndarray]) -> None:
    batch = model.collator(training=False).clips_to_batch(clips, LISTS)
    padded = replace(batch, frames=batch.frames.clone())
    padded.frames[2] = 0.0
    with torch.no_grad():
        one, other = model(batch), model(padded)
    kept = torch.arange(6) != 2
    torch.testing.assert_close(one.object_logits[kept], other.object_logits[kept])
    assert one.object_logits[2] != other.object_logits[2]
