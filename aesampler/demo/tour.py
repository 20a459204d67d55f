"""`aesampler demo`: the world, its recipe, the corpus and a picture of it, in one folder, by the ordinary path.

FOLDER/world/     the world as COCO and YouTube-VOS
FOLDER/demo.yaml  the recipe, to be changed and built again
FOLDER/corpus/    the corpus
FOLDER/look.png   a contact sheet
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from aesampler.build import build_corpus
from aesampler.corpus import Corpus
from aesampler.demo.write import write_world
from aesampler.errors import CorpusError
from aesampler.executors.inline import Inline
from aesampler.pictures import contact_sheet
from aesampler.plan import Progress, plan_corpus
from aesampler.recipe import Recipe, bundled
from aesampler.storage import Folder

SHOWN = 12


def tour(folder: Path, progress: Progress | None = None, program: str = "aesampler") -> Iterator[str]:
    """Make the demo in `folder`, telling each step when it is done; a demo that is there already is left as it is.

    program: how the commands that it tells are called.

    Raises CorpusError where `folder` holds another world or another corpus.
    """
    if folder.exists() and not folder.is_dir():
        raise CorpusError("this is a file", where=str(folder), do="give --out a folder")
    world = write_world(folder / "world")
    yield (
        f"drew {world.images} pictures and {world.videos} videos of {len(world.names)} things "
        f'("{world.names[0]}", "{world.names[-1]}") with {world.objects:,} exact masks: {folder / "world"}'
    )
    config = folder / "demo.yaml"
    if not config.exists():
        config.write_text(bundled("demo"), encoding="utf-8")
    recipe = Recipe.load(config)
    out = folder / "corpus"
    head = build_corpus(plan_corpus(recipe, progress=progress), Folder.at(out), Inline(), progress=progress).head
    totals = head.totals
    yield f"built {totals.samples:,} samples, {totals.anomalous:,} of them anomalous, by {config}: {out}"
    look = folder / "look.png"
    contact_sheet(Corpus.open(out), SHOWN, seed=0).save(look, format="PNG")
    yield f"drew {SHOWN} of them with their masks and names: {look}"
    yield "next:"
    hints = {
        f"show {out}": "what it holds",
        f"show {out} --grid 24 --seed 1 --out more.png": "other samples",
        f"report {out}": "one page: figures, plots, playable samples",
        f"verify {out} --deep": "check every byte and label",
        f"build --config {config} --out again": "the same bytes, on Ray",
    }
    for command, what in hints.items():
        yield f"  {program} {command:<{max(map(len, hints))}}   {what}"
