"""The Croissant 1.1 description, `croissant.json`: each file with its sha256, and the columns of the manifest.

JSON-LD, read by dataset catalogues. Paths are relative to the file. Croissant asks for a licence, a page, a creator and
a date: they are the recipe's `about`; a page that it does not give is the URN of the recipe's hash, a date is left out.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from typing import Any

import pyarrow as pa

from aesampler.head import CorpusHead
from aesampler.manifest import SCHEMA
from aesampler.report.card import LICENSES, TAGS
from aesampler.storage import Folder

CONFORMS_TO = "http://mlcommons.org/croissant/1.1"

CONTEXT: dict[str, object] = {
    "@language": "en",
    "@vocab": "https://schema.org/",
    "arrayShape": "cr:arrayShape",
    "citeAs": "cr:citeAs",
    "column": "cr:column",
    "conformsTo": "dct:conformsTo",
    "containedIn": "cr:containedIn",
    "cr": "http://mlcommons.org/croissant/",
    "data": {"@id": "cr:data", "@type": "@json"},
    "dataType": {"@id": "cr:dataType", "@type": "@vocab"},
    "dct": "http://purl.org/dc/terms/",
    "description": {"@container": "@language"},
    "equivalentProperty": "cr:equivalentProperty",
    "examples": {"@id": "cr:examples", "@type": "@json"},
    "extract": "cr:extract",
    "field": "cr:field",
    "fileObject": "cr:fileObject",
    "fileProperty": "cr:fileProperty",
    "fileSet": "cr:fileSet",
    "format": "cr:format",
    "includes": "cr:includes",
    "isArray": "cr:isArray",
    "isLiveDataset": "cr:isLiveDataset",
    "jsonPath": "cr:jsonPath",
    "key": "cr:key",
    "md5": "cr:md5",
    "name": {"@container": "@language"},
    "parentField": "cr:parentField",
    "path": "cr:path",
    "rai": "http://mlcommons.org/croissant/RAI/",
    "recordSet": "cr:recordSet",
    "references": "cr:references",
    "regex": "cr:regex",
    "repeated": "cr:repeated",
    "replace": "cr:replace",
    "samplingRate": "cr:samplingRate",
    "sc": "https://schema.org/",
    "separator": "cr:separator",
    "source": "cr:source",
    "subField": "cr:subField",
    "transform": "cr:transform",
}
"""The context that the 1.1 specification recommends."""

CITE_AS = "LAVIDA, arXiv:2602.19248, whose Anomaly Exposure Sampler draws the lists"

TAR, PARQUET = "application/x-tar", "application/x-parquet"

COLUMNS = {
    "key": "the sample's key, unique in the corpus",
    "status": "ok, failed or skipped; what follows is of samples that are ok",
    "reason": "why the sample failed or was skipped",
    "source": "the entry of the recipe that it comes from",
    "split": "train, validation or test",
    "group": "identity of the picture or video across datasets",
    "shard": "path of the tar",
    "index": "place among the samples of the tar",
    "offset": "first byte of the sample in the tar",
    "size": "bytes of the sample in the tar",
    "kind": "image or clip",
    "frames": "frames, with padding",
    "valid_frames": "frames that are not padding",
    "height": "pixels",
    "width": "pixels",
    "anomalous": "the label of the sample",
    "categories": "the list of names",
    "is_genuine": "of each listed name: whether it is exposed as the anomaly",
    "presence": "of each listed name: present, absent or unknown",
    "frame_labels": "of each frame: 1 anomalous, 0 normal, 255 unknown",
    "anomaly_area": "of each frame: share of anomalous pixels",
    "ignored_area": "of each frame: share of ignored pixels",
    "origin": "path below the source's root, or the id of the video",
    "origin_frames": "the source's own name of each frame that is not padding",
    "masks_sha256": "sha256 of the decoded masks",
}
"""What each column of the manifest is."""


def croissant(head: CorpusHead, folder: Folder) -> str:
    """The text of `croissant.json`; equal corpora give equal text. folder: of the corpus, whose vocabularies are
    summed.

    Raises FileNotFoundError where a vocabulary is gone.
    """
    about = head.about
    body: dict[str, object] = {
        "@context": CONTEXT,
        "@type": "sc:Dataset",
        "name": head.name,
        "description": about.get("description") or f"{head.name}: a pseudo-anomaly corpus made by aesampler",
        "conformsTo": CONFORMS_TO,
        "license": _license(about.get("license", "")),
        "url": about.get("url") or f"urn:sha256:{head.recipe_sha256}",
        "creator": {"@type": "sc:Organization", "name": about.get("creator") or "unknown"},
        **({"datePublished": about["date"]} if about.get("date") else {}),
        "version": f"{head.format_version}.0.0",
        "citeAs": CITE_AS,
        "keywords": TAGS,
        "isLiveDataset": False,
        "distribution": [*_shards(head), *_manifests(head), *_vocabularies(head, folder)],
        "recordSet": [_samples()],
    }
    return json.dumps(body, indent=2, ensure_ascii=False) + "\n"


def _license(name: str) -> str:
    known = LICENSES.get(name.lower())
    return f"https://spdx.org/licenses/{known}" if known else name or "unknown"


def _file(path: str, size: int, sha256: str, form: str, what: str) -> dict[str, object]:
    return {
        "@type": "cr:FileObject",
        "@id": path,
        "name": path,
        "description": what,
        "contentUrl": path,
        "contentSize": f"{size} B",
        "encodingFormat": form,
        "sha256": sha256,
    }


def _shards(head: CorpusHead) -> Iterator[dict[str, object]]:
    for split, source, part in head.parts():
        for entry in part.shards:
            what = f"{entry.samples} samples of {source}, {split}"
            yield _file(entry.path, entry.bytes, entry.sha256, TAR, what)
        if not part.shards:
            continue
        mime = {"jpg": "image/jpeg", "png": "image/png"}[part.encoding]
        for name, form, pattern in (
            ("pictures", mime, f"*.{part.encoding}"),
            ("masks", "image/png", "*.mask.png"),
            ("labels", "application/json", "*.json"),
        ):
            yield {
                "@type": "cr:FileSet",
                "@id": f"{split}/{source}-{name}",
                "name": f"{split}/{source}-{name}",
                "description": f"the {name} of {source}, {split}",
                "containedIn": [{"@id": entry.path} for entry in part.shards],
                "encodingFormat": form,
                "includes": pattern,
                **({"excludes": "*.mask.png"} if pattern == "*.png" else {}),
            }


def _manifests(head: CorpusHead) -> Iterator[dict[str, object]]:
    for split, source, part in head.parts():
        for entry in part.manifests:
            what = f"a row for each of the {entry.rows} planned samples of a shard of {source}, {split}"
            yield _file(entry.path, entry.bytes, entry.sha256, PARQUET, what)
    yield {
        "@type": "cr:FileSet",
        "@id": "manifest",
        "name": "manifest",
        "description": "all manifests",
        "encodingFormat": PARQUET,
        "includes": "manifest/*/*.parquet",
    }


def _vocabularies(head: CorpusHead, folder: Folder) -> Iterator[dict[str, object]]:
    for source in head.sources:
        path = f"vocabulary/{source}.parquet"
        data = folder.read(path)
        what = f"the names of {source}: aliases, counts and weights"
        yield _file(path, len(data), hashlib.sha256(data).hexdigest(), PARQUET, what)


def _samples() -> dict[str, object]:
    return {
        "@type": "cr:RecordSet",
        "@id": "samples",
        "name": "samples",
        "description": "one record a planned sample: what it is, and where it lies",
        "key": {"@id": "samples/key"},
        "field": [_field(column) for column in SCHEMA],
    }


def _field(column: pa.Field) -> dict[str, object]:
    of_list = pa.types.is_list(column.type)
    kind = column.type.value_type if of_list else column.type
    return {
        "@type": "cr:Field",
        "@id": f"samples/{column.name}",
        "name": column.name,
        "description": COLUMNS[column.name],
        "dataType": _kind(kind),
        **({"isArray": True, "arrayShape": "-1"} if of_list else {}),
        "source": {"fileSet": {"@id": "manifest"}, "extract": {"column": column.name}},
    }


def _kind(kind: Any) -> str:
    if pa.types.is_string(kind):
        return "sc:Text"
    if pa.types.is_boolean(kind):
        return "sc:Boolean"
    return "sc:Float" if pa.types.is_floating(kind) else "sc:Integer"
