"""The data card, `README.md`: front matter for Hugging Face, then what the corpus is, how it was made and how to read
it.

The front matter matters to programs. `load_dataset(CORPUS, SOURCE)` guesses the columns of tar shards from the first
five samples unless it is told them, and takes whatever ends in .tar for data unless it is told the files; so there is
one config a source, with the files of each split and the type of each column.
"""

from __future__ import annotations

import importlib.resources
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import yaml

from aesampler.head import CorpusHead, SourceHead

FIELDS: tuple[tuple[str, object, str], ...] = (
    ("key", "string", "the sample's key: `[a-z0-9_-]+`, unique in the corpus"),
    ("source", "string", "the entry of the recipe that it comes from"),
    ("split", "string", "`train`, `validation` or `test`"),
    ("origin", "string", "path of the picture below the source's root, or the id of the video"),
    ("origin_frames", ["string"], "the source's own name of each frame that is not padding"),
    ("valid_frames", "int64", "frames that are not padding; a short clip is padded with its last frame"),
    ("height", "int64", "pixels"),
    ("width", "int64", "pixels"),
    ("anomalous", "bool", "the label of the sample, also in `K.cls` as 0 or 1"),
    ("categories", ["string"], "the list of names, in its drawn order"),
    ("is_genuine", ["bool"], "of each listed name: whether it is exposed as the anomaly; none is in a normal sample"),
    ("presence", ["string"], "of each listed name, in the whole record: `present`, `absent` or `unknown`"),
    ("frame_labels", ["int64"], "of each frame: 1 anomalous, 0 normal, 255 unknown"),
    (
        "ignored",
        [{"size": ["int64"], "counts": "string"}],
        "of each frame: pixels that say nothing, as COCO run-length mask (`size` is height, width)",
    ),
    ("redraw", "string", "JSON text: all segments and names of the record, from which other lists can be drawn"),
)
"""`K.json`: each field, its type for `datasets`, and what it is."""

LICENSES = {
    name.lower(): name
    for name in (
        "Apache-2.0",
        "BSD-3-Clause",
        "CC-BY-3.0",
        "CC-BY-4.0",
        "CC-BY-NC-4.0",
        "CC-BY-NC-ND-4.0",
        "CC-BY-NC-SA-4.0",
        "CC-BY-ND-4.0",
        "CC-BY-SA-3.0",
        "CC-BY-SA-4.0",
        "CC0-1.0",
        "MIT",
        "ODbL-1.0",
        "PDDL-1.0",
    )
}
"""Licences that the hub knows (its spelling is lower case), with their SPDX spelling."""

TAGS = ["anomaly-detection", "video-anomaly-detection", "pseudo-anomaly", "segmentation", "webdataset"]
SHOWN = 15
"""Names in the card's table."""


def data_card(head: CorpusHead) -> str:
    """The text of `README.md`; equal heads give equal text."""
    front = yaml.safe_dump(_front(head), sort_keys=False, allow_unicode=True, width=100)
    sections = (_what, _counts, _how, _sureness, _reading, _members, _origins, _limits)
    return f"---\n{front}---\n\n" + "\n".join(text for section in sections if (text := section(head)))


# -- front matter ------------------------------------------------------------------------------------------------------


def _front(head: CorpusHead) -> dict[str, Any]:
    parts = _by_source(head)
    return {
        "pretty_name": head.name,
        **_license(head.about.get("license", "")),
        "task_categories": ["image-segmentation"],
        "tags": TAGS,
        "size_categories": [_size(head.totals.samples)],
        "configs": [
            {
                "config_name": source,
                "data_files": [{"split": split, "path": tars(split, source)} for split in splits],
            }
            for source, splits in parts.items()
        ],
        "dataset_info": [
            {"config_name": source, "features": features(next(iter(splits.values())))}
            for source, splits in parts.items()
        ],
    }


def tars(split: str, source: str) -> str:
    """A glob for the tars of a source in a split, which those of a source with a longer name do not match."""
    return f"{split}/{source}-[0-9][0-9][0-9][0-9][0-9][0-9].tar"


