"""The refCOCO family: phrases for single objects of COCO's pictures ("the man in red on the left").

    {refcoco,refcoco+,refcocog,refclef}/{instances.json,refs(BY).p};  grefcoco: grefs(unc).json or .p

One record a picture, whose names are its phrases, in lower case with single spaces; a phrase that is said of several
objects is the union of their masks. All phrases of a picture are present in it, whatever object and split they belong
to; any other may be true of it too, so nothing is known absent, but for the phrases without a target of gRefCOCO
(ann_id -1), which were written to be false.

The lists are pickles of plain types. They are read by an unpickler that knows no class and no function: a pickle that
asks for one is refused, before anything of it runs. They were written by Python 2, hence latin-1; text that was UTF-8
is put right.

Faults. `file_name` of a reference ends `_ANNID.jpg` and is no file: pictures are those of instances.json. A split
`testAB` belongs to testA and testB; `test` is any that holds the word. The google split shares pictures between train
and val. Masks of refclef are lists of run lengths, empty where the object has none: its phrases are present, without a
mask. refcocog by google has no test part.
"""

from __future__ import annotations

import io
import pickle
from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import Any, ClassVar, Literal

import msgspec
from pydantic import Field

from aesampler import masks
from aesampler.errors import BadRecord, SourceError
from aesampler.record import Category, Record
from aesampler.scene import Scene
from aesampler.sources import instances, instances_json, sequence
from aesampler.sources.source import Item, Kind, Source, Survey
from aesampler.storage import Folder

PARTS = {"train": "train", "validation": "val", "test": "test"}
BY = {"refcoco": "unc", "refcoco+": "unc", "refcocog": "umd", "refclef": "unc", "grefcoco": "unc"}
FOLDERS = {"refclef": ("images/saiapr_tc-12", "saiapr_tc-12")}
COCO_FOLDERS = ("images/mscoco/images/train2014", "images/train2014", "train2014")
NO_TARGET = -1


class _Sentence(msgspec.Struct):
    sent: str = ""
    raw: str = ""


class _Reference(msgspec.Struct):
    image_id: int
    split: str
    sentences: list[_Sentence]
    ann_id: int | list[int]
    no_target: bool = False


class _Annotation(msgspec.Struct, gc=False):
    id: int
    image_id: int
    segmentation: msgspec.Raw = msgspec.Raw(b"null")


class _File(msgspec.Struct):
    images: list[instances_json.Picture]
    annotations: list[_Annotation]


class _Payload(msgspec.Struct):
    """objects: phrases of an object, as places in the vocabulary, and its segmentation."""

    objects: list[tuple[list[int], msgspec.Raw]]


