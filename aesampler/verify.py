"""Is a corpus what it says? Every file, every offset, every member and every label, looked at one shard at a time.

What is wrong is collected, not raised: a check that finds something goes on. Reading trouble that may pass (network) is
raised. Memory: the rows of one shard, 16 bytes a sample for keys and groups, and at most `SHOWN` problems a check.
The tars are read once through, and once again by offset. `deep` also decodes every picture and draws every exposure
again, from the stored segments, the vocabulary and the recipe, with the code that built the corpus.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import io
import json
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, BinaryIO

import msgspec
import numpy as np
import numpy.typing as npt

from aesampler import image, manifest, masks, rng, sample, shard, shortcut
from aesampler.corpus import Corpus
from aesampler.errors import AesamplerError, BadRecord, CorpusError
from aesampler.exposure import ExposureSettings
from aesampler.head import CARD, CROISSANT, HEAD, CorpusHead, SourceHead
from aesampler.manifest import ManifestEntry, SampleRow, ShardEntry, ShardReport
from aesampler.report.card import data_card
from aesampler.report.croissant import croissant
from aesampler.sample import Sample, SampleJson
from aesampler.scene import Scene

SHOWN = 50
"""Problems of one check that are told one by one; the others are counted."""

NEAR_AUC = 0.005

KEY = re.compile(r"[a-z0-9_-]{1,80}")
BAD_KEY = "a key is of [a-z0-9_-], at most 80 characters"

CHECKS = {
    "head": "corpus.json is the sum of the manifests",
    "manifests": "each Parquet has the recorded bytes and sha256 and says the same of its tar",
    "tars": "each tar has the recorded bytes, sha256 and samples",
    "offsets": "reading by offset and size gives what reading through gives",
    "members": "the members of each sample are those of its kind, in order, and K.json and K.cls say what the row says",
    "pictures": "each picture is of the stated encoding and size",
    "masks": "each mask is 8-bit grey of 0 and 255, as large as the picture, and its pixels are those of the row",
    "labels": "labels, frame labels and marks follow from the masks and the list",
    "keys": "keys are well formed, and unique in the whole corpus",
    "groups": "no group lies in two splits, unless the recipe allows it",
    "vocabulary": "each source has its vocabulary, which holds every listed name",
    "card": "README.md and croissant.json are those of corpus.json",
    "draws": "the exposure, drawn again from what is stored, is the one that is stored",
}

Progress = Callable[[str, int, int, int], object]
"""Told (what, done, total, bytes)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    """One thing that is wrong: which check found it, where, and what it is."""

    check: str
    where: str
    what: str

    def __str__(self) -> str:
        return f"{self.where}: {self.what}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """What one check looked at. about: what holds if it found nothing. looked: at how many things; found: problems."""

    name: str
    about: str
    looked: int
    found: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """What `verify` found. problems: at most `SHOWN` a check. warnings: files that do not belong to the corpus."""

    corpus: str
    deep: bool
    samples: int
    checks: tuple[Check, ...]
    problems: tuple[Problem, ...]
    warnings: tuple[Problem, ...]

    @property
    def ok(self) -> bool:
        """Whether nothing is wrong; a warning is not wrong."""
        return not self.problems

    @property
    def line(self) -> str:
        """The verdict in a line."""
        found = sum(check.found for check in self.checks)
        state = "nothing is wrong" if self.ok else f"{found:,} problem{'s' if found > 1 else ''}"
        ran = sum(check.looked > 0 for check in self.checks)
        foreign = f"; {len(self.warnings)} files do not belong to it" if self.warnings else ""
        return f"{self.corpus}: {self.samples:,} samples, {ran} checks{', deep' if self.deep else ''}: {state}{foreign}"

    def to_json(self) -> dict[str, Any]:
        """The verdict as a JSON-able mapping."""
        told: dict[str, Any] = msgspec.to_builtins(self)
        return {"ok": self.ok} | told


@dataclass(slots=True)
class _Findings:
    looked: dict[str, int] = field(default_factory=lambda: dict.fromkeys(CHECKS, 0))
    found: dict[str, int] = field(default_factory=lambda: dict.fromkeys(CHECKS, 0))
    problems: list[Problem] = field(default_factory=list)

    def look(self, check: str, where: str, *wrong: str | None) -> None:
        """Count a look; each of `wrong` that is not None is a problem."""
        self.looked[check] += 1
        for what in wrong:
            if what is not None:
                self.found[check] += 1
                if self.found[check] <= SHOWN:
                    self.problems.append(Problem(check=check, where=where, what=" ".join(what.split())))


def verify(corpus: Corpus, deep: bool = False, progress: Progress | None = None) -> Verdict:
    """Look at all of `corpus`; `deep` see the module. Raises StorageError and OSError where it cannot be read."""
    findings = _Findings()
    files = corpus.folder.list()
    reports: list[ShardReport] = []
    seen = _Seen()
    done = size = 0
    for split, source, part in _parts(corpus.head):
        _vocabulary(corpus, source, findings)
        settings = _settings(corpus, split, source, findings)
        bench = _Bench(corpus=corpus, source=source, part=part, settings=settings, deep=deep, findings=findings)
        tars = {entry.path: entry for entry in part.shards}
        for entry in part.manifests:
            rows = _manifest(corpus, entry, tars, reports, findings)
            tar = tars.get(entry.path.removeprefix("manifest/").removesuffix(".parquet") + ".tar")
            seen.add(split, rows)
            for row in rows:
                findings.look("keys", f"{entry.path}: {row.key}", None if KEY.fullmatch(row.key) else BAD_KEY)
            if tar is not None:
                _tar(bench, tar, rows)
                done, size = done + tar.samples, size + tar.bytes
                if progress is not None:
                    progress("samples", done, len(corpus), size)
    _head(corpus.head, reports, findings)
    _shortcut(corpus, reports, findings)
    _keys(corpus, seen, findings)
    _groups(corpus, seen, findings)
    _card(corpus, findings)
    foreign = sorted(files.keys() - _expected(corpus.head))
    return Verdict(
        corpus=corpus.folder.url,
        deep=deep,
        samples=len(corpus),
        checks=tuple(
            Check(name=name, about=about, looked=findings.looked[name], found=findings.found[name])
            for name, about in CHECKS.items()
        ),
        problems=tuple(findings.problems),
        warnings=tuple(Problem(check="files", where=path, what="does not belong to the corpus") for path in foreign),
    )


def _parts(head: CorpusHead) -> Iterator[tuple[str, str, SourceHead]]:
    for split, sources in head.splits.items():
        for source, part in sources.items():
            yield split, source, part


def _expected(head: CorpusHead) -> set[str]:
    paths = {HEAD, CARD, CROISSANT, *(f"vocabulary/{source}.parquet" for source in head.sources)}
    for _, _, part in _parts(head):
        paths.update(entry.path for entry in part.shards)
        paths.update(entry.path for entry in part.manifests)
    return paths


# -- the whole ---------------------------------------------------------------------------------------------------------


def _head(head: CorpusHead, reports: Sequence[ShardReport], findings: _Findings) -> None:
    recipe_sha256 = hashlib.sha256(json.dumps(head.recipe, sort_keys=True).encode()).hexdigest()
    try:
        again = CorpusHead.of(
            recipe=head.recipe,
            recipe_sha256=recipe_sha256,
            tools=head.tools,
            inputs=head.inputs,
            reports=reports,
            shortcut=head.shortcut,
        )
    except (CorpusError, KeyError, ValueError) as error:
        findings.look("head", HEAD, f"the manifests do not make a corpus: {error}")
        return
    parts = CorpusHead.__struct_fields__
    wrong = [name for name in parts if getattr(head, name) != getattr(again, name)]
    findings.look("head", HEAD, f"not the sum of the manifests: {', '.join(wrong)}" if wrong else None)


def _shortcut(corpus: Corpus, reports: Sequence[ShardReport], findings: _Findings) -> None:
    """Whether the lists give away what corpus.json says; the last digits of an AUC may be another machine's."""
    if not corpus.head.shortcut:
        return
    again = shortcut.of_reports(corpus.folder, reports)
    for source, stated in corpus.head.shortcut.items():
        got = again.get(source)
        near = got is not None and abs((got.auc or 0.0) - (stated.auc or 0.0)) < NEAR_AUC
        same = got is not None and (got.samples, got.lengths) == (stated.samples, stated.lengths)
        findings.look("head", HEAD, None if near and same else f"shortcut of {source} is not that of the manifests")


