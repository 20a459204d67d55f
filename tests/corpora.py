"""Tiny corpora in the contract's form, written member by member without a build: what the tests of readers read."""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from PIL import Image

from aesampler import image, manifest, masks, rng, sample
from aesampler.exposure import ExposureSettings
from aesampler.head import CorpusHead
from aesampler.manifest import SampleRow, ShardHead, ShardReport
from aesampler.record import Category
from aesampler.report import card, croissant
from aesampler.scene import Scene
from aesampler.shard import ShardWriter, iter_blocks
from aesampler.storage import Folder
from aesampler.vocabulary import Vocabulary

NAMES = ("bicycle", "cat", "traffic light", "\u00e9toile", "red circle", "\u81ea\u8ee2\u8eca", "a | b", "x" * 60)
SEED = 44
HEIGHT, WIDTH = 24, 32


@dataclass(frozen=True, kw_only=True)
class Part:
    """A source in a split. shards: samples planned in each; bare: the first samples, which have no mask at all.

    failed, skipped: places, over all shards, of the samples that came to nothing.
    """

    source: str
    split: str = "train"
    kind: str = "image"
    encoding: str = "jpg"
    frames: int = 1
    shards: tuple[int, ...] = (6, 4)
    bare: int = 5
    failed: tuple[int, ...] = ()
    skipped: tuple[int, ...] = ()


IMAGES = Part(source="coco", failed=(7,))
CLIPS = Part(source="davis", split="validation", kind="clip", frames=3, shards=(4,), bare=1, skipped=(2,))
PARTS = (IMAGES, CLIPS)


def write(root: Path, parts: Sequence[Part] = PARTS, about: dict[str, str] | None = None) -> Folder:
    """A whole corpus of `parts` at `root`."""
    folder = Folder.at(root)
    recipe = document(parts, about)
    for source in sorted({part.source for part in parts}):
        folder.commit(f"vocabulary/{source}.parquet", vocabulary().write)
    reports = [report for part in parts for report in _shards(folder, part, recipe)]
    head = CorpusHead.of(
        recipe=recipe,
        recipe_sha256=recipe_hash(recipe),
        tools={"aesampler": "0.1.0"},
        inputs={f"{part.source}/{part.split}": "0" * 64 for part in parts},
        reports=reports,
    )
    folder.commit_bytes("README.md", card.data_card(head).encode())
    folder.commit_bytes("croissant.json", croissant.croissant(head, folder).encode())
    folder.commit_bytes("corpus.json", head.to_json())
    return folder


def recipe_hash(recipe: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(recipe, sort_keys=True).encode()).hexdigest()


def document(parts: Sequence[Part], about: dict[str, str] | None = None) -> dict[str, Any]:
    settings = ExposureSettings(anomaly_probability=0.8, max_categories=6).model_dump(mode="json")
    told = {"description": "A tiny corpus.", "license": "CC-BY-4.0", "creator": "A. Person", "url": "", "date": ""}
    return {
        "name": "tiny",
        "about": told | {"url": "https://example.org/tiny", "date": "2026-11-22"} if about is None else about,
        "seed": SEED,
        "sources": [
            {"name": part.source, "format": "coco", "root": "data", "split": part.split, "exposure": {}}
            for part in parts
        ],
        "exposure": settings,
        "allow_shared_groups": [],
    }


def vocabulary() -> Vocabulary:
    categories = [Category(name=name, origin=str(place)) for place, name in enumerate(NAMES)]
    return Vocabulary.count(categories, [[place, (place + 1) % len(NAMES)] for place in range(len(NAMES))])


def _shards(folder: Folder, part: Part, recipe: dict[str, Any]) -> list[ShardReport]:
    reports, place = [], 0
    for index, planned in enumerate(part.shards):
        rows, tar = [], io.BytesIO()
        writer = ShardWriter(tar)
        path = f"{part.split}/{part.source}-{index:06d}.tar"
        for place in range(place, place + planned):  # noqa: B020 (goes on from shard to shard)
            rows.append(_sample(writer, part, place, path, recipe, sum(row.status == "ok" for row in rows)))
        place += 1
        done = writer.finish()
        head = ShardHead(encoding=part.encoding)
        if done.samples:
            folder.commit_bytes(path, tar.getvalue())
            head = ShardHead(
                encoding=part.encoding, path=path, samples=done.samples, bytes=done.bytes, sha256=done.sha256
            )
        name = f"manifest/{part.split}/{part.source}-{index:06d}.parquet"
        folder.commit(name, lambda sink, rows=rows, head=head: manifest.write(rows, sink, head))  # type: ignore[misc]
        reports.append(ShardReport.read(folder, name))
    return reports