class RefCoco(Source):
    """Options: dataset, by, part and images."""

    format: ClassVar[str] = "refcoco"
    kind: ClassVar[Kind] = "image"
    summary: ClassVar[str] = "refcoco, refcoco+, refcocog, refclef, grefcoco: phrases for the objects of pictures"
    layout: ClassVar[str] = """\
ROOT/
  refcoco/instances.json                          also refcoco+, refcocog, refclef, grefcoco (dataset: refcoco+)
  refcoco/refs(unc).p                             or refs(google).p, refs(umd).p, refs(berkeley).p (by: google)
  grefcoco/grefs(unc).json                        or .p
  images/mscoco/images/train2014/COCO_train2014_000000000009.jpg     or images/train2014, or train2014
  images/saiapr_tc-12/00/images/25.jpg            refclef
"""

    dataset: Literal["refcoco", "refcoco+", "refcocog", "refclef", "grefcoco"] = Field(
        default="refcoco", description="which of the family: refcoco, refcoco+, refcocog, refclef, grefcoco"
    )
    by: Literal["unc", "google", "umd", "berkeley"] | None = Field(
        default=None, description="whose splits: unc, google, umd, berkeley; default: unc, of refcocog umd"
    )
    part: Literal["train", "val", "test", "testA", "testB", "testC"] | None = Field(
        default=None, description="train, val, test, testA (people), testB, testC; default: that of the entry's split"
    )
    images: str | None = Field(default=None, description="the folder of the pictures")

    def survey(self, root: Folder) -> Survey:
        """One record a picture with a phrase in the part."""
        path = self._list(root)
        references = _read_references(root, path)
        body = f"{self.dataset}/instances.json"
        whole = sequence.read_json(root, body, _File, do=f"see: aesampler sources {self.format}")
        where = f"{root.url}/{path}"
        part = self.part or PARTS[self.subset]
        chosen = [reference for reference in references if _is_in(reference.split, part)]
        if not chosen:
            raise SourceError(
                f"no phrase of the part {part}",
                where=where,
                got=", ".join(sorted({reference.split for reference in references})),
                do="name another with part",
            )
        names = sorted({phrase for reference in chosen for phrase in _phrases(reference)})
        places = {name: place for place, name in enumerate(names)}
        pictures = {picture.id: picture for picture in whole.images}
        annotations = {annotation.id: annotation for annotation in whole.annotations}
        for reference in references:
            _check(reference, pictures, annotations, where)
        own, others = _by_picture(chosen), _by_picture(references)
        images = self._images(root)
        ids = sorted(own)
        paths = [instances.confined(pictures[number].file_name, f"{root.url}/{body}") for number in ids]
        frames = [f"{images}/{path}" for path in paths]
        items = [
            Item(name, self._group(frame, path))
            for name, frame, path in zip(instances.ids(paths, f"{root.url}/{body}"), frames, paths, strict=True)
        ]

        def record(index: int) -> Record:
            picture = pictures[ids[index]]
            objects, absent = _objects(own[picture.id], places)
            texts = {number: annotations[number].segmentation for number in objects}
            masked = {place for number, found in objects.items() if not _is_empty(texts[number]) for place in found}
            known = {place for found in objects.values() for place in found}
            known |= {
                places[phrase]
                for reference in others[picture.id]
                if _targets(reference)
                for phrase in _phrases(reference)
                if phrase in places
            }
            return Record(
                id=items[index].id,
                group=items[index].group,
                frames=(frames[index],),
                annotated=(True,),
                height=picture.height,
                width=picture.width,
                masked=tuple(sorted(masked)),
                elsewhere=tuple(sorted(known - masked)),
                absent=tuple(sorted(absent - known)),
                payload=msgspec.json.encode(
                    _Payload([(sorted(found), texts[number]) for number, found in sorted(objects.items())])
                ),
            )

        silent = sum(not _phrases(reference) for reference in chosen)
        return Survey(
            categories=tuple(Category(name=name, origin=name) for name in names),
            exhaustive=False,
            items=items,
            record=record,
            files=(path, body),
            listing=instances.listed(root, images, paths, f"{root.url}/{body}"),
            folders=tuple(sorted({frame.rpartition("/")[0] for frame in frames})),
            skipped={"objects without a phrase": silent} if silent else {},
        )

    def scene(
        self, root: Folder, record: Record, names: Sequence[str], frames: Sequence[int], size: tuple[int, int]
    ) -> Scene:
        """The masks of the phrases; the phrases of an object without a mask are present."""
        payload = msgspec.json.decode(record.payload, type=_Payload)
        found: dict[str, list[str]] = {}
        for those, text in payload.objects:
            counts = _counts(text, size, record.id)
            if counts is not None:
                for place in those:
                    found.setdefault(names[place], []).append(counts)
        known = {names[place] for place in (*record.masked, *record.elsewhere)}
        return Scene(
            height=size[0],
            width=size[1],
            annotated=(True,),
            segments={name: (masks.union(found[name], *size),) for name in sorted(found)},
            present=frozenset(known.difference(found)),
            absent=frozenset(names[place] for place in record.absent),
            exhaustive=False,
        )

    def _list(self, root: Folder) -> str:
        by = self.by or BY[self.dataset]
        stem = f"{self.dataset}/{'grefs' if self.dataset == 'grefcoco' else 'refs'}({by})"
        ways = [f"{stem}.json", f"{stem}.p"] if self.dataset == "grefcoco" else [f"{stem}.p", f"{stem}.json"]
        for way in ways:
            if root.exists(way):
                return way
        raise SourceError(f"no file {ways[0]}", where=root.url, do=f"see: aesampler sources {self.format}")

    def _images(self, root: Folder) -> str:
        if self.images is not None:
            return instances.confined(self.images.rstrip("/"), "images")
        ways = FOLDERS.get(self.dataset, COCO_FOLDERS)
        return next((way for way in ways if root.exists(way)), ways[0])

    def _group(self, frame: str, path: str) -> str:
        return f"saiapr:{path}" if self.dataset == "refclef" else instances.group(frame)


