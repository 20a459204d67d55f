"""The recipe: the YAML that says what a corpus is made of. Unknown keys, wrong types and repeated keys are refused in
one line that says where.

Settings live beside what they set (`ExposureSettings` in `exposure.py`, the options of a format in its source); the
recipe composes them. Paths are relative to the recipe's folder and may hold `${NAME}` of the environment; the corpus
stores them unexpanded.
"""

from __future__ import annotations

import datetime
import difflib
import hashlib
import json
import os
import re
from collections.abc import Mapping
from importlib import resources
from pathlib import Path
from typing import Annotated, Any, ClassVar

import yaml
from pydantic import (
    BaseModel,
    BeforeValidator,
    ByteSize,
    ConfigDict,
    Field,
    TypeAdapter,
    ValidationError,
    field_validator,
    model_validator,
)

from aesampler import sources
from aesampler.errors import UNREADABLE, RecipeError
from aesampler.exposure import ExposureSettings
from aesampler.sources.source import Source, Subset
from aesampler.storage import Folder

Slug = Annotated[str, Field(pattern=r"^[a-z0-9]+(-[a-z0-9]+)*$", max_length=32)]
_PIPELINES = resources.files("aesampler") / "pipelines"
SUBSETS: tuple[Subset, ...] = ("train", "validation", "test")


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


def _bytes(value: object) -> object:
    """`500MB`, `2 GiB` as a number of bytes."""
    return int(TypeAdapter(ByteSize).validate_python(value)) if isinstance(value, str) else value


def _text(value: object) -> object:
    return value.isoformat() if isinstance(value, datetime.date) else value


class About(_Part):
    """For the data card and Croissant; the clock is never asked, so the date is the recipe's."""

    description: str = ""
    license: str = ""
    creator: str = ""
    url: str = ""
    date: Annotated[str, BeforeValidator(_text), Field(pattern=r"^(\d{4}-\d{2}-\d{2})?$")] = ""


class ClipSettings(_Part):
    """How clips are cut from videos: `frames` frames, `stride` apart, a clip starting at every `every`-th frame until
    one reaches the video's end.
    """

    frames: int = Field(default=8, ge=1, le=1000)
    stride: int = Field(default=1, ge=1)
    every: int = Field(default=8, ge=1)

    def starts(self, length: int) -> list[int]:
        """First frames of the clips of a video of `length` frames; every video gives at least one."""
        last = range(0, length, self.every)
        reach = (self.frames - 1) * self.stride
        starts = []
        for start in last:
            starts.append(start)
            if start + reach >= length - 1:
                break
        return starts

    def places(self, start: int, length: int) -> list[int]:
        """Frames of the clip at `start`: at most `frames`, without padding."""
        return list(range(start, length, self.stride))[: self.frames]


class ImageSettings(_Part):
    """max_side: pictures longer than this are made smaller, and become JPEG of `jpeg_quality`; null passes the original
    bytes through.
    """

    max_side: int | None = Field(default=None, ge=16)
    jpeg_quality: int = Field(default=95, ge=1, le=100)


class ShardSettings(_Part):
    """A shard is closed before it would hold more than `max_samples` samples or `max_bytes` listed source bytes; a
    single longer video makes one of its own.
    """

    max_samples: int = Field(default=1000, ge=1)
    max_bytes: Annotated[int, BeforeValidator(_bytes), Field(ge=1)] = 500_000_000


class Tolerance(_Part):
    """bad_records: share of the planned samples that may fail."""

    bad_records: float = Field(default=0.0, ge=0.0, le=1.0)


class SourceEntry(_Part):
    """One entry of `sources`: a dataset, a split or shares of splits, and the options of its format (`reader`)."""

    name: Slug
    format: str
    root: str
    split: Subset | dict[Subset, Annotated[float, Field(gt=0.0, le=1.0)]] = "train"
    weight: float | None = Field(default=None, gt=0.0)
    limit: int | None = Field(default=None, ge=1, le=2**53)
    exposure: dict[str, Any] = Field(default_factory=dict)
    options: dict[str, Any] = Field(default_factory=dict, exclude=True)

    OWN: ClassVar[tuple[str, ...]] = ("name", "format", "root", "split", "weight", "limit", "exposure")

    @model_validator(mode="before")
    @classmethod
    def _own_and_options(cls, data: object) -> object:
        if not isinstance(data, dict) or "options" in data:
            return data
        own = {key: value for key, value in data.items() if key in cls.OWN}
        return own | {"options": {key: value for key, value in data.items() if key not in cls.OWN}}

    @field_validator("split")
    @classmethod
    def _whole(cls, split: Any) -> Any:
        if isinstance(split, dict) and abs(sum(split.values()) - 1.0) > 1e-9:
            raise ValueError(f"the shares must add up to 1, they add up to {sum(split.values()):g}")
        return split

    @property
    def shares(self) -> dict[Subset, float]:
        """Split -> share of the groups, in the order train, validation, test."""
        split = {self.split: 1.0} if isinstance(self.split, str) else self.split
        return {name: split[name] for name in SUBSETS if name in split}

    @property
    def label(self) -> str:
        """How messages call the entry: `coco`, or `coco/train` where the name alone does not tell."""
        return f"{self.name}/{'+'.join(self.shares)}"

    @property
    def reader(self) -> Source:
        """The source that reads the entry."""
        options = dict(self.options)
        options.setdefault("subset", self.split if isinstance(self.split, str) else "train")
        return sources.load(self.format).model_validate(options)


