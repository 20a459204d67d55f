"""Ref-DAVIS17: phrases for the objects of DAVIS 2017, four an object (two people, of the first frame and of the video).

    davis_text_annotations/Davis17_annot{1,2}{,_full_video}.txt     lines: SEQ OBJ "text"

Published as these text files beside DAVIS, and mostly met in the form of Ref-YouTube-VOS, with train/ and valid/: both
are read, the latter first, for those who convert leave the text files where they are. Three sequences are misspelt in
the text files, one of which is not in UTF-8. The masks are those of Annotations_unsupervised, which the ids refer to;
an id that is in no mask makes a bad record. Read else as Ref-YouTube-VOS is, see there. Both parts say which object a
phrase means.
"""

from __future__ import annotations

import re
from typing import ClassVar

from aesampler.errors import SourceError
from aesampler.sources import ref_youtube_vos, sequence
from aesampler.sources.ref_youtube_vos import Phrase, RefYouTubeVos, Told
from aesampler.storage import Folder

TEXTS = tuple(f"davis_text_annotations/Davis17_annot{who}{what}.txt" for who in (1, 2) for what in ("", "_full_video"))
LISTS = {"train": "train", "validation": "val"}
CORRECTED = {"clasic-car": "classic-car", "dog-scale": "dogs-scale", "motor-bike": "motorbike"}
"""Misspelt in the text files."""
_LINE = re.compile(r'(\S+)\s+(\d+)\s+"?(.*?)"?\s*')


class RefDavis(RefYouTubeVos):
    """Ref-DAVIS17, as published or in the form of Ref-YouTube-VOS."""

    format: ClassVar[str] = "ref-davis"
    summary: ClassVar[str] = "Ref-DAVIS17: phrases for the objects of DAVIS 2017, every frame"
    layout: ClassVar[str] = """\
ROOT/
  meta_expressions/{train,valid}/meta_expressions.json     the usual conversion
  {train,valid}/JPEGImages/SEQ/%05d.jpg
  {train,valid}/Annotations/SEQ/%05d.png
or
  davis_text_annotations/Davis17_annot1.txt                and annot1_full_video, annot2, annot2_full_video
  DAVIS/JPEGImages/480p/SEQ/%05d.jpg                       or without DAVIS/
  DAVIS/Annotations_unsupervised/480p/SEQ/%05d.png
  DAVIS/ImageSets/2017/{train,val}.txt
"""
    family: ClassVar[str] = "davis"

    def _told(self, root: Folder, how: str) -> Told:
        converted = root.exists(ref_youtube_vos.official(root, self.subset))
        if self.expressions is not None or converted or not root.exists(TEXTS[0]):
            return super()._told(root, how)
        if self.subset not in LISTS:
            raise SourceError("no phrases of the test part", where=root.url, allowed=", ".join(LISTS))
        base = "DAVIS/" if root.exists("DAVIS/JPEGImages") else ""
        listed = f"{base}ImageSets/2017/{LISTS[self.subset]}.txt"
        phrases: dict[str, list[Phrase]] = {name: [] for name in _text(root, listed, how).split()}
        for path in TEXTS:
            for line in _text(root, path, how).splitlines():
                found = _LINE.fullmatch(line.strip())
                if found is None or not found[3].strip():
                    if line.strip():
                        raise SourceError('not a line SEQ OBJ "text"', where=f"{root.url}/{path}", got=repr(line))
                    continue
                name = CORRECTED.get(found[1], found[1])
                if name in phrases:
                    phrases[name].append(ref_youtube_vos.phrase(found[3], int(found[2])))
        return Told(
            phrases={name: told for name, told in phrases.items() if told},
            files=(*TEXTS, listed),
            images=sequence.folder_of(self.images, f"{base}JPEGImages/480p"),
            annotations=sequence.folder_of(self.annotations, f"{base}Annotations_unsupervised/480p"),
        )


def _text(root: Folder, path: str, how: str) -> str:
    try:
        data = root.read(path)
    except FileNotFoundError as error:
        raise SourceError(f"no file {path}", where=root.url, do=how) from error
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError:
        return data.decode("latin-1")  # the second person's