class _Plain(pickle.Unpickler):
    """An unpickler of numbers, texts, lists, tuples and dicts: every class and function is refused by name."""

    def find_class(self, module: str, name: str) -> Any:
        raise pickle.UnpicklingError(f"it asks for {module}.{name}: lists of phrases hold plain types only")

    def persistent_load(self, pid: object) -> Any:
        raise pickle.UnpicklingError("it asks for an object from outside")


def read_pickle(data: bytes) -> object:
    """What a pickle of plain types holds. Raises ValueError where it holds anything else, or is none; nothing of it is
    run.
    """
    try:
        return _Plain(io.BytesIO(data), encoding="latin-1").load()
    except Exception as error:
        # A broken pickle makes the unpickler raise nearly anything; nothing else runs inside it.
        raise ValueError(str(error) or type(error).__name__) from error


def _read_references(root: Folder, path: str) -> list[_Reference]:
    where = f"{root.url}/{path}"
    data = root.read(path)
    try:
        body = msgspec.json.decode(data) if path.endswith(".json") else read_pickle(data)
        return msgspec.convert(body, list[_Reference])
    except (ValueError, RecursionError) as error:
        raise SourceError(f"not a list of phrases: {error}", where=where, do="take the published one") from error


def _phrases(reference: _Reference) -> list[str]:
    """The phrases of an object, in lower case with single spaces, each once."""
    texts = (_mended(sentence.sent or sentence.raw) for sentence in reference.sentences)
    return list(dict.fromkeys(text for text in (" ".join(text.lower().split()) for text in texts) if text))


def _mended(text: str) -> str:
    """UTF-8 that was read as latin-1, put right."""
    if text.isascii():
        return text
    try:
        return text.encode("latin-1").decode("utf-8")
    except UnicodeError:
        return text


def _is_in(split: str, part: str) -> bool:
    if part == "test":
        return "test" in split
    if part.startswith("test"):
        return split.startswith("test") and part[-1] in split[len("test") :]
    return split == part


def _targets(reference: _Reference) -> list[int]:
    """The annotations that a reference means; none where it has no target."""
    told = reference.ann_id if isinstance(reference.ann_id, list) else [reference.ann_id]
    return [] if reference.no_target else [number for number in told if number != NO_TARGET]


def _by_picture(references: Iterable[_Reference]) -> dict[int, list[_Reference]]:
    found: dict[int, list[_Reference]] = defaultdict(list)
    for reference in references:
        if reference.sentences:
            found[reference.image_id].append(reference)
    return dict(found)


def _objects(references: Sequence[_Reference], places: dict[str, int]) -> tuple[dict[int, set[int]], set[int]]:
    """Annotation -> places of the phrases that are said of it; and the places of those without a target."""
    objects: dict[int, set[int]] = defaultdict(set)
    absent: set[int] = set()
    for reference in references:
        those = {places[phrase] for phrase in _phrases(reference)}
        targets = _targets(reference)
        for number in targets:
            objects[number] |= those
        if not targets:
            absent |= those
    return dict(objects), absent


def _check(
    reference: _Reference, pictures: dict[int, instances_json.Picture], annotations: dict[int, _Annotation], where: str
) -> None:
    if reference.image_id not in pictures:
        raise SourceError("a reference names an unknown picture", where=where, got=reference.image_id)
    for number in _targets(reference):
        found = annotations.get(number)
        if found is None or found.image_id != reference.image_id:
            raise SourceError(
                "a reference names an annotation that its picture does not have",
                where=f"{where}: image {reference.image_id}",
                got=number,
                do="instances.json and the list of phrases must be of one release",
            )


def _is_empty(text: msgspec.Raw) -> bool:
    return bytes(text).translate(None, b" \t\r\n") in (b"[]", b"null", b"{}", b"[[]]")


def _counts(text: msgspec.Raw, size: tuple[int, int], identity: str) -> str | None:
    """The mask of a segmentation: polygons, run lengths, or a list of run lengths; None where it has no pixel."""
    if _is_empty(text):
        return None
    segmentation = msgspec.json.decode(text)
    parts = [segmentation]
    if isinstance(segmentation, list) and segmentation and isinstance(segmentation[0], dict):
        parts = segmentation
    try:
        counts = masks.union_of_coco(parts, *size)
    except BadRecord as error:
        raise BadRecord(error.what, where=identity, got=error.got, allowed=error.allowed) from error
    return counts if counts != masks.empty(*size) else None
