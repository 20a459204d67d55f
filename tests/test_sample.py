"""Labels: union, ignored pixels, frame labels under both rules, padding; and members that decode to what went in."""

import hashlib
import io
import json

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from aesampler import masks
from aesampler.errors import CorpusError
from aesampler.exposure import Exposure
from aesampler.sample import Labels, Sample, encode, label, masks_digest, resized
from aesampler.scene import Scene

H, W = 6, 8
Mask = npt.NDArray[np.bool_]


def box(top: int, left: int, bottom: int, right: int) -> Mask:
    mask = np.zeros((H, W), dtype=bool)
    mask[top:bottom, left:right] = True
    return mask


def rle(mask: Mask | None) -> str | None:
    return None if mask is None else masks.encode(mask)


DOG, CAT, CROWD, VOID = box(0, 0, 3, 3), box(1, 1, 5, 5), box(2, 2, 6, 8), box(0, 6, 6, 8)


def scene() -> Scene:
    """Frame 0: dog, cat, void. 1: nothing. 2: dogs as a crowd only. 3: unannotated. 4: dog and a crowd over it."""
    return Scene(
        height=H,
        width=W,
        annotated=(True, True, True, False, True),
        segments={"dog": (rle(DOG), None, None, None, rle(DOG)), "cat": (rle(CAT), None, None, None, None)},
        ignored={"dog": (None, None, rle(CROWD), None, rle(CROWD)), "tree": (None, rle(CAT), None, None, None)},
        void=(rle(VOID), None, None, None, None),
        exhaustive=True,
    )


def exposure(*genuine: str, others: tuple[str, ...] = ("bus",)) -> Exposure:
    names = (*genuine, *others)
    return Exposure(
        anomalous=bool(genuine),
        categories=names,
        is_genuine=tuple(n in genuine for n in names),
        presence=tuple("present" if n in genuine else "absent" for n in names),
    )


def planes(counts: tuple[str, ...]) -> list[Mask]:
    return [masks.decode(c, H, W) for c in counts]


def test_presence_rule_and_padding() -> None:
    labels = label(scene(), exposure("dog", "cat"), 7, "presence")
    assert labels.frame_labels == (1, 0, 255, 255, 1, 255, 255)
    got = planes(labels.masks)
    assert np.array_equal(got[0], DOG | CAT)
    assert not got[1].any()
    assert np.array_equal(got[4], DOG)
    assert np.array_equal(got[5], DOG)
    ignored = planes(labels.ignored)
    assert np.array_equal(ignored[0], VOID & ~(DOG | CAT))
    assert not ignored[1].any()  # "tree" is not listed
    assert np.array_equal(ignored[2], CROWD)
    assert np.array_equal(ignored[4], CROWD & ~DOG)
    assert np.array_equal(ignored[6], CROWD & ~DOG)


def test_clip_rule() -> None:
    assert label(scene(), exposure("dog"), 7, "clip").frame_labels == (1, 1, 1, 1, 1, 255, 255)
    assert label(scene(), exposure(), 5, "clip").frame_labels == (0, 0, 0, 0, 0)


def test_a_normal_sample_has_no_mask_and_ignores_void_only() -> None:
    labels = label(scene(), exposure(), 5, "presence")
    assert labels.frame_labels == (0, 0, 0, 255, 0)
    assert not any(m.any() for m in planes(labels.masks))
    assert np.array_equal(planes(labels.ignored)[0], VOID)
    assert not planes(labels.ignored)[2].any()


MASKS = st.lists(st.booleans(), min_size=H * W, max_size=H * W).map(lambda bits: np.array(bits).reshape(H, W))


@given(st.lists(MASKS, min_size=1, max_size=4), MASKS, MASKS)
def test_union_and_ignored_are_those_of_numpy(genuine: list[Mask], crowd: Mask, void: Mask) -> None:
    names = [f"n{i}" for i in range(len(genuine))]
    view = Scene(
        height=H,
        width=W,
        annotated=(True,),
        segments={n: (rle(m),) for n, m in zip(names, genuine, strict=True) if m.any()},
        ignored={"n0": (rle(crowd),)} if crowd.any() else {},
        void=(rle(void),) if void.any() else (None,),
    )
    shown = [n for n, m in zip(names, genuine, strict=True) if m.any()]
    if not shown:
        return
    labels = label(view, exposure(*shown), 1, "presence")
    whole = np.logical_or.reduce(genuine)
    assert np.array_equal(planes(labels.masks)[0], whole)
    listed_crowd = crowd if "n0" in shown else np.zeros_like(crowd)
    assert np.array_equal(planes(labels.ignored)[0], (void | listed_crowd) & ~whole)


