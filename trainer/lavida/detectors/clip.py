"""Zero-shot CLIP: how much more a frame looks like one of the texts than like a normal scene.

AnyAnomaly's Table 6 lists "ZS CLIP" (ViT-B/32: 62.3 on Avenue, 60.9 on ShanghaiTech) without saying how texts become
scores, so the rule is ours. `softmax`, the default, is CLIP's own way to classify (arXiv 2103.00020, section 3.1.2): a
softmax, at CLIP's trained scale of 100, over the cosines to a normal text and to each anomaly; the score is what the
normal text is not given, 0..1. `cosine` is the highest cosine to an anomaly, as it is: it needs no normal text, but has
no natural threshold. Each frame stands alone.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Literal, Protocol

import numpy as np
from pydantic import Field, field_validator

from lavida.detectors.detector import Detector, Frame, Scored, Scores, Settings, chunked, device_of

if TYPE_CHECKING:
    from torch import Tensor

SCALE = 100.0


class ImageText(Protocol):
    """What is needed of lavida.clip.Clip: float32 [n, D] of length 1."""

    def text(self, names: Sequence[str]) -> Tensor:
        """Features of texts as they are written."""

    def images(self, pictures: Sequence[Frame]) -> Tensor:
        """Features of pictures of any size."""


class ClipSettings(Settings):
    """model, pretrained: as lavida.clip.Clip.load takes them. batch: frames at once. template: with {name}, or as
    `normal`, the text of a scene without anomaly.
    """

    model: str = "ViT-B-32"
    pretrained: str | None = "openai"
    device: str = "auto"
    batch: int = Field(16, ge=1)
    rule: Literal["softmax", "cosine"] = "softmax"
    template: str = "a photo of {name}"
    normal: str = "a photo of a normal scene"

    @field_validator("template")
    @classmethod
    def _named(cls, value: str) -> str:
        if "{name}" not in value:
            raise ValueError("a template has {name} where the text goes")
        return value


class ZeroShotClip(Detector):
    """CLIP's similarity of each frame with the texts; see the module."""

    name = "clip"
    settings = ClipSettings

    def __init__(self, options: ClipSettings | None = None, *, clip: ImageText | None = None) -> None:
        self.options: ClipSettings = options or ClipSettings()
        self.clip = clip or load(self.options.model, self.options.pretrained, self.options.device)
        self.threshold = 0.5 if self.options.rule == "softmax" else None

    def scan(self, frames: Iterable[Frame], categories: tuple[str, ...]) -> Iterator[Scored]:
        """See Detector."""
        texts = [self.options.template.replace("{name}", name) for name in categories]
        wanted = texts_of(self.clip, [self.options.normal, *texts])
        start = 0
        for chunk in chunked(frames, self.options.batch):
            cosine = images_of(self.clip, chunk) @ wanted.T
            if self.options.rule == "cosine":
                scores = cosine[:, 1:].max(axis=1)
            else:
                raised = np.exp(SCALE * (cosine - cosine.max(axis=1, keepdims=True)))
                scores = 1 - raised[:, 0] / raised.sum(axis=1)
            yield Scored(start=start, frame_scores=scores.astype(np.float32))
            start += len(chunk)


def load(model: str, pretrained: str | None, device: str) -> ImageText:
    """lavida.clip.Clip, on the device that an option means. A folder or hub name needs no `pretrained`."""
    from lavida.clip import Clip

    return Clip.load(model, pretrained, device=device_of(device))


def texts_of(clip: ImageText, texts: Sequence[str]) -> Scores:
    """Features of texts: float32 [n, D] of length 1."""
    return np.asarray(clip.text(texts).cpu().numpy(), dtype=np.float32)


def images_of(clip: ImageText, pictures: Sequence[Frame]) -> Scores:
    """Features of pictures: float32 [n, D] of length 1."""
    return np.asarray(clip.images(pictures).cpu().numpy(), dtype=np.float32)
