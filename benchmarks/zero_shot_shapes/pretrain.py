"""What the paper takes ready-made, taught from the seen combinations: text-to-pixel grounding.

LAVIDA stands on CLIP, SAM 2 and an MLLM that have seen the world; a model from scratch has not, and the paper's loss
alone teaches it nothing in minutes. This stage takes their place. It shows a frame and ALL texts at once, each with its
own mask, so one picture gives 54 answers. The texts are the 40 seen names and their 14 words ("circle": all circles):

    dense      e'_n . v_p: does position p of F show text n                               (CLIP's part: text and pixels)
    attention  of eq. 7: text n looks where it is shown; where it is not, at what shows nothing
    presence   a Linear on G_n (eq. 7): does the frame show text n                       (CLIP's part: text and picture)
    prompted   a Linear on G_n as the prompt: the mask of text n, and whether it is there (SAM 2's part)

Three things decide whether it learns (frame AUC of lists of one and of up to eight):

- Whoever sees colours only has .89 and .69, whoever sees shapes only .88 and .65. Colours take a minute; a first study
  stopped there, at .80-.86 and .63-.65. Shapes need an encoder that starts with weights scaled to its width (`start`),
  attention over the whole picture at stride 8 already (an object does not end where a window does), and Muon.
- A shape word asked of everything teaches that no red thing is a star, since no training picture shows one: on the
  unseen combinations 5 % of shapes were then recognised (chance: 17 %), with .66 and .57 in the end. So a word is not
  asked of what would make a combination that the corpus never shows: that is unknown, not absent (`UNHEARD`). Then
  60 % of their shapes are recognised.
- Words alone and colourless frames (asked for colourless texts) teach shape apart from colour.

It trains the text tower, the image encoder, the grounding of the projector and the mask decoder; then what the paper
freezes is frozen again, the three heads are thrown away, and the paper's training (train.py) begins. No name outside
the seen ones, no clip of the test is looked at. The MLLM stays random.

Shapes: F frames, N names, P = h w positions of F, D width of the projector, S side in pixels.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.nn import functional

from aesampler import Corpus, masks
from aesampler.demo.shapes import COLOURS
from aesampler.rng import generator
from aesampler.sample import Sample
from benchmarks.zero_shot_shapes.world import SEEN
from lavida.model import LavidaModel
from lavida.model.projector import Attention
from lavida.training import loss

PARTS = ("vision_encoder", "text_encoder", "projector", "prompt_encoder", "mask_decoder")
WORDS = tuple(dict.fromkeys(word for name in SEEN for word in name.split()))
TEXTS = (*SEEN, *WORDS)
SHOWN_BY = torch.tensor([[float(set(text.split()) <= set(name.split())) for name in SEEN] for text in TEXTS])
COLOURLESS = torch.tensor([float(not set(text.split()) & set(COLOURS)) for text in TEXTS])


def _unheard(text: str, name: str) -> float:
    look, shape = name.split()
    others = {f"{text} {shape}" for each in SEEN if each.startswith(f"{text} ")}
    others |= {f"{look} {text}" for each in SEEN if each.endswith(f" {text}")}
    return float(" " not in text and not others <= set(SEEN))


UNHEARD = torch.tensor([[_unheard(text, name) for name in SEEN] for text in TEXTS])
"""Of each text and name, whether the text is a word that with a word of the name makes a combination that the corpus
does not have: nobody has told whether a thing of that name could be called so too.
"""
PICTURES = 0.8  # of the frames of a batch, at least
ENOUGH = 0.25  # of a position's pixels, to say that it shows a name
MEAN, STD = (torch.tensor(v)[:, None, None] for v in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))


@dataclass(frozen=True, slots=True, kw_only=True)
class PretrainSettings:
    """steps of `batch` frames each. lr: highest learning rate. dense, attention, presence, prompted: weights of the
    terms; of a single word's, times `words`.

    asked: texts for which a mask is asked of each frame, from the share `prompted_from` of the steps on; the first is
    one that the frame shows. grey: share of batches without colour. muon: see `_optimizers`.
    """

    steps: int = 6400
    batch: int = 24
    lr: float = 3e-3
    warmup: int = 100
    dense: float = 1.0
    attention: float = 0.1
    presence: float = 0.2
    prompted: float = 1.0
    words: float = 2.0
    asked: int = 2
    grey: float = 0.3
    prompted_from: float = 0.35
    muon: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class Frames:
    """All frames of a split, the pictures first. pixels: uint8 [n, S, S, 3]. index: uint8 [n, S, S], 1 + the place of
    the name in SEEN. pictures: how many are pictures.
    """

    pixels: npt.NDArray[np.uint8]
    index: npt.NDArray[np.uint8]
    pictures: int

    @classmethod
    def of(cls, samples: list[Sample]) -> Frames:
        """The frames of `samples`, with what every name's segments show, crowds too."""
        samples = sorted(samples, key=lambda sample: len(sample.frames) > 1)
        planes = [_index(sample, frame) for sample in samples for frame in range(sample.valid_frames)]
        pixels = [sample.frames[frame] for sample in samples for frame in range(sample.valid_frames)]
        pictures = sum(len(sample.frames) == 1 for sample in samples)
        return cls(pixels=np.stack(pixels), index=np.stack(planes), pictures=pictures)


