"""Pascal VOC segmentation: 20 classes in a palette PNG a picture, 255 for borders and difficult objects.

    SegmentationClass/ID.png: 0 background, 1 to 20 the class, 255 void

Rules. `masks: SegmentationClassAug` reads the grey maps of SBD, which have no borders; the list of their pictures is
then named by `only`. 255 is void. It lies around every object, so by itself it would leave nothing known absent;
but where `Annotations/ID.xml` is there, the picture's boxes say which classes it holds, difficult ones too: those
without a pixel are present without a mask, and every other name is absent. Without the XML, void takes absence away as
everywhere (`void_limit`).
"""

from __future__ import annotations

from typing import ClassVar
from xml.etree import ElementTree

from pydantic import Field

from aesampler.errors import SourceError
from aesampler.record import Category
from aesampler.sources import index_map, instances
from aesampler.sources.index_map import IndexMap, Legend, Pair, Payload
from aesampler.sources.source import Kind, Survey
from aesampler.storage import Folder

LISTS = {"train": "train", "validation": "val"}
NAMES = (
    *("aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow"),
    *("diningtable", "dog", "horse", "motorbike", "person", "pottedplant", "sheep", "sofa", "train", "tvmonitor"),
)
"""Classes 1 to 20."""
SHOWN = {"diningtable": "dining table", "pottedplant": "potted plant", "tvmonitor": "tv monitor"}
LEGEND = Legend(
    names={place + 1: place for place in range(len(NAMES))}, void=frozenset({255}), background=frozenset({0})
)


class Voc(IndexMap):
    """Pascal VOC 2012, or another year of it, with its own masks or SBD's."""

    format: ClassVar[str] = "voc"
    kind: ClassVar[Kind] = "image"
    summary: ClassVar[str] = "Pascal VOC segmentation: 20 classes, palette PNGs; SBD's masks on request"
    layout: ClassVar[str] = """\
ROOT/                                       the folder that holds VOCdevkit, VOC2012, or JPEGImages
  VOCdevkit/VOC2012/
    JPEGImages/2007_000032.jpg
    SegmentationClass/2007_000032.png       or masks: SegmentationClassAug
    ImageSets/Segmentation/{train,val}.txt  or only: another list
    Annotations/2007_000032.xml             optional: says which classes a picture holds
"""

    year: int = Field(default=2012, ge=2007, le=2012, description="which VOC")
    masks: str = Field(default="SegmentationClass", description="the folder of the PNGs, beside JPEGImages")
    only: str | None = Field(
        default=None, description="a text file of picture names below root; default: ImageSets/Segmentation/train.txt"
    )

    def survey(self, root: Folder) -> Survey:
        """One record a picture of the list."""
        base = self._base(root)
        path = self.only
        if path is None:
            if self.subset not in LISTS:
                raise SourceError(
                    "VOC publishes no masks of its test pictures",
                    where=root.url,
                    got=self.subset,
                    allowed=", ".join(LISTS),
                )
            path = f"{base}ImageSets/Segmentation/{LISTS[self.subset]}.txt"
        try:
            words = root.read(path).decode().split()
        except FileNotFoundError as error:
            raise SourceError(f"no file {path}", where=root.url, do=f"see: aesampler sources {self.format}") from error
        # SBD's lists hold pairs of paths, /JPEGImages/ID.jpg /SegmentationClassAug/ID.png.
        names = list(dict.fromkeys(index_map.stem(word.rpartition("/")[2]) for word in words))
        maps = f"{base}{instances.confined(self.masks.strip('/'), 'masks')}"
        pairs = [Pair(name, f"voc:{name}", f"{base}JPEGImages/{name}.jpg", f"{maps}/{name}.png") for name in names]
        boxes = root.list(f"{base}Annotations", depth=0)
        listing = {**root.list(f"{base}JPEGImages", depth=0), **root.list(maps, depth=0)}
        index_map.require(pairs, listing, f"{root.url}/{path}", f"PNG in {maps}/", self.format)

        def told(pair: Pair) -> str | None:
            xml = f"{base}Annotations/{pair.id}.xml"
            return xml if xml in boxes else None

        def also(pair: Pair) -> list[int]:
            xml = told(pair)
            return _classes(root, xml) if xml else []

        def payload(pair: Pair) -> Payload:
            return index_map.payload_of(root, pair, LEGEND, index_map.read_plane, known=told(pair) is not None)

        return index_map.survey(
            root,
            pairs,
            categories=tuple(
                Category(name=SHOWN.get(name, name), origin=str(place + 1), aliases=(name,) if name in SHOWN else ())
                for place, name in enumerate(NAMES)
            ),
            exhaustive=True,
            payload=payload,
            also=also,
            listing={**listing, **boxes},
            besides=[xml for pair in pairs if (xml := told(pair))],
            files=(path,),
        )

    def _named_by(self) -> str:
        return "VOC"

    def _base(self, root: Folder) -> str:
        own = f"VOC{self.year}/"
        for base in (f"VOCdevkit/{own}", own, ""):
            if root.exists(f"{base}JPEGImages"):
                return base
        raise SourceError(
            f"no folder VOCdevkit/{own}JPEGImages", where=root.url, do=f"see: aesampler sources {self.format}"
        )


def _classes(root: Folder, path: str) -> list[int]:
    """Places of the classes that a picture's boxes name; a person's parts (head, hand, foot) are none."""
    data = root.read(path)
    if b"<!ENTITY" in data:
        raise SourceError(
            "an XML file that defines entities", where=f"{root.url}/{path}", do="take it from the archive"
        )
    try:
        body = ElementTree.fromstring(data)
    except ElementTree.ParseError as error:
        raise SourceError(f"not XML: {error}", where=f"{root.url}/{path}", do="take it from the archive") from error
    named = {thing.findtext("name", "").strip() for thing in body.findall("object")}
    odd = sorted(named.difference(NAMES))
    if odd:
        raise SourceError("a box of no class of VOC", where=f"{root.url}/{path}", got=odd[0], allowed=", ".join(NAMES))
    return [NAMES.index(name) for name in named]
