"""A model on disk: one folder, written whole or not at all, from which it is loaded again without any network.

    config.json                 format, version, the model's configuration, whether the frozen weights are here
    model.safetensors           every weight by its name (several files and an index above 5 GB)
    mllm/, sam2/, clip/         what each part is, without weights: configurations, processor, tokenizer

Without the frozen weights the folder holds what was trained (config.json lists the parts), and the rest is loaded from
where the configuration says. For LAVIDA-7B that is 4.6 GB in place of 19 GB. The folder holds no time, host or path of
its own.
"""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from pydantic import ValidationError
from torch import Tensor

from aesampler import _torchvision
from aesampler.errors import ModelError, StorageError
from lavida.clip import Clip
from lavida.model.config import ModelConfig
from lavida.model.mllm import Mllm
from lavida.model.segmenter import Segmenter
from lavida.model.text import CategoryText

if TYPE_CHECKING:
    from lavida.model.lavida import LavidaModel

FORMAT = "lavida-model"
VERSION = 1
INDEX = "model.safetensors.index.json"
WEIGHTS = "model.safetensors"
SHARD = "5GB"


def save(model: LavidaModel, path: Path, *, frozen: bool = True, state: dict[str, Tensor] | None = None) -> None:
    """Write `model` to `path`; an older model there is replaced.

    frozen: with what is not trained. state: its state dict, where it is not the model's own. Raises ModelError where
    `path` holds something else, StorageError where writing fails.
    """
    if path.exists() and not _is_ours(path) and (not path.is_dir() or any(path.iterdir())):
        raise ModelError("this is there already, and is no model of ours", where=str(path), do="name another folder")
    made = path.with_name(f".{path.name}.partial")
    try:
        shutil.rmtree(made, ignore_errors=True)
        made.mkdir(parents=True)
        _write(model, made, frozen=frozen, state=model.state_dict() if state is None else state)
        _settle(made)
        old = path.with_name(f".{path.name}.old")
        shutil.rmtree(old, ignore_errors=True)
        if path.exists():
            path.rename(old)
        made.rename(path)
        shutil.rmtree(old, ignore_errors=True)
    except OSError as error:
        raise StorageError.of(error) from error


def _write(model: LavidaModel, path: Path, *, frozen: bool, state: dict[str, Tensor]) -> None:
    from huggingface_hub import save_torch_state_dict

    if not frozen:
        kept = _changed(model)
        state = {name: tensor for name, tensor in state.items() if name in kept}
    save_torch_state_dict({name: tensor.detach() for name, tensor in state.items()}, path, max_shard_size=SHARD)
    if frozen:
        model.mllm.save_skeleton(path / "mllm")
        _forget_origin(path / "mllm" / "tokenizer_config.json")
        model.segmenter.save_config(path / "sam2")
        model.text.clip.save(path / "clip", weights=False)
    head = {
        "format": FORMAT,
        "version": VERSION,
        "frozen": frozen,
        "changed": sorted(model.changed),
        "model": model.config.model_dump(mode="json"),
    }
    (path / "config.json").write_text(json.dumps(head, indent=2, sort_keys=True) + "\n", encoding="utf-8")


def load(name: str | Path, maker: type[LavidaModel], *, dtype: str | None = None) -> LavidaModel:
    """The model of a folder, or of a name on the hub; see `LavidaModel.from_pretrained`."""
    path = _folder(name)
    head = _head(path)
    try:
        config = ModelConfig.model_validate({**head["model"], **({"dtype": dtype} if dtype else {})})
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(map(str, first["loc"]))
        where = f"{path / 'config.json'}: {key}"
        raise ModelError(f"not a configuration that this version reads: {first['msg']}", where=where) from error
    if not head["frozen"]:
        model = maker.build(config)
    else:
        _torchvision.importable()
        from transformers.initialization import no_init_weights

        with no_init_weights():
            mllm = Mllm.from_skeleton(path / "mllm", lora=config.mllm.lora, dtype=config.torch_dtype)
            mllm.model.tie_weights()  # which is left out with the drawing of weights
            segmenter = Segmenter.blank(path / "sam2", frames_at_once=config.segmenter.frames_at_once)
            clip = Clip.load(str(path / "clip"), images=False, weights=False)
        model = maker(config, mllm=mllm, segmenter=segmenter, text=CategoryText(clip, config.text.prompt))
    model.changed.update(head["changed"])
    _fill(model, path, needed=set(model.state_dict()) if head["frozen"] else _changed(model))
    return model