def _index(sample: Sample, frame: int) -> npt.NDArray[np.uint8]:
    scene = sample.scene
    plane = np.zeros((scene.height, scene.width), np.uint8)
    for tracks in (scene.ignored, scene.segments):
        for name, track in tracks.items():
            if (counts := track[frame]) is not None:
                plane[masks.decode(counts, scene.height, scene.width)] = 1 + SEEN.index(name)
    return plane


def samples_of(corpus: Corpus, split: str) -> list[Sample]:
    """Every sample of a split, in the order of the corpus."""
    return list(corpus.stream(split, shuffle=False))


def normalised(pixels: npt.NDArray[np.uint8]) -> Tensor:
    """Frames as the segmenter takes them, float32 [F, 3, S, S]."""
    return (torch.from_numpy(np.ascontiguousarray(pixels)).permute(0, 3, 1, 2).float() / 255 - MEAN) / STD


class Teacher(nn.Module):
    """The three heads, which live for this stage only, and their loss."""

    def __init__(self, model: LavidaModel, settings: PretrainSettings) -> None:
        super().__init__()
        self.settings = settings
        width = model.config.projector.width
        self.weights = torch.where(torch.arange(len(TEXTS)) < len(SEEN), 1.0, settings.words)
        self.scale = nn.Parameter(torch.tensor(1.0))
        self.bias = nn.Parameter(torch.tensor(-4.0))
        self.presence = nn.Linear(width, 1)
        self.prompt = nn.Linear(width, model.segmenter.width)

    def forward(
        self, model: LavidaModel, pixels: Tensor, index: Tensor, asked: Tensor, grey: bool, prompted: bool
    ) -> Tensor:
        """The terms of a batch, float32 [4]. pixels: [F, 3, S, S]; index: int64 [F, S, S]; asked: int64 [F, n]."""
        features = model.encode_frames(pixels)
        cover_FNP = coverage(index, features.image.shape[-1])
        text_1NT, _ = model.text([TEXTS])
        ground = model.projector.grounding
        text_1ND, image_FPD = ground.project(text_1NT, features.image, features.place)
        dense = text_1ND[0] @ image_FPD.transpose(1, 2) / text_1ND.shape[-1] ** 0.5 * self.scale + self.bias
        attended = _attended(ground.attention, text_1ND, image_FPD, cover_FNP)
        owner = torch.zeros(len(pixels), dtype=torch.int64)
        ground_FND = ground(text_1NT, features.image, features.place, owner)
        shown_FN = (cover_FNP > 0).any(-1).float()
        entropy = functional.binary_cross_entropy_with_logits
        weights = self.weights * COLOURLESS if grey else self.weights
        known_FNP = (cover_FNP > 0) | (UNHEARD @ cover_FNP[:, : len(SEEN)] == 0)
        known_FN = shown_FN.bool() | known_FNP.all(-1)
        terms = [
            (weights @ (entropy(dense, (cover_FNP / ENOUGH).clamp(max=1), reduction="none") * known_FNP)).mean(),
            ((attended * known_FN) @ weights).mean(),
            ((entropy(self.presence(ground_FND)[..., 0], shown_FN, reduction="none") * known_FN) @ weights).mean(),
        ]
        if prompted and not grey:
            order = torch.arange(len(pixels)).repeat_interleave(asked.shape[1])
            names = asked.flatten()
            sure = known_FN[order, names]
            found = model.segmenter.decode(features.repeat(order), self.prompt(ground_FND[order, names])[:, None])
            terms.append(_prompted(found.masks, found.iou, found.objects, shown(index[order], names), sure))
        else:
            terms.append(torch.zeros(()))
        return torch.stack(terms)


