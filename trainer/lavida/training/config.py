"""The YAML of a training run: pipelines/train-*.yaml.

The settings stand beside what they set (the model's in `lavida.model`, the loss's in `loss.py` ...); here they are put
together, read, and changed from outside: `--set optimizer.lr=1e-4`, or the rows of an ablation,

    base: train-lavida-7b.yaml
    grid: {data.resample.max_categories: [10, 20, 30, 40]}

Paths are relative to the file and may hold `${NAME}` of the environment; weights are a path where there is one, else a
hub name or a tag. An unknown key is refused, with the one that was meant.
"""

from __future__ import annotations

import difflib
import itertools
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from aesampler.errors import UNREADABLE, RecipeError
from lavida.model.config import ModelConfig
from lavida.training.checkpoint import CheckpointSettings
from lavida.training.feed import BatchSettings, FeedSettings
from lavida.training.log import LogSettings
from lavida.training.loss import LossSettings
from lavida.training.optimizer import OptimizerSettings
from lavida.training.parallel import ParallelSettings
from lavida.training.validation import ValidationSettings

FREE = ("name", "out", "checkpoint", "log", "parallel", "validation")
"""Blocks that a resumed run may change: they say how and where it runs, not what it computes."""

WEIGHTS = (("mllm", "model"), ("segmenter", "model"), ("text", "model"), ("text", "pretrained"))
"""The keys of `model` that name weights."""


class TrainConfig(BaseModel):
    """A whole run. steps: optimizer steps. out: the run's folder, which every node sees. seed: of the order, the
    prompts, dropout and new weights. validation: null for none. base: the folder that paths are relative to.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str = Field(pattern=r"^[a-z0-9]+(-[a-z0-9]+)*$")
    out: str
    seed: int = Field(default=44, ge=0)
    steps: int = Field(ge=1)
    data: FeedSettings
    batch: BatchSettings = BatchSettings()
    model: ModelConfig = ModelConfig()
    loss: LossSettings = LossSettings()
    optimizer: OptimizerSettings = OptimizerSettings()
    parallel: ParallelSettings = ParallelSettings()
    checkpoint: CheckpointSettings = CheckpointSettings()
    validation: ValidationSettings | None = ValidationSettings()
    log: LogSettings = LogSettings()
    base: Path = Field(default=Path(), exclude=True)

    @model_validator(mode="before")
    @classmethod
    def _whole_model(cls, data: object) -> object:
        """The seed is the model's too, where that has none of its own; its weights are located."""
        if not isinstance(data, dict) or not isinstance(data.get("model", {}), dict):
            return data
        seed = data.get("seed", cls.model_fields["seed"].default)
        model = {"seed": seed, **(data.get("model") or {})}
        if isinstance(model.setdefault("inputs", {}), dict):
            model["inputs"] = {"seed": seed, **model["inputs"]}
        for block, key in WEIGHTS:
            part = model.get(block)
            name = part.get(key) if isinstance(part, dict) else None
            if (
                isinstance(part, dict)
                and isinstance(name, str)
                and (place := Path(data.get("base", ""), name)).exists()
            ):
                model[block] = {**part, key: str(place.resolve())}
        return {**data, "model": model}

    @property
    def folder(self) -> Path:
        """The run's folder."""
        return self.base / self.out

    def identity(self) -> dict[str, Any]:
        """What a run must share with the one that it goes on from: dotted key -> value, JSON-able. Where the corpora
        and the weights lie is no part of it: the stream's state and the digest of the frozen weights know what they
        hold.
        """
        document = self.model_dump(mode="json", exclude=set(FREE))
        for key in ("corpora", "workers", "cache"):
            document["data"].pop(key)
        document["batch"].pop("per_process")
        for block, key in WEIGHTS:
            document["model"][block].pop(key)
        return dict(_flat(document))

    @classmethod
    def of(cls, document: Mapping[str, Any], *, base: Path = Path(), where: str = "config") -> TrainConfig:
        """The run of a parsed mapping. Raises RecipeError: one line, where and what to do."""
        try:
            return cls.model_validate({**_expanded(document), "base": base})
        except ValidationError as error:
            raise _one_line(error, where) from error


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One row of an ablation. name: `max_categories=20`; changes: what it sets; config: the run, in a folder of its own
    below the base's.
    """

    name: str
    changes: dict[str, Any]
    config: TrainConfig


def load_config(path: str | os.PathLike[str], changes: Mapping[str, Any] | None = None) -> TrainConfig:
    """The run of a YAML file, with the values of dotted keys changed. Raises RecipeError."""
    file = Path(path)
    return TrainConfig.of(changed(_read(file), changes or {}), base=file.parent, where=str(file))


def load_grid(path: str | os.PathLike[str], changes: Mapping[str, Any] | None = None) -> tuple[Row, ...]:
    """The rows of an ablation's YAML: the product of its lists, in their order. changes: to the base, of all rows."""
    file = Path(path)
    document = _read(file)
    grid, base = document.get("grid"), document.get("base")
    if set(document) != {"base", "grid"} or not isinstance(base, str) or not isinstance(grid, dict) or not grid:
        raise RecipeError(
            "this is no ablation",
            where=str(file),
            got=", ".join(map(str, document)),
            allowed="base: FILE, grid: {KEY: [VALUES]}",
        )
    for key, values in grid.items():
        if not isinstance(values, list) or not values:
            raise RecipeError("an ablation tries a list of values", where=f"{file}: grid.{key}", got=repr(values))
    source = file.parent / base
    below = changed(_read(source), changes or {})
    rows = []
    for values in itertools.product(*grid.values()):
        chosen = dict(zip(grid, values, strict=True))
        name = ",".join(f"{key.rpartition('.')[2]}={value}" for key, value in chosen.items())
        whole = changed(below, chosen)
        whole["out"] = f"{whole.get('out', '')}/{name}"
        config = TrainConfig.of(whole, base=source.parent, where=f"{file}: {name}")
        rows.append(Row(name=name, changes=chosen, config=config))
    return tuple(rows)


