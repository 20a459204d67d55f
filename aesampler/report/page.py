"""`aesampler report`: a corpus on one HTML page that opens anywhere, in a browser without a network.

What is on it: what the corpus was made of and by which recipe, its figures (`tally`), plots (`figures`) and a gallery
(`gallery`). The page is one file: a style, a script and pictures as data, with a content security policy that forbids
all else, so that nothing of it can be fetched and nothing from the data can run. Without the script it still shows all
figures and samples. Equal corpora and seeds give equal bytes; there is no clock, host or path in them.
"""

from __future__ import annotations

import base64
import hashlib
import importlib.resources
from collections import Counter
from collections.abc import Iterator
from typing import Any

import jinja2
import numpy as np
import yaml
from markupsafe import Markup

from aesampler.corpus import Corpus
from aesampler.head import CorpusHead
from aesampler.report import figures, gallery
from aesampler.report.figures import Series, Words
from aesampler.report.gallery import Card
from aesampler.report.tally import AREAS, LOOKED_AT, Tally, tally

SAMPLES = 48
NAMES = 20
"""Names in a plot."""
FAR = 3.0
"""Standard deviations from which the audit calls a name or an AUC a shortcut."""


def report(corpus: Corpus, *, samples: int = SAMPLES, seed: int = 0) -> str:
    """The page of `corpus` with a gallery of so many samples, picked by `seed`.

    Raises CorpusError where a manifest or a shard is gone or broken.
    """
    sums = tally(corpus, seed, max(samples, LOOKED_AT))
    shown = gallery.cards(corpus, gallery.chosen(sums.nearest, samples, seed))
    grid, masks = gallery.heat(corpus, sums.nearest, seed)
    plots = {
        "what": list(_of_names(sums)),
        "where": list(_of_masks(sums, grid, masks)),
        "audit": list(_of_audit(sums)),
    }
    style, script = (_packaged(name) for name in ("page.css", "page.js"))
    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters |= {"share": _share, "count": "{:,}".format, "size": _size}
    return environment.from_string(_packaged("page.html.jinja")).render(
        head=corpus.head,
        sums=sums,
        seed=seed,
        parts=_parts(corpus.head),
        tiles=_tiles(corpus.head, sums),
        verdict=_verdict(sums),
        plots=plots,
        cards=shown,
        gallery_names=_gallery_names(shown),
        recipe=yaml.safe_dump(corpus.head.recipe, sort_keys=False, allow_unicode=True, width=88),
        style=Markup(style),
        script=Markup(script),
        style_hash=_csp_hash(style),
        script_hash=_csp_hash(script),
    )


def _packaged(name: str) -> str:
    return (importlib.resources.files("aesampler.report") / name).read_text(encoding="utf-8")


def _csp_hash(text: str) -> str:
    """The name by which a content security policy allows this very text."""
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode("ascii")


# -- words and counts --------------------------------------------------------------------------------------------------


def _share(part: float, whole: float = 1.0) -> str:
    return f"{part / whole:.1%}" if whole else "0%"


def _size(count: int) -> str:
    for unit, name in ((1e12, "TB"), (1e9, "GB"), (1e6, "MB")):
        if count >= unit:
            return f"{count / unit:,.1f} {name}"
    return f"{count / 1e3:,.0f} kB"


def _parts(head: CorpusHead) -> list[dict[str, Any]]:
    """A row a source and split."""
    return [
        {
            "source": source,
            "split": split,
            "holds": f"clips of {part.frames}" if part.kind == "clip" else "pictures",
            "samples": part.samples,
            "anomalous": part.anomalous,
            "frames": part.valid_frames,
            "shards": len(part.shards),
            "bytes": part.bytes,
            "lost": part.failed + part.skipped,
        }
        for split, source, part in head.parts()
    ]


def _tiles(head: CorpusHead, sums: Tally) -> list[tuple[str, str, str]]:
    """The figures at the top: value, what it is, and its tone."""
    totals = head.totals
    lost = totals.failed + totals.skipped
    return [
        (f"{totals.samples:,}", "samples", ""),
        (_share(totals.anomalous, totals.samples), "of them anomalous", "anomalous"),
        (f"{totals.frames:,}", "frames", ""),
        (f"{sums.names:,}", "names listed", ""),
        (_size(totals.bytes), f"in {sum(part['shards'] for part in _parts(head)):,} shards", ""),
        (f"{lost:,}", "left out", "unknown" if lost else ""),
    ]


