"""Pictures of results as PNG: the only importer of matplotlib, and only when one is drawn.

Figures are made by hand on the Agg canvas: no window, no pyplot, nothing kept between two. Equal input gives equal
bytes with the same matplotlib; no date is written into the file. One hand draws them all: red is anomalous, green
normal, a thin grey line what is compared with.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np
import numpy.typing as npt

from aesampler.errors import MissingExtra

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from lavida.metrics import Counts

Floats = npt.NDArray[Any]
Pixels = npt.NDArray[np.uint8]

RED, GREEN, INK, SOFT, LINE, BLUE = "#de2648", "#188660", "#1c2028", "#5f6675", "#d8dce3", "#1d5fd1"
TONES = (RED, BLUE, GREEN, "#b06f00", "#7a4fc4", SOFT)
POINTS = 4000
"""Points of a curve, at most: a picture has no more columns."""
DPI = 110
TITLE = 110
"""Letters of a title, at most."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Bar:
    """A result in a comparison. value: in percent. tone: ours, reference or published."""

    name: str
    value: float
    tone: str
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Track:
    """A video's scores against its labels. scores: float [T] a detector, in drawing order; labels: uint8 [T]."""

    name: str
    scores: dict[str, Floats]
    labels: npt.NDArray[np.uint8]


def _figure(width: float, height: float) -> Figure:
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError as error:
        raise MissingExtra.of("matplotlib", "report") from error
    made = Figure(figsize=(width, height), dpi=DPI, facecolor="white", layout="constrained")
    FigureCanvasAgg(made)
    return made


def _save(figure: Figure, sink: BinaryIO) -> None:
    figure.savefig(sink, format="png", metadata={"Software": None})


def _plain(axes: Axes) -> None:
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    for side in ("left", "bottom"):
        axes.spines[side].set_color(LINE)
    axes.tick_params(colors=SOFT, labelsize=9)
    axes.xaxis.label.set_color(SOFT)
    axes.yaxis.label.set_color(SOFT)


def _title(axes: Axes, text: str) -> None:
    """Any text: names of files and anomalies are anyone's. What is too long is cut; letters that the font lacks become
    question marks; "$" would begin a formula.
    """
    from matplotlib.font_manager import findfont, get_font

    text = text if len(text) <= TITLE else f"{text[: TITLE - 3]}..."
    font = get_font(findfont(axes.title.get_fontproperties()))
    text = "".join(letter if font.get_char_index(ord(letter)) else "?" for letter in text)
    axes.set_title(text.replace("$", r"\$"), loc="left", fontsize=11, color=INK)


def timeline(
    sink: BinaryIO,
    times: Floats,
    scores: Floats,
    *,
    spans: Sequence[tuple[float, float]],
    threshold: float | None,
    peaks: Sequence[tuple[float, Pixels]],
    title: str,
) -> None:
    """A video's scores over time, its intervals shaded, and the frames at the peaks below.

    times, scores: [T], seconds and scores. spans: (start, stop) of the intervals in seconds. peaks: (seconds, uint8
    [h, w, 3]).
    """
    figure = _figure(11, 3.0 if not peaks else 3.0 + _row(peaks))
    grid = figure.add_gridspec(2 if peaks else 1, 1, height_ratios=[3.0, _row(peaks)] if peaks else [1])
    axes = figure.add_subplot(grid[0])
    for start, stop in spans:
        axes.axvspan(start, stop, color=RED, alpha=0.14, linewidth=0)
    shown_times, shown = _thinned(times, scores)
    axes.fill_between(shown_times, min(0.0, float(shown.min())), shown, color=RED, alpha=0.10, linewidth=0)
    axes.plot(shown_times, shown, color=RED, linewidth=1.3)
    if threshold is not None:
        axes.axhline(threshold, color=SOFT, linewidth=0.9, linestyle=(0, (4, 3)))
        axes.annotate(
            f"{threshold:.3g}",
            (1, threshold),
            xycoords=("axes fraction", "data"),
            xytext=(4, 0),
            textcoords="offset points",
            va="center",
            fontsize=8.5,
            color=SOFT,
        )
    for time, _ in peaks:
        axes.axvline(time, color=INK, linewidth=0.8, alpha=0.45)
    axes.set_xlim(float(times[0]), max(float(times[-1]), float(times[0]) + 1e-3))
    axes.set_xlabel("seconds")
    axes.set_ylabel("score")
    _plain(axes)
    _title(axes, title)
    if peaks:
        _thumbnails(figure, grid[1], times, scores, peaks)
    _save(figure, sink)


def _row(peaks: Sequence[tuple[float, Pixels]]) -> float:
    """Inches of height of the row of thumbnails."""
    count = max(len(peaks), 4)
    tallest = max(picture.shape[0] / picture.shape[1] for _, picture in peaks)
    return 0.25 + min(2.6, 11 / count * float(tallest))


def _thumbnails(
    figure: Figure, place: Any, times: Floats, scores: Floats, peaks: Sequence[tuple[float, Pixels]]
) -> None:
    row = place.subgridspec(1, max(len(peaks), 4))
    for column, (time, picture) in enumerate(peaks):
        axes = figure.add_subplot(row[column])
        axes.imshow(picture)
        axes.set_xticks([])
        axes.set_yticks([])
        for spine in axes.spines.values():
            spine.set_color(LINE)
        at = min(int(np.searchsorted(times, time)), len(times) - 1)
        axes.set_title(f"{time:.1f} s, {scores[at]:.3g}", fontsize=9, color=INK)


