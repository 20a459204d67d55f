"""Samples and clips to batches: prompts, tokens, both sizes of pictures, targets."""

from __future__ import annotations

import pickle
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from corpora import write
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from aesampler import Corpus
from aesampler.errors import ModelError
from aesampler.sample import Sample
from aesampler.stream import Settings, Stream
from lavida.data import NO_TARGET, SEG, Batch, Collator, DataSettings, prompts, targets
from lavida.model.mllm_tiny import FamilyName, TinyMllm, tiny_processor
from lavida.model.pretrained import add_seg

TOKENS = DataSettings(train_tokens=(4, 16), eval_tokens=(16, 36), image_tokens=(4, 9))


def collator(family: FamilyName = "qwen2-vl", side: int = 64, **options: Any) -> Collator:
    processor = tiny_processor(TinyMllm(family=family))
    add_seg(processor.tokenizer)
    return Collator(processor=processor, side=side, **{"settings": TOKENS, "context": 4096, **options})


@pytest.fixture(scope="module")
def qwen() -> Collator:
    return collator()


def sample(frames: int = 3, valid: int | None = None, key: str = "a", size: tuple[int, int] = (48, 64)) -> Sample:
    random = np.random.default_rng(len(key) + frames)
    masks = np.zeros((frames, *size), dtype=bool)
    masks[:, 8:24, 16:40] = True
    ignored = np.zeros_like(masks)
    ignored[:, 32:, :] = True
    valid = frames if valid is None else valid
    return Sample(
        key=key,
        source="made",
        split="train",
        origin=key,
        origin_frames=tuple(map(str, range(valid))),
        valid_frames=valid,
        anomalous=True,
        categories=("fire", "hand truck", "dog"),
        is_genuine=(True, False, False),
        presence=("present", "absent", "absent"),
        frames=random.integers(0, 256, (frames, *size, 3), dtype=np.uint8),
        masks=masks,
        ignored=ignored,
        frame_labels=np.array([1] * valid + [255] * (frames - valid), dtype=np.uint8),
        redraw="",
    )


def texts(made: Collator, batch: Batch) -> list[tuple[str, str]]:
    """The prompt and the answer of each sample."""
    decode = made.processor.tokenizer.decode
    found = []
    for ids, mask, labels in zip(batch.input_ids, batch.attention_mask, batch.labels, strict=True):
        target = labels != NO_TARGET
        found.append((decode(ids[mask.bool() & ~target]), decode(ids[target])))
    return found


# Prompts


def test_there_are_five_of_each_and_answers_end_in_seg() -> None:
    assert len(set(prompts.USER)) == len(set(prompts.ANSWER)) == 5
    assert all(user.count("{names}") == 1 and SEG not in user for user in prompts.USER)
    assert all(answer.endswith(SEG) and answer.count(SEG) == 1 for answer in prompts.ANSWER)


def test_the_draw_is_keyed_by_seed_epoch_source_and_key() -> None:
    assert prompts.drawn(1, 2, "coco", "a") == prompts.drawn(1, 2, "coco", "a")
    draws = [prompts.drawn(0, epoch, "coco", str(key)) for epoch in range(20) for key in range(20)]
    assert set(draws) == {(user, answer) for user in prompts.USER for answer in prompts.ANSWER}
    for user in prompts.USER:
        assert 50 < sum(draw[0] == user for draw in draws) < 110
    for other in [(1, 0, "coco"), (0, 1, "coco"), (0, 0, "lvis")]:
        assert [prompts.drawn(*other, str(key)) for key in range(20)] != draws[:20]


def test_a_name_that_holds_a_special_token_is_refused(qwen: Collator) -> None:
    clip = np.zeros((1, 28, 28, 3), dtype=np.uint8)
    for name in (f"a {SEG}", "x<|image_pad|>", "<|im_end|>"):
        with pytest.raises(ModelError, match="special token"):
            qwen.clips_to_batch([clip], [[name]])


