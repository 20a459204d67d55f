"""Every node of a cluster shows, before anything is rendered, that it sees what this machine sees; see `node.py`.

A node answers in a task of its own, and writes its answer into OUT too: a folder of that name may be another one there.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from aesampler.errors import AesamplerError, StorageError, WorkerError
from aesampler.executors import node, session
from aesampler.executors.node import Fault, View

# After session.py, which prepares this import.
# isort: split
import ray
from ray.exceptions import RayError, RayTaskError

NODE_ANSWERS_S = 180.0
"""How long a node may take to answer; before the first answer it unpacks the code and imports it."""


def survey(view: View) -> None:
    """Ask all nodes that may work. Raises StorageError naming the node and the path that it does not see, WorkerError
    naming the node and the tool.
    """
    nodes = [entry for entry in session.nodes() if entry["Alive"] and entry["Resources"].get("CPU", 0) >= 1]
    _ask(nodes, _importer(), None, _import_error)
    try:
        _ask(nodes, _look, view, fault)
        for entry in nodes:
            _require_answer(entry, view)
    finally:
        for entry in nodes:
            view.out.remove(_answer(entry, view))


def fault(name: str, faults: Sequence[Fault]) -> AesamplerError:
    """The first of a node's faults, as an error of its kind. name: the node's."""
    first = faults[0]
    more = f" (and {len(faults) - 1} more)" if len(faults) > 1 else ""
    if first.is_path:
        return StorageError(f"does not see {first.where}: it {first.what}{more}", where=name, do=first.do)
    return WorkerError(f"{first.where} {first.what}{more}", where=name, do=first.do)


def _ask(
    nodes: Sequence[Mapping[str, Any]],
    question: Callable[[View | None], Any],
    view: View | None,
    explain: Callable[[str, Any], AesamplerError],
) -> None:
    """Ask all nodes at once; raise what the first answer that is not empty means. A node lost meanwhile is left out."""
    asked = ray.remote(num_cpus=0, max_retries=0)(question)
    refs = {asked.options(scheduling_strategy=session.on(entry["NodeID"])).remote(view): entry for entry in nodes}
    _, silent = ray.wait(list(refs), num_returns=len(refs), timeout=NODE_ANSWERS_S)
    for ref, entry in refs.items():
        if ref in silent:
            raise WorkerError(
                f"no answer within {NODE_ANSWERS_S:.0f} s",
                where=session.called(entry),
                do="mend it, or take it out of the cluster",
            )
        try:
            answer = ray.get(ref)
        except RayTaskError as error:
            raise error.cause from error
        except RayError as error:
            if session.alive(entry["NodeID"]):
                what = f"no worker starts: {session.line(error)}"
                raise WorkerError(what, where=session.called(entry)) from error
            continue
        if answer:
            raise explain(session.called(entry), answer)


def _importer() -> Callable[[View | None], str]:
    """A function that travels as itself: it finds out whether what workers run can be imported where it arrives."""

    def imports(view: View | None) -> str:
        try:
            import aesampler.executors.cluster  # noqa: F401
        except ImportError as error:
            return str(error)
        return ""

    return imports


def _import_error(name: str, answer: str) -> AesamplerError:
    return WorkerError(f"a package is missing: {answer}", where=name, do="install what aesampler needs on every node")


def _look(view: View | None) -> tuple[Fault, ...]:
    """What this node sees otherwise; one that sees all writes its answer into OUT."""
    assert view is not None
    faults = tuple(view.faults())
    if not faults:
        try:
            view.answer(session.here())
        except (AesamplerError, OSError) as error:
            return (Fault(where=view.out.url, what=f"cannot be written: {error}", do=node.MOUNT),)
    return faults


def _answer(entry: Mapping[str, Any], view: View) -> str:
    """Where a node writes its answer, below OUT."""
    return f"{view.probe}-{entry['NodeID']}"


def _require_answer(entry: Mapping[str, Any], view: View) -> None:
    """Raise StorageError where a node's answer is not in OUT: what it sees there is another folder."""
    if not view.out.exists(_answer(entry, view)) and session.alive(entry["NodeID"]):
        what = "is another folder there: what that node writes is not here"
        raise fault(session.called(entry), (Fault(where=view.out.url, what=what, do=node.MOUNT),))