def _card(corpus: Corpus, findings: _Findings) -> None:
    """Another version of aesampler may word its card differently: then the files only have to be there."""
    same_tool = corpus.head.tools.get("aesampler") == importlib.metadata.version("aesampler")
    makers: dict[str, Callable[[], str]] = {
        CARD: lambda: data_card(corpus.head),
        CROISSANT: lambda: croissant(corpus.head, corpus.folder),
    }
    for path, make in makers.items():
        try:
            stored = corpus.folder.read(path)
            same = not same_tool or stored == make().encode()
        except FileNotFoundError as error:
            findings.look("card", path, f"missing: {error.filename or path}")
            continue
        findings.look("card", path, None if same else "not what corpus.json and the files beside it give")


def _settings(corpus: Corpus, split: str, source: str, findings: _Findings) -> ExposureSettings | None:
    try:
        return corpus.settings(split, source)
    except (CorpusError, KeyError, TypeError, ValueError) as error:
        findings.look("head", HEAD, f"the recipe says nothing sound of {source}, {split}: {error}")
        return None


def _vocabulary(corpus: Corpus, source: str, findings: _Findings) -> None:
    try:
        corpus.vocabulary(source)
        wrong = None
    except CorpusError as error:
        wrong = str(error.what)
    findings.look("vocabulary", f"vocabulary/{source}.parquet", wrong)


