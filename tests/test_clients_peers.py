"""Clients whose pins clash with ours: Megatron-Energon, mlcroissant, Datumaro and DALI, each run by the interpreter of
`.venv-peers` (`make peers`) in a process of its own, without code of ours; every sample is compared with our reader's.
"""

from __future__ import annotations

import os
import pickle
import shutil
import subprocess
from pathlib import Path
from typing import Any

import corpora
import numpy as np
import pytest
from test_docs import blocks, commands

from aesampler import Corpus, Folder
from aesampler.cli import run
from aesampler.export import export

ROOT = Path(__file__).resolve().parents[1]
BIN = ROOT / ".venv-peers" / "bin"

pytestmark = pytest.mark.long


@pytest.fixture(scope="module", autouse=True)
def peers() -> None:
    if (ROOT / ".venv-peers" / "peers.stamp").exists():
        return
    message = "there is no .venv-peers: `make peers` builds it"
    if os.environ.get("CI"):
        pytest.fail(message)
    pytest.skip(message)


def call(folder: Path, *command: str) -> str:
    """Run a program of the second environment in `folder`."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "VIRTUAL_ENV"))}
    done = subprocess.run(
        [str(BIN / command[0]), *command[1:]], cwd=folder, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-4000:]
    return done.stdout + done.stderr


def told(folder: Path, program: str) -> Any:
    """What a program leaves in `found`, which holds numbers, text and numpy arrays."""
    (folder / "program.py").write_text(f"{program}\nimport pickle\npickle.dump(found, open('found.pickle', 'wb'))\n")
    call(folder, "python", "program.py")
    return pickle.loads((folder / "found.pickle").read_bytes())


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("peers")
    assert run(["demo", "--out", str(folder / "aesampler-demo")]) == 0
    return folder


PREPARED = """
import numpy as np
from megatron.energon import Cooker, DefaultTaskEncoder, Sample, WorkerConfig, basic_sample_keys, edataclass
from megatron.energon import get_loader, get_train_dataset, get_val_dataset, stateless

@edataclass
class Whole(Sample):
    members: dict

@stateless
def cook(sample):
    return Whole(**basic_sample_keys(sample), members={k: v for k, v in sample.items() if not k.startswith("__")})

class Encoder(DefaultTaskEncoder):
    cookers = [Cooker(cook)]

settings = {"worker_config": WorkerConfig(rank=0, world_size=1, num_workers=0), "batch_size": None}
settings |= {"task_encoder": Encoder()}
train = get_train_dataset("copy", shuffle_buffer_size=None, max_samples_per_sequence=None, repeat=False, **settings)
found = []
for dataset in (train, get_val_dataset("copy", **settings)):
    for sample in get_loader(dataset):
        plain = {k: (v * 255).round().byte().numpy() if hasattr(v, "numpy") else v for k, v in sample.members.items()}
        found.append((sample.__key__, plain))
