"""Every error that a person can meet: what happened, where, what was got and allowed, and what to do about it.

An error is one line (`str(error)`) and an exit code; the command line prints the line and nothing else. Code raises the
narrowest class.
"""

from __future__ import annotations

from fractions import Fraction
from typing import ClassVar

import yaml

UNREADABLE = (yaml.YAMLError, ValueError, RecursionError)
"""What PyYAML raises where a text is no YAML, or says a day that no month has, or nests too deep."""


class AesamplerError(Exception):
    """Base of all errors made for people.

    what: one clause, no full stop. where: file, record id, recipe key. got, allowed: values, already short. do: what
    the reader can do next.
    """

    exit_code: ClassVar[int] = 2

    def __init__(self, what: str, *, where: str = "", got: object = None, allowed: object = None, do: str = "") -> None:
        self.what, self.where, self.got, self.allowed, self.do = what, where, got, allowed, do
        super().__init__(what)

    def __str__(self) -> str:
        line = f"{self.where}: {self.what}" if self.where else self.what
        if self.got is not None:
            line += f"; got {self.got}"
        if self.allowed is not None:
            line += f"; allowed: {self.allowed}"
        if self.do:
            line += f"; {self.do}"
        return " ".join(line.split())

    def __reduce__(self) -> tuple[object, ...]:
        # Exceptions cross process borders (Ray): the default reduction knows positional arguments only.
        return _rebuild, (type(self), self.what, self.where, self.got, self.allowed, self.do)


def _rebuild(
    kind: type[AesamplerError], what: str, where: str, got: object, allowed: object, do: str
) -> AesamplerError:
    return kind(what, where=where, got=got, allowed=allowed, do=do)


class RecipeError(AesamplerError):
    """The recipe asks for what cannot be done: an unknown key, a wrong type, a format that does not exist."""


class SourceError(AesamplerError):
    """A dataset on disk is not what its format says: a missing file, an annotation naming an unknown image, a duplicate
    id.
    """


class BadRecord(AesamplerError):
    """One record has a lasting fault of content (unreadable image, impossible mask): counted and named, fatal only
    above the tolerance.
    """


class CorpusError(AesamplerError):
    """A corpus, or the folder meant to hold one, is not what was expected."""


class ModelError(AesamplerError):
    """A model cannot be had or used as asked: missing weights, a wrong hub name, a prompt longer than its context."""


class TrainingError(AesamplerError):
    """A training run cannot go on: a loss that is no number, no memory left, a checkpoint that is damaged or of another
    run.
    """

    exit_code = 3


class DetectorError(AesamplerError):
    """A detector is asked for what it cannot do: an unknown name or option, frames that are none, no categories."""


class MetricError(AesamplerError):
    """A metric has no value: a score that is NaN, labels of one class only, lengths that differ."""


class LockedError(CorpusError):
    """Another build is writing into the same folder."""


class StorageError(AesamplerError):
    """Reading or writing failed for a reason that may pass (disk full, network): nothing was half written, the work can
    go on later.
    """

    exit_code = 3

    @classmethod
    def of(cls, error: Exception) -> StorageError:
        """The StorageError of an OSError; one that is a StorageError already is given back."""
        if isinstance(error, cls):
            return error
        what = getattr(error, "strerror", None) or str(error) or type(error).__name__
        return cls(
            f"reading or writing failed: {what}",
            where=str(getattr(error, "filename", None) or ""),
            do="what is finished is kept: mend the cause and run the same command again",
        )


class ToleranceError(AesamplerError):
    """More records failed than the recipe tolerates, see `tolerated`."""

    exit_code = 3


def tolerated(share: float, samples: int) -> int:
    """How many of so many samples may fail: the share as it is written, 0.29 of 100 being 29."""
    return int(Fraction(str(share)) * samples)


class WorkerError(AesamplerError):
    """Workers were lost again and again; where it is known, the record that kills them is named."""

    exit_code = 3


class MissingExtra(AesamplerError):
    """An optional package is needed and not installed; the message names the extra that brings it."""

    def __init__(self, what: str, *, where: str = "", got: object = None, allowed: object = None, do: str = "") -> None:
        super().__init__(what, where=where, got=got, allowed=allowed, do=do)

    @classmethod
    def of(cls, package: str, extra: str) -> MissingExtra:
        """The error for `package`, which `pip install aesampler[extra]` brings."""
        return cls(f"this needs the package {package}, which is not installed", do=f"pip install 'aesampler[{extra}]'")
