"""A trained LAVIDA folder as a detector: frame scores and masks for windows of 8 frames.

The frames of a window lie `clip_step` apart (LAVIDA section 6: 1 on Ped2, 2 on ShanghaiTech, 4 on UBnormal, 128 on
UCF-Crime and XD-Violence), and every frame of the video gets a score, by one of two rules:

    offsets   every frame is looked at. A stretch of 8 x step frames makes `step` windows, one for each offset, each
              frame in exactly one of them.
    spread    one frame of every `step` is looked at, the middle one, and its scores are those of all `step`. What the
              released code does, at 1/step of the work and memory.
    auto      offsets up to a step of 4, else spread.

The last window of a video may be shorter, down to one frame; nothing is dropped or made up. `batch` windows go through
the model at once; what is held at a time is them and their scores.

Shapes: T frames of a window, n of a piece, H x W pixels.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Literal, NamedTuple

import numpy as np
from pydantic import Field

from lavida.detectors.detector import Detector, Frame, PixelScores, Scored, Scores, Settings, chunked, device_of

if TYPE_CHECKING:
    from lavida.model import LavidaModel

STEP_OF_OFFSETS = 4


class LavidaSettings(Settings):
    """model: a folder that `lavida train` wrote, or such a folder on the hub. dtype: another than the saved one.
    batch: windows at once. frames: of a window. pixels: whether to give pixel scores.
    """

    model: str
    device: str = "auto"
    dtype: Literal["saved", "float32", "bfloat16"] = "saved"
    batch: int = Field(4, ge=1)
    frames: int = Field(8, ge=1)
    clip_step: int = Field(1, ge=1)
    coverage: Literal["auto", "offsets", "spread"] = "auto"
    pixels: bool = True

    @property
    def spreads(self) -> bool:
        """Whether one frame of every step is looked at, instead of all."""
        if self.coverage == "auto":
            return self.clip_step > STEP_OF_OFFSETS
        return self.coverage == "spread" and self.clip_step > 1


class Lavida(Detector):
    """The trained model; see the module. Pixel scores are float32, at the frame's size: that an object is there, and
    the pixel its own.
    """

    name = "lavida"
    settings = LavidaSettings
    threshold = 0.5

    def __init__(self, options: LavidaSettings, *, model: LavidaModel | None = None) -> None:
        self.options: LavidaSettings = options
        self.pixel = options.pixels
        if model is None:
            from lavida.model import LavidaModel

            dtype = None if options.dtype == "saved" else options.dtype
            model = LavidaModel.from_pretrained(options.model, device=device_of(options.device), dtype=dtype)
        self.model = model
        self._collator = model.collator(training=False)

    def notes(self) -> dict[str, int | str]:
        """That not every frame was looked at, where it was not."""
        if not self.options.spreads:
            return {}
        return {"coverage": f"one frame of every {self.options.clip_step} was looked at, its scores are those of all"}

    def scan(self, frames: Iterable[Frame], categories: tuple[str, ...]) -> Iterator[Scored]:
        """See Detector."""
        return self._spread(frames, categories) if self.options.spreads else self._offsets(frames, categories)

    def _offsets(self, frames: Iterable[Frame], categories: tuple[str, ...]) -> Iterator[Scored]:
        step, stretch = self.options.clip_step, self.options.frames * self.options.clip_step
        start = 0
        for piece in chunked(frames, stretch * max(1, self.options.batch // step)):
            windows = [
                range(first + offset, min(first + stretch, len(piece)), step)
                for first in range(0, len(piece), stretch)
                for offset in range(min(step, len(piece) - first))
            ]
            scores, pixels = self._scored([[piece[place] for place in window] for window in windows], categories)
            order = np.argsort([place for window in windows for place in window])
            yield Scored(
                start=start, frame_scores=scores[order], pixel_scores=None if pixels is None else pixels[order]
            )
            start += len(piece)

    def _spread(self, frames: Iterable[Frame], categories: tuple[str, ...]) -> Iterator[Scored]:
        start = 0
        for looked in chunked(_stretches(frames, self.options.clip_step), self.options.frames * self.options.batch):
            windows = list(chunked([each.frame for each in looked], self.options.frames))
            scores, pixels = self._scored(windows, categories)
            for place, each in enumerate(looked):
                spread = None if pixels is None else np.broadcast_to(pixels[place], (each.length, *pixels.shape[1:]))
                yield Scored(start=start, frame_scores=np.repeat(scores[place], each.length), pixel_scores=spread)
                start += each.length

    def _scored(
        self, windows: Sequence[Sequence[Frame]], categories: tuple[str, ...]
    ) -> tuple[Scores, PixelScores | None]:
        """The scores of all windows' frames, one window after the other: float32 [n], float32 [n, H, W]."""
        scores, pixels = [], []
        for batch in chunked(windows, self.options.batch):
            clips = [np.stack(window) for window in batch]
            for each in self.model.score(clips, [categories] * len(clips), pixels=self.pixel, collator=self._collator):
                scores.append(each.frames)
                if each.pixels is not None:
                    pixels.append(each.pixels)
        return np.concatenate(scores), np.concatenate(pixels) if pixels else None


class _Stretch(NamedTuple):
    """`length` consecutive frames, of which `frame` is the middle one, or the last where a video ends before."""

    frame: Frame
    length: int


def _stretches(frames: Iterable[Frame], step: int) -> Iterator[_Stretch]:
    """A video as stretches of `step` frames, the last one shorter; one frame is held."""
    held: Frame | None = None
    length = 0
    for frame in frames:
        if held is None or length <= step // 2:
            held = frame
        length += 1
        if length == step:
            yield _Stretch(held, length)
            held, length = None, 0
    if held is not None:
        yield _Stretch(held, length)
