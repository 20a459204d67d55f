"""COCO instances: `annotations/instances_*.json` and a folder of pictures; also any dataset exported in this form.

Every category was looked for in every picture, so the list is exhaustive: what is not annotated is absent. A crowd
(`iscrowd: 1`, run-length) says that its name is present and that its pixels belong to nobody: it is never exposed, its
pixels are ignored. Pictures without an annotation are records too.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import ClassVar

from aesampler.errors import SourceError
from aesampler.record import Record
from aesampler.scene import Scene
from aesampler.sources import instances, instances_json
from aesampler.sources.source import Item, Kind, Source, Survey
from aesampler.storage import Folder

PARTS = {"train": "train", "validation": "val"}


class Coco(Source):
    """Options: images, the folder of the pictures; annotations, the JSON. Both below root; with neither given, the
    official layout of 2017, else of 2014.
    """

    format: ClassVar[str] = "coco"
    kind: ClassVar[Kind] = "image"
    summary: ClassVar[str] = "COCO instances: polygons, run-length masks, crowds; any dataset in COCO's JSON form"
    layout: ClassVar[str] = """\
ROOT/
  annotations/instances_{train,val}2017.json     or instances_{train,val}2014.json
  {train,val}2017/000000000009.jpg               or {train,val}2014/COCO_train2014_000000000009.jpg
"""

    images: str | None = None
    annotations: str | None = None

    def survey(self, root: Folder) -> Survey:
        """See `Source.survey`; also refused: none of the pictures is there, or two have one file name."""
        annotations = self.annotations or self._official(root)
        folder = self._folder(annotations)
        with ThreadPoolExecutor(1, thread_name_prefix="listing") as beside:
            there = beside.submit(root.list, folder, depth=0)
            found = instances.read(root, annotations, instances_json.Picture)
        paths = [instances.confined(picture.file_name, found.where) for picture in found.pictures]
        frames = [f"{folder}/{path}" for path in paths] if folder else paths
        items = list(map(Item, instances.ids(paths, found.where), map(instances.group, frames)))
        listing = instances.listed(root, folder, paths, found.where, there.result())
        heads = found.heads(items, frames, listing)
        return Survey(
            categories=instances.categories(found.categories),
            exhaustive=True,
            items=items,
            record=lambda place: found.record(place, heads),
            batch=lambda places: found.batch(places, heads),
            files=(annotations,),
            listing=listing,
            folders=(folder,),
        )

    def scene(
        self, root: Folder, record: Record, names: Sequence[str], frames: Sequence[int], size: tuple[int, int]
    ) -> Scene:
        """See `Source.scene`."""
        return instances.scene(root, record, names, size, exhaustive=True)

    def _official(self, root: Folder) -> str:
        part = PARTS.get(self.subset)
        if part is None:
            raise SourceError(
                "COCO publishes no masks of its test pictures",
                where=root.url,
                do="take train or validation, or set annotations",
            )
        years = [f"annotations/instances_{part}{year}.json" for year in (2017, 2014)]
        return next((path for path in years if root.exists(path)), years[0])

    def _folder(self, annotations: str) -> str:
        if self.images is not None:
            return instances.confined(self.images.rstrip("/"), "images") if self.images.strip("./") else ""
        found = re.fullmatch(r"instances_(\w+)\.json", annotations.rpartition("/")[2])
        if found is None:
            raise SourceError(
                "no folder of pictures is known for this file",
                where=annotations,
                do="set images to their folder, below root",
            )
        return found[1]