def test_an_empty_list_is_refused(qwen: Collator) -> None:
    with pytest.raises(ModelError, match="needs a name"):
        qwen.clips_to_batch([np.zeros((1, 28, 28, 3), dtype=np.uint8)], [[]])


def test_a_list_longer_than_the_context_is_a_clear_error() -> None:
    made = collator(context=200)
    made.samples_to_batch([sample()])
    names = [f"category number {number}" for number in range(40)]
    with pytest.raises(ModelError) as caught:
        made.samples_to_batch([sample(), replace(sample(key="long"), categories=tuple(names))])
    assert str(caught.value).startswith("long: a prompt is longer than the model's context; got ")
    assert "(40 names); allowed: 200; list fewer names" in str(caught.value)


@pytest.mark.parametrize("family", ["qwen2-vl", "llava-onevision"])
def test_a_cap_that_may_not_fit_is_found_before_any_sample(family: FamilyName) -> None:
    made = collator(family, context=280)
    names = [f"thing {number}" for number in range(99)]
    clip = sample(4)
    cap = next(cap for cap in range(1, 99) if refuses(made, cap, names)) - 1
    assert cap > 5
    made.check_cap(cap, names, 4)
    for epoch in range(9):
        for first in range(0, 99 - cap, 20):
            made.samples_to_batch([replace(clip, categories=tuple(names[first : first + cap]))], epoch)
    with pytest.raises(ModelError, match=f"got {cap + 1} names, up to .* allowed: 280 tokens; lower the cap"):
        made.check_cap(cap + 1, names, 4)
    collator(family, context=0).check_cap(99, names, 4)


def refuses(made: Collator, cap: int, names: list[str]) -> bool:
    try:
        made.check_cap(cap, names, 4)
    except ModelError:
        return True
    return False


# Tokens


@pytest.mark.parametrize("family", ["qwen2-vl", "qwen2.5-vl", "llava-onevision"])
def test_images_and_clips_of_any_length_in_one_batch(family: FamilyName) -> None:
    made = collator(family)
    samples = [sample(5), sample(1, key="bb", size=(40, 40)), sample(4, valid=2, key="ccc")]
    batch = made.samples_to_batch(samples, epoch=3)
    assert len(batch) == 3
    assert batch.keys == ("a", "bb", "ccc")
    assert batch.owner.tolist() == [0] * 5 + [1] + [2] * 4
    assert batch.valid_frames.tolist() == [True] * 8 + [False] * 2
    assert batch.frames.shape == (10, 3, 64, 64)
    assert batch.seg_position.tolist() == (batch.attention_mask.sum(1) - 1).tolist()
    seg = made.processor.tokenizer.convert_tokens_to_ids(SEG)
    assert (batch.input_ids.gather(1, batch.seg_position[:, None]) == seg).all()
    assert (batch.input_ids == seg).sum() == 3
    for row, (each, (prompt, answer)) in enumerate(zip(samples, texts(made, batch), strict=True)):
        user, said = prompts.drawn(0, 3, each.source, each.key)
        assert answer == said
        assert user.format(names="fire, hand truck, dog") in prompt
        assert prompt.count("<|vision_start|>") == 1
        target = batch.labels[row] != NO_TARGET
        assert torch.equal(batch.labels[row][target], batch.input_ids[row][target])
        padded = batch.attention_mask[row] == 0
        assert (batch.labels[row][padded] == NO_TARGET).all()


