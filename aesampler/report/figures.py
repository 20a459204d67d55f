"""Plots of a report as inline SVG, without a plotting library: bars, columns, rates with intervals, a heat map.

Every figure says in words what it shows (title, description), holds its numbers as a table that can be opened, and
takes its colours from the page's classes, so that it follows light and dark. Drawings are `WIDE` units wide, about the
width of a phone, so that text is as large there as on a desk. Text is escaped wherever it comes from the data.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from markupsafe import Markup, escape

from aesampler.audit import Rate

WIDE = 390
LEFT = 124
"""Room of names to the left of bars."""
LETTER = 7.0
"""Width of a letter of the drawings' text."""
ROW = 22
HIGH = 190
"""Height of the columns' field."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Series:
    """One colour of a plot. tone: a class of the page's style; values: one a row or column, counts."""

    name: str
    tone: str
    values: Sequence[int]


@dataclass(frozen=True, slots=True, kw_only=True)
class Words:
    """What a figure says of itself. slug: unique in the page; text: one or two sentences."""

    slug: str
    title: str
    text: str


def element(tag: str, *inside: object, **attributes: object) -> Markup:
    """An element with its attributes, escaped; `class_` is class and `font_size` is font-size; None leaves out."""
    spelled = "".join(
        Markup(' {}="{}"').format(name.rstrip("_").replace("_", "-"), _number(value))
        for name, value in attributes.items()
        if value is not None
    )
    content = Markup("").join(escape(part) for part in inside)
    return Markup(f"<{tag}{spelled}>{content}</{tag}>")


def _number(value: object) -> object:
    return f"{value:.2f}".rstrip("0").rstrip(".") if isinstance(value, float) else value


def figure(
    words: Words,
    height: float,
    drawing: Iterable[Markup],
    legend: Sequence[tuple[str, str]],
    columns: Sequence[str],
    rows: Iterable[Sequence[object]],
) -> Markup:
    """A drawing with its title, legend (tone, name) and table."""
    title, told = f"{words.slug}-title", f"{words.slug}-text"
    svg = element(
        "svg",
        element("title", words.title, id=title),
        element("desc", words.text, id=told),
        *drawing,
        viewBox=f"0 0 {WIDE} {height:.0f}",
        role="img",
        aria_labelledby=f"{title} {told}",
    )
    keys = [element("li", element("span", class_=f"key {tone}"), name) for tone, name in legend]
    body = [
        element("tr", element("th", row[0], scope="row"), *(element("td", cell) for cell in row[1:])) for row in rows
    ]
    head = element("tr", *(element("th", name, scope="col") for name in columns))
    table = element("table", element("thead", head), element("tbody", *body))
    return element(
        "figure",
        element("figcaption", element("h3", words.title), element("p", words.text)),
        element("ul", *keys, class_="keys") if keys else "",
        svg,
        element("details", element("summary", "The numbers"), element("div", table, class_="scroll", tabindex="0")),
        id=words.slug,
    )


def columns(
    words: Words, axis: str, labels: Sequence[str], series: Sequence[Series], *, beside: bool = False
) -> Markup:
    """Columns, one a label, counts upwards; the series are stacked, or beside each other. axis: what the labels are."""
    left, bottom, top = 46, 40, 8
    most = max([1, *(sum(values) if not beside else max(values) for values in _across(series))])
    step = (WIDE - left) / max(len(labels), 1)
    gap = min(3.0, step * 0.14)
    wide = (step - gap) / (len(series) if beside else 1)
    drawing = [_level(value, top + HIGH * (1 - value / most), left) for value in ticks(most)]
    every = max(1, math.ceil(max(len(label) for label in labels) * LETTER * 1.25 / step)) if labels else 1
    for place, label in enumerate(labels):
        x, y = left + place * step + gap / 2, float(top + HIGH)
        for part in series:
            tall = HIGH * part.values[place] / most
            if tall:
                note = f"{label}: {part.values[place]:,} {part.name}"
                drawing.append(_bar(x, y - tall, wide, tall, part.tone, note))
            x, y = (x + wide, y) if beside else (x, y - tall)
        if place % every == 0:
            drawing.append(_text(left + (place + 0.5) * step, top + HIGH + 17, label, "middle"))
    drawing.append(_text(left + (WIDE - left) / 2, top + HIGH + bottom - 5, axis, "middle", "soft"))
    rows = ((label, *(f"{part.values[place]:,}" for part in series)) for place, label in enumerate(labels))
    legend = [(part.tone, part.name) for part in series]
    return figure(words, top + HIGH + bottom, drawing, legend, (axis, *(part.name for part in series)), rows)


def bars(words: Words, what: str, labels: Sequence[str], series: Sequence[Series], *, whole: bool = False) -> Markup:
    """Stacked bars to the right, one a label; whole: each bar is 100% of its row."""
    sums = [sum(values) for values in _across(series)]
    most, room = max([*sums, 1]), 52
    drawing = []
    for place, label in enumerate(labels):
        x, y = float(LEFT), place * ROW
        drawing.append(_name(label, y + 15))
        scale = (WIDE - LEFT - room) / ((sums[place] or 1) if whole else most)
        for part in series:
            long = part.values[place] * scale
            if long:
                note = f"{label}: {part.values[place]:,} {part.name}"
                drawing.append(_bar(x, y + 3, long, ROW - 7, part.tone, note))
            x += long
        drawing.append(_text(x + 6, y + 15, short(sums[place]), "start", "soft"))
    rows = ((label, *(f"{part.values[place]:,}" for part in series)) for place, label in enumerate(labels))
    legend = [(part.tone, part.name) for part in series]
    return figure(words, max(len(labels), 1) * ROW, drawing, legend, (what, *(part.name for part in series)), rows)