def _verdict(sums: Tally) -> dict[str, str]:
    """The audit in a sentence. tone: normal where nothing is found."""
    told = sums.audit
    if told.auc is None:
        return {"value": "n/a", "tone": "unknown", "text": "There are too few samples of both labels to tell."}
    margin = 1.96 * told.error
    value = f"{told.auc:.3f} \u00b1 {margin:.3f}"
    of = "all" if told.samples == sums.samples else f"{told.samples:,} of"
    seen = f"held out, on {of} {sums.samples:,} samples"
    if told.auc - margin <= 0.5:
        text = f"The list alone does not give the label away: chance is 0.5 ({seen})."
        return {"value": value, "tone": "normal", "text": text}
    degree = "a little" if told.auc < 0.6 else "clearly" if told.auc < 0.75 else "strongly"
    text = f"The list alone gives the label away {degree}: chance is 0.5 ({seen})."
    if told.auc >= 0.6:
        text += " irrelevant_from: balanced draws irrelevant names as often as genuine ones."
    return {"value": value, "tone": "unknown" if told.auc < 0.6 else "anomalous", "text": text}


def _gallery_names(shown: list[Card]) -> list[str]:
    return sorted({name.text for card in shown for name in card.names})


# -- plots -------------------------------------------------------------------------------------------------------------


def _of_names(sums: Tally) -> Iterator[Markup]:
    lengths = [int(rate.what) for rate in sums.audit.lengths]
    by_length = {int(rate.what): rate for rate in sums.audit.lengths}
    span = list(range(min(lengths, default=1), max(lengths, default=1) + 1))
    rates = [by_length.get(length) for length in span]
    anomalous = [rate.anomalous if rate else 0 for rate in rates]
    normal = [rate.count - rate.anomalous if rate else 0 for rate in rates]
    yield figures.columns(
        Words(
            slug="lengths",
            title="How long the lists are",
            text=f"Samples by the number of names listed, exposed ones included{_sampled(sums)}.",
        ),
        "names in the list",
        [str(length) for length in span],
        [
            Series(name="anomalous", tone="anomalous", values=anomalous),
            Series(name="normal", tone="normal", values=normal),
        ],
    )
    yield _presence(sums)
    yield _frequency(sums, "exposed", "Names most often exposed", sums.exposed)
    yield _tail(sums)
    yield _frequency(sums, "irrelevant", "Names most often irrelevant", sums.irrelevant)


def _sampled(sums: Tally) -> str:
    seen = sums.audit.samples
    return "" if seen == sums.samples else f" ({seen:,} of {sums.samples:,} samples, evenly taken)"


def _frequency(sums: Tally, slug: str, title: str, by: Counter[str]) -> Markup:
    names = sorted(by, key=lambda name: (-by[name], name))[:NAMES]
    return figures.bars(
        Words(slug=slug, title=title, text=f"Samples that list the name; the first {len(names)} of {len(by):,} names."),
        "name",
        names,
        [
            Series(name="exposed", tone="anomalous", values=[sums.exposed[name] for name in names]),
            Series(name="irrelevant", tone="unknown", values=[sums.irrelevant[name] for name in names]),
        ],
    )


OFTEN = (1, 3, 10, 30, 100, 300, 1000, 3000, 10_000, 30_000, 100_000, 300_000)
"""Edges of the classes of how often a name is listed."""