def _thinned(times: Floats, scores: Floats) -> tuple[Floats, Floats]:
    """At most POINTS of a curve, the highest and the lowest of each stretch, so that no peak is lost."""
    if len(scores) <= POINTS:
        return times, scores
    kept: list[int] = []
    for part in np.array_split(np.arange(len(scores)), POINTS // 2):
        ends = {int(part[np.argmin(scores[part])]), int(part[np.argmax(scores[part])])}
        kept += sorted(ends)
    return times[kept], scores[kept]


def curves(sink: BinaryIO, counts: dict[str, Counts], title: str) -> None:
    """The ROC and the precision-recall curve of each detector. counts: name -> of all frames, with both classes."""
    figure = _figure(9.5, 4.3)
    roc, recall = figure.subplots(1, 2)
    roc.plot([0, 1], [0, 1], color=LINE, linewidth=1)
    for place, (name, counted) in enumerate(counts.items()):
        false, true, _ = counted.roc()
        roc.plot(*_even(false, true), color=TONES[place % len(TONES)], label=f"{name} {100 * counted.auc():.2f}")
        precision, recalled, _ = counted.precision_recall()
        recall.plot(
            *_even(recalled, precision),
            color=TONES[place % len(TONES)],
            label=f"{name} {100 * counted.average_precision():.2f}",
        )
    positives, negatives = next(iter(counts.values())).totals
    recall.axhline(positives / (positives + negatives), color=LINE, linewidth=1)
    for axes, across, up in ((roc, "false positive rate", "true positive rate"), (recall, "recall", "precision")):
        axes.set_xlim(0, 1)
        axes.set_ylim(0, 1.02)
        axes.set_xlabel(across)
        axes.set_ylabel(up)
        axes.legend(frameon=False, fontsize=9, labelcolor=INK)
        _plain(axes)
    _title(roc, f"{title}: ROC")
    _title(recall, "precision and recall")
    _save(figure, sink)


def _even(across: Floats, up: Floats) -> tuple[Floats, Floats]:
    if len(across) <= POINTS:
        return across, up
    kept = np.unique(np.linspace(0, len(across) - 1, POINTS).round().astype(np.int64))
    return across[kept], up[kept]


def comparison(sink: BinaryIO, bars: Sequence[Bar], title: str, axis: str) -> None:
    """Results side by side, the highest on top; values in percent, with their intervals where they have one."""
    ordered = sorted(bars, key=lambda bar: bar.value)
    figure = _figure(8, 0.9 + 0.3 * len(ordered))
    axes = figure.add_subplot()
    tones = {"ours": RED, "reference": SOFT, "published": "#c3c9d3"}
    values = [bar.value for bar in ordered]
    axes.barh(range(len(ordered)), values, color=[tones[bar.tone] for bar in ordered], height=0.68)
    for place, bar in enumerate(ordered):
        if bar.low is not None and bar.high is not None:
            axes.plot([bar.low, bar.high], [place, place], color=INK, linewidth=1.2)
        axes.annotate(
            f"{bar.value:.2f}",
            (max(bar.value, bar.high or 0), place),
            xytext=(4, 0),
            textcoords="offset points",
            va="center",
            fontsize=8.5,
            color=INK,
        )
    axes.set_yticks(range(len(ordered)), [bar.name.replace("$", r"\$") for bar in ordered])
    axes.set_xlim(0, 108)
    axes.set_xlabel(axis)
    _plain(axes)
    _title(axes, title)
    _save(figure, sink)


def tracks(sink: BinaryIO, videos: Sequence[Track], title: str) -> None:
    """The scores of videos, one below the other, on their ground truth: shaded where a frame is anomalous.

    Each detector's scores are drawn from their lowest to their highest over all videos shown, since scales differ.
    """
    figure = _figure(11, 0.6 + 1.15 * len(videos))
    rows = figure.subplots(len(videos), 1, squeeze=False)[:, 0]
    names = list(dict.fromkeys(name for video in videos for name in video.scores))
    spans = {name: _span([video.scores[name] for video in videos if name in video.scores]) for name in names}
    for axes, video in zip(rows, videos, strict=True):
        places = np.arange(len(video.labels))
        axes.fill_between(places, 0, video.labels == 1, step="mid", color=RED, alpha=0.15, linewidth=0)
        for place, name in enumerate(names):
            if name in video.scores:
                low, high = spans[name]
                values = (video.scores[name] - low) / (high - low or 1)
                axes.plot(*_thinned(places, values), color=TONES[place % len(TONES)], linewidth=1, label=name)
        axes.set_xlim(0, max(1, len(places) - 1))
        axes.set_ylim(0, 1.05)
        axes.set_yticks([])
        axes.set_ylabel(video.name.replace("$", r"\$"), rotation=0, ha="right", va="center", fontsize=8)
        _plain(axes)
    rows[-1].set_xlabel("frame")
    rows[0].legend(frameon=False, fontsize=8, loc="upper right", ncols=len(names))
    _title(rows[0], title)
    _save(figure, sink)


def _span(parts: Sequence[Floats]) -> tuple[float, float]:
    return min(float(part.min()) for part in parts), max(float(part.max()) for part in parts)
