"""CLIP similarity against plain numpy, with a tiny random model whose weights lie in a file; nothing is fetched."""

import hashlib
import itertools
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import worlds

from aesampler import Corpus, Folder, Inline, Recipe, Scene, _torchvision, build_corpus, plan_corpus, similarity
from aesampler.errors import MissingExtra, RecipeError, StorageError
from aesampler.exposure import SimilaritySettings

NAMES = ("red circle", "red square", "blue circle", "person", "man", "potted plant", "tv")
TINY = {
    "embed_dim": 24,
    "vision_cfg": {"image_size": 32, "layers": 1, "width": 64, "patch_size": 16},
    "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 32, "heads": 4, "layers": 2},
}


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    import torch

    _torchvision.importable()
    import open_clip
    from open_clip import factory

    folder = tmp_path_factory.mktemp("clip")
    (folder / "tiny-clip.json").write_text(json.dumps(TINY))
    open_clip.add_model_config(folder / "tiny-clip.json")
    torch.manual_seed(0)
    model = open_clip.create_model("tiny-clip")
    for tensor in model.state_dict().values():
        if tensor.ndim > 1:
            torch.nn.init.normal_(tensor, std=0.2)
    torch.save(model.state_dict(), folder / "tiny.pt")
    yield folder / "tiny.pt"
    factory._MODEL_CONFIGS.pop("tiny-clip")
    factory._MODEL_CONFIG_PATHS.remove(folder / "tiny-clip.json")


def _settings(pretrained: object, reject_above: float = 0.5, model: str = "tiny-clip") -> SimilaritySettings:
    return SimilaritySettings(model=model, pretrained=str(pretrained), reject_above=reject_above)


def _layer_norm(x: np.ndarray, state: dict[str, np.ndarray], name: str) -> np.ndarray:
    centred = x - x.mean(-1, keepdims=True)
    return (
        centred / np.sqrt((centred**2).mean(-1, keepdims=True) + 1e-5) * state[f"{name}.weight"] + state[f"{name}.bias"]
    )