def coverage(index_FSS: Tensor, positions: int) -> Tensor:
    """The share of each position's pixels that show each of TEXTS: float32 [F, N, P]."""
    frames, side, _ = index_FSS.shape
    cell = side // positions
    cells_FPK = index_FSS.view(frames, positions, cell, positions, cell).transpose(2, 3).reshape(frames, -1, cell**2)
    counts_FPN = torch.zeros(frames, cells_FPK.shape[1], 1 + len(SEEN))
    counts_FPN.scatter_add_(2, cells_FPK, torch.ones(1).expand_as(cells_FPK))
    return SHOWN_BY @ counts_FPN[..., 1:].transpose(1, 2) / cell**2


def _attended(attention: Attention, text_1ND: Tensor, image_FPD: Tensor, cover_FNP: Tensor) -> Tensor:
    """Cross-entropy of where each text looks, in each head of eq. 7, against where it should: float32 [F, N].

    That is at the positions that show it; where none does, at the positions that show nothing. So what the attention
    brings back tells by itself whether the text is there, for a combination of known words like for a known one.
    """

    def split(x: Tensor) -> Tensor:
        return x.unflatten(-1, (attention.heads, -1)).transpose(-3, -2)

    query_1HNE, key_FHPE = split(attention.query(text_1ND)), split(attention.key(image_FPD))
    logits_FHNP = query_1HNE @ key_FHPE.transpose(-1, -2) / query_1HNE.shape[-1] ** 0.5
    empty_F1P = (1.0 - cover_FNP[:, : len(SEEN)].sum(1, keepdim=True)).clamp(min=0.0) ** 2 + 1e-4
    wanted_FNP = torch.where((cover_FNP > 0).any(-1, keepdim=True), cover_FNP, empty_F1P)
    wanted_FNP = wanted_FNP / wanted_FNP.sum(-1, keepdim=True)
    return -(wanted_FNP[:, None] * logits_FHNP.log_softmax(-1)).sum(-1).mean(1)


def shown(index_FSS: Tensor, texts_F: Tensor) -> Tensor:
    """The pixels that show a text, another one in each frame: bool [F, S, S]."""
    showing_FC = functional.pad(SHOWN_BY[texts_F] > 0, (1, 0))
    return showing_FC.gather(1, index_FSS.flatten(1)).view(index_FSS.shape)


def _prompted(logits: Tensor, iou: Tensor, objects: Tensor, shown_FSS: Tensor, sure_F: Tensor) -> Tensor:
    """The paper's mask and object terms, each text of each frame for itself."""
    settings = loss.LossSettings()
    cell = shown_FSS.shape[-1] // logits.shape[-1]
    small = functional.avg_pool2d(shown_FSS[:, None].float(), cell)[:, 0] >= 0.5
    there = shown_FSS.flatten(1).any(1)
    drawn = small.flatten(1).any(1)
    seen = torch.ones_like(small[drawn])
    focal, dice, error = loss.mask_terms(logits[drawn], iou[drawn], small[drawn], seen, settings)
    best = (settings.focal * focal + settings.dice * dice).detach().argmin(1, keepdim=True)
    mask = settings.focal * focal.gather(1, best) + settings.dice * dice.gather(1, best)
    score = functional.binary_cross_entropy_with_logits(objects, there.float(), sure_F.float(), reduction="sum")
    return (mask.sum() + settings.iou * error.mean(1).sum() + settings.object * score) / len(objects)


def start(model: LavidaModel, seed: int) -> None:
    """Draw the segmenter's first weights for its width, in place.

    transformers draws every weight of SAM 2 with a deviation of .02, and its positions as zeros, as suits widths of a
    thousand and weights that are loaded anyway. At a width of 64 a layer then passes on a tenth of what it is given,
    and nothing knows where it is: colours are learned in a minute, shapes not in five.
    """
    sam = model.segmenter.sam
    draw = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for part in (sam.vision_encoder, sam.mask_decoder):
            for module in part.modules():
                if isinstance(module, nn.Linear | nn.Conv2d | nn.ConvTranspose2d):
                    turned = isinstance(module, nn.ConvTranspose2d)
                    inputs = module.weight.shape[0] if turned else module.weight[0].numel()
                    module.weight.normal_(0.0, inputs**-0.5, generator=draw)
        backbone = sam.vision_encoder.backbone
        for place in (backbone.pos_embed, backbone.pos_embed_window):
            place.normal_(0.0, 0.5, generator=draw)


