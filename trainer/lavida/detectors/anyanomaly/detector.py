"""AnyAnomaly, put together: segments in batches, three questions for each segment and text, scores of frames.

A batch of segments is looked at by CLIP once (its frames, the windows of its representative frames, the grids of its
key frames), then all its questions go to the model together. Nothing of a segment is kept after its batch but its
scores, until the smoothing lets them go: 4 sigma frames later. A question of weight 0 is not asked.

The rows of the ablations: the baseline asks every frame (`segment=1, weights=[1, 0, 0]`); +KSM is `weights=[1, 0, 0]`,
+KSM/PC `[1, 1, 0]`, +KSM/TC `[1, 0, 1]`; `key_frames`, `prompt`, `segment` and `windows` move their tables.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Annotated, Any, Literal

import numpy as np
from pydantic import BeforeValidator, Field, model_validator

from lavida.detectors import clip as clip_text
from lavida.detectors.anyanomaly import answers, prompts
from lavida.detectors.anyanomaly.contexts import Contexts, Look, Text
from lavida.detectors.anyanomaly.fusion import PRESETS, VIEWS, PresetName, Smoother, Weights, fuse
from lavida.detectors.anyanomaly.key_frames import GROUPS, Selection
from lavida.detectors.anyanomaly.lvlm import ChatModel, Lvlm, Question
from lavida.detectors.anyanomaly.prompts import Level, View
from lavida.detectors.anyanomaly.segments import Segment, segments
from lavida.detectors.anyanomaly.windows import SIDE
from lavida.detectors.clip import ImageText
from lavida.detectors.detector import Detector, Frame, Scored, Scores, Settings, chunked, device_of

COUNTS = ("questions", "answers without a number", "segments", "segments without any score")


def _listed(value: object) -> object:
    """The command line's "0.6,0.3,0.1" as a list."""
    return [part.strip() for part in value.split(",")] if isinstance(value, str) else value


class AnyAnomalySettings(Settings):
    """model: a chat model's folder or hub name; dtype, max_new_tokens, questions (at once): how it is run. clip,
    clip_pretrained: as lavida.clip.Clip.load takes them. segment: N. batch: segments at once. key_frames, prompt: see
    key_frames.py, prompts.py. preset: weights and windows by name; weights, windows: instead of the preset's.
    class_softmax: the class list of a closed set, for the position context. sigma: of the smoothing, in frames. seed:
    of random key frames.
    """

    model: str = "Qwen/Qwen2.5-VL-7B-Instruct"
    dtype: Literal["auto", "float32", "float16", "bfloat16"] = "auto"
    device: str = "auto"
    max_new_tokens: int = Field(128, ge=1)
    questions: int = Field(8, ge=1)
    clip: str = "ViT-B-32"
    clip_pretrained: str | None = "openai"
    segment: int = Field(24, ge=1)
    batch: int = Field(4, ge=1)
    key_frames: Selection = "clip-then-group"
    prompt: Level = "both"
    preset: PresetName = "untuned"
    weights: Annotated[Weights | None, BeforeValidator(_listed)] = None
    windows: Annotated[tuple[int, ...] | None, BeforeValidator(_listed)] = None
    class_softmax: Annotated[tuple[str, ...], BeforeValidator(_listed)] = ()
    sigma: float = Field(12.0, ge=0, allow_inf_nan=False)
    seed: int = 0

    @model_validator(mode="after")
    def _possible(self) -> AnyAnomalySettings:
        weights = self.chosen_weights
        if any(not 0 <= weight < float("inf") for weight in weights) or not any(weights):
            raise ValueError(f"weights are three numbers from 0, one of them above 0; got {list(weights)}")
        if not self.chosen_windows or any(size < 1 or SIDE % size for size in self.chosen_windows):
            raise ValueError(f"windows are sides that divide {SIDE}; got {list(self.chosen_windows)}")
        if self.segment % GROUPS and (self.segment != 1 or weights[1:] != (0, 0)):
            raise ValueError(
                f"segment is a multiple of {GROUPS}, or 1 with weights 1,0,0 (the paper's baseline); got {self.segment}"
            )
        return self

    @property
    def chosen_weights(self) -> Weights:
        """Given, or the preset's."""
        return self.weights or PRESETS[self.preset].weights

    @property
    def chosen_windows(self) -> tuple[int, ...]:
        """Given, or the preset's."""
        return self.windows or PRESETS[self.preset].windows

    @property
    def views(self) -> tuple[View, ...]:
        """The views that are asked about: those with a weight."""
        return tuple(view for view, weight in zip(VIEWS, self.chosen_weights, strict=True) if weight > 0)

    @property
    def needs_clip(self) -> bool:
        """Whether CLIP is looked through at all: not for single frames, nor for random ones without context."""
        return self.segment > 1 and (self.key_frames != "random" or self.views != ("frame",))


