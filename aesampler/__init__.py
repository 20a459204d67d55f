"""aesampler turns segmentation datasets into pseudo-anomaly corpora for video anomaly detection, and streams them into
training.

The path, and the file to open for each step:

    dataset on disk
      -> Record            record.py, sources/ (one file a format)     what is annotated, no pixels
      -> Catalog           catalog.py, sharing.py                      records as Parquet, cached, in hash order
      -> ShardTask         recipe.py, plan.py                          which record lies in which shard
      -> Scene             scene.py, masks.py                          the masks of the sampled frames
      -> Exposure          exposure.py, vocabulary.py, relations.py    the decision: names and label (LAVIDA eq. 1-2)
      -> Sample            sample.py                                   the pixels: masks, ignored regions, frame labels
      -> shard, manifest   worker.py, shard.py, manifest.py            one tar, its Parquet: the same bytes everywhere
      -> corpus            build.py, executors/, head.py               all shards, in one process or on Ray; their sum
      -> verdict, page     verify/, report/, export/                   whether it is whole, what is in it, other forms
      -> reader            corpus.py, show.py, pictures.py             samples back, by key or by place; looked at
      -> Stream            stream/ (order.py, stream.py)               samples in a keyed order, for each rank

A Python session:

    recipe = aesampler.Recipe.load("coco.yaml")
    aesampler.build_corpus(aesampler.plan_corpus(recipe), aesampler.Folder.at("corpora/coco"), aesampler.Inline())
    corpus = aesampler.Corpus.open("corpora/coco")
    sample = corpus[17]                       # sample.frames, sample.masks, sample.categories ...

Importing this package imports neither torch nor ray.
"""

from aesampler.build import build_corpus
from aesampler.corpus import Corpus
from aesampler.errors import AesamplerError
from aesampler.executors.inline import Inline
from aesampler.exposure import Exposure, ExposureSettings, draw
from aesampler.plan import plan_corpus
from aesampler.recipe import Recipe
from aesampler.sample import Sample
from aesampler.scene import Scene
from aesampler.storage import Folder

__version__ = "0.1.0"

__all__ = [
    "AesamplerError",
    "Corpus",
    "Exposure",
    "ExposureSettings",
    "Folder",
    "Inline",
    "Recipe",
    "Sample",
    "Scene",
    "build_corpus",
    "draw",
    "plan_corpus",
]