def pretrain(
    model: LavidaModel,
    frames: Frames,
    settings: PretrainSettings,
    *,
    seed: int,
    after: Callable[[int, npt.NDArray[np.float64], Teacher], None] | None = None,
) -> Teacher:
    """Teach a model that has been through `start` its parts from `frames`; after(step, terms, heads) follows each."""
    parts = PARTS if settings.prompted else PARTS[:3]
    model.train_only(parts)
    # A vocabulary of 49,408 words of which fourteen occur: its random vectors are as good as any.
    model.text.clip.model.token_embedding.weight.requires_grad_(False)
    torch.manual_seed(seed)
    teacher = Teacher(model, settings)
    learned = [*model.trained_parameters().values(), *teacher.parameters()]
    optimizers = _optimizers(learned, settings)
    weights = torch.tensor([settings.dense, settings.attention, settings.presence, settings.prompted])
    model.train()
    for step, batch in enumerate(_batches(frames, settings, seed)):
        rate = min((step + 1) / settings.warmup, (settings.steps - step) / settings.steps)
        for optimizer in optimizers:
            for group in optimizer.param_groups:
                group["lr"] = settings.lr * rate
        terms = teacher(model, *batch, settings.prompted > 0 and step >= settings.prompted_from * settings.steps)
        (terms * weights).sum().backward()
        torch.nn.utils.clip_grad_norm_(learned, 1.0)
        for optimizer in optimizers:
            optimizer.step()
            optimizer.zero_grad()
        if after is not None:
            after(step + 1, terms.detach().numpy().astype(np.float64), teacher)
    return teacher


def _optimizers(learned: list[nn.Parameter], settings: PretrainSettings) -> list[torch.optim.Optimizer]:
    """Muon for matrices, AdamW for the rest."""
    if not settings.muon:
        return [torch.optim.AdamW(learned, lr=settings.lr, weight_decay=0.05, betas=(0.9, 0.95))]
    matrices = [each for each in learned if each.dim() == 2]
    others = [each for each in learned if each.dim() != 2]
    return [
        torch.optim.Muon(matrices, lr=settings.lr, weight_decay=0.1, adjust_lr_fn="match_rms_adamw"),
        torch.optim.AdamW(others, lr=settings.lr, weight_decay=0.0, betas=(0.9, 0.95)),
    ]


def _batches(frames: Frames, settings: PretrainSettings, seed: int) -> Iterator[tuple[Tensor, Tensor, Tensor, bool]]:
    """Frames in a keyed order, with the texts asked for; half of the batches mirrored (no text knows left from right),
    a share without colours, whose frames are asked for what has none.
    """
    for step in range(settings.steps):
        random = generator(seed, "zero-shot-shapes", "pretrain", step)
        rows = _rows(frames, settings.batch, random)
        pixels, index = frames.pixels[rows], frames.index[rows]
        if random.random() < 0.5:
            pixels, index = pixels[:, :, ::-1], index[:, :, ::-1]
        asked = np.stack([_asked(plane, settings.asked, random) for plane in index])
        grey = bool(random.random() < settings.grey)
        if grey:
            mix = random.random(3)
            pixels = np.repeat((pixels @ (mix / mix.sum()))[..., None], 3, axis=-1)
        yield normalised(pixels), torch.from_numpy(index.astype(np.int64)), torch.from_numpy(asked), grey


def _rows(frames: Frames, count: int, random: np.random.Generator) -> npt.NDArray[np.int64]:
    """Frames, mostly pictures: those of a clip show little that its others do not."""
    pictures = random.random(count) < PICTURES
    places = random.random(count)
    return np.where(pictures, places * frames.pictures, places * len(frames.pixels)).astype(np.int64)


def _asked(plane: npt.NDArray[np.uint8], count: int, random: np.random.Generator) -> npt.NDArray[np.int64]:
    """`count` places in TEXTS: one of a name or word that the frame shows, then any."""
    there = np.bincount(plane.ravel(), minlength=1 + len(SEEN))[1:] > 0
    showing = np.flatnonzero(SHOWN_BY.numpy() @ there)
    texts = (random.random(count) * len(TEXTS)).astype(np.int64)
    if len(showing):
        texts[0] = showing[int(random.random() * len(showing))]
    return texts
