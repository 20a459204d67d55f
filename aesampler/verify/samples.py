"""One sample: its members, pictures, masks and labels against its row, and its exposure drawn again."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt

from aesampler import image, masks, sample
from aesampler.corpus import Corpus
from aesampler.errors import AesamplerError, BadRecord, CorpusError
from aesampler.exposure import ExposureSettings
from aesampler.head import SourceHead
from aesampler.manifest import SampleRow
from aesampler.sample import Sample, SampleJson
from aesampler.scene import Scene
from aesampler.verify.findings import Findings, differs

_STATED = ("key", "source", "split", "origin", "valid_frames", "height", "width", "anomalous")
_LISTED = ("origin_frames", "categories", "is_genuine", "presence", "frame_labels")


@dataclass(frozen=True, slots=True, kw_only=True)
class Bench:
    """All that stays the same over the shards of a source in a split."""

    corpus: Corpus
    source: str
    part: SourceHead
    settings: ExposureSettings | None
    deep: bool
    findings: Findings

    @property
    def extensions(self) -> list[str]:
        """Of the members of each sample, in order."""
        prefixes = [""] if self.part.kind == "image" else [f"{place:03d}." for place in range(self.part.frames)]
        return ["json", "cls", *(p + ext for p in prefixes for ext in (self.part.encoding, "mask.png"))]


def look_at(bench: Bench, row: SampleRow, members: dict[str, bytes]) -> None:
    """Look at a sample: all that its members say, and with `bench.deep` what they were made from."""
    findings, where = bench.findings, f"{row.shard}: {row.key}"
    if list(members) != bench.extensions:
        findings.look("members", where, differs("the list of members", ", ".join(members), ", ".join(bench.extensions)))
        return
    try:
        body = msgspec.json.decode(members["json"], type=SampleJson)
    except msgspec.DecodeError as error:
        findings.look("members", where, f"K.json is not as the corpus format says: {error}")
        return
    findings.look("members", where, *_body(bench, row, body, members))
    planes = _planes(bench, row, members, where)
    if planes is None:
        return
    findings.look("masks", where, *_pixels(row, body, planes))
    if bench.settings is not None:
        findings.look("labels", where, *_labels(row, planes, bench.settings.frame_labels))
    missing = [name for name in row.categories if name not in _names(bench)]
    findings.look("vocabulary", where, f"listed, and not in the vocabulary: {', '.join(missing)}" if missing else None)
    if bench.deep and bench.settings is not None:
        _deep(bench, bench.settings, row, body, members, planes, where)


def _names(bench: Bench) -> Any:
    try:
        return bench.corpus.vocabulary(bench.source).index
    except CorpusError:
        return _Everything()


class _Everything:
    def __contains__(self, name: object) -> bool:
        return True


def _body(bench: Bench, row: SampleRow, body: SampleJson, members: dict[str, bytes]) -> Iterator[str | None]:
    for name in (*_STATED, *_LISTED):
        got, stated = getattr(body, name), getattr(row, name)
        if (tuple(got) if isinstance(got, list) else got) != stated:
            yield differs(f"{name} of K.json", got, f"{stated} (of the row)")
    yield None if members["cls"] == (b"1" if row.anomalous else b"0") else "K.cls is not the label of the row"
    yield (
        None
        if msgspec.json.encode(body) == members["json"]
        else "K.json holds more than its fields, or in another form"
    )
    for name in (*_LISTED, "ignored"):
        yield None if getattr(body, name) else f"{name} of K.json is empty"
    yield (
        None
        if (row.kind, row.frames) == (bench.part.kind, bench.part.frames)
        else "the row is of another kind of sample"
    )
    yield (
        None
        if len(row.frame_labels) == len(body.ignored) == row.frames
        else "not one label and one ignored mask a frame"
    )
    yield None if len(row.origin_frames) == row.valid_frames else "not one original frame a valid frame"
    try:
        scene = Scene.from_json(body.redraw)
        told = (scene.height, scene.width, len(scene.annotated))
        stated = (row.height, row.width, row.valid_frames)
        yield None if told == stated else differs("redraw (height, width, valid frames)", told, stated)
    except (CorpusError, ValueError) as error:
        yield f"redraw cannot be read: {error}"
    yield None if 1 <= row.valid_frames <= row.frames else f"{row.valid_frames} valid frames of {row.frames}"


def _planes(bench: Bench, row: SampleRow, members: dict[str, bytes], where: str) -> npt.NDArray[np.bool_] | None:
    """The masks, bool [T, H, W]; None where they are none. Looks at the headers of the pictures too."""
    size = (row.height, row.width)
    planes: list[npt.NDArray[np.bool_]] = []
    faults: list[str] = []
    headers: list[str | None] = []
    for ext, data in members.items():
        if ext.endswith("mask.png"):
            try:
                plane = masks.read_index(data)
            except BadRecord as error:
                faults.append(f"{ext}: {error.what}")
                continue
            # Bytes 24 and 25 of a PNG: bits a sample, and colour type, of which 0 is grey.
            if data[24:26] != b"\x08\x00" or np.setdiff1d(plane, (0, 255)).size:
                faults.append(f"{ext} is not 8-bit grey of 0 and 255")
            elif plane.shape != size:
                faults.append(differs(f"the size of {ext}", plane.shape, size))
            else:
                planes.append(plane == 255)
        elif ext.endswith(bench.part.encoding):
            try:
                picture = image.probe(data)
            except BadRecord as error:
                headers.append(f"{ext}: {error.what}")
                continue
            got = (picture.format, (picture.height, picture.width))
            headers.append(
                None if got == (bench.part.encoding, size) else differs(ext, got, (bench.part.encoding, size))
            )
    bench.findings.look("pictures", where, *headers)
    if faults:
        bench.findings.look("masks", where, *faults)
        return None
    return np.stack(planes)


def _pixels(row: SampleRow, body: SampleJson, planes: npt.NDArray[np.bool_]) -> Iterator[str | None]:
    digest = sample.masks_digest(planes)
    yield None if digest == row.masks_sha256 else differs("masks_sha256", digest, row.masks_sha256)
    pixels = row.height * row.width
    shares = [float(np.float32(np.count_nonzero(plane) / pixels)) for plane in planes]
    yield None if shares == list(row.anomaly_area) else differs("anomaly_area", shares, list(row.anomaly_area))
    beside = []
    for place, rle in enumerate(body.ignored):
        if tuple(rle.size) != (row.height, row.width) or not masks.is_valid(rle.counts, *rle.size):
            yield f"ignored mask {place} is no run-length mask of the picture's size"
            return
        hidden = masks.decode(rle.counts, *rle.size)
        beside.append(float(np.float32(np.count_nonzero(hidden) / pixels)))
        if place < len(planes) and (hidden & planes[place]).any():
            yield f"frame {place}: pixels are both anomalous and ignored"
    yield None if beside == list(row.ignored_area) else differs("ignored_area", beside, list(row.ignored_area))


def _labels(row: SampleRow, planes: npt.NDArray[np.bool_], rule: str) -> Iterator[str | None]:
    shown = [bool(plane.any()) for plane in planes]
    for place, got in enumerate(row.frame_labels):
        if place >= row.valid_frames:
            allowed = {sample.UNKNOWN}
        elif rule == "clip":
            allowed = {int(row.anomalous)}
        else:
            allowed = {1} if shown[place] else {0, sample.UNKNOWN}
        if got not in allowed:
            yield f"frame {place} is labelled {got}, where the masks allow {sorted(allowed)}"
    yield None if any(shown) == row.anomalous else "anomalous is not whether there is a mask"
    yield None if any(row.is_genuine) == row.anomalous else "anomalous is not whether a name is exposed"
    yield None if len(row.categories) == len(row.is_genuine) == len(row.presence) else "the lists are not parallel"
    yield None if len(set(row.categories)) == len(row.categories) else "a name is listed twice"
    for name, genuine, known in zip(row.categories, row.is_genuine, row.presence, strict=False):
        if (known == "present") != genuine:
            yield f"{name!r} is marked {known} and is {'exposed' if genuine else 'irrelevant'}"


def _deep(
    bench: Bench,
    settings: ExposureSettings,
    row: SampleRow,
    body: SampleJson,
    members: dict[str, bytes],
    planes: npt.NDArray[np.bool_],
    where: str,
) -> None:
    try:
        Sample.decode(row.key, members)
    except AesamplerError as error:
        bench.findings.look("pictures", where, f"cannot be decoded: {error}")
    try:
        scene = Scene.from_json(body.redraw)
        drawn = sample.derive(
            scene,
            bench.corpus.vocabulary(bench.source),
            settings,
            seed=bench.corpus.head.seed,
            source=bench.source,
            key=row.key,
            epoch=0,
            frames=row.frames,
        )
    except (AesamplerError, ValueError) as error:
        bench.findings.look("draws", where, f"cannot be drawn again: {error}")
        return
    if drawn is None:
        bench.findings.look("draws", where, "drawn again, the sample is skipped: no irrelevant name may be drawn")
        return
    exposure, labels = drawn
    wrong = [
        name
        for name in ("anomalous", "categories", "is_genuine", "presence")
        if getattr(exposure, name) != getattr(row, name)
    ]
    if labels.frame_labels != row.frame_labels:
        wrong.append("frame_labels")
    if labels.ignored != tuple(rle.counts for rle in body.ignored):
        wrong.append("ignored")
    if labels.masks != tuple(masks.encode(plane) for plane in planes):
        wrong.append("masks")
    bench.findings.look("draws", where, f"drawn again, it differs in {', '.join(wrong)}" if wrong else None)
