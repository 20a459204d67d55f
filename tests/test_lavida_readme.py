"""What trainer/README.md says is true: its commands parse, its recipes are there, its arithmetic adds up for the models
that it speaks of.
"""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

from lavida.cli import cli
from lavida.training import assignment, load_config

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "trainer/README.md").read_text(encoding="utf-8")


def lines() -> list[list[str]]:
    """The words of every line of the bash blocks."""
    blocks = re.findall(r"^```bash\n(.*?)^```", README, flags=re.MULTILINE | re.DOTALL)
    return [shlex.split(line, comments=True) for block in blocks for line in block.splitlines()]


def after(*begin: str) -> list[list[str]]:
    """What follows `begin` in every line that holds it."""
    found = []
    for words in lines():
        places = [place for place in range(len(words)) if tuple(words[place : place + len(begin)]) == begin]
        found += [words[place + len(begin) :] for place in places]
    return found


@pytest.mark.parametrize("arguments", after("lavida", "train"), ids=" ".join)
def test_a_command_is_one(arguments: list[str]) -> None:
    parsed = cli.commands["train"].make_context("train", arguments).params
    config = load_config(ROOT / parsed["config"], dict(assignment(change) for change in parsed["changes"]))
    assert config.steps > 0


@pytest.mark.parametrize("arguments", after("torchrun"), ids=" ".join)
def test_torchrun_takes_its_options(arguments: list[str]) -> None:
    from torch.distributed.run import parse_args

    numbers = [word.replace("$SLURM_NNODES", "2") for word in arguments]
    parsed = parse_args(numbers)
    assert parsed.module
    assert parsed.training_script == "lavida"
    assert parsed.nproc_per_node == "8"


def count(name: str) -> list[float]:
    """Billions of weights, trained and frozen, in the row of the table that begins with `name`."""
    (row,) = re.findall(rf"^\| {re.escape(name)}.*$", README, flags=re.MULTILINE)
    return [float(cell.strip() or 0) for cell in row.split("|")[2:4]]


def test_the_weights_are_counted_right() -> None:
    """The classes themselves, built without memory, in the sizes of the published models."""
    import torch

    from aesampler._torchvision import importable

    importable()
    from transformers import Qwen2VLConfig, Qwen2VLForConditionalGeneration, Sam2Config, Sam2Model, Sam2VisionConfig
    from transformers.models.sam2.configuration_sam2 import Sam2HieraDetConfig

    from lavida.model.projector import Projector, ProjectorSettings

    text = {"hidden_size": 3584, "num_hidden_layers": 28, "num_attention_heads": 28, "num_key_value_heads": 4}
    text |= {"intermediate_size": 18944, "vocab_size": 152064}
    vision = {"depth": 32, "embed_dim": 1280, "hidden_size": 3584, "num_heads": 16, "patch_size": 14}
    backbone = Sam2HieraDetConfig(blocks_per_stage=[1, 2, 11, 2], global_attention_blocks=[7, 10, 13])
    config = Qwen2VLConfig(text_config=text, vision_config=vision, tie_word_embeddings=False)
    with torch.device("meta"):
        mllm = Qwen2VLForConditionalGeneration(config)
        sam = Sam2Model(Sam2Config(vision_config=Sam2VisionConfig(backbone_config=backbone)))
        projector = Projector(ProjectorSettings(), hidden=3584, text=512, vision=256)

    def billions(*modules: torch.nn.Module) -> float:
        return sum(weight.numel() for module in modules for weight in module.parameters()) / 1e9

    language = mllm.model.language_model
    lora = 28 * 8 * ((3584 + 3584) + (3584 + 512)) / 1e9
    assert count("language model") == pytest.approx([lora, billions(language.layers)], abs=5e-4)
    assert count("its embeddings")[0] == pytest.approx(billions(language.embed_tokens, mllm.lm_head), abs=5e-4)
    assert count("its vision tower")[1] == pytest.approx(billions(mllm.model.visual), abs=5e-4)
    assert count("projector")[0] == pytest.approx(billions(projector), abs=5e-4)
    assert count("SAM 2") == pytest.approx([billions(sam.mask_decoder), billions(sam.vision_encoder)], abs=5e-4)
    rows = ("language model", "its embeddings", "its vision tower", "projector", "SAM 2", "CLIP")
    sums = [sum(column) for column in zip(*map(count, rows), strict=True)]
    assert count("sum") == pytest.approx(sums, abs=2e-3)
    trained, frozen = count("sum")
    for said in (f"{frozen * 2:.1f} GB", f"{trained * 16:.1f} GB", f"{trained * 4:.1f} GB", f"{trained * 12:.1f} GB"):
        assert said in README


def test_every_path_it_names_is_there() -> None:
    for target in re.findall(r"\]\(([^)]+)\)", README):
        assert (ROOT / "trainer" / target).exists(), target
    for recipe in re.findall(r"pipelines/[\w-]+\.yaml", README):
        assert (ROOT / recipe).exists(), recipe
