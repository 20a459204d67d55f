"""The projector against equations 7 and 8 written out in float64, and against cases worked out by hand."""

from typing import Any

import numpy as np
import pytest
import torch
from pydantic import ValidationError

from lavida.model.projector import Attention, Block, Projector, ProjectorSettings

KINDS = ("two-way", "qformer", "mlp")
SIZES = {"width": 16, "queries": 3, "blocks": 3, "heads": 4, "mlp": 24, "text_heads": 2}
HIDDEN, TEXT, VISION = 10, 6, 8
State = dict[str, np.ndarray]


def projector(kind: str, **changes: Any) -> Projector:
    torch.manual_seed(0)
    made = Projector(ProjectorSettings(kind=kind, **SIZES | changes), hidden=HIDDEN, text=TEXT, vision=VISION)
    for parameter in made.parameters():  # biases and norms too
        torch.nn.init.normal_(parameter, std=0.5)
    return made


def inputs(lists: tuple[int, ...] = (2, 4), frames: tuple[int, ...] = (3, 1)) -> dict[str, torch.Tensor]:
    drawn = torch.Generator().manual_seed(1)
    names = max(lists)
    listed = torch.arange(names) < torch.tensor(lists)[:, None]
    return {
        "said_BH": torch.randn(len(lists), HIDDEN, generator=drawn),
        "text_BNT": torch.randn(len(lists), names, TEXT, generator=drawn) * listed[..., None],
        "listed_BN": listed,
        "image_FChw": torch.randn(sum(frames), VISION, 2, 3, generator=drawn),
        "place_Chw": torch.randn(VISION, 2, 3, generator=drawn),
        "owner_F": torch.repeat_interleave(torch.tensor(frames)),
    }


def linear(state: State, name: str, x: np.ndarray) -> np.ndarray:
    return x @ state[f"{name}.weight"].T + state[f"{name}.bias"]


def norm(state: State, name: str, x: np.ndarray) -> np.ndarray:
    centred = x - x.mean(-1, keepdims=True)
    scaled = centred / np.sqrt((centred**2).mean(-1, keepdims=True) + 1e-5)
    return scaled * state[f"{name}.weight"] + state[f"{name}.bias"]


def attention(state: State, name: str, heads: int, q: np.ndarray, k: np.ndarray, v: np.ndarray) -> np.ndarray:
    q, k, v = (linear(state, f"{name}.{part}", x) for part, x in (("query", q), ("key", k), ("value", v)))
    size = q.shape[1] // heads
    mixed = []
    for head in range(heads):
        part = slice(head * size, (head + 1) * size)
        weight = np.exp(q[:, part] @ k[:, part].T / np.sqrt(size))
        mixed.append(weight / weight.sum(1, keepdims=True) @ v[:, part])
    return linear(state, f"{name}.out", np.concatenate(mixed, axis=1))


def plain(model: Projector, given: dict[str, torch.Tensor]) -> np.ndarray:
    """One frame at a time, no padding, no batches."""
    state = {name: tensor.numpy().astype(np.float64) for name, tensor in model.state_dict().items()}
    settings = model.settings
    rows = []
    for frame, owner in enumerate(given["owner_F"].tolist()):
        h = linear(state, "hidden", given["said_BH"][owner].numpy().astype(np.float64))
        if settings.kind == "mlp":
            rows.append(linear(state, "out.1", np.maximum(h, 0.0)))
            continue
        names = int(given["listed_BN"][owner].sum())
        e = linear(state, "grounding.text", given["text_BNT"][owner, :names].numpy().astype(np.float64))
        image = given["image_FChw"][frame].reshape(VISION, -1).numpy().astype(np.float64).T
        if settings.vision_norm:
            image = norm(state, "grounding.vision_norm", image)
        v = linear(state, "grounding.vision", image + given["place_Chw"].reshape(VISION, -1).numpy().T)
        seen = attention(state, "grounding.attention", settings.text_heads, e, v, v)
        g = linear(state, "grounding.out", norm(state, "grounding.norm", e + seen))
        queries = place = state["queries"]
        keys = key_place = np.concatenate([h[None], g])
        for number in range(settings.blocks):
            at = f"blocks.{number}"
            x = queries + place
            queries = norm(state, f"{at}.norm_itself", queries + attention(state, f"{at}.itself", 4, x, x, queries))
            asked = attention(state, f"{at}.to_keys", 4, queries + place, keys + key_place, keys)
            queries = norm(state, f"{at}.norm_to_keys", queries + asked)
            inner = np.maximum(linear(state, f"{at}.mlp.0", queries), 0.0)
            queries = norm(state, f"{at}.norm_mlp", queries + linear(state, f"{at}.mlp.2", inner))
            if settings.kind == "two-way" and number < settings.blocks - 1:
                told = attention(state, f"{at}.to_queries", 4, keys + key_place, queries + place, queries)
                keys = norm(state, f"{at}.norm_to_queries", keys + told)
        rows.append(linear(state, "out.1", queries.reshape(-1)))
    return np.stack(rows)[:, None]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("vision_norm", [False, True])
def test_equations_7_and_8(kind: str, vision_norm: bool) -> None:
    model, given = projector(kind, vision_norm=vision_norm), inputs()
    with torch.no_grad():
        prompts = model(**given)
    assert prompts.shape == (4, 1, VISION)
    np.testing.assert_allclose(prompts.numpy(), plain(model, given), rtol=2e-5, atol=2e-5)


