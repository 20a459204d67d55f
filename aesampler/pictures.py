"""A sample as a picture, as frames of an animation, and many samples on a contact sheet.

In every picture: the anomaly is tinted and outlined in red, ignored pixels are hatched, and the list of names is below,
exposed names as red chips. A dot tells what is known of a name: full, present; ring, absent; half, unknown.
Pictures are drawn with Pillow alone, in the font that it carries (Latin letters; what it lacks becomes a box).
"""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFilter, ImageFont

from aesampler import rng
from aesampler.corpus import Corpus
from aesampler.sample import UNKNOWN, Sample

Colour = tuple[int, int, int]
PAPER: Colour = (247, 248, 250)
CARD: Colour = (255, 255, 255)
INK: Colour = (28, 32, 40)
SOFT: Colour = (112, 119, 133)
LINE: Colour = (216, 220, 227)
RED: Colour = (222, 38, 72)
GREEN: Colour = (24, 134, 96)
GREY: Colour = (134, 141, 153)

LABELS: dict[int, tuple[str, Colour]] = {0: ("normal", GREEN), 1: ("anomalous", RED), UNKNOWN: ("unknown", GREY)}

PADDING = 24
LARGE, SMALL, THUMBNAIL = (960, 720), (300, 240), (288, 216)
"""Room (width, height) of a picture alone, of a frame in a film strip, of a picture on a contact sheet."""
COLUMNS = 4
"""Frames a row of a film strip."""
TINT = 0.22
FADED = 0.55
"""How far a frame of padding fades into the paper."""
DOT = "\u00b7"


