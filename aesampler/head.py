"""`corpus.json`, the head of a corpus: what it is, what it was made of, where all of it lies, and how much there is.

It is the sum of the shards' reports (`manifest.py`), in whatever order they came, and is written last: a folder that
has one holds a whole corpus.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import msgspec

from aesampler.errors import CorpusError
from aesampler.manifest import FORMAT_VERSION, Kind, ManifestEntry, ShardEntry, ShardReport, decoded
from aesampler.storage import Folder

HEAD = "corpus.json"
CARD = "README.md"
CROISSANT = "croissant.json"
PLAN = ".build/plan.json"
"""The plan of a build that has not ended."""

SPLITS = ("train", "validation", "test")
TOP_CATEGORIES = 50
TOP_REJECTED = 20


@dataclass(slots=True)
class Totals:
    """The sum of shard reports, in whatever order they come."""

    samples: int = 0
    anomalous: int = 0
    frames: int = 0
    bytes: int = 0
    skipped: Counter[str] = field(default_factory=Counter)
    failures: Counter[str] = field(default_factory=Counter)
    examples: dict[str, str] = field(default_factory=dict)
    listed: Counter[str] = field(default_factory=Counter)
    genuine: Counter[str] = field(default_factory=Counter)
    rejections: dict[str, Counter[str]] = field(default_factory=dict)

    def add(self, report: ShardReport) -> None:
        """Count one shard."""
        self.samples += report.samples
        self.anomalous += report.anomalous
        self.frames += report.valid_frames
        self.bytes += report.bytes
        self.skipped.update(report.skipped)
        self.failures.update(report.failures)
        for name, (listed, genuine) in report.names.items():
            self.listed[name] += listed
            self.genuine[name] += genuine
        for rule, names in report.rejections.items():
            self.rejections.setdefault(rule, Counter()).update(names)
        for reason, keys in report.examples.items():
            self.examples[reason] = min(keys[0], self.examples.get(reason, keys[0]))

    @property
    def failed(self) -> int:
        """Samples that failed."""
        return self.failures.total()

    @property
    def rejected(self) -> int:
        """Samples that failed or were skipped."""
        return self.failures.total() + self.skipped.total()

    def failures_with_example(self) -> dict[str, tuple[int, str]]:
        """Reason -> samples that failed by it, and the first key of one; the most frequent first."""
        ordered = sorted(self.failures.items(), key=lambda entry: (-entry[1], entry[0]))
        return {reason: (count, self.examples[reason]) for reason, count in ordered}


class SourceHead(msgspec.Struct, frozen=True, kw_only=True):
    """One source in one split.

    kind, encoding, frames (a sample, with padding): the same for all its samples; frames is 0 where there is none.
    valid_frames: without padding, in all. shards: those that hold a sample, in order. manifests: one a planned shard.
    """

    kind: Kind
    encoding: str
    frames: int
    samples: int
    anomalous: int
    valid_frames: int
    failed: int
    skipped: int
    shards: list[ShardEntry]
    manifests: list[ManifestEntry]

    @property
    def bytes(self) -> int:
        """Bytes of its tars."""
        return sum(shard.bytes for shard in self.shards)

    @classmethod
    def of(cls, reports: Sequence[ShardReport]) -> SourceHead:
        """The sum of the reports of one source in one split. Raises CorpusError where they hold different kinds of
        sample.
        """
        first = reports[0]
        for report in reports:
            other = (report.kind, report.encoding, report.frames or first.frames)
            if other != (first.kind, first.encoding, first.frames or report.frames):
                raise CorpusError(
                    "the shards of one source hold different kinds of sample",
                    where=report.manifest.path,
                    got=f"{report.kind}, {report.encoding}, {report.frames} frames",
                    allowed=f"{first.kind}, {first.encoding}, {first.frames} frames",
                )
        return cls(
            kind=first.kind,
            encoding=first.encoding,
            frames=max(report.frames for report in reports),
            samples=sum(report.samples for report in reports),
            anomalous=sum(report.anomalous for report in reports),
            valid_frames=sum(report.valid_frames for report in reports),
            failed=sum(sum(report.failures.values()) for report in reports),
            skipped=sum(sum(report.skipped.values()) for report in reports),
            shards=[
                ShardEntry(path=report.path, samples=report.samples, bytes=report.bytes, sha256=report.sha256)
                for report in reports
                if report.path
            ],
            manifests=[report.manifest for report in reports],
        )


class CategoryCount(msgspec.Struct, frozen=True, kw_only=True):
    """How many samples list a name, and how many expose it as the anomaly."""

    name: str
    listed: int
    genuine: int


class Rejections(msgspec.Struct, frozen=True, kw_only=True):
    """What one rule kept off the lists. total: names, over all samples. names: how many different ones; top: the
    `TOP_REJECTED` that it kept off most often, with the number of samples.
    """

    total: int
    names: int
    top: dict[str, int]

    @classmethod
    def of(cls, counts: Counter[str]) -> Rejections:
        """The sum of one rule."""
        ordered = sorted(counts.items(), key=lambda entry: (-entry[1], entry[0]))
        return cls(total=counts.total(), names=len(counts), top=dict(ordered[:TOP_REJECTED]))


class NameRate(msgspec.Struct, frozen=True, kw_only=True):
    """Of the samples that list a name, how many are anomalous."""

    name: str
    listed: int
    anomalous: int


class LengthRate(msgspec.Struct, frozen=True, kw_only=True):
    """Of the samples whose list has so many names, how many are anomalous."""

    length: int
    samples: int
    anomalous: int


class Shortcut(msgspec.Struct, frozen=True, kw_only=True):
    """How well the lists alone tell the labels, see `aesampler.audit`. samples, anomalous: looked at. auc: held out,
    with its standard error; null where too few samples are of one label. names: the most telling ones.
    """

    samples: int
    anomalous: int
    auc: float | None
    error: float
    names: list[NameRate]
    lengths: list[LengthRate]

    @property
    def line(self) -> str:
        """The audit in a line."""
        if self.auc is None:
            return f"too few samples of one label among {self.samples:,} to say what the lists alone give away"
        return (
            f"the lists alone tell the label with an AUC of {self.auc:.3f} +- {self.error:.3f} "
            f"({self.samples:,} samples; 0.5: nothing)"
        )


class Sums(msgspec.Struct, frozen=True, kw_only=True):
    """Sums over the corpus. frames: without padding. bytes: of the tars. categories: the `TOP_CATEGORIES` that are
    exposed most often.
    """

    samples: int
    anomalous: int
    frames: int
    bytes: int
    failed: int
    skipped: int
    categories: list[CategoryCount]


class CorpusHead(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`corpus.json`: what the corpus is, what it was made of and by, where all of it lies, and how much there is.

    recipe: as `Recipe.document` gives it. tools: package -> version. inputs: recipe entry -> fingerprint. splits: split
    -> source -> `SourceHead`. skipped: rule -> samples. failures: reason -> samples. rejections: rule of
    `exposure.RULES` -> the names that it kept off the lists. shortcut: source -> what its lists give away. The text is
    the same for equal heads, and tells nothing of a host, a time or a path.
    """

    format_version: int
    name: str
    about: dict[str, str]
    seed: int
    recipe: dict[str, Any]
    recipe_sha256: str
    tools: dict[str, str]
    inputs: dict[str, Any]
    splits: dict[str, dict[str, SourceHead]]
    totals: Sums
    skipped: dict[str, int]
    failures: dict[str, int]
    rejections: dict[str, Rejections] = {}
    shortcut: dict[str, Shortcut] = {}

    @classmethod
    def of(
        cls,
        *,
        recipe: Mapping[str, Any],
        recipe_sha256: str,
        tools: Mapping[str, str],
        inputs: Mapping[str, Any],
        reports: Iterable[ShardReport],
        shortcut: Mapping[str, Shortcut] | None = None,
    ) -> CorpusHead:
        """The head of the corpus whose shards are `reports`, in any order."""
        totals = Totals()
        groups: dict[tuple[str, str], list[ShardReport]] = {}
        for report in sorted(reports, key=lambda report: (SPLITS.index(report.split), report.source, report.index)):
            totals.add(report)
            groups.setdefault((report.split, report.source), []).append(report)
        splits: dict[str, dict[str, SourceHead]] = {}
        for (split, source), members in groups.items():
            splits.setdefault(split, {})[source] = SourceHead.of(members)
        return cls(
            format_version=FORMAT_VERSION,
            name=recipe["name"],
            about=dict(recipe.get("about", {})),
            seed=recipe["seed"],
            recipe=dict(recipe),
            recipe_sha256=recipe_sha256,
            tools=dict(sorted(tools.items())),
            inputs=dict(sorted(inputs.items())),
            splits=splits,
            totals=Sums(
                samples=totals.samples,
                anomalous=totals.anomalous,
                frames=totals.frames,
                bytes=totals.bytes,
                failed=totals.failed,
                skipped=totals.skipped.total(),
                categories=_top(totals),
            ),
            skipped=dict(sorted(totals.skipped.items())),
            failures=dict(sorted(totals.failures.items())),
            rejections={rule: Rejections.of(counts) for rule, counts in sorted(totals.rejections.items())},
            shortcut=dict(sorted((shortcut or {}).items())),
        )

    def totals_json(self) -> dict[str, Any]:
        """The sums as a JSON-able mapping, with what was skipped and what failed."""
        told: dict[str, Any] = msgspec.to_builtins(self.totals)
        return told | {"skipped_by_rule": self.skipped, "failed_by_reason": self.failures}

    def parts(self) -> Iterator[tuple[str, str, SourceHead]]:
        """(split, source, its head), in the order of the corpus."""
        for split, sources in self.splits.items():
            for source, part in sources.items():
                yield split, source, part

    @property
    def sources(self) -> tuple[str, ...]:
        """Names of the sources, over all splits, sorted."""
        return tuple(sorted({source for sources in self.splits.values() for source in sources}))

    def to_json(self) -> bytes:
        """The text of `corpus.json`."""
        return msgspec.json.format(msgspec.json.encode(self), indent=2) + b"\n"

    @classmethod
    def of_json(cls, data: bytes, where: str = HEAD) -> CorpusHead:
        """The head that `data` holds. Raises CorpusError where it holds none, or one of a version that this code does
        not know.
        """
        version = decoded(data, _Versioned, where).format_version
        if version != FORMAT_VERSION:
            raise CorpusError(
                "unknown version of the corpus format",
                where=where,
                got=version,
                allowed=FORMAT_VERSION,
                do="read it with the aesampler that wrote it, see `tools` in the file",
            )
        return decoded(data, cls, where)

    @classmethod
    def read(cls, folder: Folder) -> CorpusHead:
        """The head of the corpus in `folder`. Raises CorpusError, FileNotFoundError."""
        return cls.of_json(folder.read(HEAD), f"{folder}/{HEAD}")


class _Versioned(msgspec.Struct):
    format_version: int


def _top(totals: Totals) -> list[CategoryCount]:
    names = sorted(totals.listed, key=lambda name: (-totals.genuine[name], -totals.listed[name], name))
    return [
        CategoryCount(name=name, listed=totals.listed[name], genuine=totals.genuine[name])
        for name in names[:TOP_CATEGORIES]
    ]