def test_attention_by_hand() -> None:
    """One head, no projections: scores 0 and 2 / sqrt(4) = 1 weigh the values 1 and e."""
    attend = Attention(4, heads=1, inner=4)
    for part in (attend.query, attend.key, attend.value, attend.out):
        torch.nn.init.eye_(part.weight)
        torch.nn.init.zeros_(part.bias)
    query = torch.tensor([[[1.0, 1.0, 0.0, 0.0]]])
    keys = torch.tensor([[[0.0, 0.0, 1.0, 0.0], [1.0, 1.0, 0.0, 0.0]]])
    values = torch.tensor([[[4.0, 0.0, 0.0, 1.0], [0.0, 8.0, 0.0, 1.0]]])
    low, high = 0.26894142, 0.73105858  # 1 / (1 + e), e / (1 + e)
    expected = torch.tensor([[[4 * low, 8 * high, 0.0, 1.0]]])
    torch.testing.assert_close(attend(query, keys, values), expected)
    first = attend(query, keys, values, torch.tensor([[True, False]]))
    torch.testing.assert_close(first, values[:, :1])


def test_a_block_by_hand() -> None:
    """With every projection zero nothing is added: queries are normalised three times, keys once."""
    block = Block(4, heads=1, mlp=4, two_way=True)
    for name, parameter in block.named_parameters():
        if "norm" not in name:
            torch.nn.init.zeros_(parameter)
    queries = torch.tensor([[[3.0, -3.0, 3.0, -3.0]]])
    keys = torch.tensor([[[0.0, 2.0, 0.0, 2.0], [5.0, 5.0, 5.0, 5.0]]])
    seen = torch.ones(1, 2, dtype=torch.bool)
    new_queries, new_keys = block(queries, keys, queries, keys, seen)
    torch.testing.assert_close(new_queries, torch.tensor([[[1.0, -1.0, 1.0, -1.0]]]), atol=1e-4, rtol=0)
    expected = torch.tensor([[[-1.0, 1.0, -1.0, 1.0], [0.0, 0.0, 0.0, 0.0]]])
    torch.testing.assert_close(new_keys, expected, atol=1e-4, rtol=0)


@pytest.mark.parametrize("kind", ["two-way", "qformer"])
def test_the_order_of_the_list_does_not_matter(kind: str) -> None:
    model, given = projector(kind), inputs(lists=(4,), frames=(2,))
    turned = given | {"text_BNT": given["text_BNT"][:, [2, 0, 3, 1]]}
    torch.testing.assert_close(model(**turned), model(**given), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("kind", ["two-way", "qformer"])
def test_padding_is_not_seen(kind: str) -> None:
    model, given = projector(kind), inputs()
    filled = given["text_BNT"].clone()
    filled[~given["listed_BN"]] = 1e3
    assert torch.equal(model(**given | {"text_BNT": filled}), model(**given))


def test_each_frame_stands_for_itself() -> None:
    model, given = projector("two-way"), inputs(lists=(2,), frames=(3,))
    before = model(**given)
    other = given["image_FChw"].clone()
    other[1] += 1.0
    after = model(**given | {"image_FChw": other})
    torch.testing.assert_close(after[[0, 2]], before[[0, 2]])
    assert not torch.allclose(after[1], before[1], atol=1e-3)


def test_what_each_kind_sees() -> None:
    given = inputs(lists=(2,), frames=(2,))
    for kind in KINDS:
        model = projector(kind)
        before = model(**given)
        for name in ("text_BNT", "image_FChw", "place_Chw"):
            after = model(**given | {name: given[name] + 1.0 + given[name].abs()})
            assert torch.equal(after, before) == (kind == "mlp"), (kind, name)
        assert not torch.equal(model(**given | {"said_BH": given["said_BH"] + 1.0}), before)


@pytest.mark.parametrize("kind", KINDS)
def test_every_parameter_is_reached(kind: str) -> None:
    model = projector(kind)
    (model(**inputs()) ** 2).sum().backward()
    assert [name for name, parameter in model.named_parameters() if parameter.grad is None] == []
    # The bias of a key adds the same to every score, which a softmax does not see.
    still = [name for name, parameter in model.named_parameters() if not parameter.grad.abs().max() > 1e-5]
    assert all(name.endswith("key.bias") for name in still)


@pytest.mark.parametrize(("kind", "parameters"), [("two-way", 52_810_496), ("qformer", 48_078_080), ("mlp", 2_950_144)])
def test_the_papers_sizes(kind: str, parameters: int) -> None:
    with torch.device("meta"):
        model = Projector(ProjectorSettings(kind=kind), hidden=3584, text=512, vision=256)
    assert sum(parameter.numel() for parameter in model.parameters()) == parameters
    if kind == "two-way":
        assert model.queries.shape == (48, 768)
        assert len(model.blocks) == 5
        assert model.grounding.attention.query.weight.shape == (384, 768)
        assert model.out[1].weight.shape == (256, 48 * 768)


@pytest.mark.parametrize(
    "settings", [{"width": 20, "heads": 4}, {"width": 768, "heads": 10}, {"kind": "lora"}, {"q": 1}]
)
def test_settings_that_do_not_fit(settings: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        ProjectorSettings(**settings)
