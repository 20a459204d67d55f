"""litdata, MosaicML Streaming and Megatron-Energon for stream.py, run by the interpreter of .venv-peers.

Each reads as its manual has it. Energon reads our tars behind an index; the other two read files of their own, written
here of the same members.
"""

from __future__ import annotations

import io
import json
import subprocess
import sys
import tarfile
from collections.abc import Iterator
from pathlib import Path
from shutil import copytree
from typing import Any


def members(root: Path) -> Iterator[dict[str, bytes]]:
    """The files of each sample of the corpus, by extension, in the order of the tars."""
    for path in sorted(root.glob("train/*.tar")):
        with tarfile.open(path) as tar:
            key, found = None, {}
            for member in tar:
                owner, _, extension = member.name.partition(".")
                if owner != key and found:
                    yield found
                    found = {}
                file = tar.extractfile(member)
                assert file is not None
                key, found[extension] = owner, file.read()
            yield found


def arrays(jpg: bytes, mask: bytes, body: bytes) -> tuple[object, object, object]:
    """What loaders of bytes leave to their user."""
    import numpy as np
    from PIL import Image

    picture = np.asarray(Image.open(io.BytesIO(jpg)).convert("RGB"))
    return picture, np.asarray(Image.open(io.BytesIO(mask))) > 0, json.loads(body)


def prepare(name: str, root: Path) -> None:
    """What a peer needs before it can read: files of its own, or an index."""
    place = root.parent / name
    if name == "energon":
        copytree(root, place)
        tool = Path(sys.executable).with_name("energon")
        parts = ["--split-parts", r"train:train/.*\.tar"]
        command = [str(tool), "prepare", "--non-interactive", "--sample-type", "CrudeWebdataset", *parts, str(place)]
        subprocess.run(command, check=True, capture_output=True)
    elif name == "litdata":
        import litdata

        litdata.optimize(fn=_of_all, inputs=[str(root)], output_dir=str(place), chunk_bytes="64MB", num_workers=1)
    elif name == "mosaicml":
        _importable()
        import streaming

        columns = {"jpg": "bytes", "mask": "bytes", "json": "bytes"}
        with streaming.MDSWriter(out=str(place), columns=columns) as writer:
            for sample in members(root):
                writer.write({"jpg": sample["jpg"], "mask": sample["mask.png"], "json": sample["json"]})


def _of_all(root: str) -> Iterator[dict[str, bytes]]:
    for sample in members(Path(root)):
        yield {"jpg": sample["jpg"], "mask": sample["mask.png"], "json": sample["json"]}


_held: list[object] = []  # a library's definitions go with it


def _importable() -> None:
    """Let torchvision be imported beside a CPU build of torch, as aesampler/_torchvision.py does: MosaicML needs it."""
    import torch

    if not torch.cuda.is_available():
        library = torch.library.Library("torchvision", "DEF")
        library.define("nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
        library.define("qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
        _held.append(library)


def litdata(root: Path, *, raw: bool = False, workers: int = 0) -> Iterator[object]:
    import litdata

    def decoded(sample: dict[str, bytes]) -> object:
        return arrays(sample["jpg"], sample["mask"], sample["json"])

    made = litdata.StreamingDataset(str(root.parent / "litdata"), shuffle=True, transform=None if raw else decoded)
    loader = litdata.StreamingDataLoader(made, batch_size=1, num_workers=workers, collate_fn=_alone)
    yield None
    yield from loader if workers else made


def _alone(batch: list[Any]) -> Any:
    return batch[0]


def mosaicml(root: Path, *, raw: bool = False, workers: int = 0) -> Iterator[object]:
    _importable()
    import streaming
    from torch.utils.data import DataLoader

    class Decoded(streaming.StreamingDataset):
        def __getitem__(self, place: int) -> object:
            sample = super().__getitem__(place)
            return sample if raw else arrays(sample["jpg"], sample["mask"], sample["json"])

    made = Decoded(local=str(root.parent / "mosaicml"), shuffle=True, batch_size=1)
    yield None
    yield from DataLoader(made, batch_size=None, num_workers=workers) if workers else made


def energon(root: Path, *, raw: bool = False, workers: int = 0) -> Iterator[object]:
    from _stream_energon import loader

    made = loader(str(root.parent / "energon"), raw=raw, workers=workers)
    yield None
    yield from made


PEERS = {"litdata": litdata, "mosaicml": mosaicml, "energon": energon}
"""Name -> the samples that it reads below a folder, after a first None when it is ready."""