"""


def test_energon(tmp_path: Path) -> None:
    """After its own `energon prepare`, on a copy; pictures and clips, train and validation."""
    corpus = Corpus.open(corpora.write(tmp_path / "corpus"))
    shutil.copytree(tmp_path / "corpus", tmp_path / "copy")
    parts = ["--split-parts", r"train:train/.*\.tar", "--split-parts", r"val:validation/.*\.tar"]
    call(tmp_path, "energon", "prepare", "--non-interactive", "--sample-type", "CrudeWebdataset", *parts, "copy")
    found = told(tmp_path, PREPARED)
    assert sorted(key for key, _ in found) == sorted(corpus.keys())
    for key, members in found:
        sample, body = corpus[key], members["json"]
        assert (body["key"], int(members["cls"])) == (key, int(sample.anomalous))
        assert (body["categories"], body["redraw"]) == (list(sample.categories), sample.redraw)
        assert body["is_genuine"] == list(sample.is_genuine)
        assert body["frame_labels"] == sample.frame_labels.tolist()
        prefixes = [""] if "jpg" in members else [f"{place:03d}." for place in range(len(sample.frames))]
        frames = np.stack([members[f"{prefix}jpg"].transpose(1, 2, 0) for prefix in prefixes])
        assert np.array_equal(frames, sample.frames)
        assert np.array_equal(np.stack([members[f"{p}mask.png"][0] == 255 for p in prefixes]), sample.masks)


def test_the_energon_of_the_docs(demo: Path) -> None:
    (program,), (arguments,) = blocks("Megatron-Energon"), commands("energon")
    shutil.copytree(demo / "aesampler-demo/corpus", demo / "aesampler-demo/energon")
    call(demo, "energon", *arguments)
    both = "(sample.picture * 255).round().byte().numpy(), sample.mask.numpy()"
    kept = f"found = {{sample.__key__: ({both}) for sample in get_loader(dataset)}}"
    found = told(demo, f"{program}\n{kept}")
    corpus = Corpus.open(demo / "aesampler-demo/corpus")
    assert found.keys() == set(corpus.keys("train", "shapes"))
    for key, (picture, mask) in found.items():
        assert np.array_equal(picture.transpose(1, 2, 0), corpus[key].frames[0])
        assert np.array_equal(mask[0] == 1, corpus[key].masks[0])


def plain(value: Any) -> Any:
    """mlcroissant gives text as bytes, and lists as arrays or lists."""
    if isinstance(value, bytes):
        return value.decode()
    return [plain(each) for each in value] if isinstance(value, list | tuple | np.ndarray) else value


def test_mlcroissant(tmp_path: Path) -> None:
    """It validates the file without a word of complaint, and its records are the rows of the manifest."""
    corpus = Corpus.open(corpora.write(tmp_path / "corpus"))
    said = call(tmp_path, "mlcroissant", "validate", "--jsonld", "corpus/croissant.json")
    assert "warning" not in said.lower()
    assert "Done." in said
    found = told(
        tmp_path,
        "import mlcroissant\nfound = list(mlcroissant.Dataset('corpus/croissant.json').records('samples'))",
    )
    rows = list(corpus.rows(status=None))
    assert len(found) == len(rows)
    records = {plain(record["samples/key"]): record for record in found}
    for row in rows:
        for name in row.__slots__:
            value, expected = plain(records[row.key][f"samples/{name}"]), getattr(row, name)
            if name in ("anomaly_area", "ignored_area"):
                assert np.array_equal(np.float32(value), np.float32(expected))
            else:
                assert value == (list(expected) if isinstance(expected, tuple) else expected), name


def test_the_mlcroissant_of_the_docs(demo: Path) -> None:
    (program,) = blocks("mlcroissant")
    kept = "found = [r['samples/key'].decode() for r in dataset.records('samples') if r['samples/status'] == b'ok']"
    found = told(demo, f"{program}\n{kept}")
    assert sorted(found) == sorted(Corpus.open(demo / "aesampler-demo/corpus").keys())


DALI = """
batches = []
fresh = pipeline()
fresh.build()
count = fresh.epoch_size("shapes")
while len(batches) < count:
    pictures, masks, labels = fresh.run()
    batches += [tuple(np.array(part[place]) for part in (pictures, masks, labels)) for place in range(len(labels))]
found = batches[:count]
"""


def test_the_dali_of_the_docs(demo: Path) -> None:
    """Without a GPU, by the exported indexes; it gives samples in the order of the tars."""
    corpus = Corpus.open(demo / "aesampler-demo/corpus")
    export("dali", corpus, Folder.at(demo / "aesampler-demo/dali"))
    (program,) = blocks("NVIDIA DALI")
    found = told(demo, f"import numpy as np\n{program}\n{DALI}")
    rows = list(corpus.rows("train", "shapes"))
    assert len(found) == len(rows)
    for row, (picture, mask, label) in zip(rows, found, strict=True):
        sample = corpus.sample(row)
        assert np.abs(picture.astype(int) - sample.frames[0]).max() <= 2  # another JPEG decoder
        assert np.array_equal(mask[..., 0] == 255, sample.masks[0])
        assert bytes(label) == b"%d" % sample.anomalous


DALI_PARTS = """
import glob
import numpy as np
from nvidia.dali import fn, pipeline_def, types

