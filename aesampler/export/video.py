"""Each clip as an mp4 to be looked at: `OUT/<split>/KEY.mp4`.

The masks lie over the frames as in `aesampler show`: the anomaly tinted and outlined in red, ignored pixels hatched.
A rule below the picture has the colour of the frame's label: red anomalous, green normal, grey unknown. Padding is left
out. A picture's sides are made even, as H.264 asks. The rate is `FPS`, because a corpus knows no times.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from aesampler import pictures, video
from aesampler.corpus import Corpus
from aesampler.errors import CorpusError
from aesampler.export.selection import Exported, Selection
from aesampler.plan import Progress
from aesampler.sample import Sample
from aesampler.storage import Folder

FPS = 8
RULE = 8
"""Height of the rule that tells the label, in pixels."""


def check(corpus: Corpus, selection: Selection) -> None:
    """Raise CorpusError where no clip is selected, MissingExtra without PyAV."""
    if not selection.count(corpus, "clip"):
        raise CorpusError("no clips are selected: pictures make no videos", where=corpus.folder.url)
    video.require()


def export(corpus: Corpus, out: Folder, selection: Selection, progress: Progress | None = None) -> Exported:
    """Write a video of every clip selected."""
    total, done = selection.count(corpus, "clip"), 0
    for split, source, _ in selection.parts(corpus, "clip"):
        for row in selection.rows(corpus, split, source):
            sample = corpus.sample(row)
            out.commit(
                f"{split}/{row.key}.mp4",
                lambda sink, sample=sample: video.write(sink, painted(sample), FPS),  # type: ignore[misc]
            )
            done += 1
            if progress is not None:
                progress("clips", done, total)
    return Exported(samples=done, files=done)


def painted(sample: Sample) -> Iterator[npt.NDArray[np.uint8]]:
    """The valid frames with their masks over them and the rule below, uint8 [H + RULE, W, 3] RGB."""
    for place in range(sample.valid_frames):
        mask = sample.masks[place]
        colour, cover = pictures.veil(mask, sample.ignored[place], (mask.shape[1], mask.shape[0]))
        picture = np.rint((1 - cover) * sample.frames[place] + cover * colour).clip(0, 255).astype(np.uint8)
        rule = np.empty((RULE, mask.shape[1], 3), np.uint8)
        rule[:] = pictures.LABELS[int(sample.frame_labels[place])][1]
        yield np.concatenate([picture, rule])