def assignment(text: str) -> tuple[str, Any]:
    """`a.b=VALUE` as (dotted key, value), the value as YAML reads it. Raises RecipeError."""
    key, equals, value = text.partition("=")
    if not equals or not re.fullmatch(r"[A-Za-z_][\w-]*(\.[\w-]+)*", key.strip()):
        raise RecipeError("this sets nothing", where="--set", got=text, allowed="KEY.KEY=VALUE")
    try:
        return key.strip(), _number(yaml.safe_load(value))
    except UNREADABLE as error:
        raise RecipeError(
            f"the value is not YAML: {' '.join(str(error).split())}", where=f"--set {key}", got=value
        ) from error


def changed(document: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """`document` with the values of dotted keys set; where the way leads through what is no mapping, one takes its
    place.
    """
    whole = dict(document)
    for key, value in changes.items():
        here = whole
        *parents, last = key.split(".")
        for parent in parents:
            below = here.get(parent)
            here[parent] = here = dict(below) if isinstance(below, Mapping) else {}
        here[last] = value
    return whole


def _read(file: Path) -> dict[str, Any]:
    try:
        document = yaml.load(file.read_text(encoding="utf-8"), Loader=_UniqueKeys)  # a SafeLoader
    except FileNotFoundError:
        raise RecipeError(
            "no such file", where=str(file), do="give a YAML file, such as pipelines/train-tiny.yaml"
        ) from None
    except (OSError, UnicodeDecodeError) as error:
        raise RecipeError(f"cannot be read: {error}", where=str(file)) from error
    except UNREADABLE as error:
        raise RecipeError(f"not YAML: {error}", where=str(file)) from error
    if not isinstance(document, dict):
        raise RecipeError("a run is a mapping of keys", where=str(file), got=type(document).__name__)
    return {str(key): _number(value) for key, value in document.items()}


class _UniqueKeys(yaml.SafeLoader):
    """YAML where a key written twice is an error, not the last one's victory."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        keys = [key.value for key, _ in node.value]
        for key in keys:
            if keys.count(key) > 1:
                raise yaml.constructor.ConstructorError(
                    None, None, f"the key {key!r} is written twice", node.start_mark
                )
        return super().construct_mapping(node, deep)


def _number(value: Any) -> Any:
    """YAML 1.1 takes 1e-5 for text: a number it is."""
    if isinstance(value, dict):
        return {key: _number(held) for key, held in value.items()}
    if isinstance(value, list):
        return [_number(held) for held in value]
    if isinstance(value, str) and re.fullmatch(r"[+-]?\d+(\.\d*)?[eE][+-]?\d+", value):
        return float(value)
    return value


def _expanded(value: Any) -> Any:
    """Every `${NAME}` replaced from the environment. Raises RecipeError where a name is not set."""
    if isinstance(value, Mapping):
        return {key: _expanded(held) for key, held in value.items()}
    if isinstance(value, list):
        return [_expanded(held) for held in value]
    if not isinstance(value, str):
        return value

    def found(match: re.Match[str]) -> str:
        name = match.group(1)
        if name not in os.environ:
            raise RecipeError(
                f"the environment variable {name} is not set", where=value, do=f"export {name}=/path/to/it"
            )
        return os.environ[name]

    return re.sub(r"\$\{([A-Za-z_][A-Za-z0-9_]*)\}", found, value)


def _flat(value: Any, path: str = "") -> list[tuple[str, Any]]:
    if not isinstance(value, dict) or not value:
        return [(path, value)]
    return [pair for key, held in value.items() for pair in _flat(held, f"{path}.{key}" if path else str(key))]


def _one_line(error: ValidationError, where: str) -> RecipeError:
    """The first of pydantic's errors as one line of ours, with a did-you-mean for an unknown key."""
    first = error.errors()[0]
    path = [str(part) for part in first["loc"]]
    if first["type"] == "extra_forbidden":
        known = sorted(set(_fields(path[:-1])) - {"base"})
        close = difflib.get_close_matches(path[-1], known, n=1)
        return RecipeError(
            f"unknown key {path[-1]!r}",
            where=f"{where}: {'.'.join(path[:-1])}".rstrip(": "),
            allowed=", ".join(known),
            do=f"did you mean {close[0]!r}?" if close else "",
        )
    place = f"{where}: {'.'.join(path)}" if path else where
    if first["type"] == "missing":
        return RecipeError("this key is missing", where=place)
    message = str(first["msg"]).removeprefix("Value error, ")
    got = first.get("input")
    shown = None if isinstance(got, (dict, list, BaseModel)) else repr(got)
    return RecipeError(message[0].lower() + message[1:], where=place, got=shown)


def _fields(path: list[str]) -> list[str]:
    """The keys allowed at `path` below the run."""
    here: Any = TrainConfig
    for part in path:
        annotation = here.model_fields[part].annotation if part in here.model_fields else None
        candidates = [annotation, *getattr(annotation, "__args__", ())]
        here = next((each for each in candidates if isinstance(each, type) and issubclass(each, BaseModel)), here)
    return list(here.model_fields)
