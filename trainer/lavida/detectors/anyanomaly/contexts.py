"""What is shown to the model: for each segment and text the representative frame and its two contexts, found by CLIP.

A batch of segments is looked at together: its frames once for all texts, then the windows of the representative frames,
then the grids of the key frames; what two texts choose alike is looked at once.

Shapes: N frames a segment, C texts, D width of CLIP, W windows of all sizes.
"""

from __future__ import annotations

import zlib
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise
from typing import TypeVar

import numpy as np

from aesampler import rng
from lavida.detectors.anyanomaly import key_frames
from lavida.detectors.anyanomaly.grid import grids
from lavida.detectors.anyanomaly.key_frames import KeyFrames, Selection
from lavida.detectors.anyanomaly.prompts import View
from lavida.detectors.anyanomaly.segments import Segment
from lavida.detectors.anyanomaly.windows import TEMPLATES, attended, attention, cut, share, square
from lavida.detectors.clip import ImageText, images_of, texts_of
from lavida.detectors.detector import Frame, Scores

K = TypeVar("K", bound=Hashable)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Text:
    """A category and its features: plain [D] as it is written, for key frames and grids; windows [C, D] by templates,
    of it (row 0) and of the others in the class list. Both are empty where CLIP is not used.
    """

    name: str
    plain: Scores
    windows: Scores


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Look:
    """What is shown of one segment for one text. pictures: uint8 [H, W, 3] by view."""

    segment: Segment
    text: Text
    keys: KeyFrames
    pictures: dict[View, Frame]

    def shown(self, view: View) -> tuple[int, ...]:
        """The places in the video of the frames that a view shows."""
        indices = self.keys.four if view == "temporal" else (self.keys.representative,)
        return tuple(self.segment.place(index) for index in indices)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Contexts:
    """How segments are looked at. clip: may be None for single frames, and for random key frames without context.
    views: which pictures are made. windows: their sides in a frame of 240 x 240. class_softmax: the class list of a
    closed set, or nothing. seed: of random key frames.
    """

    clip: ImageText | None
    selection: Selection
    views: tuple[View, ...]
    windows: tuple[int, ...]
    class_softmax: tuple[str, ...]
    seed: int

    def texts(self, categories: Sequence[str]) -> list[Text]:
        """The categories with their features, made once a video."""
        none = np.empty((0, 0), dtype=np.float32)
        if self.clip is None:
            return [Text(name=name, plain=none, windows=none) for name in categories]
        plain = texts_of(self.clip, categories)
        return [
            Text(name=name, plain=row, windows=self._templated(name))
            for name, row in zip(categories, plain, strict=True)
        ]

    def look(self, batch: Sequence[Segment], texts: Sequence[Text]) -> list[Look]:
        """Key frames and contexts of each segment for each text: the texts of the first segment, of the second ..."""
        looks = [
            Look(segment=segment, text=text, keys=keys, pictures={"frame": segment.frames[keys.representative]})
            for segment, text, keys in self._chosen(batch, texts)
        ]
        if "position" in self.views:
            self._add_positions(looks)
        if "temporal" in self.views:
            self._add_temporals(looks)
        return looks

    def _chosen(self, batch: Sequence[Segment], texts: Sequence[Text]) -> list[tuple[Segment, Text, KeyFrames]]:
        if len(batch[0].frames) == 1:
            return [(segment, text, KeyFrames(0, (0, 0, 0, 0))) for segment in batch for text in texts]
        if self.selection == "random":
            return [(segment, text, self._random(segment, text)) for segment in batch for text in texts]
        own = {segment.start: segment.frames[: segment.length] for segment in batch}
        features = self._features(own)
        found = []
        for segment in batch:
            missing = len(segment.frames) - segment.length
            for text in texts:
                similarity = np.pad(features[segment.start] @ text.plain, (0, missing), mode="edge")
                found.append((segment, text, key_frames.by_similarity(similarity, self.selection)))
        return found

    def _random(self, segment: Segment, text: Text) -> KeyFrames:
        # A detector does not know the name of the video: its pixels key the draw.
        pixels = zlib.crc32(segment.frames[0].tobytes())
        draw = rng.generator(self.seed, "key-frames", segment.start, pixels, text.name)
        return key_frames.at_random(len(segment.frames), draw)

    def _add_positions(self, looks: Sequence[Look]) -> None:
        """Add the representative frame, dimmed where the text is not seen."""
        squares = {}
        for look in looks:
            place = (look.segment.start, look.keys.representative)
            if place not in squares:
                squares[place] = square(look.pictures["frame"])
        features = self._features({place: cut(picture, self.windows) for place, picture in squares.items()})
        for look in looks:
            place = (look.segment.start, look.keys.representative)
            cosine = look.text.windows @ features[place].T
            similarity = share(cosine, 0) if self.class_softmax else cosine[0]
            look.pictures["position"] = attended(squares[place], attention(similarity, self.windows))

    def _add_temporals(self, looks: Sequence[Look]) -> None:
        """Add the grid that is most similar to the text as it is written."""
        made: dict[tuple[int, tuple[int, ...]], list[Frame]] = {}
        for look in looks:
            place = (look.segment.start, look.keys.four)
            if place not in made:
                made[place] = grids([square(look.segment.frames[index]) for index in look.keys.four], self.windows)
        features = self._features(made)
        for look in looks:
            place = (look.segment.start, look.keys.four)
            look.pictures["temporal"] = made[place][int(np.argmax(features[place] @ look.text.plain))]

    def _features(self, pictures: Mapping[K, Sequence[Frame]]) -> dict[K, Scores]:
        """CLIP's features [n, D] of several lists of pictures, looked at together."""
        if self.clip is None:
            raise ValueError("these settings need CLIP")
        features = images_of(self.clip, [picture for each in pictures.values() for picture in each])
        bounds = accumulate((len(each) for each in pictures.values()), initial=0)
        return {key: features[start:stop] for key, (start, stop) in zip(pictures, pairwise(bounds), strict=True)}

    def _templated(self, name: str) -> Scores:
        """The mean over WinCLIP's templates of a name's features and of the class list's, of length 1 again [C, D]."""
        if self.clip is None:
            raise ValueError("these settings need CLIP")
        names = (name, *(each for each in self.class_softmax if each != name))
        written = [template.replace("{name}", each) for each in names for template in TEMPLATES]
        mean = texts_of(self.clip, written).reshape(len(names), len(TEMPLATES), -1).mean(axis=1)
        return np.asarray(mean / np.linalg.norm(mean, axis=1, keepdims=True), dtype=np.float32)
