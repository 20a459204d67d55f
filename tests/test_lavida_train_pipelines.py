"""The runs that travel with the package: each loads, the 7B is the paper's, the ablations move what the tables do."""

from __future__ import annotations

import json
import subprocess
import sys
import sysconfig
from importlib import resources
from pathlib import Path

import pytest
import yaml

from aesampler.errors import RecipeError
from lavida.training import TrainConfig, assignment, load_config, load_grid
from lavida.training.config import changed

PIPELINES = Path(str(resources.files("aesampler") / "pipelines"))
RUNS = ("train-tiny", "train-lavida-7b")
ABLATIONS = {
    "category-cap": ("data.resample.max_categories", [10, 20, 30, 40]),
    "compression": ("model.mllm.ratio", [0.1, 0.2, 0.3, 0.5, 0.7, 1.0]),
    "projector": ("model.projector.kind", ["two-way", "mlp", "qformer"]),
    "queries": ("model.projector.queries", [24, 32, 48, 64]),
}


def test_no_run_is_forgotten() -> None:
    here = {path.stem for path in PIPELINES.glob("train-*.yaml")}
    assert here == {*RUNS, *(f"train-ablation-{name}" for name in ABLATIONS)}


@pytest.mark.parametrize("name", RUNS)
def test_a_run_loads(name: str) -> None:
    config = load_config(PIPELINES / f"{name}.yaml")
    assert f"train-{config.name}" == name or config.name == name
    assert TrainConfig.of(config.model_dump(mode="json")).identity() == config.identity()


def test_the_setting_of_the_paper() -> None:
    config = load_config(PIPELINES / "train-lavida-7b.yaml")
    model, loss, optimizer = config.model, config.loss, config.optimizer
    assert model.mllm.model == "Qwen/Qwen2-VL-7B-Instruct"
    assert model.mllm.lora is not None
    assert (model.mllm.lora.rank, model.mllm.lora.alpha, model.mllm.lora.dropout) == (8, 16, 0.05)
    assert tuple(model.mllm.lora.targets) == ("q_proj", "v_proj")
    assert model.mllm.ratio == 0.5
    assert (model.projector.kind, model.projector.width, model.projector.queries) == ("two-way", 768, 48)
    assert (model.projector.blocks, model.projector.heads, model.projector.mlp) == (5, 12, 2048)
    assert model.trained == ("lora", "lm_head", "embeddings", "projector", "prompt_encoder", "mask_decoder")
    assert model.inputs.train_tokens == (256, 512)
    assert loss.weights == (20.0, 2.0, 1.0, 2.0, 1.0)
    assert (loss.alpha, loss.gamma) == (0.25, 2.0)
    assert (optimizer.lr, optimizer.warmup, optimizer.clip) == (1e-5, 100, 1.0)
    assert (model.dtype, config.parallel.activation_checkpointing) == ("bfloat16", True)
    # 8 epochs of 2000 micro-steps, 2 samples a GPU, accumulation 2.
    assert config.batch.micro(8) == 2
    assert config.batch.size // (8 * config.batch.micro(8)) == 2
    assert config.steps * 2 == 8 * 2000
    assert config.data.epoch_samples == 2000 * 2 * 8
    # Its lists are the corpus's own, which never hold one name alone; our default's may.
    assert config.data.resample is True
    assert config.data.weights == "recipe"
    assert load_config(PIPELINES / "train-tiny.yaml").data.resample == {"irrelevant_count": [0, 1_000_000]}


@pytest.mark.parametrize("name", ABLATIONS)
def test_an_ablation_moves_one_thing(name: str) -> None:
    key, values = ABLATIONS[name]
    rows = load_grid(PIPELINES / f"train-ablation-{name}.yaml", {"steps": 5})
    base = load_config(PIPELINES / "train-lavida-7b.yaml").identity()
    assert [row.changes for row in rows] == [{key: value} for value in values]
    assert len({row.config.folder for row in rows}) == len(values)
    for row, value in zip(rows, values, strict=True):
        assert row.config.steps == 5
        assert row.name == f"{key.rpartition('.')[2]}={value}"
        moved = {path for path, held in row.config.identity().items() if base.get(path, "none") != held}
        assert moved - {"steps"} <= {key}


def test_several_keys_make_a_product(tmp_path: Path) -> None:
    (tmp_path / "base.yaml").write_text("{name: base, out: runs, steps: 1, data: {corpora: c}}")
    (tmp_path / "grid.yaml").write_text("{base: base.yaml, grid: {optimizer.lr: [1.0e-4, 1e-5], steps: [2, 3]}}")
    rows = load_grid(tmp_path / "grid.yaml")
    assert [(row.config.optimizer.lr, row.config.steps) for row in rows] == [(1e-4, 2), (1e-4, 3), (1e-5, 2), (1e-5, 3)]
    assert rows[1].config.folder == tmp_path / "runs/lr=0.0001,steps=3"