def features(part: SourceHead) -> list[dict[str, object]]:
    """The columns of a source as `datasets` writes them: the members by extension, then what it adds itself."""
    prefixes = [""] if part.kind == "image" else [f"{place:03d}." for place in range(part.frames)]
    pictures = [prefix + ext for prefix in prefixes for ext in (part.encoding, "mask.png")]
    members: list[tuple[str, object]] = [("cls", "int64"), *((name, "image") for name in pictures)]
    added: list[tuple[str, object]] = [("__key__", "string"), ("__url__", "string")]
    return [
        {"name": "json", "struct": [_feature(name, kind) for name, kind, _ in FIELDS]},
        *(_feature(name, kind) for name, kind in members + added),
    ]


def _feature(name: str, kind: object) -> dict[str, object]:
    if not isinstance(kind, list):
        return {"name": name, "dtype": kind}
    (inner,) = kind
    if isinstance(inner, dict):
        return {"name": name, "list": [_feature(key, value) for key, value in inner.items()]}
    return {"name": name, "list": inner}


def _by_source(head: CorpusHead) -> dict[str, dict[str, SourceHead]]:
    """Source -> split -> what it holds there; only what holds a sample."""
    return {
        source: found
        for source in head.sources
        if (found := {s: parts[source] for s, parts in head.splits.items() if source in parts and parts[source].shards})
    }


def _license(name: str) -> dict[str, str]:
    if name.lower() in LICENSES:
        return {"license": name.lower()}
    return {"license": "other", "license_name": name} if name else {"license": "unknown"}


def _size(samples: int) -> str:
    bounds = ((1e3, "1K"), (1e4, "10K"), (1e5, "100K"), (1e6, "1M"), (1e7, "10M"), (1e8, "100M"), (1e9, "1B"))
    below = None
    for bound, name in bounds:
        if samples < bound:
            return f"{below}<n<{name}" if below else f"n<{name}"
        below = name
    return f"n>{below}"


# -- text --------------------------------------------------------------------------------------------------------------


def _what(head: CorpusHead) -> str:
    about, totals = head.about, head.totals
    told = [("Licence", "license"), ("Creator", "creator"), ("Page", "url"), ("Date", "date")]
    lines = [f"# {head.name}", "", *([about["description"], ""] if about.get("description") else [])]
    lines.append(
        f"{totals.samples:,} samples, {totals.frames:,} frames, {_bytes(totals.bytes)}; "
        f"{totals.anomalous:,} samples are anomalous. "
        "For training video anomaly detectors that are told in words what counts as an anomaly."
    )
    return "\n".join([*lines, WHAT, *(f"- {label}: {about[key]}" for label, key in told if about.get(key)), ""])


WHAT = """
A sample is a picture or a clip of a segmentation dataset with a list of names. In an anomalous sample some of the names
are genuine: they can be seen, and the mask covers them. The other names, and all names of a normal sample, are
irrelevant: nothing of them is in the picture, as well as the source can know. The lists are drawn by the Anomaly
Exposure Sampler of LAVIDA (arXiv 2602.19248, equations 1 and 2).
"""


def _counts(head: CorpusHead) -> str:
    rows = [
        (
            source,
            split,
            f"clips of {part.frames} frames" if part.kind == "clip" else "pictures",
            part.encoding,
            f"{part.samples:,}",
            f"{part.anomalous:,}",
            f"{part.valid_frames:,}",
            f"{len(part.shards):,}",
            _bytes(part.bytes),
        )
        for source, splits in _by_source(head).items()
        for split, part in splits.items()
    ]
    titles = ("source", "split", "holds", "as", "samples", "anomalous", "frames", "shards", "size")
    names = [(c.name, f"{c.listed:,}", f"{c.genuine:,}") for c in head.totals.categories[:SHOWN]]
    lines = ["## What is in it", "", *_table(titles, "llllrrrrr", rows), ""]
    lines += ["The names that are exposed most often:", ""]
    lines += [*_table(("name", "samples that list it", "samples that expose it"), "lrr", names), ""]
    for title, counts in (("Left out by rule", head.skipped), ("Failed, and left out", head.failures)):
        if counts:
            lines += [f"{title}:", "", *(f"- {count:,}: {reason}" for reason, count in counts.items()), ""]
    return "\n".join(lines)