def _manifest(
    corpus: Corpus, entry: ManifestEntry, tars: dict[str, ShardEntry], reports: list[ShardReport], findings: _Findings
) -> list[SampleRow]:
    """The rows of a manifest that are samples; its report goes to `reports`."""
    try:
        data = corpus.folder.read(entry.path)
    except FileNotFoundError:
        findings.look("manifests", entry.path, "missing")
        return []
    try:
        report = ShardReport.of_parquet(data, entry.path)
        rows = manifest.read_rows(io.BytesIO(data), entry.path)
    except CorpusError as error:
        findings.look("manifests", entry.path, error.what)
        return []
    reports.append(report)
    tar = tars.get(report.path)
    stated = ShardEntry(path=report.path, samples=report.samples, bytes=report.bytes, sha256=report.sha256)
    findings.look(
        "manifests",
        entry.path,
        _differs("sha256", report.manifest.sha256, entry.sha256) if report.manifest != entry else None,
        "its rows are of another split or source"
        if any((r.split, r.source) != (report.split, report.source) for r in rows)
        else None,
        f"corpus.json does not know its tar {report.path}" if report.path and tar is None else None,
        "it says something else of its tar than corpus.json" if tar is not None and tar != stated else None,
    )
    return [row for row in rows if row.status == "ok"]


def _differs(name: str, got: object, stated: object) -> str:
    return f"{name} is {_short(got)}, {_short(stated)} is stated"


def _short(value: object) -> str:
    text = str(value)
    return text if len(text) <= 100 else f"{text[:97]}..."


# -- one shard ---------------------------------------------------------------------------------------------------------


class _Hashed(io.RawIOBase):
    """A file that is hashed while it is read through."""

    def __init__(self, file: BinaryIO) -> None:
        self.file, self.bytes, self.digest = file, 0, hashlib.sha256()

    def readable(self) -> bool:
        return True

    def readinto(self, into: Any) -> int:
        data = self.file.read(len(into))
        into[: len(data)] = data
        self.bytes += len(data)
        self.digest.update(data)
        return len(data)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Bench:
    """All that stays the same over the shards of a source in a split."""

    corpus: Corpus
    source: str
    part: SourceHead
    settings: ExposureSettings | None
    deep: bool
    findings: _Findings

    @property
    def extensions(self) -> list[str]:
        """Of the members of each sample, in order."""
        prefixes = [""] if self.part.kind == "image" else [f"{place:03d}." for place in range(self.part.frames)]
        return ["json", "cls", *(p + ext for p in prefixes for ext in (self.part.encoding, "mask.png"))]


