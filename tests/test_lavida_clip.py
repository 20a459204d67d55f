"""lavida.clip against open_clip itself, with tiny random models; nothing is fetched."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from aesampler import _torchvision
from aesampler.errors import ModelError

_torchvision.importable()
import open_clip  # noqa: E402

from lavida.clip import CONFIG, TINY, WEIGHTS, Clip  # noqa: E402

NAMES = ("red circle", "blue square", "a person lying on the ground", "tv")


@pytest.fixture(scope="module")
def clip() -> Clip:
    return Clip.tiny(3)


@pytest.fixture(scope="module")
def folder(clip: Clip, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("clip") / "tiny"
    clip.save(folder)
    return folder


@pytest.fixture
def offline(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)


def test_text_is_what_open_clip_says(clip: Clip, folder: Path) -> None:
    theirs = open_clip.create_model(f"local-dir:{folder}").eval()
    tokens = open_clip.get_tokenizer(f"local-dir:{folder}")(list(NAMES))
    with torch.no_grad():
        expected = theirs.encode_text(tokens, normalize=True)
    found = clip.text(NAMES)
    assert found.dtype == torch.float32
    assert not found.requires_grad
    torch.testing.assert_close(found, expected)
    torch.testing.assert_close(found.norm(dim=1), torch.ones(4))
    assert len({tuple(row) for row in found.tolist()}) == 4


def test_pictures_are_what_open_clip_says(clip: Clip, folder: Path) -> None:
    from PIL import Image

    drawn = np.random.default_rng(0)
    pictures = [drawn.integers(0, 256, (height, 50, 3), dtype=np.uint8) for height in (32, 70)]
    theirs, _, prepare = open_clip.create_model_and_transforms(f"local-dir:{folder}")
    with torch.no_grad():
        batch = torch.stack([prepare(Image.fromarray(each)) for each in pictures])
        expected = theirs.eval().encode_image(batch, normalize=True)
    torch.testing.assert_close(clip.images(pictures), expected)


def test_nothing_gives_nothing(clip: Clip) -> None:
    assert clip.text([]).shape == (0, 32)
    assert clip.images([]).shape == (0, 32)


def test_a_saved_model_is_loaded_again(clip: Clip, folder: Path) -> None:
    again = Clip.load(str(folder))
    assert (again.width, again.image_size) == (clip.width, clip.image_size) == (32, 32)
    assert torch.equal(again.text(NAMES), clip.text(NAMES))
    prefixed = Clip.load(f"local-dir:{folder}", images=False)
    assert torch.equal(prefixed.text(NAMES), clip.text(NAMES))


def test_saving_twice_gives_the_same_bytes(clip: Clip, folder: Path, tmp_path: Path) -> None:
    Clip.load(str(folder)).save(tmp_path)
    for name in (CONFIG, WEIGHTS):
        assert (tmp_path / name).read_bytes() == (folder / name).read_bytes()


def test_text_alone_drops_the_picture_tower(folder: Path) -> None:
    clip = Clip.load(str(folder), images=False)
    assert not any(name.startswith("model.visual") for name, _ in clip.named_parameters())
    with pytest.raises(ModelError, match="loaded for text alone"):
        clip.images([np.zeros((4, 4, 3), dtype=np.uint8)])


def test_the_seed_alone_draws_a_tiny_model() -> None:
    torch.manual_seed(5)
    before = torch.random.get_rng_state()
    first = Clip.tiny(7).text(NAMES)
    assert torch.equal(torch.random.get_rng_state(), before)
    torch.manual_seed(6)
    assert torch.equal(Clip.tiny(7).text(NAMES), first)
    assert not torch.equal(Clip.tiny(8).text(NAMES), first)


def test_a_gradient_reaches_the_text_tower_where_it_is_asked(clip: Clip) -> None:
    vectors = clip.encode(NAMES)
    assert vectors.requires_grad
    assert torch.equal(vectors.detach(), clip.text(NAMES))


@pytest.fixture
def architecture(tmp_path: Path) -> Iterator[str]:
    from open_clip import factory

    file = tmp_path / "tiny-lavida.json"
    file.write_text(json.dumps(dict(TINY)))
    open_clip.add_model_config(file)
    yield "tiny-lavida"
    factory._MODEL_CONFIGS.pop("tiny-lavida")
    factory._MODEL_CONFIG_PATHS.remove(file)


def test_an_architecture_with_a_file_of_weights(architecture: str, clip: Clip, folder: Path, tmp_path: Path) -> None:
    loaded = Clip.load(architecture, str(folder / WEIGHTS))
    assert torch.equal(loaded.text(NAMES), clip.text(NAMES))
    torch.save(clip.model.state_dict(), tmp_path / "weights.pt")
    assert torch.equal(Clip.load(architecture, str(tmp_path / "weights.pt")).text(NAMES), clip.text(NAMES))


class _Trap:
    def __reduce__(self) -> Any:
        return Path.touch, (Path("executed"),)


def test_weights_are_never_unpickled(architecture: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    torch.save({"state_dict": _Trap()}, tmp_path / "trap.pt")
    with pytest.raises(ModelError, match="pickled objects are refused"):
        Clip.load(architecture, str(tmp_path / "trap.pt"))
    assert not Path("executed").exists()


@pytest.mark.parametrize(
    ("model", "pretrained", "line"),
    [
        ("ViT-B-32", None, r"text.pretrained of ViT-B-32: no weights named; allowed: a file, or openai, .* \.\.\.; do"),
        ("ViT-B-32", "openia", "no such weights file, nor an open_clip tag of this model; got openia"),
        ("ViT-B32", None, "got ViT-B32; did you mean 'ViT-B-32'"),
        ("/no/such/folder", None, "neither a folder, nor an architecture"),
        ("./no/folder", None, "neither a folder, nor an architecture"),
        ("org/not-in-the-cache", None, "org/not-in-the-cache: the weights of this CLIP cannot be loaded"),
    ],
)
@pytest.mark.usefixtures("offline")
def test_what_cannot_be_had_is_one_line(model: str, pretrained: str | None, line: str) -> None:
    with pytest.raises(ModelError, match=line) as caught:
        Clip.load(model, pretrained)
    assert "\n" not in str(caught.value)


def test_folders_that_do_not_do(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"no open_clip_config.json in this folder"):
        Clip.load(str(tmp_path))
    (tmp_path / CONFIG).write_bytes((folder / CONFIG).read_bytes())
    with pytest.raises(ModelError, match="the weights of this CLIP cannot be loaded: Required pretrained weights"):
        Clip.load(str(tmp_path))
    other = Clip.tiny(0, width=16)
    (tmp_path / WEIGHTS).unlink(missing_ok=True)
    other.save(tmp_path / "other")
    (tmp_path / WEIGHTS).write_bytes((tmp_path / "other" / WEIGHTS).read_bytes())
    with pytest.raises(ModelError, match="the weights of this CLIP cannot be loaded: text pos_embed width"):
        Clip.load(str(tmp_path))


def test_without_weights_the_modules_are_there(folder: Path, tmp_path: Path, clip: Clip) -> None:
    clip.save(tmp_path, weights=False)
    assert sorted(path.name for path in tmp_path.iterdir()) == [CONFIG]
    blank = Clip.load(str(tmp_path), weights=False)
    blank.load_state_dict(clip.state_dict())
    assert torch.equal(blank.text(NAMES), clip.text(NAMES))


def test_weights_of_openai_get_their_activation(monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    asked: dict[str, Any] = {}
    made = Clip.load(str(folder)).model

    def create(name: str, source: str, **options: Any) -> Any:
        asked.update(options, name=name, source=source)
        return made

    monkeypatch.setattr(open_clip, "create_model", create)
    loaded = Clip.load("ViT-B-32", "openai")
    assert asked["force_quick_gelu"] is True
    assert loaded.config["model_cfg"]["quick_gelu"] is True
    Clip.load("ViT-B-32", "laion2b_s34b_b79k")
    assert asked["force_quick_gelu"] is False


@pytest.mark.parametrize(("tag", "told"), [("openai", "a file with ViT-B-32-quickgelu;"), ("laion2b_e16", "a file;")])
def test_a_file_in_place_of_a_tag_keeps_its_activation(monkeypatch: pytest.MonkeyPatch, tag: str, told: str) -> None:
    def offline(*_: Any, **__: Any) -> Any:
        raise RuntimeError("Failed to download weights")

    monkeypatch.setattr(open_clip, "create_model", offline)
    with pytest.raises(ModelError, match=f"give a folder, or {told}"):
        Clip.load("ViT-B-32", tag)


def test_it_is_always_in_evaluation_mode() -> None:
    assert not any(module.training for module in Clip.tiny().train().modules())


def test_a_tokenizer_of_the_hub_travels_with_the_model(clip: Clip, tmp_path: Path, folder: Path) -> None:
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    words = {"<pad>": 0, "<unk>": 1, "red": 2, "circle": 3, "tv": 4}
    made = Tokenizer(models.WordLevel(words, unk_token="<unk>"))
    made.pre_tokenizer = pre_tokenizers.Whitespace()
    source = tmp_path / "source"
    clip.save(source)
    PreTrainedTokenizerFast(tokenizer_object=made, pad_token="<pad>", unk_token="<unk>").save_pretrained(source)
    config = json.loads((source / CONFIG).read_text())
    config["model_cfg"]["text_cfg"]["hf_tokenizer_name"] = "org/its-tokenizer"
    (source / CONFIG).write_text(json.dumps(config))
    loaded = Clip.load(str(source))
    assert loaded.tokenizer(["red circle"])[0, :3].tolist() == [2, 3, 0]
    loaded.save(tmp_path / "saved")
    again = Clip.load(str(tmp_path / "saved"))
    assert torch.equal(again.text(["red circle", "tv"]), loaded.text(["red circle", "tv"]))
    assert not torch.equal(again.text(["red circle"]), clip.text(["red circle"]))