def overlay(sample: Sample) -> Image.Image:
    """One sample: its frames with the masks, then its key and its list. RGB."""
    alone = len(sample.frames) == 1
    room = LARGE if alone else SMALL
    tiles = [_tile(sample, place, room, frame=not alone) for place in range(len(sample.frames))]
    columns = 1 if alone else min(COLUMNS, len(tiles))
    strip = _grid(tiles, columns, gap=12, paper=PAPER)
    width = max(strip.width, 640)
    caption = _caption(sample, width)
    picture = Image.new("RGB", (width + 2 * PADDING, strip.height + caption.height + 3 * PADDING), PAPER)
    picture.paste(strip, (PADDING + (width - strip.width) // 2, PADDING))
    picture.paste(caption, (PADDING, strip.height + 2 * PADDING))
    return picture


def animation(sample: Sample) -> list[Image.Image]:
    """One sample frame by frame, each with its masks above its key and its list; equal sizes, RGB."""
    caption = _caption(sample, LARGE[0])
    frames = []
    for place in range(len(sample.frames)):
        tile = _tile(sample, place, LARGE, frame=len(sample.frames) > 1)
        size = (LARGE[0] + 2 * PADDING, tile.height + caption.height + 3 * PADDING)
        picture = Image.new("RGB", size, PAPER)
        picture.paste(tile, ((size[0] - tile.width) // 2, PADDING))
        picture.paste(caption, (PADDING, tile.height + 2 * PADDING))
        frames.append(picture)
    return frames


def contact_sheet(corpus: Corpus, n: int, seed: int = 0) -> Image.Image:
    """`n` samples drawn by `seed` (fewer where the corpus has fewer), half of them anomalous where it can be. RGB."""
    anomalous, normal = corpus.pick(seed, n, True), corpus.pick(seed, n, False)
    half = max(n // 2, n - len(normal))
    shown = anomalous[:half]
    keys = sorted(shown + normal[: n - len(shown)], key=lambda key: rng.order(seed, "sheet", key))
    cards = [_card(corpus[key]) for key in keys]
    columns = next(c for c in range(1, n + 1) if c * c * 3 >= len(cards) * 4 or c == n)
    sheet = _grid(cards, columns, gap=16, paper=PAPER)
    title = f"{corpus.head.name}: {len(cards)} of {len(corpus):,} samples"
    top = 56
    legend = _legend(sheet.width)
    size = (sheet.width + 2 * PADDING, sheet.height + top + legend.height + 3 * PADDING)
    picture = Image.new("RGB", size, PAPER)
    _write(ImageDraw.Draw(picture), (PADDING, PADDING), _shortened(title, 24, sheet.width), 24, INK)
    picture.paste(sheet, (PADDING, PADDING + top))
    picture.paste(legend, (PADDING, PADDING * 2 + top + sheet.height))
    return picture


def _tile(sample: Sample, place: int, room: tuple[int, int], frame: bool) -> Image.Image:
    """A frame with its masks; in a strip with its number and label beneath."""
    picture = _painted(sample.frames[place], sample.masks[place], sample.ignored[place], room)
    if not frame:
        return picture
    text, colour = LABELS[int(sample.frame_labels[place])]
    if place >= sample.valid_frames:
        text, picture = "padding", Image.blend(picture, Image.new("RGB", picture.size, PAPER), FADED)
    tile = Image.new("RGB", (picture.width, picture.height + 30), PAPER)
    tile.paste(picture, (0, 0))
    draw = ImageDraw.Draw(tile)
    draw.rectangle((0, picture.height, picture.width, picture.height + 4), fill=colour)
    _write(draw, (0, picture.height + 10), _shortened(f"{place} {DOT} {text}", 14, picture.width), 14, SOFT)
    return tile


def _painted(
    pixels: npt.NDArray[np.uint8], mask: npt.NDArray[np.bool_], ignored: npt.NDArray[np.bool_], room: tuple[int, int]
) -> Image.Image:
    """uint8 [H, W, 3] fitted into `room`; of bool [H, W], the anomaly is tinted and outlined, the ignored hatched."""
    height, width = mask.shape
    scale = min(room[0] / width, room[1] / height)
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    picture = Image.fromarray(pixels).resize(size, Image.Resampling.LANCZOS)
    canvas = np.asarray(picture).astype(np.float32)
    colour, cover = veil(mask, ignored, size)
    canvas = (1 - cover) * canvas + cover * colour
    return Image.fromarray(np.clip(np.rint(canvas), 0, 255).astype(np.uint8))


def veil(
    mask: npt.NDArray[np.bool_], ignored: npt.NDArray[np.bool_], size: tuple[int, int]
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
    """What lies over a picture of (width, height) `size`: colour, float32 [H, W, 3] in [0, 255], and cover, float32
    [H, W, 1] in [0, 1].
    """
    colour, cover = np.zeros((size[1], size[0], 3), np.float32), np.zeros((size[1], size[0], 1), np.float32)
    if ignored.any():
        hidden = _scaled(ignored, size)
        rows, columns = np.indices(hidden.shape)
        stripe = (rows + columns) % 10 < 4
        colour[hidden & stripe], cover[hidden & stripe] = (238, 240, 244), 0.75
        colour[hidden & ~stripe], cover[hidden & ~stripe] = (88, 94, 106), 0.45
    if mask.any():
        shown = _scaled(mask, size)
        colour[shown], cover[shown] = RED, TINT
        reach = 2 if max(size) > 400 else 1
        outer, inner = _edge(shown, 2 * reach), _edge(shown, reach)
        colour[outer], cover[outer] = (255, 255, 255), 1
        colour[inner], cover[inner] = RED, 1
    return colour, cover


def _scaled(mask: npt.NDArray[np.bool_], size: tuple[int, int]) -> npt.NDArray[np.bool_]:
    """`mask` at (width, height) `size`; a mask of a few pixels keeps them all, so that it does not vanish."""
    image = Image.fromarray(mask.astype(np.uint8) * 255)
    if size[0] >= image.width:
        return np.asarray(image.resize(size, Image.Resampling.BILINEAR)) > 127
    part = np.asarray(image.resize(size, Image.Resampling.BOX))
    return part > (0 if mask.sum() < 64 else 100)


def _edge(shown: npt.NDArray[np.bool_], reach: int) -> npt.NDArray[np.bool_]:
    """The pixels outside `shown` within `reach` of it."""
    grown = Image.fromarray(shown.astype(np.uint8) * 255).filter(ImageFilter.MaxFilter(2 * reach + 1))
    return (np.asarray(grown) > 0) & ~shown


def _grid(tiles: Sequence[Image.Image], columns: int, gap: int, paper: Colour) -> Image.Image:
    """The tiles in rows, each row as high as its highest."""
    rows = [tiles[first : first + columns] for first in range(0, len(tiles), columns)]
    wide = max(tile.width for tile in tiles)
    heights = [max(tile.height for tile in row) for row in rows]
    used = min(columns, len(tiles))
    grid = Image.new("RGB", (used * wide + (used - 1) * gap, sum(heights) + (len(rows) - 1) * gap), paper)
    y = 0
    for row, height in zip(rows, heights, strict=True):
        for place, tile in enumerate(row):
            grid.paste(tile, (place * (wide + gap), y))
        y += height + gap
    return grid


# -- text and chips ----------------------------------------------------------------------------------------------------


@lru_cache(maxsize=32)
def _font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(size)


def _clean(text: str) -> str:
    """`text` in one line, of characters that can be drawn: Pillow without FreeType knows Latin-1 only."""
    line = "".join(c if c.isprintable() else " " for c in unicodedata.normalize("NFC", " ".join(text.split())))
    if isinstance(_font(14), ImageFont.FreeTypeFont):
        return line.encode("utf-8", "replace").decode()
    return line.encode("latin-1", "replace").decode("latin-1")


def _width(text: str, size: int) -> int:
    return int(np.ceil(_font(size).getlength(_clean(text))))


def _write(draw: ImageDraw.ImageDraw, at: tuple[int, int], text: str, size: int, colour: Colour) -> None:
    draw.text(at, _clean(text), font=_font(size), fill=colour)


def _shortened(text: str, size: int, width: int) -> str:
    """`text`, its middle left out where it is wider than `width` pixels: keys differ at their ends."""
    text = _clean(text)
    if _width(text, size) <= width:
        return text
    keep = len(text)
    while keep > 2 and _width(_cut(text, keep), size) > width:
        keep -= 1
    return _cut(text, keep)


def _cut(text: str, keep: int) -> str:
    return f"{text[: keep - keep // 2]}...{text[len(text) - keep // 2 :]}"


@dataclass(frozen=True, slots=True, kw_only=True)
class _Chip:
    """A rounded box with a word in it. mark: full, ring, half, or none."""

    text: str
    size: int
    fill: Colour
    ink: Colour
    line: Colour
    mark: str = ""

    @property
    def width(self) -> int:
        return _width(self.text, self.size) + self.size + (self.size if self.mark else 0)

    @property
    def height(self) -> int:
        return round(self.size * 1.75)

    def draw(self, picture: Image.Image, x: int, y: int) -> None:
        """Drawn at 4 times the size and made smaller: Pillow's own shapes have ragged edges."""
        scale, height = 4, self.height
        chip = Image.new("RGB", (self.width * scale, height * scale), self.line)
        draw = ImageDraw.Draw(chip)
        inner = (scale, scale, self.width * scale - scale - 1, height * scale - scale - 1)
        draw.rounded_rectangle(inner, radius=(height - 2) * scale // 2, fill=self.fill)
        if self.mark:
            self._dot(draw, scale)
        shape = Image.new("L", chip.size, 0)
        outer = (0, 0, chip.width - 1, chip.height - 1)
        ImageDraw.Draw(shape).rounded_rectangle(outer, radius=height * scale // 2, fill=255)
        size = (self.width, height)
        picture.paste(chip.resize(size, Image.Resampling.BOX), (x, y), shape.resize(size, Image.Resampling.BOX))
        left = x + self.size // 2 + (self.size if self.mark else 0)
        top = y + round(height / 2 - self.size * 0.6)
        _write(ImageDraw.Draw(picture), (left, top), self.text, self.size, self.ink)

    def _dot(self, draw: ImageDraw.ImageDraw, scale: int) -> None:
        radius, x, y = self.size * scale * 0.3, self.size * scale * 0.9, self.height * scale / 2
        box = (x - radius, y - radius, x + radius, y + radius)
        thick = max(scale, round(self.size * scale * 0.1))
        draw.ellipse(box, outline=self.ink, width=thick, fill=self.ink if self.mark == "full" else None)
        if self.mark == "half":
            draw.pieslice(box, 90, 270, fill=self.ink)


MARKS = {"present": "full", "absent": "ring", "unknown": "half"}


def _chip(name: str, genuine: bool, known: str, size: int, room: int) -> _Chip:
    text = _shortened(name, size, room - 2 * size)
    if genuine:
        return _Chip(text=text, size=size, fill=RED, ink=(255, 255, 255), line=RED, mark=MARKS[known])
    return _Chip(text=text, size=size, fill=CARD, ink=INK, line=LINE, mark=MARKS[known])


def _verdict(anomalous: bool, size: int) -> _Chip:
    text, colour = LABELS[int(anomalous)]
    return _Chip(text=text, size=size, fill=colour, ink=(255, 255, 255), line=colour)


def _flow(chips: Sequence[_Chip], width: int, gap: int = 6) -> tuple[list[tuple[_Chip, int, int]], int]:
    """Each chip with its place in lines of `width`, and the height of all lines."""
    placed, x, y = [], 0, 0
    for chip in chips:
        if x and x + chip.width > width:
            x, y = 0, y + chip.height + gap
        placed.append((chip, x, y))
        x += chip.width + gap
    return placed, y + chips[-1].height if chips else 0


def _caption(sample: Sample, width: int) -> Image.Image:
    """Key, origin, the list of names and the legend, `width` pixels wide."""
    verdict = _verdict(sample.anomalous, 18)
    chips = [
        _chip(name, genuine, known, 18, width)
        for name, genuine, known in zip(sample.categories, sample.is_genuine, sample.presence, strict=True)
    ]
    placed, height = _flow(chips, width, gap=8)
    legend = _legend(width)
    strip = Image.new("RGB", (width, 84 + height + 20 + legend.height), PAPER)
    verdict.draw(strip, width - verdict.width, 0)
    draw = ImageDraw.Draw(strip)
    _write(draw, (0, 2), _shortened(sample.key, 24, width - verdict.width - 16), 24, INK)
    frames, rows, columns = sample.masks.shape
    size = f"{columns} x {rows}" + (f", {sample.valid_frames} of {frames} frames" if frames > 1 else "")
    area = f"{sample.masks.mean():.1%} anomalous pixels"
    facts = f" {DOT} ".join((f"{sample.source}, {sample.split}", sample.origin, size, area))
    _write(draw, (0, 40), _shortened(facts, 16, width), 16, SOFT)
    for chip, x, y in placed:
        chip.draw(strip, x, 76 + y)
    strip.paste(legend, (0, 84 + height + 20))
    return strip


def _legend(width: int) -> Image.Image:
    """What colours and marks mean."""
    size = 14
    chips = [
        _Chip(text="exposed", size=size, fill=RED, ink=(255, 255, 255), line=RED),
        *(_Chip(text=known, size=size, fill=PAPER, ink=SOFT, line=PAPER, mark=mark) for known, mark in MARKS.items()),
        _Chip(text="tinted: the anomaly", size=size, fill=PAPER, ink=RED, line=PAPER),
        _Chip(text="hatched: ignored", size=size, fill=PAPER, ink=SOFT, line=PAPER),
    ]
    placed, height = _flow(chips, width)
    legend = Image.new("RGB", (width, height + 10), PAPER)
    ImageDraw.Draw(legend).line((0, 0, width, 0), fill=LINE)
    for chip, x, y in placed:
        chip.draw(legend, x, y + 10)
    return legend


LINES = 3
"""Lines of names on a card of a contact sheet."""


def _card(sample: Sample) -> Image.Image:
    """A sample on a contact sheet: the frame with most of the anomaly, the key, and the names there is room for."""
    width, height = THUMBNAIL
    most = int(np.argmax(sample.masks.sum(axis=(1, 2))))
    picture = _painted(sample.frames[most], sample.masks[most], sample.ignored[most], THUMBNAIL)
    order = sorted(range(len(sample.categories)), key=lambda place: not sample.is_genuine[place])
    chips = [_chip(sample.categories[p], sample.is_genuine[p], sample.presence[p], 13, width - 20) for p in order]
    line = chips[0].height + 6 if chips else 0
    card = Image.new("RGB", (width + 2, height + 48 + LINES * line + 6), CARD)
    draw = ImageDraw.Draw(card)
    draw.rectangle((0, 0, width + 1, height), fill=(40, 44, 52))
    card.paste(picture, (1 + (width - picture.width) // 2, (height - picture.height) // 2))
    draw.rectangle((0, height, width + 1, height + 4), fill=LABELS[int(sample.anomalous)][1])
    frames = len(sample.frames)
    clip = f"frame {most} of {frames}" if frames > 1 else ""
    room = width - 20 - (_width(clip, 13) + 10 if clip else 0)
    _write(draw, (10, height + 14), _shortened(sample.key, 15, room), 15, INK)
    if clip:
        _write(draw, (width - 10 - _width(clip, 13), height + 15), clip, 13, SOFT)
    for chip, x, y in _fitting(chips, width - 20, line):
        chip.draw(card, 10 + x, height + 42 + y)
    draw.rectangle((0, 0, card.width - 1, card.height - 1), outline=LINE)
    return card


def _fitting(chips: Sequence[_Chip], width: int, line: int) -> list[tuple[_Chip, int, int]]:
    """As many chips as `LINES` lines hold, then how many there are more."""
    for count in range(len(chips), -1, -1):
        rest = len(chips) - count
        more = [_Chip(text=f"+ {rest} more", size=13, fill=CARD, ink=SOFT, line=CARD)] if rest else []
        placed, _ = _flow([*chips[:count], *more], width)
        if not placed or placed[-1][2] < LINES * line:
            return placed
    return []