def _tail(sums: Tally) -> Markup:
    """How many names are listed how often: the long tail."""
    most = max([*sums.exposed.values(), *sums.irrelevant.values(), 1])
    edges = OFTEN[: int(np.searchsorted(OFTEN, most, side="right"))]
    names = sums.exposed.keys() | sums.irrelevant.keys()

    def spread(counter: Counter[str]) -> list[int]:
        classes = np.searchsorted(edges, [counter[name] for name in sorted(names)], side="right")
        counts: list[int] = np.bincount(classes, minlength=len(edges) + 1).tolist()
        return counts

    labels = ["0", *(_class(low, high) for low, high in zip(edges, [*edges[1:], None], strict=True))]
    return figures.columns(
        Words(
            slug="tail",
            title="The long tail",
            text=f"Of the {len(names):,} names listed: how many are exposed, or irrelevant, in so many samples.",
        ),
        "samples that list the name",
        labels,
        [
            Series(name="names exposed", tone="anomalous", values=spread(sums.exposed)),
            Series(name="names irrelevant", tone="unknown", values=spread(sums.irrelevant)),
        ],
        beside=True,
    )


def _class(low: int, high: int | None) -> str:
    if high is None:
        return f"{figures.short(low)}+"
    return f"{low}" if high == low + 1 else f"{figures.short(low)}-{figures.short(high - 1)}"


def _presence(sums: Tally) -> Markup:
    sources = sorted({source for source, *_ in sums.presence})
    tones = (("absent", "normal"), ("unknown", "unknown"), ("present", "anomalous"))
    return figures.bars(
        Words(
            slug="presence",
            title="Absent, or not known",
            text="What the source knows of the irrelevant names. They should be absent; an unknown one may be in the "
            "picture without a mark.",
        ),
        "source",
        sources,
        [
            Series(name=known, tone=tone, values=[sums.presence[source, False, known] for source in sources])
            for known, tone in tones
        ],
        whole=True,
    )


def _of_masks(sums: Tally, grid: np.ndarray[Any, np.dtype[np.float64]], masks: int) -> Iterator[Markup]:
    areas = sum(sums.areas.values(), np.zeros(len(AREAS) - 1, dtype=np.int64))
    yield figures.columns(
        Words(
            slug="areas",
            title="How large anomalies are",
            text="Anomalous samples by the share of pixels that is anomalous, the mean over the frames of a clip. "
            f"{sums.hatched:,} of all samples have ignored pixels.",
        ),
        "share of the picture, up to",
        [f"{edge:g}%" for edge in np.multiply(AREAS[1:], 100).round(6).tolist()],
        [Series(name="anomalous", tone="anomalous", values=areas.tolist())],
    )
    yield figures.heat(
        Words(
            slug="heat",
            title="Where anomalies lie",
            text=f"The masks of {masks:,} anomalous samples added up, each picture stretched to one shape.",
        ),
        grid,
    )
    for source, frames in sorted(sums.clips.items()):
        series = (
            ("anomalous", "anomalous", frames.anomalous),
            ("normal, in an anomalous clip", "normal", frames.normal),
            ("normal clip", "calm", frames.calm),
            ("unknown", "unknown", frames.unknown),
            ("padding", "padding", frames.padding),
        )
        yield figures.columns(
            Words(
                slug=f"frames-{source}",
                title=f"Frame labels over time: {source}",
                text="Clips by the label of each of their frames.",
            ),
            "frame of the clip",
            [str(place) for place in range(len(frames.calm))],
            [Series(name=name, tone=tone, values=values.tolist()) for name, tone, values in series if values.any()],
        )


def _of_audit(sums: Tally) -> Iterator[Markup]:
    base = sums.audit.base
    names = [rate for rate in sums.audit.names if rate.count >= 5][:NAMES]
    far = sum(abs(rate.surprise(base)) >= FAR for rate in sums.audit.names)
    yield figures.rates(
        Words(
            slug="rate-names",
            title="Names that tell most",
            text=f"The anomaly rate of the samples that list a name, with its 95% interval; the {len(names)} that lie "
            f"farthest from the rate of all, {base:.0%} (the line). Names {FAR:.0f} or more standard deviations away: "
            f"{far:,} of {len(sums.audit.names):,}{_sampled(sums)}.",
        ),
        "name",
        names,
        base,
    )
    yield figures.rates(
        Words(
            slug="rate-lengths",
            title="Lengths that tell",
            text=f"The anomaly rate by the length of the list, with its 95% interval{_sampled(sums)}.",
        ),
        "names in the list",
        sums.audit.lengths,
        base,
    )