class Recipe(_Part):
    """A whole recipe; the keys are those of the YAML."""

    name: Slug
    about: About = About()
    out: str | None = None
    seed: int = Field(default=0, ge=0, lt=2**63)
    sources: list[SourceEntry] = Field(min_length=1)
    exposure: ExposureSettings = ExposureSettings()
    clips: ClipSettings = ClipSettings()
    images: ImageSettings = ImageSettings()
    shards: ShardSettings = ShardSettings()
    tolerance: Tolerance = Tolerance()
    allow_shared_groups: list[str] = Field(default_factory=list)
    """Groups that may lie in two splits; a trailing `*` stands for any ending."""
    base: Path = Field(default=Path(), exclude=True)
    """The folder that paths are relative to."""

    @model_validator(mode="after")
    def _unique(self) -> Recipe:
        seen: dict[tuple[str, str], int] = {}
        formats: dict[str, str] = {}
        for place, entry in enumerate(self.sources):
            for split in entry.shares:
                if seen.setdefault((entry.name, split), place) != place:
                    raise ValueError(
                        f"sources.{place}: two entries are called {entry.name!r} in split {split}; rename one"
                    )
            if formats.setdefault(entry.name, entry.format) != entry.format:
                raise ValueError(f"sources.{place}: {entry.name!r} is both {formats[entry.name]} and {entry.format}")
        return self

    def settings(self, entry: SourceEntry) -> ExposureSettings:
        """The exposure settings of one entry: the recipe's, with the entry's own keys over them."""
        return ExposureSettings.model_validate(dict(self.exposure) | entry.exposure)

    def folder(self, path: str) -> Folder:
        """The folder of a recipe's path: `${NAME}` expanded, relative to the recipe."""
        text = expand(path)
        return Folder.at(text if "://" in text else self.base / text)

    def file(self, path: str) -> str:
        """A recipe's path of a file: `${NAME}` expanded, and absolute where the recipe's folder has such a file."""
        text = expand(path)
        return str((self.base / text).absolute()) if (self.base / text).is_file() else text

    def document(self) -> dict[str, Any]:
        """The recipe as the corpus stores it: every setting, without `out`, paths unexpanded; JSON-able."""
        body: dict[str, Any] = json.loads(self.model_dump_json(exclude={"out"}))
        for stored, entry in zip(body["sources"], self.sources, strict=True):
            stored.update(entry.options)
        return body

    def sha256(self) -> str:
        """Hash of `document`."""
        return hashlib.sha256(json.dumps(self.document(), sort_keys=True).encode()).hexdigest()

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Recipe:
        """The recipe of a YAML file. Raises RecipeError: one line, where and what to do."""
        file = Path(path)
        try:
            text = file.read_text(encoding="utf-8")
        except FileNotFoundError:
            raise RecipeError(
                "no such recipe", where=str(file), do="give the path of a YAML file, see `aesampler init`"
            ) from None
        except (OSError, UnicodeDecodeError) as error:
            raise RecipeError(f"cannot be read: {error}", where=str(file)) from error
        return cls.parse(text, base=file.parent, where=str(file))

    @classmethod
    def parse(cls, text: str, *, base: Path = Path(), where: str = "recipe") -> Recipe:
        """The recipe of YAML text, with paths relative to `base`."""
        try:
            body = yaml.load(text, Loader=_UniqueKeys)  # a SafeLoader
        except UNREADABLE as error:
            raise RecipeError(f"not YAML: {error}", where=where) from error
        if not isinstance(body, dict):
            raise RecipeError("a recipe is a mapping of keys", where=where, got=type(body).__name__)
        return cls.of(body, base=base, where=where)

    @classmethod
    def of(cls, body: Mapping[str, Any], *, base: Path = Path(), where: str = "recipe") -> Recipe:
        """The recipe of a parsed mapping (as YAML gives, or `document` stored)."""
        try:
            recipe = cls.model_validate({**body, "base": base})
        except ValidationError as error:
            raise _one_line(error, cls, where) from error
        for place, entry in enumerate(recipe.sources):
            try:
                recipe.settings(entry)
            except ValidationError as error:
                raise _one_line(error, ExposureSettings, f"{where}: sources.{place}.exposure") from error
            try:
                entry.reader  # noqa: B018 (the format and its options are checked now, not in a worker)
            except ValidationError as error:
                raise _one_line(
                    error, sources.load(entry.format), f"{where}: sources.{place}", SourceEntry.OWN
                ) from error
            except RecipeError as error:
                raise type(error)(
                    error.what,
                    where=f"{where}: sources.{place}.format",
                    got=error.got,
                    allowed=error.allowed,
                    do=error.do,
                ) from error
        return recipe


