"""A corpus as COCO: pictures in folders, one JSON a split.

    OUT/images/<split>/KEY.jpg                   a picture; of a clip KEY/000.jpg ..., its padding left out
    OUT/annotations/instances_<split>.json       `file_name` is relative to images/<split>

This is the layout that Datumaro, FiftyOne and CVAT look for, and `pycocotools.coco.COCO` reads the JSON. There is one
category, "anomaly", and a frame has at most two annotations, both run lengths: the mask, and with `iscrowd` 1 the
ignored pixels, which COCO's evaluation neither asks for nor counts against. A frame that nobody annotated is ignored as
a whole: no COCO tool knows of a label "unknown", and an empty picture would say what is not known.

What COCO has no word for are fields more of an image, which its tools carry along or pass over: key, source, split,
origin, anomalous, categories, is_genuine, presence, frame_label (0, 1, 255 unknown); of clips `video_id`, `frame_id`,
and a list `videos`. Ids count from 1 in the order of the corpus. Pictures are the bytes of the shard, untouched.

The JSON is written as it goes, whatever its size: three spools on disk, one picture in memory.
"""

from __future__ import annotations

import contextlib
import itertools
import shutil
import tempfile
from collections.abc import Mapping
from typing import IO, Any, BinaryIO

import msgspec
import numpy as np
import numpy.typing as npt

from aesampler import masks
from aesampler.corpus import Corpus
from aesampler.export.selection import Exported, Selection
from aesampler.plan import Progress
from aesampler.sample import SampleJson
from aesampler.scene import Scene
from aesampler.storage import Folder

CATEGORY = {"id": 1, "name": "anomaly", "supercategory": "anomaly"}


def export(corpus: Corpus, out: Folder, selection: Selection, progress: Progress | None = None) -> Exported:
    """Write the pictures and the JSON of each split selected. Raises CorpusError where a sample is not as written."""
    total, done, files = selection.count(corpus), 0, 0
    for split, parts in itertools.groupby(selection.parts(corpus), key=lambda part: part[0]):
        with contextlib.ExitStack() as spools:
            made = _Split(out, split, spools)
            for _, source, head in parts:
                for row in selection.rows(corpus, split, source):
                    made.add(SampleJson.of(row.key, members := corpus.members(row)), members, head.encoding, head.kind)
                    done += 1
                    if progress is not None:
                        progress("samples", done, total)
            made.commit(corpus.head.name)
            files += made.pictures + 1
    return Exported(samples=done, files=files)


class _Split:
    """One split on its way: pictures go to their place, the entries of the JSON into spools."""

    def __init__(self, out: Folder, split: str, spools: contextlib.ExitStack) -> None:
        self.out, self.split = out, split
        self.pictures = 0
        self._videos = _Spool("videos", spools)
        self._images = _Spool("images", spools)
        self._annotations = _Spool("annotations", spools)

    def add(self, body: SampleJson, members: Mapping[str, bytes], encoding: str, kind: str) -> None:
        """One sample: its pictures, images and annotations."""
        annotated = Scene.from_json(body.redraw).annotated
        told = {
            "key": body.key,
            "source": body.source,
            "split": body.split,
            "origin": body.origin,
            "anomalous": body.anomalous,
            "categories": body.categories,
            "is_genuine": body.is_genuine,
            "presence": body.presence,
        }
        clip: dict[str, int] = {}
        if kind == "clip":
            clip = {"video_id": self._videos.add({"name": body.key, "height": body.height, "width": body.width})}
        for place, (picture, png) in enumerate(body.pictures(members)[: body.valid_frames]):
            name = f"{body.key}/{place:03d}.{encoding}" if clip else f"{body.key}.{encoding}"
            self.out.commit_bytes(f"images/{self.split}/{name}", picture)
            self.pictures += 1
            size = {"file_name": name, "height": body.height, "width": body.width}
            frame = {"origin_frame": body.origin_frames[place], "frame_label": body.frame_labels[place]}
            image = self._images.add(size | told | frame | (clip | {"frame_id": place} if clip else {}))
            mask = masks.read_png(png)
            ignored = ~mask
            if annotated[place]:
                ignored = masks.decode(body.ignored[place].counts, body.height, body.width)
            self._annotate(image, mask, crowd=0)
            self._annotate(image, ignored, crowd=1)

    def _annotate(self, image: int, plane: npt.NDArray[np.bool_], crowd: int) -> None:
        if not plane.any():
            return
        rows, columns = np.flatnonzero(plane.any(axis=1)), np.flatnonzero(plane.any(axis=0))
        top, left = int(rows[0]), int(columns[0])
        self._annotations.add(
            {
                "image_id": image,
                "category_id": CATEGORY["id"],
                "iscrowd": crowd,
                "area": int(plane.sum()),
                "bbox": [left, top, int(columns[-1]) + 1 - left, int(rows[-1]) + 1 - top],
                "segmentation": {"size": list(plane.shape), "counts": masks.encode(plane)},
            }
        )

    def commit(self, corpus: str) -> None:
        """Write the JSON, which is the sign that the split is whole."""
        info = {"description": f"{corpus}, {self.split}: a pseudo-anomaly corpus made by aesampler", "version": "1.0"}
        head = msgspec.json.encode({"info": info, "licenses": [], "categories": [CATEGORY]})

        def write(sink: BinaryIO) -> None:
            sink.write(head[:-1])
            for spool in (self._videos, self._images, self._annotations):
                spool.pour(sink)
            sink.write(b"}\n")

        self.out.commit(f"annotations/instances_{self.split}.json", write)


class _Spool:
    """A list of the JSON, on disk until the file is put together; its entries are numbered from 1."""

    def __init__(self, name: str, stack: contextlib.ExitStack) -> None:
        self._name, self._held = name, 0
        self._file: IO[bytes] = stack.enter_context(tempfile.TemporaryFile(prefix="aesampler-"))  # noqa: SIM115

    def add(self, entry: Mapping[str, Any]) -> int:
        """Keep one entry; its id."""
        self._file.write(b",\n" if self._held else b"\n")
        self._held += 1
        self._file.write(msgspec.json.encode({"id": self._held, **entry}))
        return self._held

    def pour(self, sink: BinaryIO) -> None:
        """Write the list as a further key of an object."""
        sink.write(b',\n"%s": [' % self._name.encode())
        self._file.seek(0)
        shutil.copyfileobj(self._file, sink)
        sink.write(b"\n]" if self._held else b"]")