@pipeline_def(batch_size=4, num_threads=1, device_id=None)
def reader(tars, indexes, pictures, masks):
    parts = fn.readers.webdataset(paths=tars, index_paths=indexes, ext=[*pictures, *masks, "cls"], name="part")
    size = len(pictures)
    shown = [fn.decoders.image(part, device="cpu") for part in parts[:size]]
    grey = [fn.decoders.image(part, device="cpu", output_type=types.GRAY) for part in parts[size : 2 * size]]
    return (*shown, *grey, parts[-1])

found = {}
for part, (pictures, masks) in PARTS.items():
    tars = sorted(glob.glob(f"aesampler-demo/corpus/{part}-0*.tar"))
    indexes = sorted(glob.glob(f"aesampler-demo/dali/{part}-0*.idx"))
    made = reader(tars, indexes, pictures, masks)
    made.build()
    count, samples = made.epoch_size("part"), []
    while len(samples) < count:
        batch = made.run()
        samples += [[np.array(field[place]) for field in batch] for place in range(len(batch[-1]))]
    found[part] = samples[:count]
"""


def test_dali_reads_every_sample(demo: Path) -> None:
    """Pictures and clips of all splits, in the order of the tars."""
    corpus = Corpus.open(demo / "aesampler-demo/corpus")
    export("dali", corpus, Folder.at(demo / "aesampler-demo/dali"))
    parts = {}
    for split in corpus.splits:
        parts[f"{split}/shapes"] = (["jpg"], ["mask.png"])
        clip = [f"{place:03d}" for place in range(8)]
        parts[f"{split}/shapes-clips"] = ([f"{place}.jpg" for place in clip], [f"{place}.mask.png" for place in clip])
    found = told(demo, f"PARTS = {parts!r}\n{DALI_PARTS}")
    seen = 0
    for part, samples in found.items():
        rows = list(corpus.rows(*part.split("/")))
        assert len(samples) == len(rows)
        for row, fields in zip(rows, samples, strict=True):
            sample, size = corpus.sample(row), len(fields) // 2
            pictures, masks = np.stack(fields[:size]), np.stack(fields[size : 2 * size])
            assert np.abs(pictures.astype(int) - sample.frames).max() <= 2  # another JPEG decoder
            assert np.array_equal(masks[..., 0] == 255, sample.masks)
            assert bytes(fields[-1]) == b"%d" % sample.anomalous
        seen += len(rows)
    assert seen == len(corpus)


DATUMARO = """
import datumaro
import numpy as np
found = []
for item in datumaro.Dataset.import_from("coco", format="coco_instances"):
    masks = [a for a in item.annotations if a.type == datumaro.AnnotationType.mask]  # beside each its box
    marks = [(bool(a.attributes["is_crowd"]), np.asarray(a.image, dtype=bool)) for a in masks]
    picture = np.asarray(item.media_as(datumaro.Image).data)[..., ::-1].astype(np.uint8)  # it gives BGR
    found.append((item.subset, item.id, picture, marks))
"""


def test_datumaro(tmp_path: Path) -> None:
    """It reads an export as COCO; ids are the paths of the pictures without their endings."""
    corpus = Corpus.open(corpora.write(tmp_path / "corpus"))
    export("coco", corpus, Folder.at(tmp_path / "coco"))
    found = told(tmp_path, DATUMARO)
    assert len(found) == sum(row.valid_frames for row in corpus.rows())
    seen = set()
    for subset, path, picture, marks in found:
        key, _, place = path.partition("/")
        sample, frame = corpus[key], int(place or 0)
        seen.add((key, frame))
        assert subset == sample.split
        assert np.array_equal(picture, sample.frames[frame])
        for crowd, plane in ((False, sample.masks[frame]), (True, sample.ignored[frame])):
            union = np.zeros_like(plane)
            for flag, mark in marks:
                union |= mark if flag == crowd else False
            assert np.array_equal(union, plane)
    assert len(seen) == len(found)
