"""The vision-language model that is asked: any image-text-to-text chat model that transformers loads from a local
folder or a hub name (Qwen2-VL, Qwen2.5-VL, LLaVA, MiniCPM-V 4.6, InternVL ...). No code from the hub is run and nothing
is unpickled, which leaves out models that exist as remote code only (Chat-UniVi, MiniCPM-Llama3-V 2.5).

Questions are answered in batches, padded on the left, greedily: the same questions get the same answers. An anomaly's
text is the user's: control tokens written in it (`<|image_pad|>`) are read as plain text.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol, Self

from aesampler.errors import ModelError
from lavida.detectors.detector import Frame, chunked


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Question:
    """picture: uint8 [H, W, 3], of any size. prompt: the text beside it."""

    picture: Frame
    prompt: str


class Lvlm(Protocol):
    """Answers questions, each by itself, in their order."""

    def answer(self, questions: Sequence[Question]) -> list[str]:
        """One text for each question."""


class ChatModel:
    """A chat model of transformers. batch: questions at once. max_new_tokens: where an answer is cut off."""

    def __init__(self, model: Any, processor: Any, *, batch: int = 8, max_new_tokens: int = 128) -> None:
        self.model = model.eval()
        self.processor = processor
        self.batch = batch
        if not getattr(processor, "chat_template", None):
            raise ModelError("this model has no chat template", where=_name(model), do="take one tuned for chat")
        self._tokenizer = getattr(processor, "tokenizer", processor)
        self._tokenizer.padding_side = "left"  # an answer begins where its question ends
        if self._tokenizer.pad_token is None:
            self._tokenizer.pad_token = self._tokenizer.eos_token
        self._generation = _greedy(model, self._tokenizer, max_new_tokens)

    @classmethod
    def load(cls, model: str, *, device: str = "cpu", dtype: str = "auto", batch: int = 8, tokens: int = 128) -> Self:
        """A folder or hub name; dtype: a name of torch's, "auto" is the checkpoint's own, on a CPU float32.

        Raises ModelError where it cannot be had, or is no such model.
        """
        import torch

        from aesampler import _torchvision

        _torchvision.importable()
        import transformers

        auto: Any = transformers  # half of it has no types
        chosen = "float32" if dtype == "auto" and device == "cpu" else dtype
        try:
            processor = auto.AutoProcessor.from_pretrained(model, trust_remote_code=False)
            loaded = auto.AutoModelForImageTextToText.from_pretrained(
                model,
                dtype=chosen if chosen == "auto" else getattr(torch, chosen),
                trust_remote_code=False,
                use_safetensors=True,
            )
        except (OSError, ValueError, KeyError, ImportError) as error:
            reason = " ".join(str(error).split())[:300]
            raise ModelError(
                f"this image-text-to-text model cannot be loaded: {reason}",
                where=model,
                do="give a folder or hub name of a chat model that transformers knows, with safetensors",
            ) from error
        return cls(loaded.to(device), processor, batch=batch, max_new_tokens=tokens)

    def answer(self, questions: Sequence[Question]) -> list[str]:
        """See Lvlm."""
        import torch

        answers: list[str] = []
        with torch.inference_mode():
            for batch in chunked(questions, self.batch):
                answers += self._answered(batch)
        return answers

    def inputs(self, batch: Sequence[Question]) -> Any:
        """What the model is given for a batch of questions: ids [B, L] padded on the left, and what its processor made
        of the pictures.
        """
        made = self.processor.apply_chat_template(
            [_conversation(question) for question in batch],
            add_generation_prompt=True,
            tokenize=True,
            return_dict=True,
            return_tensors="pt",
            sanitize_control_tokens=True,
            processor_kwargs={"padding": True},
        )
        return made.to(self.model.device, dtype=self.model.dtype)  # integers stay what they are

    def _answered(self, batch: Sequence[Question]) -> list[str]:
        inputs = self.inputs(batch)
        made = self.model.generate(**inputs, generation_config=self._generation)
        if not self.model.config.is_encoder_decoder:
            made = made[:, inputs["input_ids"].shape[1] :]
        return [text.strip() for text in self._tokenizer.batch_decode(made, skip_special_tokens=True)]


def _conversation(question: Question) -> list[dict[str, Any]]:
    from PIL import Image

    picture = {"type": "image", "image": Image.fromarray(question.picture)}
    return [{"role": "user", "content": [picture, {"type": "text", "text": question.prompt}]}]


def _greedy(model: Any, tokenizer: Any, tokens: int) -> Any:
    """How to generate: the model's own ends of an answer, none of its sampling."""
    import transformers

    auto: Any = transformers
    own = model.generation_config
    ends = own.eos_token_id if own.eos_token_id is not None else tokenizer.eos_token_id
    return auto.GenerationConfig(
        do_sample=False,
        max_new_tokens=tokens,
        eos_token_id=ends,
        bos_token_id=own.bos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )


def _name(model: Any) -> str:
    return str(getattr(model, "name_or_path", "") or type(model).__name__)
