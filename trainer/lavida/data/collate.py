"""Collator: samples, or clips to be scored, to a Batch.

One object does both, so that training and scoring cannot differ in how they prepare pixels and prompts. It is
picklable, for DataLoader's workers, and draws nothing but the prompt (keyed by seed, epoch, source and key).

- The segmenter sees every frame, the padded ones too (they are labelled 255 and are no `valid_frames`); the MLLM sees
  the valid ones only.
- A sample of one frame is a picture to the MLLM, a longer one a video.
- The sequence ends with `<SEG>`: what would follow it changes nothing that is read (causal attention).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from pydantic import BaseModel, ConfigDict, Field, model_validator
from torch import Tensor

from aesampler.errors import ModelError
from lavida.data import prompts, targets
from lavida.data.batch import NO_TARGET, Batch
from lavida.data.chat import Chat, Turn
from lavida.data.vision import Budgets, Clip, Prepared, Vision, vision_of

if TYPE_CHECKING:
    from aesampler.sample import Sample


class DataSettings(BaseModel):
    """How samples become batches.

    train_tokens, eval_tokens: fewest and most visual tokens of a frame of a clip; image_tokens: of a single picture
    (before compression; the paper's values). seed: keys the draw of prompts.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    train_tokens: tuple[int, int] = (256, 512)
    eval_tokens: tuple[int, int] = (1280, 1536)
    image_tokens: tuple[int, int] = (32, 1024)
    seed: int = Field(default=0, ge=0)

    @model_validator(mode="after")
    def _ordered(self) -> DataSettings:
        for name in ("train_tokens", "eval_tokens", "image_tokens"):
            fewest, most = getattr(self, name)
            if not 1 <= fewest <= most:
                raise ValueError(f"{name} is [fewest, most], each 1 or more; got [{fewest}, {most}]")
        return self


@dataclass(frozen=True, kw_only=True)
class Collator:
    """Makes the batches of one model.

    processor: the MLLM's, which knows `<SEG>`. side: the segmenter's, in pixels, a multiple of 4. context: positions
    that the MLLM can tell apart, 0 for no limit. training: whether prompts are drawn and clips have the budget of
    training; else the first prompts and the budget of evaluation. epoch: keys the draw of prompts where the collator is
    called as DataLoader's `collate_fn`.
    """

    processor: Any
    side: int
    settings: DataSettings = field(default_factory=DataSettings)
    training: bool = True
    context: int = 0
    epoch: int = 0

    def at(self, epoch: int) -> Collator:
        """The collator of another epoch."""
        return replace(self, epoch=epoch)

    def __call__(self, samples: Sequence[Sample]) -> Batch:
        """The samples as a batch of this epoch."""
        return self.samples_to_batch(samples, self.epoch)

    def check_cap(self, cap: int, names: Sequence[str], frames: int) -> None:
        """Raise ModelError where a list of `cap` of these names beside a clip of so many frames may exceed the context:
        better before a training than at its first long list.
        """
        text, seen = self._tools.chat.longest(names, cap), self._tools.vision.most(frames, self._budgets)
        if self.context and text + seen > self.context:
            raise ModelError(
                "lists may be longer than the model's context allows",
                where="the cap of the exposure",
                got=f"{cap} names, up to {text:,} tokens of text beside {seen:,} visual ones",
                allowed=f"{self.context:,} tokens",
                do="lower the cap (max_categories) or the budget of visual tokens",
            )

    def samples_to_batch(self, samples: Sequence[Sample], epoch: int = 0) -> Batch:
        """A batch with targets. Raises ModelError where a prompt is longer than the context."""
        batch = self._batch(
            [sample.frames for sample in samples],
            [sample.valid_frames for sample in samples],
            [sample.categories for sample in samples],
            [sample.key for sample in samples],
            [
                prompts.drawn(self.settings.seed, epoch, sample.source, sample.key) if self.training else prompts.FIRST
                for sample in samples
            ],
        )
        anomalies = [targets.masks(sample.masks, self.side) for sample in samples]
        beside = [
            targets.ignored(sample.ignored, mask, self.side) for sample, mask in zip(samples, anomalies, strict=True)
        ]
        return replace(
            batch,
            masks=torch.from_numpy(np.concatenate(anomalies)),
            ignored=torch.from_numpy(np.concatenate(beside)),
            frame_labels=torch.from_numpy(np.concatenate([sample.frame_labels for sample in samples])),
            anomalous=torch.tensor([sample.anomalous for sample in samples]),
        )

    def clips_to_batch(
        self,
        clips: Sequence[Clip],
        categories: Sequence[Sequence[str]],
        keys: Sequence[str] | None = None,
        valid: Sequence[int] | None = None,
    ) -> Batch:
        """A batch without targets, with the first prompts, the answer given (teacher forcing): a forward scores it.

        clips: uint8 [T, H, W, 3], T may differ. valid: how many frames of each are no padding (all).
        """
        return self._batch(
            clips,
            [len(clip) for clip in clips] if valid is None else valid,
            categories,
            [f"clip {number}" for number in range(len(clips))] if keys is None else keys,
            [prompts.FIRST] * len(clips),
        )

    def _batch(
        self,
        clips: Sequence[Clip],
        valid: Sequence[int],
        categories: Sequence[Sequence[str]],
        keys: Sequence[str],
        sentences: Sequence[tuple[str, str]],
    ) -> Batch:
        tools = self._tools
        seen = tools.vision.prepare([clip[:count] for clip, count in zip(clips, valid, strict=True)], self._budgets)
        turns = [
            tools.chat.turn(kind, user.format(names=prompts.joined(names, tools.chat.special)), answer)
            for kind, names, (user, answer) in zip(seen.kinds, categories, sentences, strict=True)
        ]
        input_ids, attention_mask, labels = self._tokens(turns, seen, keys, categories)
        return Batch(
            keys=tuple(keys),
            categories=tuple(tuple(names) for names in categories),
            frames=torch.cat([targets.pictures(clip, self.side) for clip in clips]),
            owner=torch.repeat_interleave(torch.tensor([len(clip) for clip in clips])),
            valid_frames=torch.cat([torch.arange(len(clip)) < count for clip, count in zip(clips, valid, strict=True)]),
            input_ids=input_ids,
            attention_mask=attention_mask,
            labels=labels,
            seg_position=attention_mask.sum(1) - 1,
            vision=seen.tensors,
        )

    def _tokens(
        self, turns: Sequence[Turn], seen: Prepared, keys: Sequence[str], categories: Sequence[Sequence[str]]
    ) -> tuple[Tensor, Tensor, Tensor]:
        """input_ids, attention_mask, labels: int64 [B, L]."""
        chat = self._tools.chat
        prompted = [
            chat.expanded(turn, kind, count) for turn, kind, count in zip(turns, seen.kinds, seen.tokens, strict=True)
        ]
        lengths = [len(prompt) + len(turn.answer) for prompt, turn in zip(prompted, turns, strict=True)]
        for length, count, key, names in zip(lengths, seen.tokens, keys, categories, strict=True):
            if self.context and length > self.context:
                raise ModelError(
                    "a prompt is longer than the model's context",
                    where=key,
                    got=f"{length:,} tokens: {count:,} visual ones and {length - count:,} of text ({len(names)} names)",
                    allowed=f"{self.context:,}",
                    do="list fewer names (the cap of the exposure) or lower the budget of visual tokens",
                )
        shape = (len(turns), max(lengths))
        input_ids, labels = torch.full(shape, chat.padding), torch.full(shape, NO_TARGET)
        for row, (prompt, turn, length) in enumerate(zip(prompted, turns, lengths, strict=True)):
            input_ids[row, :length] = torch.tensor(prompt + turn.answer)
            labels[row, len(prompt) : length] = torch.tensor(turn.answer)
        attention_mask = (torch.arange(shape[1])[None] < torch.tensor(lengths)[:, None]).long()
        return input_ids, attention_mask, labels

    @property
    def _budgets(self) -> Budgets:
        clip = self.settings.train_tokens if self.training else self.settings.eval_tokens
        return Budgets(clip=clip, image=self.settings.image_tokens)

    @cached_property
    def _tools(self) -> _Tools:
        return _Tools(chat=Chat(self.processor), vision=vision_of(self.processor))


@dataclass(frozen=True, slots=True, kw_only=True)
class _Tools:
    """What a collator makes of the processor."""

    chat: Chat
    vision: Vision