def bundled(name: str) -> str:
    """The text of a recipe that travels with the package, see the folder pipelines."""
    return (_PIPELINES / f"{name}.yaml").read_text(encoding="utf-8")


def starter(format: str) -> str:
    """The text of a recipe for a dataset format, or of another file of pipelines/ by its name (lavida-paper,
    train-tiny); a plain one for a format of another package. What it writes lies beside it.
    """
    if format in {file.name.removesuffix(".yaml") for file in _PIPELINES.iterdir()}:
        return bundled(format).replace("../", "")
    reader = sources.load(format)
    name = re.sub(r"[^a-z0-9]+", "-", format.lower()).strip("-")
    variable = name.replace("-", "_").upper() + "_ROOT"
    return (
        f"# {reader.summary}\n"
        f"name: {name}-ae\n"
        f"out: {name}-ae\n"
        "seed: 44\n"
        "sources:\n"
        f"  - name: {name}\n"
        f"    format: {format}\n"
        f"    root: ${{{variable}}}\n"
    )


def expand(path: str) -> str:
    """`path` with each `${NAME}` replaced from the environment. Raises RecipeError where a name is not set."""

    def value(match: re.Match[str]) -> str:
        name = match.group(1)
        if name not in os.environ:
            raise RecipeError(
                f"the environment variable {name} is not set", where=path, do=f"export {name}=/path/to/it"
            )
        return os.environ[name]

    return re.sub(r"\$\{([A-Za-z_][A-Za-z0-9_]*)\}", value, path)


class _UniqueKeys(yaml.SafeLoader):
    """YAML where a key written twice is an error, not the last one's victory."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen = set()
        for key_node, _ in node.value:
            key = key_node.value
            if key in seen:
                raise yaml.constructor.ConstructorError(
                    None, None, f"the key {key!r} is written twice", key_node.start_mark
                )
            seen.add(key)
        return super().construct_mapping(node, deep)


def _one_line(error: ValidationError, model: type[BaseModel], where: str, also: tuple[str, ...] = ()) -> RecipeError:
    """The first of pydantic's errors as one line of ours, with a did-you-mean for an unknown key."""
    first = error.errors()[0]
    path = [str(part) for part in first["loc"]]
    place = f"{where}: {'.'.join(path)}" if path else where
    if first["type"] == "extra_forbidden":
        known = sorted({*_fields(model, first["loc"][:-1]), *also} - {"base", "options"})
        close = difflib.get_close_matches(path[-1], known, n=1)
        hint = f"did you mean {close[0]!r}?" if close else ""
        return RecipeError(
            f"unknown key {path[-1]!r}",
            where=f"{where}: {'.'.join(path[:-1])}".rstrip(": "),
            allowed=", ".join(known),
            do=hint,
        )
    if first["type"] == "missing":
        return RecipeError("this key is missing", where=place)
    message = str(first["msg"]).removeprefix("Value error, ")
    got = first.get("input")
    return RecipeError(
        message[0].lower() + message[1:],
        where=place,
        got=None if isinstance(got, (dict, list, BaseModel)) else repr(got),
    )


def _fields(model: type[BaseModel], path: tuple[int | str, ...]) -> list[str]:
    """The keys allowed at `path` below `model`."""
    here: Any = model
    for part in path:
        if isinstance(part, int):
            continue
        annotation = here.model_fields[part].annotation if part in here.model_fields else None
        candidates = [annotation, *getattr(annotation, "__args__", ())]
        here = next((c for c in candidates if isinstance(c, type) and issubclass(c, BaseModel)), here)
    return list(here.model_fields)