class AnyAnomaly(Detector):
    """Anomalies typed as text, scored by a vision-language model without training; see the module."""

    name = "anyanomaly"
    settings = AnyAnomalySettings
    threshold = 0.5

    def __init__(
        self, options: AnyAnomalySettings | None = None, *, lvlm: Lvlm | None = None, clip: ImageText | None = None
    ) -> None:
        self.options: AnyAnomalySettings = options or AnyAnomalySettings()
        if clip is None and self.options.needs_clip:
            clip = clip_text.load(self.options.clip, self.options.clip_pretrained, self.options.device)
        self.contexts = Contexts(
            clip=clip,
            selection=self.options.key_frames,
            views=self.options.views,
            windows=self.options.chosen_windows,
            class_softmax=self.options.class_softmax,
            seed=self.options.seed,
        )
        self.lvlm = lvlm or ChatModel.load(
            self.options.model,
            device=device_of(self.options.device),
            dtype=self.options.dtype,
            batch=self.options.questions,
            tokens=self.options.max_new_tokens,
        )
        self._counts = dict.fromkeys(COUNTS, 0)

    def notes(self) -> dict[str, int | str]:
        """COUNTS, and under "tuned" what was."""
        note = "" if self.options.weights else PRESETS[self.options.preset].note
        return {**self._counts, **({"tuned": note} if note else {})}

    def scan(self, frames: Iterable[Frame], categories: tuple[str, ...]) -> Iterator[Scored]:
        """See Detector. parts: the scores of the questions over a segment's frames, before fusion and smoothing, NaN
        without an answer; details: one row a question.
        """
        texts = self.contexts.texts(categories)
        smoother = Smoother(self.options.sigma)
        waiting = _Waiting()
        for batch in chunked(segments(frames, self.options.segment), self.options.batch):
            parts, rows = self._ask(batch, texts)
            waiting.add(parts, rows)
            yield from waiting.leave(smoother.push(fuse(parts, self.options.chosen_weights)))
        yield from waiting.leave(smoother.close())

    def _ask(self, batch: Sequence[Segment], texts: Sequence[Text]) -> tuple[dict[str, Scores], list[dict[str, Any]]]:
        """The parts of a batch's frames, and a row for each question."""
        views = self.options.views
        asked = [(look, view) for look in self.contexts.look(batch, texts) for view in views]
        replies = self.lvlm.answer(
            [
                Question(picture=look.pictures[view], prompt=prompts.prompt(look.text.name, view, self.options.prompt))
                for look, view in asked
            ]
        )
        rows = [_row(look, view, reply) for (look, view), reply in zip(asked, replies, strict=True)]
        places = {segment.start: place for place, segment in enumerate(batch)}
        best = np.full((len(views), len(batch)), np.nan, dtype=np.float32)
        for row in rows:
            if row["score"] is not None:
                cell = views.index(row["question"]), places[row["start"]]
                best[cell] = np.fmax(best[cell], row["score"])
        lacking = sum(row["score"] is None for row in rows)
        counts = (len(rows), lacking, len(batch), int(np.isnan(best).all(axis=0).sum()))
        for name, count in zip(COUNTS, counts, strict=True):
            self._counts[name] += count
        lengths = [segment.length for segment in batch]
        return {view: np.repeat(row, lengths) for view, row in zip(views, best, strict=True)}, rows


class _Waiting:
    """Parts and rows of frames whose smoothed scores have not left yet."""

    def __init__(self) -> None:
        self._start = 0
        self._parts: dict[str, Scores] = {}
        self._rows: list[dict[str, Any]] = []

    def add(self, parts: Mapping[str, Scores], rows: Sequence[dict[str, Any]]) -> None:
        self._rows += rows
        for view, part in parts.items():
            self._parts[view] = np.concatenate([self._parts[view], part]) if view in self._parts else part

    def leave(self, scores: Scores) -> Iterator[Scored]:
        count = len(scores)
        if not count:
            return
        stop = self._start + count
        gone = tuple(row for row in self._rows if row["start"] < stop)
        parts = {view: part[:count] for view, part in self._parts.items()}
        yield Scored(start=self._start, frame_scores=scores, parts=parts, details=gone)
        self._rows = [row for row in self._rows if row["start"] >= stop]
        self._parts = {view: part[count:] for view, part in self._parts.items()}
        self._start = stop


def _row(look: Look, view: View, reply: str) -> dict[str, Any]:
    """JSON-able: the frames from start to stop, those shown, what was answered, the score or None."""
    return {
        "start": look.segment.start,
        "stop": look.segment.stop,
        "category": look.text.name,
        "question": view,
        "shown": list(look.shown(view)),
        "score": answers.score(reply),
        "answer": reply,
    }
