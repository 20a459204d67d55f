"""CLIP by open_clip, the only module of lavida that imports it: names and pictures to vectors of length 1, float32.

`Clip.load` takes what people have: an architecture of open_clip with a tag or a file of weights, a folder in
open_clip's own format (`open_clip_config.json` beside the weights), or such a folder on the Hugging Face hub. `save`
writes that format, so that what a checkpoint of ours holds is read by open_clip too. Weights are loaded without
executing anything that they hold. OpenAI's weights were made with QuickGELU: it is switched on where a tag says so
(open_clip itself only warns, and the vectors are then subtly wrong). A file of them says nothing: it wants
`ViT-B-32-quickgelu`.

Shapes: n names or pictures, D width of the joint space (512 for ViT-B-32), H, W, S pixels.
"""

from __future__ import annotations

import contextlib
import difflib
import json
import logging
import pickle
from collections.abc import Iterator, Mapping, Sequence
from copy import deepcopy
from dataclasses import asdict
from pathlib import Path
from typing import Any, Self

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from aesampler import rng
from aesampler.errors import MissingExtra, ModelError

CONFIG = "open_clip_config.json"
WEIGHTS = "open_clip_model.safetensors"
BATCH = 256

TINY: Mapping[str, Any] = {
    "embed_dim": 32,
    "vision_cfg": {"image_size": 32, "layers": 1, "width": 64, "patch_size": 16},
    "text_cfg": {"context_length": 16, "vocab_size": 49408, "width": 32, "heads": 4, "layers": 2},
}
"""The tiny random model: open_clip's own classes and tokenizer; nearly all its parameters are the vocabulary's."""