def _plain_features(tokens: np.ndarray, state: dict[str, np.ndarray], heads: int) -> np.ndarray:
    """CLIP's text tower in float64, one prompt at a time, written from its description."""
    from scipy.special import erf, softmax

    features = []
    for row in tokens:
        x = state["token_embedding.weight"][row] + state["positional_embedding"]
        length, width = x.shape
        hidden = np.triu(np.full((length, length), -np.inf), 1)
        for layer in range(TINY["text_cfg"]["layers"]):
            block = f"transformer.resblocks.{layer}"
            inner = _layer_norm(x, state, f"{block}.ln_1")
            q, k, v = np.split(
                inner @ state[f"{block}.attn.in_proj_weight"].T + state[f"{block}.attn.in_proj_bias"], 3, -1
            )
            mixed = np.empty_like(x)
            for head in range(heads):
                part = slice(head * width // heads, (head + 1) * width // heads)
                scores = q[:, part] @ k[:, part].T / np.sqrt(width / heads) + hidden
                mixed[:, part] = softmax(scores, axis=-1) @ v[:, part]
            x = x + mixed @ state[f"{block}.attn.out_proj.weight"].T + state[f"{block}.attn.out_proj.bias"]
            inner = _layer_norm(x, state, f"{block}.ln_2")
            inner = inner @ state[f"{block}.mlp.c_fc.weight"].T + state[f"{block}.mlp.c_fc.bias"]
            inner = 0.5 * inner * (1.0 + erf(inner / np.sqrt(2.0)))
            x = x + inner @ state[f"{block}.mlp.c_proj.weight"].T + state[f"{block}.mlp.c_proj.bias"]
        x = _layer_norm(x, state, "ln_final")
        features.append(x[int(row.argmax())] @ state["text_projection"])
    stacked = np.stack(features)
    return stacked / np.linalg.norm(stacked, axis=1, keepdims=True)


def test_near_is_the_cosine_of_the_text_tower(weights: Path) -> None:
    import open_clip
    import torch

    state = {name: tensor.double().numpy() for name, tensor in torch.load(weights, weights_only=True).items()}
    tokens = open_clip.SimpleTokenizer()([f"a photo of a {name}" for name in NAMES]).numpy()
    features = _plain_features(tokens, state, heads=4)
    np.testing.assert_allclose(similarity.encode(NAMES, _settings(weights)), features, atol=1e-5)
    cosines = features @ features.T
    between = np.sort(cosines[np.triu_indices(len(NAMES), 1)])
    for low, high in itertools.pairwise(between):
        threshold = (low + high) / 2
        if high - low > 1e-4:
            expected = tuple(
                frozenset(other for j, other in enumerate(NAMES) if j != i and cosines[i, j] > threshold)
                for i in range(len(NAMES))
            )
            assert similarity.near(NAMES, _settings(weights, float(threshold))) == expected


def test_those_alike_are_the_most_similar_that_are_not_near(weights: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    features = similarity.encode(NAMES, _settings(weights)).astype(float)
    cosines = features @ features.T
    threshold = float(np.median(cosines[np.triu_indices(len(NAMES), 1)]))
    monkeypatch.setattr(similarity, "ALIKE", 2)
    near, alike = similarity.neighbours(NAMES, _settings(weights, threshold))
    for i, name in enumerate(NAMES):
        far = [j for j in np.argsort(-cosines[i]) if NAMES[j] not in near[i] | {name}]
        assert alike[i] == {NAMES[j] for j in far[:2]}


def _look(weights: Path, shown_above: float) -> SimilaritySettings:
    return _settings(weights).model_copy(update={"shown_above": shown_above})


def _frames() -> list[np.ndarray]:
    """Frames of several sizes, with something in them."""
    random = np.random.default_rng(0)
    return [
        random.integers(0, 256, (height, width, 3), dtype=np.uint8) for height, width in ((20, 31), (64, 32), (9, 9))
    ]


def test_the_gaze_is_the_cosine_of_both_towers(weights: Path) -> None:
    """Against open_clip's own way from a picture to its features."""
    import open_clip
    import torch
    from PIL import Image

    model, _, prepared = open_clip.create_model_and_transforms("tiny-clip", str(weights), weights_only=True)
    model.eval()
    with torch.no_grad():
        pictures = torch.stack([prepared(Image.fromarray(frame)) for frame in _frames()])
        seen = model.encode_image(pictures, normalize=True).numpy()
        said = model.encode_text(
            open_clip.SimpleTokenizer()([f"a photo of a {name}" for name in NAMES]), normalize=True
        )
    gaze = similarity.Gaze(NAMES, _look(weights, 0.0))
    np.testing.assert_allclose(gaze.cosine(_frames()), seen @ said.numpy().T, atol=1e-5)


def test_a_name_is_shown_where_one_frame_is_above(weights: Path) -> None:
    cosine = similarity.Gaze(NAMES, _look(weights, 0.0)).cosine(_frames())
    best = np.sort(cosine.max(axis=0))
    for low, high in itertools.pairwise(best):
        between = float(low + high) / 2
        shown = similarity.Gaze(NAMES, _look(weights, between)).shown(_frames())
        assert shown == {name for name, most in zip(NAMES, cosine.max(axis=0), strict=True) if most > between}


def test_what_is_shown_is_not_drawn_and_stays_with_the_sample(weights: Path, tmp_path: Path) -> None:
    """A build by LVIS, which does not know of most names whether they are there."""
    worlds.lvis(tmp_path / "lvis", images=12)
    recipe = {
        "name": "seen",
        "sources": [{"name": "lvis", "format": "lvis", "root": "lvis", "split": "train"}],
        "exposure": {"absence": "unlisted"},
    }
    corpora: dict[str, Corpus] = {}
    above = None
    for name in ("blind", "seeing"):
        similar = {"model": "tiny-clip", "pretrained": str(weights), "reject_above": 1.0, "shown_above": above}
        path = tmp_path / f"{name}.yaml"
        path.write_text(json.dumps(recipe | {"exposure": {"absence": "unlisted", "similarity": similar}}))
        plan = plan_corpus(Recipe.load(path))
        assert ("torch" in plan.tools()) == (name == "seeing")
        looked = {"weights": hashlib.sha256(weights.read_bytes()).hexdigest()} if name == "seeing" else {}
        assert plan.inputs()["lvis/train"].items() >= looked.items()
        assert ("weights" in plan.inputs()["lvis/train"]) == (name == "seeing")
        build_corpus(plan, Folder.at(tmp_path / name), Inline())
        corpora[name] = Corpus.open(tmp_path / name)
        names = tuple(entry.name for entry in corpora[name].vocabulary("lvis").names)
        frames = [sample.frames[0] for sample in corpora[name].stream("train")]
        above = above or float(np.median(similarity.Gaze(names, _look(weights, 0.0)).cosine(frames)))
    assert "shown" not in corpora["blind"].head.rejections
    assert corpora["seeing"].head.rejections["shown"].total > 0
    gaze = similarity.Gaze(names, _look(weights, above))
    unknown = 0
    for row in corpora["seeing"].rows():
        sample = corpora["seeing"][row.key]
        assert sample.scene.shown == gaze.shown(list(sample.frames))
        for listed, genuine, presence in zip(row.categories, row.is_genuine, row.presence, strict=True):
            assert genuine or presence == "absent" or listed not in sample.scene.shown
            unknown += presence == "unknown"
    assert unknown
    assert all(Scene.from_json(sample.redraw).shown == frozenset() for sample in corpora["blind"].stream("train"))
    drawn = {sample.key: sample.categories for sample in corpora["seeing"].stream("train", resample=True)}
    assert drawn == {row.key: tuple(row.categories) for row in corpora["seeing"].rows()}


def test_near_does_not_depend_on_batches(weights: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = similarity.encode(NAMES, _settings(weights))
    monkeypatch.setattr(similarity, "BATCH", 3)
    np.testing.assert_allclose(similarity.encode(NAMES, _settings(weights)), whole, atol=1e-6)
    assert whole.dtype == np.float32


def test_extreme_thresholds(weights: Path) -> None:
    everything = similarity.near(NAMES, _settings(weights, -1.0))
    assert everything == tuple(frozenset(NAMES) - {name} for name in NAMES)
    assert similarity.near(NAMES, _settings(weights, 1.0)) == (frozenset(),) * len(NAMES)
    assert similarity.near((), _settings(weights)) == ()


def test_safetensors_give_the_same(weights: Path, tmp_path: Path) -> None:
    import torch
    from safetensors.torch import save_file

    save_file(torch.load(weights, weights_only=True), tmp_path / "tiny.safetensors")
    same = similarity.encode(NAMES, _settings(tmp_path / "tiny.safetensors"))
    np.testing.assert_array_equal(same, similarity.encode(NAMES, _settings(weights)))


def test_a_relative_path_that_spells_a_tag_is_a_file(
    weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("openai").write_bytes(weights.read_bytes())
    assert similarity.near(NAMES, _settings("openai", -1.0))[0]


def test_errors_say_what_to_do(weights: Path, tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="did you mean 'tiny-clip'"):
        similarity.near(NAMES, _settings(weights, model="tiny-clop"))
    with pytest.raises(RecipeError, match=r"no such weights file.*download the weights of ViT-B-32"):
        similarity.near(NAMES, _settings(tmp_path / "none.pt", model="ViT-B-32"))
    (tmp_path / "text.pt").write_text("not weights")
    with pytest.raises(RecipeError, match="do not load into tiny-clip"):
        similarity.near(NAMES, _settings(tmp_path / "text.pt"))


def test_weights_that_would_execute_are_refused(weights: Path, tmp_path: Path) -> None:
    import torch

    class Trap:
        def __reduce__(self) -> tuple[object, ...]:
            return Path.touch, (tmp_path / "sprung",)

    torch.save({"state_dict": {"logit_scale": Trap()}}, tmp_path / "trap.pt")
    with pytest.raises(RecipeError, match="pickled objects are refused"):
        similarity.near(NAMES, _settings(tmp_path / "trap.pt"))
    assert not (tmp_path / "sprung").exists()


def test_weights_of_another_model_are_refused(weights: Path, tmp_path: Path) -> None:
    import torch

    state = torch.load(weights, weights_only=True)
    state["text_projection"] = state["text_projection"][:, :8]
    torch.save(state, tmp_path / "narrow.pt")
    with pytest.raises(RecipeError, match="do not load into tiny-clip"):
        similarity.near(NAMES, _settings(tmp_path / "narrow.pt"))


def test_a_tag_that_cannot_be_fetched_is_a_storage_error(weights: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import open_clip

    def offline(*args: object, **keywords: object) -> None:
        raise RuntimeError("Failed to download weights: no network")

    monkeypatch.setattr(open_clip, "create_model", offline)
    with pytest.raises(StorageError, match="give the file's path"):
        similarity.near(NAMES, _settings("openai", model="ViT-B-32"))


def test_without_open_clip_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "open_clip", None)
    with pytest.raises(MissingExtra, match=r"aesampler\[clip\]"):
        similarity.near(NAMES, _settings("none.pt"))


def test_importing_the_module_imports_no_torch() -> None:
    code = "import sys, aesampler.similarity, aesampler._torchvision; print({'torch', 'open_clip'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=300)
    assert done.stdout.strip() == "set()"


def test_torchvision_imports_in_a_fresh_process() -> None:
    code = (
        "from aesampler import _torchvision; _torchvision.importable(); _torchvision.importable();"
        "import torchvision;"
        "assert bool(_torchvision._declared) == (not torchvision.extension._has_ops())"
    )
    subprocess.run([sys.executable, "-W", "error", "-c", code], check=True, capture_output=True, timeout=300)


def test_a_torchvision_that_does_not_fit_a_gpu_build_is_not_hidden(monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    def broken(name: str) -> None:
        raise RuntimeError("operator torchvision::nms does not exist")

    monkeypatch.delitem(sys.modules, "torchvision", raising=False)
    monkeypatch.setattr(_torchvision.importlib, "import_module", broken)
    monkeypatch.setattr(torch.version, "cuda", "13.0")
    with pytest.raises(RuntimeError, match="torchvision::nms"):
        _torchvision.importable()