def _how(head: CorpusHead) -> str:
    settings = head.recipe.get("exposure", {})
    rows = [(f"`{name}`", f"`{_plain(value)}`") for name, value in settings.items()]
    lines = [
        "## How it was made",
        "",
        f"By aesampler {head.tools.get('aesampler', '')} from the recipe in `corpus.json`, with seed {head.seed}. "
        "The same recipe, inputs and tool versions give the same bytes again. How the lists are drawn:",
        "",
        *_table(("setting", "value"), "ll", rows),
        "",
    ]
    for entry in head.recipe.get("sources", []):
        if entry.get("exposure"):
            own = ", ".join(f"`{name}: {_plain(value)}`" for name, value in entry["exposure"].items())
            lines += [f"`{entry['name']}` has its own {own}.", ""]
    return "\n".join(lines)


def _sureness(head: CorpusHead) -> str:
    lines = ["## How sure the lists are", ""]
    if head.rejections:
        rows = [
            (
                f"`{rule}`: {KEPT_OFF[rule]}",
                f"{found.total:,}",
                f"{found.names:,}",
                ", ".join(f"{name} ({count:,})" for name, count in list(found.top.items())[:TOLD]),
            )
            for rule, found in head.rejections.items()
        ]
        lines += ["Names that were kept off lists, counted once a sample:", ""]
        lines += [*_table(("rule", "in all", "names", "most often"), "lrrl", rows), ""]
    if head.shortcut:
        lines += ["What a classifier of names and list length alone, which sees no picture, makes of the labels:", ""]
        lines += [f"- {source}: {found.line}" for source, found in head.shortcut.items()]
        lines.append("")
    return "\n".join(lines) if len(lines) > 2 else ""


KEPT_OFF = {
    "present": "marked in the frames of the sample",
    "elsewhere": "present in the record, or found in the same picture or video by another record or source",
    "near": "another name, a kind, a whole or a part of what is present",
    "kin": "often taken for what is present, and not known absent",
    "shown": "a CLIP image tower takes the picture to show it",
    "unknown": "not known absent",
}
TOLD = 5
"""Names told of each rule."""


def _reading(head: CorpusHead) -> str:
    parts = _by_source(head)
    source, splits = next(iter(parts.items()))
    split, part = next(iter(splits.items()))
    first = "" if part.kind == "image" else "000."
    members = (f"{first}{part.encoding}", f"{first}mask.png", "cls", "json")
    return READING.format(
        split=split,
        source=source,
        tars=tars(split, source),
        configs=", ".join(f"`{name}`" for name in parts),
        fields=", ".join(f'sample["{member}"]' for member in members),
    )


READING = """## How to read it

With aesampler, from a folder or an object store:

```python
import aesampler

corpus = aesampler.Corpus.open("CORPUS")
sample = corpus[0]  # or corpus["key"]: frames, masks, ignored, frame_labels, categories, is_genuine, presence
```

With webdataset:

```python
import glob, webdataset

shards = sorted(glob.glob("CORPUS/{tars}"))
for sample in webdataset.WebDataset(shards, shardshuffle=False).decode("pil"):
    {fields}
```

With Hugging Face datasets, one config a source ({configs}):

```python
import datasets

for sample in datasets.load_dataset("CORPUS", "{source}", split="{split}", streaming=True):
    {fields}
```

With Ray Data:

```python
import glob, ray

shards = sorted(glob.glob("CORPUS/{tars}"))
for sample in ray.data.read_webdataset(shards).iter_rows():
    {fields}
```
"""


def _members(head: CorpusHead) -> str:
    rows = [(f"`{name}`", f"`{_kind(kind)}`", text) for name, kind, text in FIELDS]
    return "\n".join([MEMBERS, *_table(("field of K.json", "type", "what it is"), "lll", rows), BESIDE])