def _tar(bench: _Bench, tar: ShardEntry, rows: Sequence[SampleRow]) -> None:
    findings, folder = bench.findings, bench.corpus.folder
    count, broken = 0, None
    try:
        file = folder.open(tar.path)
    except FileNotFoundError:
        findings.look("tars", tar.path, "missing")
        return
    with file:
        hashed = _Hashed(file)
        through = io.BufferedReader(hashed, 1 << 20)
        try:
            for count, (block, members) in enumerate(shard.iter_blocks(through), start=1):
                if count <= len(rows):
                    _placed(bench, tar, rows[count - 1], count - 1, block, members)
                    _sample(bench, rows[count - 1], members)
        except CorpusError as error:
            broken = f"not a tar of samples after {count} of them: {error}"
        while through.read(1 << 20):
            pass
    findings.look(
        "tars",
        tar.path,
        broken,
        None if hashed.bytes == tar.bytes else _differs("its size", hashed.bytes, tar.bytes),
        None if hashed.digest.hexdigest() == tar.sha256 else _differs("sha256", hashed.digest.hexdigest(), tar.sha256),
        None if broken or count == tar.samples else _differs("the number of its samples", count, tar.samples),
        None if len(rows) == tar.samples else _differs("the number of its rows", len(rows), tar.samples),
    )


def _placed(
    bench: _Bench, tar: ShardEntry, row: SampleRow, place: int, block: shard.Block, members: dict[str, bytes]
) -> None:
    """Whether the block that comes at `place` is that of `row`, and is what reading by offset gives."""
    stated = (row.key, row.shard, row.index, row.offset, row.size)
    got = (block.key, tar.path, place, block.offset, block.size)
    wrong = None if stated == got else _differs("its place (key, shard, index, offset, size)", got, stated)
    if wrong is None:
        try:
            same = bench.corpus.members(row) == members
            wrong = None if same else "reading by offset gives other members"
        except CorpusError as error:
            wrong = f"reading by offset fails: {error}"
    bench.findings.look("offsets", f"{tar.path}: {row.key}", wrong)


# -- one sample --------------------------------------------------------------------------------------------------------

_STATED = ("key", "source", "split", "origin", "valid_frames", "height", "width", "anomalous")
_LISTED = ("origin_frames", "categories", "is_genuine", "presence", "frame_labels")


def _sample(bench: _Bench, row: SampleRow, members: dict[str, bytes]) -> None:
    findings, where = bench.findings, f"{row.shard}: {row.key}"
    if list(members) != bench.extensions:
        findings.look(
            "members", where, _differs("the list of members", ", ".join(members), ", ".join(bench.extensions))
        )
        return
    try:
        body = msgspec.json.decode(members["json"], type=SampleJson)
    except msgspec.DecodeError as error:
        findings.look("members", where, f"K.json is not as the corpus format says: {error}")
        return
    findings.look("members", where, *_body(bench, row, body, members))
    planes = _planes(bench, row, members, where)
    if planes is None:
        return
    findings.look("masks", where, *_pixels(row, body, planes))
    if bench.settings is not None:
        findings.look("labels", where, *_labels(row, planes, bench.settings.frame_labels))
    missing = [name for name in row.categories if name not in _names(bench)]
    findings.look("vocabulary", where, f"listed, and not in the vocabulary: {', '.join(missing)}" if missing else None)
    if bench.deep and bench.settings is not None:
        _deep(bench, bench.settings, row, body, members, planes, where)


def _names(bench: _Bench) -> Any:
    try:
        return bench.corpus.vocabulary(bench.source).index
    except CorpusError:
        return _Everything()


class _Everything:
    def __contains__(self, name: object) -> bool:
        return True


def _body(bench: _Bench, row: SampleRow, body: SampleJson, members: dict[str, bytes]) -> Iterator[str | None]:
    for name in (*_STATED, *_LISTED):
        got, stated = getattr(body, name), getattr(row, name)
        if (tuple(got) if isinstance(got, list) else got) != stated:
            yield _differs(f"{name} of K.json", got, f"{stated} (of the row)")
    yield None if members["cls"] == (b"1" if row.anomalous else b"0") else "K.cls is not the label of the row"
    yield (
        None
        if msgspec.json.encode(body) == members["json"]
        else "K.json holds more than its fields, or in another form"
    )
    for name in (*_LISTED, "ignored"):
        yield None if getattr(body, name) else f"{name} of K.json is empty"
    yield (
        None
        if (row.kind, row.frames) == (bench.part.kind, bench.part.frames)
        else "the row is of another kind of sample"
    )
    yield (
        None
        if len(row.frame_labels) == len(body.ignored) == row.frames
        else "not one label and one ignored mask a frame"
    )
    yield None if len(row.origin_frames) == row.valid_frames else "not one original frame a valid frame"
    try:
        scene = Scene.from_json(body.redraw)
        told = (scene.height, scene.width, len(scene.annotated))
        stated = (row.height, row.width, row.valid_frames)
        yield None if told == stated else _differs("redraw (height, width, valid frames)", told, stated)
    except (CorpusError, ValueError) as error:
        yield f"redraw cannot be read: {error}"
    yield None if 1 <= row.valid_frames <= row.frames else f"{row.valid_frames} valid frames of {row.frames}"