def test_changes_from_outside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CORPORA", "/somewhere")
    path = tmp_path / "t.yaml"
    path.write_text('{name: a, out: o, steps: 1, seed: 9, data: {corpora: "${CORPORA}/c", resample: true}}')
    sets = ["data.resample.max_categories=20", "optimizer.lr=1e-4", "validation=null", "model.inputs.seed=1"]
    config = load_config(path, dict(map(assignment, sets)))
    assert config.data.corpora == ("/somewhere/c",)
    assert config.data.resample == {"max_categories": 20}
    assert config.optimizer.lr == 1e-4
    assert config.validation is None
    assert (config.model.seed, config.model.inputs.seed) == (9, 1)
    assert config.folder == tmp_path / "o"


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (
            {"optimizer.lrr": 1},
            "t.yaml: optimizer: unknown key 'lrr'; allowed: betas, clip, eps, lr, "
            "warmup, weight_decay; did you mean 'lr'?",
        ),
        ({"stepss": 1}, "t.yaml: unknown key 'stepss'"),
        ({"model.mllm.raito": 1}, "did you mean 'ratio'?"),
        ({"steps": 0}, "t.yaml: steps: input should be greater than or equal to 1; got 0"),
        ({"data": {}}, "t.yaml: data.corpora: this key is missing"),
        ({"out": "${NO_SUCH_NAME}/x"}, "the environment variable NO_SUCH_NAME is not set"),
        ({"validation.lists.one.longest": 0}, "validation.lists.one.longest"),
        ({"name": "A B"}, "t.yaml: name: string should match"),
    ],
)
def test_what_is_wrong_is_said_in_a_line(tmp_path: Path, change: dict[str, object], said: str) -> None:
    path = tmp_path / "t.yaml"
    path.write_text(json.dumps({"name": "a", "out": "o", "steps": 1, "data": {"corpora": "c"}}))
    with pytest.raises(RecipeError) as raised:
        load_config(path, change)
    assert said in str(raised.value)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("- a", "a run is a mapping of keys"),
        ("a: [", "not YAML"),
        ("{steps: 1, steps: 2}", "'steps' is written twice"),
        (None, "no such file"),
    ],
)
def test_what_is_no_run(tmp_path: Path, text: str | None, said: str) -> None:
    path = tmp_path / "t.yaml"
    if text is not None:
        path.write_text(text)
    with pytest.raises(RecipeError, match=said):
        load_config(path)


@pytest.mark.parametrize(
    "text",
    [
        "{base: t.yaml}",
        "{base: t.yaml, grid: {}}",
        "{base: t.yaml, grid: {steps: 3}}",
        "{base: t.yaml, grid: {steps: []}}",
    ],
)
def test_what_is_no_ablation(tmp_path: Path, text: str) -> None:
    (tmp_path / "t.yaml").write_text("{name: a, out: o, steps: 1, data: {corpora: c}}")
    (tmp_path / "grid.yaml").write_text(text)
    with pytest.raises(RecipeError, match="ablation"):
        load_grid(tmp_path / "grid.yaml")


@pytest.mark.parametrize("text", ["a", "=1", "a b=1", "a.=1", "a=[1"])
def test_what_sets_nothing(text: str) -> None:
    with pytest.raises(RecipeError, match="--set"):
        assignment(text)


def test_a_change_leaves_the_rest() -> None:
    document = {"a": {"b": 1, "c": 2}, "d": True}
    assert changed(document, {"a.b": 3, "d.e": 4}) == {"a": {"b": 3, "c": 2}, "d": {"e": 4}}
    assert document == {"a": {"b": 1, "c": 2}, "d": True}
    assert assignment("a.b=1e-4") == ("a.b", 1e-4)
    assert assignment("a=[1, x]") == ("a", [1, "x"])
    assert yaml.safe_load("1e-4") == "1e-4"  # which is why


@pytest.mark.long
def test_the_tiny_run_runs(tmp_path: Path) -> None:
    """As its first lines say, in a few minutes on one core."""
    scripts = Path(sysconfig.get_path("scripts"))
    demo = [str(scripts / "aesampler"), "demo", "--out", str(tmp_path / "demo")]
    subprocess.run(demo, check=True, capture_output=True, timeout=300)
    changes = [f"data.corpora={tmp_path / 'demo/corpus'}", f"out={tmp_path / 'run'}"]
    command = [sys.executable, "-m", "lavida", "train", "--config", str(PIPELINES / "train-tiny.yaml"), "--json"]
    done = subprocess.run(
        [*command, *(word for change in changes for word in ("--set", change))],
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert told["steps"] == 60
    assert 0 < told["metrics"]["frame_auc"] < 1
    lines = [json.loads(line) for line in (tmp_path / "run/metrics.jsonl").read_text().splitlines()]
    found = [line["text"] for line in lines if line["kind"] == "train"]
    assert found[-1] < 0.7 * found[0]  # it learns the answers' sentences, at least
    assert (tmp_path / "run/model/config.json").is_file()
