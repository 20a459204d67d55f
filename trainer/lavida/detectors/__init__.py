"""The detectors, one file each: video and category texts in, frame scores (and pixel scores) out.

    motion       motion.py       frame difference: the reference point
    clip         clip.py         CLIP's similarity of frames and texts
    anyanomaly   anyanomaly/     a vision-language model asked about segments, with position and temporal context
    lavida       lavida.py       a trained LAVIDA folder: the only one with pixel scores that know the texts

    detector = load_detector("motion")
    frame_scores, pixel_scores = detector.score(frames, [])        # or, in bounded memory:
    for piece in detector.score_stream(frames, ["bicycle"]): ...   # piece.start, piece.frame_scores, piece.pixel_scores

A detector that lives in a package of its own is a class as detector.py says, named as an entry point of that package,

    [project.entry-points."lavida.detectors"]
    brightness = "my_package.brightness:Brightness"

and then `load_detector("brightness")` and `lavida evaluate --detector brightness` know it. Importing this package
imports no torch; the detectors that need it do.
"""

from __future__ import annotations

import difflib
import importlib
from collections.abc import Mapping
from importlib.metadata import EntryPoint, entry_points

from pydantic import BaseModel, ValidationError

from aesampler.errors import DetectorError
from lavida.detectors.detector import Detector, Frame, PixelScores, Scored, Scores, Settings
from lavida.detectors.memory import memory_told

DETECTORS: dict[str, str] = {
    "motion": "lavida.detectors.motion:Motion",
    "clip": "lavida.detectors.clip:ZeroShotClip",
    "anyanomaly": "lavida.detectors.anyanomaly.detector:AnyAnomaly",
    "lavida": "lavida.detectors.lavida:Lavida",
}
"""Detector -> "module:Class"."""

GROUP = "lavida.detectors"
"""The group of entry points by which installed packages add detectors; they cannot replace one of DETECTORS."""

__all__ = [
    "Detector",
    "Frame",
    "PixelScores",
    "Scored",
    "Scores",
    "Settings",
    "find",
    "load_detector",
    "names",
    "settings_of",
]


def names() -> tuple[str, ...]:
    """Every detector: those of this package, then those that installed packages add, sorted."""
    return (*DETECTORS, *sorted(_added()))


def find(name: str) -> type[Detector]:
    """The class of a detector; its `settings.model_fields` are the options that it takes.

    Raises DetectorError where no such detector is known, or an added one cannot be imported.
    """
    added = _added()
    if name not in DETECTORS and name not in added:
        near = difflib.get_close_matches(name, names(), n=1)
        raise DetectorError(
            f"unknown detector {name!r}",
            allowed=", ".join(names()),
            do=f"did you mean {near[0]}?" if near else "a package adds one by the entry points " + GROUP,
        )
    if name in DETECTORS:
        module, _, attribute = DETECTORS[name].partition(":")
        found: object = getattr(importlib.import_module(module), attribute)
    else:
        try:
            found = added[name].load()
        except (ImportError, AttributeError) as error:
            raise DetectorError(
                f"the detector {name!r} cannot be imported: {error}", where=added[name].value
            ) from error
    if not (isinstance(found, type) and issubclass(found, Detector)):
        raise DetectorError(f"the detector {name!r} is not a Detector", where=added[name].value, got=found)
    return found


def load_detector(name: str, **options: object) -> Detector:
    """Make a detector by name. options: those of its settings; device, where it has one, is "auto", "cpu", "cuda".

    Raises DetectorError for an unknown detector, an unknown option or a value that it does not take, and where memory
    runs out.
    """
    settings = settings_of(name, options)
    with memory_told(name, settings, loading=True):
        return find(name)(settings)


def settings_of(name: str, options: Mapping[str, object]) -> Settings:
    """The checked settings of a detector, which is not made. Raises what `load_detector` raises."""
    kind = find(name).settings
    try:
        return kind.model_validate(dict(options))
    except ValidationError as error:
        raise _one_line(error, kind, name) from error


def _added() -> dict[str, EntryPoint]:
    return {point.name: point for point in entry_points(group=GROUP) if point.name not in DETECTORS}


def _one_line(error: ValidationError, settings: type[BaseModel], name: str) -> DetectorError:
    """The first of pydantic's errors as one line of ours, with a did-you-mean for an unknown option."""
    first = error.errors()[0]
    path = ".".join(str(part) for part in first["loc"])
    if first["type"] == "extra_forbidden":
        known = sorted(settings.model_fields)
        near = difflib.get_close_matches(path, known, n=1)
        return DetectorError(
            f"unknown option {path!r}",
            where=f"detector {name}",
            allowed=", ".join(known) or "none",
            do=f"did you mean {near[0]}?" if near else "",
        )
    where = f"detector {name}, option {path}" if path else f"detector {name}"
    if first["type"] == "missing":
        return DetectorError("this option is needed" if len(first["loc"]) == 1 else "a value is missing", where=where)
    message = str(first["msg"]).removeprefix("Value error, ")
    got = first.get("input")
    plain = isinstance(got, (str, int, float, bool, list, tuple))
    return DetectorError(message[0].lower() + message[1:], where=where, got=repr(got) if plain else None)