@pytest.mark.parametrize("family", ["qwen2-vl", "qwen2.5-vl"])
def test_the_number_of_placeholders_is_that_of_the_visual_tokens(family: FamilyName) -> None:
    made = collator(family)
    batch = made.samples_to_batch([sample(5), sample(1), sample(4, valid=2)])
    images, videos = (getattr(made.processor, f"{kind}_token_id") for kind in ("image", "video"))
    assert (batch.input_ids == images).sum(1).tolist() == [0, int(batch.vision["image_grid_thw"][0].prod()) // 4, 0]
    grids = batch.vision["video_grid_thw"]
    assert grids[:, 0].tolist() == [3, 1]  # 5 frames in pairs; of the third sample the 2 valid ones
    assert (batch.input_ids == videos).sum(1).tolist() == [int(grids[0].prod()) // 4, 0, int(grids[1].prod()) // 4]
    assert len(batch.vision["pixel_values_videos"]) == int(grids.prod(1).sum())


def test_llava_onevision_sees_a_picture_as_a_clip_of_one_frame() -> None:
    made = collator("llava-onevision")
    batch = made.samples_to_batch([sample(5), sample(1), sample(4, valid=2)])
    assert batch.vision["frame_counts"].tolist() == [5, 1, 2]
    assert batch.vision["pixel_values_videos"].shape == (8, 3, 56, 56)
    # 4 x 4 patches, 2 x 2 tokens after pooling, one more at the end
    assert (batch.input_ids == made.processor.video_token_id).sum(1).tolist() == [21, 5, 9]


@pytest.mark.parametrize("size", [(30, 300), (64, 64), (480, 640), (17, 23)])
@pytest.mark.parametrize("training", [True, False])
def test_the_budgets_of_visual_tokens_are_kept(size: tuple[int, int], training: bool) -> None:
    budgets = DataSettings(train_tokens=(16, 32), eval_tokens=(60, 80), image_tokens=(8, 40))
    made = collator(settings=budgets, training=training)
    clips = [np.zeros((2, *size, 3), np.uint8), np.zeros((1, *size, 3), np.uint8)]
    batch = made.clips_to_batch(clips, [["fire"], ["fire"]])
    clip, image = (int(batch.vision[name].prod()) // 4 for name in ("video_grid_thw", "image_grid_thw"))
    low, high = budgets.train_tokens if training else budgets.eval_tokens
    # Sides are whole tokens: a budget is met to a row or a column.
    assert low * 0.8 <= clip <= high
    assert 8 * 0.8 <= image <= 40


def test_settings_refuse_a_budget_upside_down() -> None:
    assert DataSettings().train_tokens == (256, 512)
    assert DataSettings().eval_tokens == (1280, 1536)
    assert DataSettings().image_tokens == (32, 1024)
    with pytest.raises(ValueError, match="fewest, most"):
        DataSettings(train_tokens=(5, 4))


def test_scoring_has_the_first_prompts_and_no_targets(qwen: Collator) -> None:
    clips = [np.zeros((3, 40, 50, 3), np.uint8), np.zeros((1, 30, 30, 3), np.uint8)]
    batch = qwen.clips_to_batch(clips, [["fire"], ["dog", "cat"]], valid=[2, 1])
    assert [answer for _, answer in texts(qwen, batch)] == [prompts.ANSWER[0]] * 2
    assert prompts.USER[0].format(names="dog, cat") in texts(qwen, batch)[1][0]
    assert batch.valid_frames.tolist() == [True, True, False, True]
    assert batch.masks is batch.ignored is batch.frame_labels is batch.anomalous is None
    assert batch.categories == (("fire",), ("dog", "cat"))


def test_validation_has_targets_the_first_prompts_and_the_budget_of_evaluation() -> None:
    made = collator(training=False)
    batch = made.samples_to_batch([sample(4)], epoch=7)
    assert batch.masks is not None
    assert texts(made, batch)[0][1] == prompts.ANSWER[0]
    scored = made.clips_to_batch([sample(4).frames], [sample(4).categories])
    assert torch.equal(batch.input_ids, scored.input_ids)
    assert torch.equal(batch.frames, scored.frames)
    assert torch.equal(batch.vision["pixel_values_videos"], scored.vision["pixel_values_videos"])


def test_a_sample_is_the_same_in_any_batch(qwen: Collator) -> None:
    alone = qwen.samples_to_batch([sample(3)], epoch=2)
    beside = qwen.samples_to_batch([sample(5, key="bb"), sample(3)], epoch=2)
    length = int(alone.attention_mask.sum())
    assert torch.equal(beside.input_ids[1, :length], alone.input_ids[0])
    assert torch.equal(beside.frames[5:], alone.frames)
    drawn = {texts(qwen, qwen.samples_to_batch([sample(3)], epoch))[0] for epoch in range(8)}
    assert len(drawn) > 2


def test_batches_move_and_cross_processes(qwen: Collator) -> None:
    batch = qwen.samples_to_batch([sample(3), sample(1)])
    moved = batch.to("meta")
    assert moved.keys == batch.keys
    tensors = [moved.frames, moved.labels, moved.masks, *moved.vision.values()]
    assert all(tensor is not None and tensor.device.type == "meta" for tensor in tensors)
    again = pickle.loads(pickle.dumps(batch))
    assert torch.equal(again.masks, batch.masks)
    other = pickle.loads(pickle.dumps(qwen))
    assert torch.equal(other.samples_to_batch([sample(3)]).input_ids, qwen.samples_to_batch([sample(3)]).input_ids)


@pytest.mark.filterwarnings(
    # Python 3.12 warns of any fork beside threads.
    "ignore:This process .* is multi-threaded, use of fork:DeprecationWarning",
    "ignore:This DataLoader will create:UserWarning",
)
def test_a_stream_makes_the_same_batches_in_worker_processes(tmp_path: Path, qwen: Collator) -> None:
    write(tmp_path)
    batches = {}
    for workers in (0, 2):
        stream = Stream([Corpus.open(tmp_path)], "train", Settings(seed=1, threads=0))
        loader = stream.torch(3, num_workers=workers, collate=qwen.at(stream.epoch))
        batches[workers] = list(loader)
    assert sum(len(batch) for batch in batches[0]) == 9
    for one, other in zip(batches[0], batches[2], strict=True):
        assert one.keys == other.keys
        assert torch.equal(one.input_ids, other.input_ids)
        assert torch.equal(one.masks, other.masks)
        assert torch.equal(one.vision["pixel_values"], other.vision["pixel_values"])


def test_a_processor_of_another_family_or_without_a_template_is_refused(qwen: Collator) -> None:
    bare = tiny_processor(TinyMllm())
    clip = [np.zeros((1, 28, 28, 3), np.uint8)]
    with pytest.raises(ModelError, match="no token <SEG>"):
        Collator(processor=bare, side=64).clips_to_batch(clip, [["fire"]])
    add_seg(bare.tokenizer)
    bare.chat_template = None
    with pytest.raises(ModelError, match="no chat template"):
        Collator(processor=bare, side=64).clips_to_batch(clip, [["fire"]])
    bare.chat_template = "{{ messages[0].role }}"
    with pytest.raises(ModelError, match="no place for one image and an answer"):
        Collator(processor=bare, side=64).clips_to_batch(clip, [["fire"]])


# Pictures and targets


def test_pictures_are_resized_plainly_and_normalised() -> None:
    grey = np.full((2, 30, 50, 3), 128, dtype=np.uint8)
    made = targets.pictures(grey, 64)
    assert made.shape == (2, 3, 64, 64)
    assert made.dtype == torch.float32
    for channel, (mean, std) in enumerate(zip((0.485, 0.456, 0.406), (0.229, 0.224, 0.225), strict=True)):
        assert torch.allclose(made[:, channel], torch.tensor((128 / 255 - mean) / std))


@pytest.mark.parametrize("size", [(96, 160), (40, 28)])
def test_pictures_are_those_of_torch_to_a_grey_level(size: tuple[int, int]) -> None:
    random = np.random.default_rng(0)
    smooth = Image.fromarray(random.integers(0, 256, (8, 8, 3), dtype=np.uint8)).resize(size[::-1], 2)
    frame = np.asarray(smooth)[None]
    plain = torch.from_numpy(frame.transpose(0, 3, 1, 2).copy()).float()
    expected = torch.nn.functional.interpolate(plain, (64, 64), mode="bilinear", antialias=True) / 255
    expected = (expected - torch.tensor(targets.MEAN)[:, None, None]) / torch.tensor(targets.STD)[:, None, None]
    assert (targets.pictures(frame, 64) - expected).abs().max() < 1.01 / 255 / min(targets.STD)


@settings(max_examples=60)
@given(height=st.integers(1, 24), width=st.integers(1, 24), side=st.integers(1, 12), seed=st.integers(0, 9))
def test_areas_are_exact_at_any_pair_of_sizes(height: int, width: int, side: int, seed: int) -> None:
    """Each pixel is cut into side x side, each new one is then a whole number of these."""
    plane = np.random.default_rng(seed).random((1, height, width)) < 0.4
    fine = np.kron(plane[0], np.ones((side, side))).reshape(side, height, side, width)
    assert np.allclose(targets.covered(plane, side)[0], fine.mean(axis=(1, 3)), atol=1e-5)


def test_a_mask_is_what_covers_half_of_a_pixel() -> None:
    plane = np.zeros((1, 32, 32), dtype=bool)
    plane[0, :16, :14] = True  # 1.75 pixels of 8 wide
    plane[0, :16, 24:27] = True  # 3 of 8
    plane[0, 16:, :4] = True  # exactly half of a column
    found = targets.masks(plane, 16)
    assert found.shape == (1, 4, 4)
    assert found[0].astype(int).tolist() == [[1, 1, 0, 0], [1, 1, 0, 0], [1, 0, 0, 0], [1, 0, 0, 0]]


def test_a_small_anomaly_does_not_vanish_and_no_anomaly_appears() -> None:
    planes = np.zeros((3, 64, 64), dtype=bool)
    planes[0, 9, 30] = True
    planes[1, 8:12, 30:33] = True
    found = targets.masks(planes, 64)
    assert np.argwhere(found[0]).tolist() == [[2, 7]]
    assert np.argwhere(found[1]).tolist() == [[2, 7]]  # 8 of 16 pixels; the pixel beside it has 4
    assert not found[2].any()


@settings(max_examples=60)
@given(height=st.integers(3, 40), width=st.integers(3, 40), seed=st.integers(0, 20))
def test_a_frame_with_an_anomaly_has_a_mask(height: int, width: int, seed: int) -> None:
    random = np.random.default_rng(seed)
    plane = np.zeros((1, height, width), dtype=bool)
    plane[0, random.integers(height), random.integers(width)] = True
    found = targets.masks(plane, 32)
    assert found.any()
    assert targets.masks(~np.zeros_like(plane), 32).all()


def test_targets_of_a_sample(qwen: Collator) -> None:
    batch = qwen.samples_to_batch([sample(4, valid=3)])
    assert batch.masks is not None
    assert batch.ignored is not None
    assert batch.frame_labels is not None
    assert batch.anomalous is not None
    assert batch.masks.shape == batch.ignored.shape == (4, 16, 16)
    assert batch.masks.dtype == batch.ignored.dtype == torch.bool
    expected = torch.zeros(16, 16, dtype=torch.bool)
    expected[3:8, 4:10] = True  # rows 8-24 of 48 are 2.67 to 8; columns 16-40 of 64 are 4 to 10
    assert torch.equal(batch.masks[0], expected)
    ignored = torch.zeros(16, 16, dtype=torch.bool)
    ignored[11:] = True  # rows 32-48: from 10.67
    assert torch.equal(batch.ignored[0], ignored)
    assert batch.frame_labels.tolist() == [1, 1, 1, 255]
    assert batch.anomalous.tolist() == [True]
    assert not (batch.masks & batch.ignored).any()
