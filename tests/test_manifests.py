"""What each bundled dataset manifest must say, so that the card and people can rely on it."""

from __future__ import annotations

import importlib.resources
from typing import Any

import pytest
import yaml

from aesampler import sources

TEXTS = ("title", "homepage", "license", "citation", "layout")
TAGS = {"code", "docs", "sample", "memory"}


def manifest(format: str) -> dict[str, Any]:
    """The manifest of a format, from the installed package."""
    file = importlib.resources.files("aesampler") / "manifests" / f"{format}.yaml"
    body: dict[str, Any] = yaml.safe_load(file.read_text(encoding="utf-8"))
    return body


@pytest.mark.parametrize("format", sorted(sources.FORMATS))
def test_every_format_has_a_manifest_of_one_schema(format: str) -> None:
    body = manifest(format)
    assert set(body) == {*TEXTS, "expected", "vocabulary", "faults", "read_from"}
    assert all(isinstance(body[key], str) and body[key].strip() for key in TEXTS)
    assert body["homepage"].startswith("https://")
    for part in body["expected"]:
        assert set(part) <= {"part", "pictures", "videos", "annotations", "tag"}
        assert part["tag"] in TAGS
        assert all(isinstance(part[key], int) for key in set(part) - {"part", "tag"})
    assert set(body["vocabulary"]) == {"names", "source", "absent", "unknown", "notes"}
    assert isinstance(body["vocabulary"]["names"], int)
    assert all(isinstance(note, str) for note in body["vocabulary"]["notes"])
    for fault in body["faults"]:
        assert set(fault) == {"what", "tag", "rule"}
        assert fault["tag"] in TAGS
        assert all(isinstance(text, str) for text in fault.values())
    assert all(isinstance(place, str) for place in body["read_from"])


@pytest.mark.parametrize("format", sorted(sources.FORMATS))
def test_manifests_are_ascii(format: str) -> None:
    file = importlib.resources.files("aesampler") / "manifests" / f"{format}.yaml"
    assert file.read_text(encoding="utf-8").isascii()