def jpeg(value: int) -> bytes:
    sink = io.BytesIO()
    Image.new("RGB", (W, H), (value, value, value)).save(sink, "JPEG")
    return sink.getvalue()


def encoded(frames: int) -> tuple[Labels, list[bytes], dict[str, bytes], str]:
    view = scene()
    made = exposure("dog")
    labels = label(view, made, frames, "presence")
    pictures = [jpeg(20 * i) for i in range(frames)]
    result = encode(
        key="x_1",
        source="x",
        split="train",
        origin="v",
        origin_frames=list("abcde"),
        kind="clip",
        pictures=pictures,
        encoding="jpg",
        scene=view,
        exposure=made,
        labels=labels,
    )
    assert list(result.anomaly_area) == [masks.area(c, H, W) / (H * W) for c in labels.masks]
    return labels, pictures, dict(result.members), result.masks_sha256


def test_members_are_as_the_contract_says() -> None:
    labels, pictures, members, digest = encoded(6)
    names = ["json", "cls"] + [f"{i:03d}.{e}" for i in range(6) for e in ("jpg", "mask.png")]
    assert list(members) == names
    assert members["cls"] == b"1"
    assert [members[f"{i:03d}.jpg"] for i in range(6)] == pictures
    body = json.loads(members["json"])
    assert list(body) == [
        *("key", "source", "split", "origin", "origin_frames", "valid_frames", "height", "width", "anomalous"),
        *("categories", "is_genuine", "presence", "frame_labels", "ignored", "redraw"),
    ]
    assert body["frame_labels"] == list(labels.frame_labels)
    assert body["valid_frames"] == 5
    assert all(value not in (None, []) for value in body.values())
    assert isinstance(body["redraw"], str)
    by_hand = hashlib.sha256(b"6 6 8\n")
    for i, plane in enumerate(planes(labels.masks)):
        by_hand.update(np.packbits(plane).tobytes())
        picture = Image.open(io.BytesIO(members[f"{i:03d}.mask.png"]))
        assert picture.mode == "L"
        assert np.array_equal(np.asarray(picture), plane * np.uint8(255))
    assert by_hand.hexdigest() == digest


def test_a_sample_decodes_to_what_was_encoded() -> None:
    labels, _, members, digest = encoded(6)
    sample = Sample.decode("x_1", members)
    assert (sample.frames.shape, sample.frames.dtype) == ((6, H, W, 3), np.uint8)
    assert (sample.masks.shape, sample.masks.dtype) == ((6, H, W), np.bool_)
    assert np.array_equal(sample.masks, planes(labels.masks))
    assert np.array_equal(sample.ignored, planes(labels.ignored))
    assert sample.frame_labels.tolist() == list(labels.frame_labels)
    assert masks_digest(sample.masks) == digest
    assert sample.scene.to_json() == scene().to_json()
    assert sample.categories == ("dog", "bus")


@pytest.mark.parametrize("missing", ["json", "003.jpg", "003.mask.png"])
def test_a_missing_member_is_named(missing: str) -> None:
    _, _, members, _ = encoded(6)
    del members[missing]
    with pytest.raises(CorpusError, match="x_1"):
        Sample.decode("x_1", members)


def test_resizing_keeps_every_name_known() -> None:
    speck = np.zeros((H, W), dtype=bool)
    speck[1, 1] = True
    view = Scene(
        height=H, width=W, annotated=(True,), segments={"dog": (rle(DOG),), "ant": (rle(speck),)}, exhaustive=True
    )
    small = resized(view, H // 2, W // 2)
    assert (small.height, small.width) == (3, 4)
    assert set(small.segments) | small.present == {"dog", "ant"}
    assert small.presence("ant") == "present"
    dog = small.segments["dog"][0]
    assert dog is not None
    by_pillow = np.asarray(Image.fromarray(DOG).resize((4, 3), Image.Resampling.NEAREST))
    assert np.array_equal(masks.decode(dog, 3, 4), by_pillow)
