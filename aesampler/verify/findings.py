"""What is looked for in a corpus, and what was found."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import msgspec

SHOWN = 50
"""Problems of one check that are told one by one; the others are counted."""

CHECKS = {
    "head": "corpus.json is the sum of the manifests",
    "manifests": "each Parquet has the recorded bytes and sha256 and says the same of its tar",
    "tars": "each tar has the recorded bytes, sha256 and samples",
    "offsets": "reading by offset and size gives what reading through gives",
    "members": "the members of each sample are those of its kind, in order, and K.json and K.cls say what the row says",
    "pictures": "each picture is of the stated encoding and size",
    "masks": "each mask is 8-bit grey of 0 and 255, as large as the picture, and its pixels are those of the row",
    "labels": "labels, frame labels and marks follow from the masks and the list",
    "keys": "keys are well formed, and unique in the whole corpus",
    "groups": "no group lies in two splits, unless the recipe allows it",
    "vocabulary": "each source has its vocabulary, which holds every listed name",
    "card": "README.md and croissant.json are those of corpus.json",
    "draws": "the exposure, drawn again from what is stored, is the one that is stored",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    """One thing that is wrong: which check found it, where, and what it is."""

    check: str
    where: str
    what: str

    def __str__(self) -> str:
        return f"{self.where}: {self.what}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """What one check looked at. about: what holds if it found nothing. looked: at how many things; found: problems."""

    name: str
    about: str
    looked: int
    found: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """What `verify` found. problems: at most `SHOWN` a check. warnings: files that do not belong to the corpus."""

    corpus: str
    deep: bool
    samples: int
    checks: tuple[Check, ...]
    problems: tuple[Problem, ...]
    warnings: tuple[Problem, ...]

    @property
    def ok(self) -> bool:
        """Whether nothing is wrong; a warning is not wrong."""
        return not self.problems

    @property
    def line(self) -> str:
        """The verdict in a line."""
        found = sum(check.found for check in self.checks)
        state = "nothing is wrong" if self.ok else f"{found:,} problem{'s' if found > 1 else ''}"
        ran = sum(check.looked > 0 for check in self.checks)
        foreign = f"; {len(self.warnings)} files do not belong to it" if self.warnings else ""
        return f"{self.corpus}: {self.samples:,} samples, {ran} checks{', deep' if self.deep else ''}: {state}{foreign}"

    def to_json(self) -> dict[str, Any]:
        """The verdict as a JSON-able mapping."""
        told: dict[str, Any] = msgspec.to_builtins(self)
        return {"ok": self.ok} | told


@dataclass(slots=True)
class Findings:
    """What the checks have looked at, and the problems, as they go."""

    looked: dict[str, int] = field(default_factory=lambda: dict.fromkeys(CHECKS, 0))
    found: dict[str, int] = field(default_factory=lambda: dict.fromkeys(CHECKS, 0))
    problems: list[Problem] = field(default_factory=list)

    def look(self, check: str, where: str, *wrong: str | None) -> None:
        """Count a look; each of `wrong` that is not None is a problem."""
        self.looked[check] += 1
        for what in wrong:
            if what is not None:
                self.found[check] += 1
                if self.found[check] <= SHOWN:
                    self.problems.append(Problem(check=check, where=where, what=" ".join(what.split())))


def differs(name: str, got: object, stated: object) -> str:
    """One thing in place of another, in words."""
    return f"{name} is {_short(got)}, {_short(stated)} is stated"


def _short(value: object) -> str:
    text = str(value)
    return text if len(text) <= 100 else f"{text[:97]}..."