def _sample(writer: ShardWriter, part: Part, place: int, path: str, recipe: dict[str, Any], index: int) -> SampleRow:
    key = f"{part.source}_{part.split}_{place:06d}"
    short = part.frames > 1 and place % 3 == 2
    names = tuple(f"{frame:05d}" for frame in range(part.frames - short))
    row = SampleRow(
        key=key,
        source=part.source,
        split=part.split,
        group=f"{part.source}:{part.split}:{place}",
        kind=part.kind,  # type: ignore[arg-type]
        origin=f"pictures/{place}.jpg",
        origin_frames=names,
    )
    if place in part.failed:
        return replace(row, status="failed", reason="the picture is truncated")
    if place in part.skipped:
        return replace(row, status="skipped", reason="no irrelevant name may be drawn")
    random = rng.generator(SEED, "corpora", key)
    scene = _scene(random, bare=place < part.bare, frames=len(names))
    settings = ExposureSettings.model_validate(recipe["exposure"])
    drawn = sample.derive(
        scene, vocabulary(), settings, seed=SEED, source=part.source, key=key, epoch=0, frames=part.frames
    )
    assert drawn is not None
    exposure, labels = drawn
    encoded = sample.encode(
        key=key,
        source=part.source,
        split=part.split,
        origin=row.origin,
        origin_frames=names,
        kind=row.kind,
        pictures=[_picture(random, part.encoding) for _ in range(part.frames)],
        encoding=part.encoding,
        scene=scene,
        exposure=exposure,
        labels=labels,
    )
    block = writer.add(key, encoded.members)
    described = replace(
        row,
        frames=part.frames,
        valid_frames=len(scene.annotated),
        height=HEIGHT,
        width=WIDTH,
        anomalous=exposure.anomalous,
        categories=exposure.categories,
        is_genuine=exposure.is_genuine,
        presence=exposure.presence,
        frame_labels=labels.frame_labels,
        anomaly_area=encoded.anomaly_area,
        ignored_area=encoded.ignored_area,
        masks_sha256=encoded.masks_sha256,
    )
    return replace(described, shard=path, index=index, offset=block.offset, size=block.size)


def _scene(random: np.random.Generator, *, bare: bool, frames: int) -> Scene:
    if bare:
        return Scene(height=HEIGHT, width=WIDTH, annotated=(True,) * frames, exhaustive=True)
    first = int(random.random() * len(NAMES))
    tracks = {NAMES[(first + step) % len(NAMES)]: tuple(_box(random) for _ in range(frames)) for step in range(2)}
    crowd = {NAMES[(first + 2) % len(NAMES)]: (_box(random), *(None for _ in range(frames - 1)))}
    void = (_box(random), *(None for _ in range(frames - 1)))
    return Scene(
        height=HEIGHT,
        width=WIDTH,
        annotated=(True,) * frames,
        segments=tracks,
        ignored=crowd,
        void=void,
        absent=frozenset({NAMES[(first + 3) % len(NAMES)]}) if random.random() < 0.5 else frozenset(),
    )


def _box(random: np.random.Generator) -> str:
    plane = np.zeros((HEIGHT, WIDTH), dtype=bool)
    top, left = int(random.random() * (HEIGHT - 4)), int(random.random() * (WIDTH - 4))
    plane[top : top + 2 + int(random.random() * 10), left : left + 2 + int(random.random() * 12)] = True
    return masks.encode(plane)


def _picture(random: np.random.Generator, encoding: str) -> bytes:
    pixels = (random.random((HEIGHT, WIDTH, 3)) * 255).astype(np.uint8)
    if encoding == "jpg":
        return image.encode_jpeg(pixels, 90)
    sink = io.BytesIO()
    Image.fromarray(pixels).save(sink, format="PNG")
    return sink.getvalue()


Change = Callable[[SampleRow, dict[str, bytes]], tuple[SampleRow, dict[str, bytes]]]


def rewrite(folder: Folder, change: Change, *, head: Callable[[CorpusHead], CorpusHead] = lambda head: head) -> None:
    """Change each sample, and make every offset, sum and card fit: only a look at the sample can tell."""
    old, reports = CorpusHead.read(folder), []
    for part in (part for sources in old.splits.values() for part in sources.values()):
        for entry in part.manifests:
            data = folder.read(entry.path)
            was, rows = manifest.read_head(io.BytesIO(data)), manifest.read_rows(io.BytesIO(data))
            tar = io.BytesIO()
            writer = ShardWriter(tar)
            blocks = iter_blocks(io.BytesIO(folder.read(was.path))) if was.path else iter(())
            for place, row in enumerate(rows):
                if row.status == "ok":
                    row, members = change(row, next(blocks)[1])
                    block = writer.add(row.key, list(members.items()))
                    rows[place] = replace(row, shard=row.shard, index=row.index, offset=block.offset, size=block.size)
            done = writer.finish()
            now = msgspec.structs.replace(was, bytes=done.bytes, sha256=done.sha256) if was.path else was
            if was.path:
                folder.commit_bytes(was.path, tar.getvalue())
            folder.commit(entry.path, lambda sink, rows=rows, now=now: manifest.write(rows, sink, now))  # type: ignore[misc]
            reports.append(ShardReport.read(folder, entry.path))
    recipe = {"recipe": old.recipe, "recipe_sha256": old.recipe_sha256}
    made = head(CorpusHead.of(**recipe, tools=old.tools, inputs=old.inputs, reports=reports))
    folder.commit_bytes("README.md", card.data_card(made).encode())
    folder.commit_bytes("croissant.json", croissant.croissant(made, folder).encode())
    folder.commit_bytes("corpus.json", made.to_json())
