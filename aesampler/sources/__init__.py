"""The formats that `aesampler` reads, one file each.

To add a format: write one file with one class (`source.py` says what it must answer, `index_png.py` and `davis.py` are
short models),

    class MyFormat(Source):
        format = "my-format"
        kind = "image"
        ...
        def survey(self, root): ...                               # categories and records, once a dataset
        def scene(self, root, record, names, frames, size): ...   # the masks of one sample

and add its line to FORMATS. A format that lives in a package of its own needs no line: the package names the class as
an entry point,

    [project.entry-points."aesampler.sources"]
    my-format = "my_package.my_format:MyFormat"
"""

from __future__ import annotations

import difflib
import importlib
from importlib.metadata import EntryPoint, entry_points

from aesampler.errors import RecipeError
from aesampler.sources.source import Source

FORMATS: dict[str, str] = {
    "coco": "aesampler.sources.coco:Coco",
    "lvis": "aesampler.sources.lvis:Lvis",
    "ade20k": "aesampler.sources.ade20k:Ade20k",
    "ade20k-150": "aesampler.sources.ade20k_150:Ade20k150",
    "davis": "aesampler.sources.davis:Davis",
    "youtube-vos": "aesampler.sources.youtube_vos:YouTubeVos",
    "vspw": "aesampler.sources.vspw:Vspw",
    "vipseg": "aesampler.sources.vipseg:Vipseg",
    "youtube-vis": "aesampler.sources.youtube_vis:YouTubeVis",
    "ovis": "aesampler.sources.ovis:Ovis",
    "ref-youtube-vos": "aesampler.sources.ref_youtube_vos:RefYouTubeVos",
    "ref-davis": "aesampler.sources.ref_davis:RefDavis",
    "mevis": "aesampler.sources.mevis:Mevis",
    "coco-panoptic": "aesampler.sources.coco_panoptic:CocoPanoptic",
    "coco-stuff": "aesampler.sources.coco_stuff:CocoStuff",
    "cityscapes": "aesampler.sources.cityscapes:Cityscapes",
    "mapillary": "aesampler.sources.mapillary:Mapillary",
    "voc": "aesampler.sources.voc:Voc",
    "refcoco": "aesampler.sources.refcoco:RefCoco",
    "index-png": "aesampler.sources.index_png:IndexPng",
    "hf": "aesampler.sources.hugging_face:HuggingFace",
    "mose": "aesampler.sources.mose:Mose",
    "sa-v": "aesampler.sources.sa_v:SaV",
}
"""Format -> "module:Class"."""

GROUP = "aesampler.sources"
"""The group of entry points by which installed packages add formats; they cannot replace one of FORMATS."""


def names() -> tuple[str, ...]:
    """Every format: those of this package, then those that installed packages add, sorted."""
    return (*FORMATS, *sorted(_added()))


def load(name: str) -> type[Source]:
    """The class that reads the format `name`. Raises RecipeError where no such format is known, or an added one cannot
    be imported.
    """
    if name in FORMATS:
        module, _, attribute = FORMATS[name].partition(":")
        ours: type[Source] = getattr(importlib.import_module(module), attribute)
        return ours
    added = _added().get(name)
    if added is None:
        near = difflib.get_close_matches(name, names(), n=1)
        raise RecipeError(
            f"unknown format {name!r}",
            allowed=", ".join(names()),
            do=f"did you mean {near[0]}?" if near else "see `aesampler sources`",
        )
    try:
        found = added.load()
    except (ImportError, AttributeError) as error:
        raise RecipeError(f"the format {name!r} cannot be imported: {error}", where=added.value) from error
    if not (isinstance(found, type) and issubclass(found, Source)):
        raise RecipeError(f"the format {name!r} is not a Source", where=added.value, got=found)
    return found


def _added() -> dict[str, EntryPoint]:
    return {point.name: point for point in entry_points(group=GROUP) if point.name not in FORMATS}