def _planes(bench: _Bench, row: SampleRow, members: dict[str, bytes], where: str) -> npt.NDArray[np.bool_] | None:
    """The masks, bool [T, H, W]; None where they are none. Looks at the headers of the pictures too."""
    size = (row.height, row.width)
    planes: list[npt.NDArray[np.bool_]] = []
    faults: list[str] = []
    headers: list[str | None] = []
    for ext, data in members.items():
        if ext.endswith("mask.png"):
            try:
                plane = masks.read_index(data)
            except BadRecord as error:
                faults.append(f"{ext}: {error.what}")
                continue
            # Bytes 24 and 25 of a PNG: bits a sample, and colour type, of which 0 is grey.
            if data[24:26] != b"\x08\x00" or np.setdiff1d(plane, (0, 255)).size:
                faults.append(f"{ext} is not 8-bit grey of 0 and 255")
            elif plane.shape != size:
                faults.append(_differs(f"the size of {ext}", plane.shape, size))
            else:
                planes.append(plane == 255)
        elif ext.endswith(bench.part.encoding):
            try:
                picture = image.probe(data)
            except BadRecord as error:
                headers.append(f"{ext}: {error.what}")
                continue
            got = (picture.format, (picture.height, picture.width))
            headers.append(
                None if got == (bench.part.encoding, size) else _differs(ext, got, (bench.part.encoding, size))
            )
    bench.findings.look("pictures", where, *headers)
    if faults:
        bench.findings.look("masks", where, *faults)
        return None
    return np.stack(planes)


def _pixels(row: SampleRow, body: SampleJson, planes: npt.NDArray[np.bool_]) -> Iterator[str | None]:
    digest = sample.masks_digest(planes)
    yield None if digest == row.masks_sha256 else _differs("masks_sha256", digest, row.masks_sha256)
    pixels = row.height * row.width
    shares = [float(np.float32(np.count_nonzero(plane) / pixels)) for plane in planes]
    yield None if shares == list(row.anomaly_area) else _differs("anomaly_area", shares, list(row.anomaly_area))
    beside = []
    for place, rle in enumerate(body.ignored):
        if tuple(rle.size) != (row.height, row.width) or not masks.is_valid(rle.counts, *rle.size):
            yield f"ignored mask {place} is no run-length mask of the picture's size"
            return
        hidden = masks.decode(rle.counts, *rle.size)
        beside.append(float(np.float32(np.count_nonzero(hidden) / pixels)))
        if place < len(planes) and (hidden & planes[place]).any():
            yield f"frame {place}: pixels are both anomalous and ignored"
    yield None if beside == list(row.ignored_area) else _differs("ignored_area", beside, list(row.ignored_area))


def _labels(row: SampleRow, planes: npt.NDArray[np.bool_], rule: str) -> Iterator[str | None]:
    shown = [bool(plane.any()) for plane in planes]
    for place, got in enumerate(row.frame_labels):
        if place >= row.valid_frames:
            allowed = {sample.UNKNOWN}
        elif rule == "clip":
            allowed = {int(row.anomalous)}
        else:
            allowed = {1} if shown[place] else {0, sample.UNKNOWN}
        if got not in allowed:
            yield f"frame {place} is labelled {got}, where the masks allow {sorted(allowed)}"
    yield None if any(shown) == row.anomalous else "anomalous is not whether there is a mask"
    yield None if any(row.is_genuine) == row.anomalous else "anomalous is not whether a name is exposed"
    yield None if len(row.categories) == len(row.is_genuine) == len(row.presence) else "the lists are not parallel"
    yield None if len(set(row.categories)) == len(row.categories) else "a name is listed twice"
    for name, genuine, known in zip(row.categories, row.is_genuine, row.presence, strict=False):
        if (known == "present") != genuine:
            yield f"{name!r} is marked {known} and is {'exposed' if genuine else 'irrelevant'}"


