"""Which names a CLIP text encoder cannot tell apart, and which names its image encoder takes a picture to show; the
only module of this package that imports open_clip, and only when called.

Each name is read as "a photo of a NAME", the plainest of CLIP's prompts, encoded in float32 on the CPU, and compared
with every other by the cosine. The corpus's vocabulary stores the result: a reader needs neither the model nor torch.
ViT-B-32 reads about 11 names a second on one core.

Weights are loaded without executing anything that they hold: safetensors, or torch files of tensors alone.
"""

from __future__ import annotations

import difflib
import pickle
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from aesampler.errors import MissingExtra, RecipeError, StorageError
from aesampler.exposure import SimilaritySettings

PROMPT = "a photo of a {name}"
BATCH = 256
ALIKE = 10
"""Names that hard negatives of one name are drawn from."""
Sets = tuple[frozenset[str], ...]


def near(names: Sequence[str], settings: SimilaritySettings) -> tuple[frozenset[str], ...]:
    """For each name, the other names whose cosine similarity to it is above `reject_above`; symmetric.

    Raises MissingExtra without open_clip, RecipeError for an unknown model or weights that do not fit it, StorageError
    where weights named by a tag cannot be fetched.
    """
    return neighbours(names, settings)[0]


def neighbours(names: Sequence[str], settings: SimilaritySettings) -> tuple[Sets, Sets]:
    """`near`, and for each name the `ALIKE` others most similar to it of those that are not near it."""
    features = encode(names, settings)
    cosine = features @ features.T
    close = cosine > settings.reject_above
    close |= close.T  # a matrix product need not be symmetric to the last bit
    np.fill_diagonal(close, False)
    near = tuple(frozenset(names[other] for other in np.flatnonzero(row).tolist()) for row in close)
    cosine[close] = -np.inf
    if len(names):
        np.fill_diagonal(cosine, -np.inf)
    order = np.argsort(-cosine, axis=1, kind="stable")[:, :ALIKE]
    alike = tuple(
        frozenset(names[other] for other in row.tolist() if np.isfinite(cosine[place, other]))
        for place, row in enumerate(order)
    )
    return near, alike


def encode(names: Sequence[str], settings: SimilaritySettings) -> npt.NDArray[np.float32]:
    """Text features of `names`, of length 1: float32 [names, width]."""
    open_clip = _open_clip()
    return _encode(open_clip, _load(open_clip, settings), names, settings)


def _encode(open_clip: Any, model: Any, names: Sequence[str], settings: SimilaritySettings) -> npt.NDArray[np.float32]:
    import torch

    tokenizer = open_clip.get_tokenizer(settings.model)
    prompts = [PROMPT.format(name=name) for name in names]
    batches = []
    with torch.inference_mode():
        for start in range(0, len(prompts), BATCH):
            features = model.encode_text(tokenizer(prompts[start : start + BATCH])).float()
            batches.append(torch.nn.functional.normalize(features, dim=-1).numpy())
    return np.concatenate(batches) if batches else np.zeros((0, 0), dtype=np.float32)


class Gaze:
    """What a CLIP model takes pictures to show, of `names`: those whose cosine similarity to some frame is above
    `shown_above`. Held by a worker for all its samples. Raises as `near` does.
    """

    def __init__(self, names: Sequence[str], settings: SimilaritySettings) -> None:
        open_clip = _open_clip()
        if settings.shown_above is None:
            raise ValueError("shown_above says from which similarity a name is shown")
        self._names, self._above = tuple(names), settings.shown_above
        self._model = _load(open_clip, settings)
        self._features = _encode(open_clip, self._model, names, settings)
        tower = self._model.visual
        self._prepared = open_clip.image_transform(
            tower.image_size, is_train=False, mean=tower.image_mean, std=tower.image_std
        )

    def shown(self, pictures: Sequence[npt.NDArray[np.uint8]]) -> frozenset[str]:
        """Of frames, uint8 [height, width, 3], the names that one of them is taken to show."""
        cosine = self.cosine(pictures)
        return frozenset(name for name, most in zip(self._names, cosine.max(axis=0), strict=True) if most > self._above)

    def cosine(self, pictures: Sequence[npt.NDArray[np.uint8]]) -> npt.NDArray[np.float32]:
        """Similarity of each frame and each name: float32 [frames, names]."""
        import torch

        with torch.inference_mode():
            batch = torch.stack([self._prepared(Image.fromarray(picture)) for picture in pictures])
            features = torch.nn.functional.normalize(self._model.encode_image(batch).float(), dim=-1)
        found: npt.NDArray[np.float32] = features.numpy() @ self._features.T
        return found


def _open_clip() -> Any:
    try:
        import torch  # noqa: F401 (a broken torch is not a missing open_clip)

        from aesampler import _torchvision

        _torchvision.importable()
        import open_clip
    except ModuleNotFoundError as error:
        if error.name not in ("open_clip", "torch", "torchvision"):
            raise
        raise MissingExtra.of("open_clip_torch", "clip") from error
    return open_clip


def _load(open_clip: Any, settings: SimilaritySettings) -> Any:
    """The model on the CPU, float32, in evaluation mode."""
    models = open_clip.list_models()
    if settings.model not in models:
        close = difflib.get_close_matches(settings.model, models, n=1)
        hint = f"did you mean {close[0]!r}?" if close else "open_clip.list_models() lists them"
        raise RecipeError("unknown open_clip model", where="similarity.model", got=settings.model, do=hint)
    tags = open_clip.list_pretrained_tags_by_model(settings.model)
    is_file = Path(settings.pretrained).is_file()
    if not is_file and settings.pretrained not in tags:
        raise RecipeError(
            "no such weights file, nor an open_clip tag of this model",
            where="similarity.pretrained",
            got=settings.pretrained,
            allowed=f"a file, or {', '.join(tags) or 'no tag'}",
            do=f"download the weights of {settings.model} and give the file's path",
        )
    # A file goes by its absolute path, which can be no tag, and open_clip takes a tag first.
    pretrained = str(Path(settings.pretrained).resolve()) if is_file else settings.pretrained
    # OpenAI's weights were made with QuickGELU; without it open_clip warns, and gives vectors that are subtly wrong.
    tag = {} if is_file else open_clip.get_pretrained_cfg(settings.model, settings.pretrained)
    quick = bool(tag.get("quick_gelu"))
    try:
        model = open_clip.create_model(
            settings.model, pretrained, precision="fp32", device="cpu", weights_only=True, force_quick_gelu=quick
        )
    except (RuntimeError, OSError, KeyError, ValueError, pickle.UnpicklingError) as error:
        reason = str(error).partition("\n")[0]
        if not is_file:
            raise StorageError(
                f"the weights could not be fetched: {reason}",
                where="similarity.pretrained",
                do="download them elsewhere and give the file's path",
            ) from error
        raise RecipeError(
            f"these weights do not load into {settings.model}: {reason}",
            where=f"similarity.pretrained: {settings.pretrained}",
            do="give safetensors or a state dict of this very model; TorchScript and pickled objects are refused",
        ) from error
    return model.eval()