MEMBERS = """## What a sample holds

A shard is a plain tar. The members of a sample K are adjacent, in this order:

- `K.json`: see below; `K.cls`: 1 anomalous, 0 normal;
- of a picture: `K.jpg` or `K.png`, and `K.mask.png`;
- of a clip: `K.000.jpg`, `K.000.mask.png`, `K.001.jpg` and so on.

A `mask.png` is always there: 8-bit grey, 255 anomalous, 0 not.
"""

BESIDE = """
`manifest/SPLIT/SOURCE-000000.parquet` has a row for each sample, with its offset and size in the tar, the share of
anomalous and ignored pixels of each frame, and the sha256 of its masks; what failed or was left out has a row too.
`vocabulary/SOURCE.parquet` holds the names of a source and how often each occurs.
"""


def _origins(head: CorpusHead) -> str:
    formats = {entry["name"]: str(entry.get("format", "")) for entry in head.recipe.get("sources", [])}
    rows, cited = [], []
    for source in head.sources:
        format = formats.get(source, "")
        known = _dataset(format)
        title, page = known.get("title", format), known.get("homepage")
        licence = known.get("license", "not known here: ask its owners")
        rows.append((source, f"[{title}]({page})" if page else title, licence))
        cited += [f"- {source}: {known['citation']}"] if "citation" in known else []
    table = _table(("source", "dataset", "its licence"), "lll", rows)
    return "\n".join(
        ["## Where it comes from", "", *table, ORIGINS, *(["To be cited:", "", *cited, ""] if cited else [])]
    )


ORIGINS = """
The pictures and annotations stay under the terms of their owners; this corpus grants nothing beyond them.
"""


def _limits(head: CorpusHead) -> str:
    return LIMITS


LIMITS = """## Known limits

- An anomaly here is an ordinary object that the list names, not a rare event: the corpus teaches a detector to follow
  words, not what is dangerous.
- A name marked `unknown` may be in the picture although nothing is annotated: few datasets annotate everything. A name
  marked `absent` is as sure as the source's own annotation.
- Pixels in `ignored` (crowds, unlabelled regions) may hide a listed name; leave them out of losses and scores.
- Masks are as exact as the source's. Frames labelled 255 say nothing.
- The balance of names follows the sources, with their biases.
"""


def _dataset(format: str) -> dict[str, str]:
    """What the bundled manifest of a format says of its dataset; nothing for a format of a third party."""
    file = importlib.resources.files("aesampler") / "manifests" / f"{format}.yaml"
    if not format or not file.is_file():
        return {}
    told = yaml.safe_load(file.read_text(encoding="utf-8"))
    return {key: " ".join(value.split()) for key, value in told.items() if isinstance(value, str)}


def _table(titles: Sequence[str], align: str, rows: Iterable[Sequence[str]]) -> list[str]:
    marks = [{"l": "---", "r": "---:"}[side] for side in align]
    cells = [list(titles), marks, *([_cell(text) for text in row] for row in rows)]
    return [f"| {' | '.join(row)} |" for row in cells]


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")


def _plain(value: object) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{key}: {_plain(part)}" for key, part in value.items())
    if isinstance(value, (list, tuple)):
        return f"[{', '.join(_plain(part) for part in value)}]"
    return "null" if value is None else str(value)


def _kind(kind: object) -> str:
    if isinstance(kind, list):
        return f"list of {_kind(kind[0])}"
    if isinstance(kind, dict):
        return "{" + ", ".join(f"{key}: {_kind(value)}" for key, value in kind.items()) + "}"
    return str(kind)


def _bytes(count: int) -> str:
    size = float(count)
    for unit in ("B", "kB", "MB", "GB"):
        if size < 999.5:
            return f"{size:,.0f} {unit}" if unit == "B" or size >= 99.5 else f"{size:,.1f} {unit}"
        size /= 1000
    return f"{size:,.2f} TB"
