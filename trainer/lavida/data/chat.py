"""A conversation to tokens: the MLLM's own chat template around a picture or clip, the user's sentence, the answer.

The answer is told apart by its text, and tokens never cross its border: what stands before it is the prompt as it would
be given for generation. Everything after `<SEG>` is left out.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from aesampler.errors import ModelError
from lavida.data.prompts import ANSWER, SEG, USER

Kind = Literal["image", "video"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Turn:
    """A conversation in tokens. prompt: up to the answer, with one placeholder for the picture. answer: to `<SEG>`."""

    prompt: tuple[int, ...]
    answer: tuple[int, ...]


class Chat:
    """Writes conversations in the manner of one MLLM. processor: transformers', with `<SEG>` in its tokenizer.

    Raises ModelError where the processor has no chat template, or `<SEG>` is no token.
    """

    def __init__(self, processor: Any) -> None:
        self._processor = processor
        self._tokenizer = processor.tokenizer
        self.special: tuple[str, ...] = tuple(str(token) for token in self._tokenizer.get_added_vocab())
        self.padding = int(self._tokenizer.pad_token_id or 0)
        self.placeholders: dict[Kind, int] = {
            "image": int(processor.image_token_id),
            "video": int(processor.video_token_id),
        }
        if SEG not in self.special:
            raise ModelError(f"the tokenizer has no token {SEG}", where=self._name, do="take the processor of an Mllm")
        self.seg = int(self._tokenizer.convert_tokens_to_ids(SEG))
        if not processor.chat_template:
            raise ModelError(
                "the processor has no chat template", where=self._name, do="take an instruction-tuned model"
            )

    def turn(self, kind: Kind, user: str, answer: str) -> Turn:
        """The tokens of one conversation. Raises ModelError where the template drops the answer or the picture."""
        said = [{"type": kind}, {"type": "text", "text": user}]
        answered = [{"type": "text", "text": answer}]
        conversation = [{"role": "user", "content": said}, {"role": "assistant", "content": answered}]
        text = self._processor.apply_chat_template(conversation, tokenize=False)
        start = text.rfind(answer)
        prompt, reply = self._ids(text[: max(start, 0)]), self._ids(answer)
        if start < 0 or prompt.count(self.placeholders[kind]) != 1 or reply[-1] != self.seg:
            raise ModelError(
                f"the chat template has no place for one {kind} and an answer", where=self._name, got=repr(text[:80])
            )
        return Turn(prompt=prompt, answer=reply)

    def longest(self, names: Sequence[str], cap: int) -> int:
        """The most tokens of text that a conversation about `cap` of these names comes to."""
        sentences = [self.turn("video", user.format(names=""), answer) for user in USER for answer in ANSWER]
        lengths = sorted((len(self._ids(f", {name}")) for name in set(names)), reverse=True)
        return max(len(turn.prompt) + len(turn.answer) for turn in sentences) + sum(lengths[:cap])

    def expanded(self, turn: Turn, kind: Kind, tokens: int) -> tuple[int, ...]:
        """The prompt with `tokens` placeholders in place of the one."""
        at = turn.prompt.index(self.placeholders[kind])
        return turn.prompt[:at] + (self.placeholders[kind],) * tokens + turn.prompt[at + 1 :]

    def _ids(self, text: str) -> tuple[int, ...]:
        found: Sequence[int] = self._tokenizer(text, add_special_tokens=False)["input_ids"]
        return tuple(found)

    @property
    def _name(self) -> str:
        return str(getattr(self._tokenizer, "name_or_path", "") or type(self._processor).__name__)