def _changed(model: LavidaModel) -> set[str]:
    """Names in the state dict of what is no longer as it was loaded."""
    asked = {id(parameter) for part in model.changed for parameter in model.part(part)}
    named = model.named_parameters(remove_duplicate=False)
    return {name for name, parameter in named if id(parameter) in asked}


@torch.no_grad()
def _fill(model: LavidaModel, path: Path, *, needed: set[str]) -> None:
    state = model.state_dict()
    known: set[int] = set()
    for name, tensor in _tensors(path):
        target = state.get(name)
        if target is None or target.shape != tensor.shape:
            size = "nothing of this name" if target is None else f"{list(tensor.shape)}, not {list(target.shape)}"
            raise ModelError("the weights are those of another model", where=f"{path}: {name}", got=size)
        target.copy_(tensor)
        known.add(target.data_ptr())
    missing = sorted(name for name in needed if state[name].data_ptr() not in known)
    if missing:
        raise ModelError(
            "weights are missing",
            where=str(path),
            got=f"{len(missing)} of {len(state)} tensors, {missing[0]} among them",
            do="copy the folder again, whole",
        )


def _tensors(path: Path) -> Iterator[tuple[str, Tensor]]:
    from safetensors import SafetensorError, safe_open

    index = path / INDEX
    if index.is_file():
        files = sorted(set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()))
    else:
        files = [WEIGHTS]
    for file in files:
        here = path / Path(file).name
        if not here.is_file():
            raise ModelError("a file of weights is missing", where=str(here), do="copy the folder again, whole")
        try:
            with safe_open(here, "pt") as opened:
                for name in opened.keys():  # noqa: SIM118 (no mapping)
                    yield name, opened.get_tensor(name)
        except SafetensorError as error:
            raise ModelError(f"a file of weights cannot be read: {error}", where=str(here)) from error


def _head(path: Path) -> dict[str, Any]:
    file = path / "config.json"
    if not file.is_file():
        raise ModelError("not a LAVIDA model: no config.json", where=str(path), do=_WANTED)
    try:
        head = json.loads(file.read_text(encoding="utf-8"))
    except (ValueError, UnicodeDecodeError) as error:
        raise ModelError("not JSON", where=str(file), do=_WANTED) from error
    if not isinstance(head, dict) or head.get("format") != FORMAT:
        kind = head.get("model_type") or head.get("architectures") if isinstance(head, dict) else None
        raise ModelError("not a LAVIDA model", where=str(path), got=f"a {kind} model" if kind else None, do=_WANTED)
    if head.get("version") != VERSION:
        raise ModelError("a LAVIDA model of another version", where=str(path), got=head.get("version"), allowed=VERSION)
    return head


_WANTED = "give a folder that `lavida train` or save_pretrained wrote"


def _is_ours(path: Path) -> bool:
    try:
        _head(path)
    except ModelError:
        return False
    return True


def _folder(name: str | Path) -> Path:
    if Path(name).is_dir():
        return Path(name)
    if not re.fullmatch(r"[\w.-]+/[\w.-]+", str(name)):
        raise ModelError("no such folder, nor a name on the hub (org/model)", where=str(name), do=_WANTED)
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError

    try:
        return Path(snapshot_download(str(name)))
    except (OSError, ValueError, HfHubHTTPError) as error:
        reason = str(error).strip().partition("\n")[0][:200] or type(error).__name__
        raise ModelError(
            f"no such folder, and not to be had from the hub: {reason}", where=str(name), do=_WANTED
        ) from error


def _forget_origin(file: Path) -> None:
    """Drop from a tokenizer's file what transformers notes of how it was loaded: it is no part of the model."""
    if file.is_file():
        held = json.loads(file.read_text(encoding="utf-8"))
        origin = ("is_local", "local_files_only", "name_or_path")
        kept = {key: value for key, value in held.items() if key not in origin}
        file.write_text(json.dumps(kept, indent=2, sort_keys=True, ensure_ascii=False) + "\n", encoding="utf-8")


def _settle(path: Path) -> None:
    """Have the disk hold every file of a folder before it is renamed, readable to whom its config.json is."""
    for file in [*path.rglob("*"), path]:
        if file.is_file():
            shutil.copymode(path / "config.json", file)  # safetensors lets nobody but the owner read its files
        descriptor = os.open(file, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