def _deep(
    bench: _Bench,
    settings: ExposureSettings,
    row: SampleRow,
    body: SampleJson,
    members: dict[str, bytes],
    planes: npt.NDArray[np.bool_],
    where: str,
) -> None:
    try:
        Sample.decode(row.key, members)
    except AesamplerError as error:
        bench.findings.look("pictures", where, f"cannot be decoded: {error}")
    try:
        scene = Scene.from_json(body.redraw)
        drawn = sample.derive(
            scene,
            bench.corpus.vocabulary(bench.source),
            settings,
            seed=bench.corpus.head.seed,
            source=bench.source,
            key=row.key,
            epoch=0,
            frames=row.frames,
        )
    except (AesamplerError, ValueError) as error:
        bench.findings.look("draws", where, f"cannot be drawn again: {error}")
        return
    if drawn is None:
        bench.findings.look("draws", where, "drawn again, the sample is skipped: no irrelevant name may be drawn")
        return
    exposure, labels = drawn
    wrong = [
        name
        for name in ("anomalous", "categories", "is_genuine", "presence")
        if getattr(exposure, name) != getattr(row, name)
    ]
    if labels.frame_labels != row.frame_labels:
        wrong.append("frame_labels")
    if labels.ignored != tuple(rle.counts for rle in body.ignored):
        wrong.append("ignored")
    if labels.masks != tuple(masks.encode(plane) for plane in planes):
        wrong.append("masks")
    bench.findings.look("draws", where, f"drawn again, it differs in {', '.join(wrong)}" if wrong else None)


# -- keys and groups ---------------------------------------------------------------------------------------------------


@dataclass(slots=True)
class _Seen:
    """64-bit hashes of all keys, and of the groups of each split. Equal hashes are looked at again by name."""

    keys: list[npt.NDArray[np.int64]] = field(default_factory=list)
    groups: dict[str, list[npt.NDArray[np.int64]]] = field(default_factory=dict)

    def add(self, split: str, rows: Sequence[SampleRow]) -> None:
        self.keys.append(np.array([rng.order("key", row.key) for row in rows], dtype=np.int64))
        groups = {rng.order("group", row.group) for row in rows}
        self.groups.setdefault(split, []).append(np.array(sorted(groups), dtype=np.int64))


def _keys(corpus: Corpus, seen: _Seen, findings: _Findings) -> None:
    hashes = np.sort(np.concatenate([np.empty(0, np.int64), *seen.keys]))
    twice = frozenset(hashes[1:][hashes[1:] == hashes[:-1]].tolist())
    if not twice:
        return
    met: dict[str, str] = {}
    for path, rows in _columns(corpus, "key"):
        for (key,) in rows:
            if rng.order("key", key) in twice:
                findings.look("keys", f"{path}: {key}", f"the key is in {met[key]} too" if key in met else None)
                met.setdefault(key, path)


def _groups(corpus: Corpus, seen: _Seen, findings: _Findings) -> None:
    each = [np.unique(np.concatenate(parts)) for parts in seen.groups.values()]
    hashes = np.sort(np.concatenate([np.empty(0, np.int64), *each]))
    shared = frozenset(hashes[1:][hashes[1:] == hashes[:-1]].tolist())
    findings.looked["groups"] += len(hashes)
    if not shared:
        return
    allowed = [str(name) for name in corpus.head.recipe.get("allow_shared_groups", [])]
    met: dict[str, set[str]] = {}
    for _, rows in _columns(corpus, "group", "split"):
        for group, split in rows:
            if rng.order("group", group) in shared and not any(_allows(name, group) for name in allowed):
                met.setdefault(group, set()).add(split)
    for group, splits in sorted(met.items()):
        if len(splits) > 1:
            findings.look("groups", group, f"the group lies in {' and '.join(sorted(splits))}")


def _allows(pattern: str, group: str) -> bool:
    return group.startswith(pattern[:-1]) if pattern.endswith("*") else group == pattern


def _columns(corpus: Corpus, *names: str) -> Iterator[tuple[str, Iterator[tuple[str, ...]]]]:
    """Each readable manifest's path, and those columns of its samples."""
    for _, _, part in _parts(corpus.head):
        for entry in part.manifests:
            try:
                data = corpus.folder.read(entry.path)
                table = manifest.read_table(io.BytesIO(data), [*names, "status"], entry.path)
            except (CorpusError, FileNotFoundError):
                continue  # told by `_manifest`
            columns = [column.to_pylist() for column in table.columns]
            yield entry.path, (values[:-1] for values in zip(*columns, strict=True) if values[-1] == "ok")