class Clip(nn.Module):
    """A CLIP model with its tokenizer, in evaluation mode.

    config: what `open_clip_config.json` holds. width: D. image_size: S. Without `images` the picture tower is dropped
    (of ViT-B-32: 88 M of 151 M parameters); `images` then raises ModelError.
    """

    def __init__(self, model: Any, tokenizer: Any, config: Mapping[str, Any], *, images: bool = True) -> None:
        super().__init__()
        self.model: Any = model.eval()
        self.tokenizer = tokenizer
        self.config = dict(config)
        self.width = int(config["model_cfg"]["embed_dim"])
        size = config["model_cfg"]["vision_cfg"].get("image_size", 224)
        self.image_size = int(size if isinstance(size, int) else size[0])
        if not images and hasattr(self.model, "visual"):
            del self.model.visual

    @classmethod
    def load(
        cls,
        model: str,
        pretrained: str | None = None,
        *,
        device: str | torch.device = "cpu",
        images: bool = True,
        weights: bool = True,
    ) -> Self:
        """The model named by an open_clip architecture (then `pretrained` is a tag or a file of weights), a folder, or
        a name on the hub (`org/name`); with `weights` False its parameters are left as they fall, to be loaded by the
        caller.

        Raises MissingExtra without open_clip; ModelError for an unknown name, missing weights, or weights that do not
        fit.
        """
        open_clip = _open_clip()
        folder = Path(model.removeprefix("local-dir:"))
        if folder.is_dir():
            if not (folder / CONFIG).is_file():
                raise ModelError(f"no {CONFIG} in this folder: it holds no model of open_clip", where=str(folder))
            name, source = f"local-dir:{folder.resolve()}", ""
        elif model in open_clip.list_models():
            name, source = model, _source(open_clip, model, pretrained) if weights else ""
        elif model.startswith(("local-dir:", ".", "/")) or model.count("/") != 1:
            raise _unknown(open_clip, model)
        else:
            name, source = model if model.startswith("hf-hub:") else f"hf-hub:{model}", ""
        made, config = _create(open_clip, name, source, weights=weights)
        tokenizer = _tokenizer(open_clip, name, config)
        return cls(made, tokenizer, config, images=images).to(device)

    @classmethod
    def tiny(
        cls, seed: int = 0, *, width: int = 32, layers: int = 2, image_size: int = 32, images: bool = True
    ) -> Self:
        """A small random model of the same classes, drawn by `seed`; nothing is fetched."""
        open_clip = _open_clip()
        model_cfg = deepcopy(dict(TINY))
        model_cfg["embed_dim"] = width
        model_cfg["text_cfg"] |= {"width": width, "layers": layers}
        model_cfg["vision_cfg"] |= {"image_size": image_size}
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(rng.order(seed, "lavida", "clip"))
            made = open_clip.CLIP(**deepcopy(model_cfg))
            for name, tensor in made.named_parameters():
                if "embedding" in name:  # open_clip's 0.01 to 0.02 leaves random towers blind to their input
                    nn.init.normal_(tensor, std=1.0)
        config = {"model_cfg": model_cfg, "preprocess_cfg": _preprocess(open_clip, image_size)}
        tokenizer = open_clip.SimpleTokenizer(context_length=model_cfg["text_cfg"]["context_length"])
        return cls(made, tokenizer, config, images=images)

    def train(self, mode: bool = True) -> Self:
        """Stay in evaluation mode: some text towers have dropout, and vectors of names are kept."""
        return super().train(False)

    @property
    def device(self) -> torch.device:
        """Where the parameters lie."""
        return next(self.parameters()).device

    def encode(self, texts: Sequence[str]) -> Tensor:
        """Features of `texts` as they are written: float32 [n, D], of length 1, with gradient where one is asked."""
        tokens = self.tokenizer(list(texts)).to(self.device)
        features = [self.model.encode_text(each).float() for each in tokens.split(BATCH)]
        return nn.functional.normalize(torch.cat(features), dim=-1)

    @torch.no_grad()
    def text(self, names: Sequence[str]) -> Tensor:
        """Features of `names`, each as it is written: float32 [n, D], of length 1; n may be 0."""
        return self.encode(names) if names else torch.zeros(0, self.width, device=self.device)

    @torch.no_grad()
    def images(self, pictures: Sequence[npt.NDArray[np.uint8]]) -> Tensor:
        """Features of `pictures`, uint8 [H, W, 3] each: float32 [n, D], of length 1; n may be 0."""
        if not hasattr(self.model, "visual"):
            raise ModelError("this CLIP was loaded for text alone", do="load it with images=True")
        if not pictures:
            return torch.zeros(0, self.width, device=self.device)
        from PIL import Image

        open_clip = _open_clip()
        settings = open_clip.transform.PreprocessCfg(**self.config["preprocess_cfg"])
        prepare = open_clip.transform.image_transform_v2(settings, is_train=False)
        features = []
        for start in range(0, len(pictures), BATCH):
            batch = [prepare(Image.fromarray(picture)) for picture in pictures[start : start + BATCH]]
            features.append(self.model.encode_image(torch.stack(batch).to(self.device)).float())
        return nn.functional.normalize(torch.cat(features), dim=-1)

    def save(self, folder: str | Path, *, weights: bool = True) -> None:
        """Write `open_clip_config.json`, the weights unless told otherwise, and the tokenizer's files where it has any.

        Raises ModelError for a tokenizer that open_clip cannot read back from a folder.
        """
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        open_clip = _open_clip()
        if isinstance(self.tokenizer, open_clip.tokenizer.HFTokenizer):
            self.tokenizer.save_pretrained(str(folder))
        elif not isinstance(self.tokenizer, open_clip.SimpleTokenizer):
            raise ModelError(
                f"open_clip cannot read a {type(self.tokenizer).__name__} back from a folder",
                do="take a model with CLIP's own tokenizer or one on the hub (a name like org/model)",
            )
        (folder / CONFIG).write_text(json.dumps(self.config, indent=2, sort_keys=True) + "\n", encoding="utf-8")
        if weights:
            from safetensors.torch import save_file

            state = {name: tensor.contiguous() for name, tensor in self.model.state_dict().items()}
            save_file(state, folder / WEIGHTS)