def rates(words: Words, what: str, found: Sequence[Rate], base: float) -> Markup:
    """The anomaly rate of each name or length with its interval, beside the rate of all, a line."""
    room, foot = 52, 24
    width = WIDE - LEFT - room
    height = len(found) * ROW
    drawing = [
        element("line", class_="grid", x1=LEFT + width * part, x2=LEFT + width * part, y1=0, y2=height)
        for part in (0.0, 0.25, 0.5, 0.75, 1.0)
    ]
    drawing += [
        _text(LEFT + width * part, height + 17, f"{part:.0%}", "middle", "soft") for part in (0.0, 0.25, 0.5, 0.75, 1.0)
    ]
    drawing.append(element("line", class_="base", x1=LEFT + width * base, x2=LEFT + width * base, y1=0, y2=height))
    for place, rate in enumerate(found):
        y = place * ROW + ROW / 2
        low, high = rate.interval
        off = "anomalous" if low > base else "normal" if high < base else "unknown"
        note = f"{rate.what}: {rate.anomalous:,} of {rate.count:,} anomalous, {rate.share:.0%}"
        drawing += [
            _name(rate.what, y + 4),
            element("line", class_=f"spread {off}", x1=LEFT + width * low, x2=LEFT + width * high, y1=y, y2=y),
            element("circle", element("title", note), class_=off, cx=LEFT + width * rate.share, cy=y, r=5),
            _text(WIDE, y + 4, f"{short(rate.count)}", "end", "soft"),
        ]
    legend = [("anomalous", "above the rate of all"), ("normal", "below it"), ("unknown", "no different")]
    rows = ((r.what, f"{r.count:,}", f"{r.anomalous:,}", f"{r.share:.1%}") for r in found)
    return figure(words, height + foot, drawing, legend, (what, "listed in", "of them anomalous", "rate"), rows)


def heat(words: Words, grid: npt.NDArray[np.float64]) -> Markup:
    """[rows, columns] in [0, 1] as squares, the more the darker; the scale ends at the largest."""
    rows, columns = grid.shape
    most = float(grid.max()) or 1.0
    size = WIDE / columns
    drawing = [element("rect", class_="field", x=0, y=0, width=WIDE, height=rows * size)]
    for place in np.ndindex(rows, columns):
        value = float(grid[place])
        if value >= most / 100:
            shape = {"x": place[1] * size, "y": place[0] * size, "width": size, "height": size}
            drawing.append(element("rect", class_="heat", fill_opacity=value / most, **shape))
    thirds = [
        (f"{y}, {x}", f"{part.mean():.1%}")
        for y, band in zip(("top", "middle", "bottom"), np.array_split(grid, 3), strict=True)
        for x, part in zip(("left", "centre", "right"), np.array_split(band, 3, axis=1), strict=True)
    ]
    legend = [("heat", f"anomalous in {most:.0%} of the samples"), ("field", "never")]
    return figure(words, rows * size, drawing, legend, ("part of the picture", "share of anomalous samples"), thirds)


def _across(series: Sequence[Series]) -> Iterator[tuple[int, ...]]:
    """The values of all series, label by label."""
    return zip(*(part.values for part in series), strict=True)


def ticks(most: float) -> list[int]:
    """Whole numbers for an axis from 0 to `most`: at most six, by steps of 1, 2 or 5 times a power of ten."""
    for power in range(19):
        for step in (1, 2, 5):
            if most / (step * 10**power) <= 5:
                return list(range(0, int(most) + 1, step * 10**power))
    return [0]


def short(count: float) -> str:
    """A count in at most five characters: 950, 1.2k, 34k, 5.6M."""
    for unit, letter in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if count >= unit * 0.9995:
            return f"{count / unit:.3g}{letter}" if count < unit * 9.995 else f"{count / unit:.0f}{letter}"
    return f"{count:.0f}"


def clipped(text: str, letters: int) -> str:
    """`text` in at most so many characters, its middle left out."""
    if len(text) <= letters:
        return text
    return f"{text[: letters - letters // 2 - 1]}\u2026{text[len(text) - letters // 2 :]}"


def _name(text: str, y: float) -> Markup:
    label = clipped(text, int((LEFT - 8) / LETTER))
    note = element("title", text) if label != text else ""
    return element("text", note, label, x=LEFT - 8, y=y, text_anchor="end")


def _text(x: float, y: float, text: str, anchor: str, tone: str | None = None) -> Markup:
    return element("text", text, x=x, y=y, text_anchor=anchor, class_=tone)


def _bar(x: float, y: float, width: float, height: float, tone: str, note: str) -> Markup:
    return element("rect", element("title", note), class_=tone, x=x, y=y, width=width, height=height)


def _level(value: int, y: float, left: int) -> Markup:
    line = element("line", class_="grid", x1=left, x2=WIDE, y1=y, y2=y)
    return line + _text(left - 6, y + 4, short(value), "end", "soft")