def _open_clip() -> Any:
    try:
        from aesampler import _torchvision

        _torchvision.importable()
        import open_clip
    except ModuleNotFoundError as error:
        if error.name not in ("open_clip", "torchvision"):
            raise
        raise MissingExtra.of("open_clip_torch", "clip") from error
    return open_clip


def _unknown(open_clip: Any, model: str) -> ModelError:
    close = difflib.get_close_matches(model, open_clip.list_models(), n=1)
    hint = f"did you mean {close[0]!r}?" if close else "open_clip.list_models() lists the architectures"
    return ModelError(
        "no such CLIP model: neither a folder, nor an architecture of open_clip, nor a hub name (org/model)",
        where="text.model",
        got=model,
        do=hint,
    )


def _source(open_clip: Any, model: str, pretrained: str | None) -> str:
    """The weights of a built-in architecture: a file's absolute path, which can be no tag, or a tag."""
    tags = open_clip.list_pretrained_tags_by_model(model)
    if pretrained and Path(pretrained).is_file():
        return str(Path(pretrained).resolve())
    if pretrained is None or pretrained not in tags:
        raise ModelError(
            "no such weights file, nor an open_clip tag of this model" if pretrained else "no weights named",
            where=f"text.pretrained of {model}",
            got=pretrained,
            allowed=f"a file, or {', '.join(tags[:6]) or 'no tag'}{' ...' if len(tags) > 6 else ''}",
            do="download the weights and give the file's path",
        )
    return pretrained


def _create(open_clip: Any, name: str, source: str, *, weights: bool) -> tuple[nn.Module, dict[str, Any]]:
    tag: Mapping[str, Any] = {}
    try:
        config = open_clip.get_model_config(name)
        tag = open_clip.get_pretrained_cfg(name, source) if source and not Path(source).is_file() else {}
        with _quiet():
            made = open_clip.create_model(
                name,
                source or None,
                load_weights=weights,
                require_pretrained=weights,
                precision="fp32",
                force_quick_gelu=bool(tag.get("quick_gelu")),
                pretrained_text=False,
                weights_only=True,
            )
    except (RuntimeError, OSError, KeyError, ValueError, AssertionError, pickle.UnpicklingError) as error:
        reason = str(error).partition("\n")[0]
        where = name.removeprefix("local-dir:").removeprefix("hf-hub:")
        # A file does not say which activation it wants.
        file = f"a file with {name}-quickgelu" if tag.get("quick_gelu") and "quickgelu" not in name else "a file"
        raise ModelError(
            f"the weights of this CLIP cannot be loaded: {reason}",
            where=where,
            got=source or None,
            do=f"download them elsewhere and give a folder, or {file}; TorchScript and pickled objects are refused",
        ) from error
    if tag.get("quick_gelu"):
        config["quick_gelu"] = True
    preprocess = dict(made.visual.preprocess_cfg)
    return made, {"model_cfg": config, "preprocess_cfg": preprocess}


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """open_clip tells the root logger about every step, and warns of random weights where none were wanted."""
    root = logging.getLogger()

    def ours(record: logging.LogRecord) -> bool:
        return "open_clip" not in record.pathname

    filtered = [*root.handlers, root]
    for each in filtered:
        each.addFilter(ours)
    try:
        yield
    finally:
        for each in filtered:
            each.removeFilter(ours)


def _tokenizer(open_clip: Any, name: str, config: Mapping[str, Any]) -> Any:
    try:
        with _quiet():
            return open_clip.get_tokenizer(name)
    except (OSError, ValueError, RuntimeError) as error:
        reason = str(error).partition("\n")[0]
        named = config["model_cfg"]["text_cfg"].get("hf_tokenizer_name", "its own")
        raise ModelError(
            f"the tokenizer of this CLIP ({named}) cannot be loaded: {reason}", where=name.removeprefix("local-dir:")
        ) from error


def _preprocess(open_clip: Any, size: int) -> dict[str, Any]:
    return asdict(open_clip.transform.PreprocessCfg(size=(size, size)))
