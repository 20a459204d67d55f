"""Memory and time of a training step of the MLLM against the compression ratio, at a fixed shape.

    python benchmarks/compress.py [--shape 7b | scaled] [--ratios 1 0.5 0.2 0.1] [--checkpointing] [--json]

The shape 7b is Qwen2-VL-7B with random weights: 8 frames of 512 visual tokens each (4,096 of a clip; two frames share
their tokens, so a pair has 1,024), a batch of 2 clips, about 100 tokens of text; scaled is a model of 4 layers of 256
with 576 visual tokens of a clip, for a CPU. With a GPU 7b is measured; without one scaled is, and 7b is counted.

Measured: forward, compression included, backward and AdamW's step, as LAVIDA trains: LoRA, embeddings and head in
float32, the rest in bfloat16 on a GPU. Every ratio is a process of its own. Total: the highest point of a step, above
an interpreter that has imported all. Activations: how far forward and backward rise above what lies there before
(weights, gradients, AdamW's moments).

Counted: the language model is run on torch's device "meta", which has shapes and no numbers, and what autograd keeps
for the backward pass is added up, with attention's own of a fused kernel (q, k, v, the output and one number a row);
to it come weights, gradients and moments, and the gradients within one MLP block, with which the highest point is
reached. Checkpointed, a layer keeps its input, and one layer at a time all of its own.

7b, counted: 71.3 GiB at 1.0 (42.0 of them activations), 50.8 at 0.5 (71 %), 38.5 at 0.2 (54.0 %; the paper: 54.1 %),
34.4 at 0.1 (48 %). Checkpointed, 33.3 GiB at 1.0 and 30.2 at 0.2: what is left then are weights and AdamW's moments.
scaled, measured on a CPU: at 0.2 activations fall to 31 %, the total to 65 %.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

GIB = 2**30
RATIOS = (1.0, 0.5, 0.2, 0.1)
TARGET = 0.541
"""The paper's share of memory at a ratio of 0.2."""


@dataclass(frozen=True, kw_only=True)
class Shape:
    """sizes: of `TinyMllm`. rows: of embeddings and head, 0 for as many as there are tokens. pair: visual tokens of two
    frames.
    """

    sizes: dict[str, int]
    rows: int
    pair: int
    frames: int = 8
    batch: int = 2


SHAPES = {
    "7b": Shape(
        sizes={
            "hidden": 3584,
            "layers": 28,
            "heads": 28,
            "kv_heads": 4,
            "mlp": 18944,
            "context": 32768,
            "vision_width": 1280,
            "vision_layers": 32,
            "vision_heads": 16,
        },
        rows=152_064,
        pair=1024,
    ),
    "scaled": Shape(
        sizes={
            "hidden": 512,
            "layers": 6,
            "heads": 8,
            "kv_heads": 2,
            "mlp": 2048,
            "context": 8192,
            "vision_width": 64,
            "vision_layers": 2,
            "vision_heads": 2,
        },
        rows=0,
        pair=144,
    ),
}


def model_of(shape: Shape, device: str, dtype: Any, layers: int | None = None) -> Any:
    """An MLLM of a shape with random weights, what is trained in float32."""
    import torch

    from lavida.model.mllm import LoraSettings, Mllm
    from lavida.model.mllm_tiny import TinyMllm, tiny_config, tiny_processor
    from lavida.model.pretrained import add_seg

    tiny = TinyMllm.model_validate(shape.sizes | ({"layers": layers} if layers else {}))
    processor = tiny_processor(tiny)
    add_seg(processor.tokenizer)
    config = tiny_config(tiny, processor)
    config.text_config.vocab_size = shape.rows or config.text_config.vocab_size
    with tempfile.TemporaryDirectory() as folder:
        config.save_pretrained(folder)
        processor.save_pretrained(folder)
        with torch.device(device):
            model = Mllm.from_skeleton(folder, lora=LoraSettings(), dtype=dtype)
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.data = parameter.data.float()
    return model.train()


def batch_of(shape: Shape, model: Any) -> Any:
    """Clips of noise, each with a list of names."""
    import numpy as np

    from lavida.data import Collator, DataSettings

    side = 28 * round(shape.pair**0.5)
    random = np.random.default_rng(0)
    clips = [random.integers(0, 256, (shape.frames, side, side, 3), dtype=np.uint8) for _ in range(shape.batch)]
    settings = DataSettings(train_tokens=(shape.pair, shape.pair))
    names = ["fire", "smoke", "dog", "car", "truck", "run", "jumping", "fight", "skate", "fall"]
    return Collator(processor=model.processor, side=64, settings=settings).clips_to_batch(clips, [names] * len(clips))


# Measured


class Memory:
    """The highest memory of a process, or of its GPU, since `reset`, in bytes."""

    def __init__(self, device: str) -> None:
        self.device = device

    def reset(self) -> None:
        """Forget the highest point."""
        import torch

        if self.device == "cuda":
            torch.cuda.reset_peak_memory_stats()
        else:
            Path("/proc/self/clear_refs").write_text("5")

    def now(self) -> int:
        """Bytes that are held."""
        import torch

        return torch.cuda.memory_allocated() if self.device == "cuda" else _status("VmRSS")

    def peak(self) -> int:
        """The highest point."""
        import torch

        return torch.cuda.max_memory_allocated() if self.device == "cuda" else _status("VmHWM")


def _status(name: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(name))


def measured(shape: Shape, device: str, ratio: float, *, checkpointing: bool, steps: int) -> dict[str, float]:
    """One ratio, in this process."""
    import torch

    from lavida.model.compress import compress_tokens

    memory = Memory(device)
    nothing = memory.now()
    dtype = torch.bfloat16 if device == "cuda" else torch.float32
    torch.manual_seed(0)
    model = model_of(shape, device, dtype)
    model.checkpointing(checkpointing)
    batch = batch_of(shape, model).to(device)
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=1e-5, fused=True)
    seconds, rise, total = [], 0, 0
    for step in range(steps + 1):
        _wait(device)
        memory.reset()
        before, start = memory.now(), time.perf_counter()
        with torch.autocast(device, dtype, enabled=device == "cuda"):
            output = model(batch, ratio=ratio)
        (output.text_loss_sum / output.text_tokens + output.seg_BD.square().mean()).backward()
        after = memory.peak()
        optimizer.step()
        optimizer.zero_grad(set_to_none=False)
        _wait(device)
        if step:  # the first makes gradients and moments
            seconds.append(time.perf_counter() - start)
            rise, total = max(rise, after - before), max(total, memory.peak() - nothing)
    tokens = torch.randn(shape.pair * shape.frames // 2, model.hidden_size, device=device)
    _wait(device)
    start = time.perf_counter()
    for _ in range(shape.batch):
        compress_tokens(tokens, ratio)
    _wait(device)
    return {
        "ratio": ratio,
        "tokens": int(output.lengths.sum()),
        "seconds": statistics.median(seconds),
        "compression": time.perf_counter() - start,
        "activations": rise / GIB,
        "total": total / GIB,
    }


def _wait(device: str) -> None:
    import torch

    if device == "cuda":
        torch.cuda.synchronize()


def alone(shape: str, device: str, ratio: float, checkpointing: bool, steps: int) -> dict[str, float]:
    """One ratio in a process of its own."""
    # Without this, glibc keeps freed memory, and a step's highest point would hold that of the step before.
    environment = os.environ | {"MALLOC_MMAP_THRESHOLD_": "65536", "MALLOC_ARENA_MAX": "2"}
    command = [sys.executable, str(Path(__file__).resolve()), "--alone", device, "--shape", shape]
    command += ["--ratios", str(ratio), "--steps", str(steps), *(["--checkpointing"] if checkpointing else [])]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{' '.join(command)}:\n{done.stderr[-4000:]}")
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found


# Counted


def counted(shape: Shape, ratio: float, checkpointing: bool) -> dict[str, float]:
    """One ratio without running it, see above."""
    import torch

    model = model_of(shape, "meta", torch.bfloat16, layers=1)
    text = batch_of(Shape(sizes=shape.sizes, rows=shape.rows, pair=4), model)
    length = int(text.attention_mask[0].sum()) - 16 + max(1, int(ratio * shape.pair * shape.frames / 2))
    layers = shape.sizes["layers"]
    one, many = (kept_bytes(shape, number, length) for number in (1, 2))
    layer, rest = many - one, 2 * one - many
    inputs = 2 * shape.batch * length * shape.sizes["hidden"]
    activations = rest + layers * inputs + layer if checkpointing else rest + layers * layer
    activations += 3 * 2 * shape.batch * length * shape.sizes["mlp"]
    whole = model_of(shape, "meta", torch.bfloat16)
    trained = sum(parameter.numel() for parameter in whole.parameters() if parameter.requires_grad)
    frozen = sum(parameter.numel() for parameter in whole.parameters()) - trained
    lying = 2 * frozen + 4 * 4 * trained  # weight, gradient, two moments
    return {
        "ratio": ratio,
        "tokens": shape.batch * length,
        "activations": activations / GIB,
        "total": (lying + activations) / GIB,
    }


def kept_bytes(shape: Shape, layers: int, length: int) -> int:
    """What autograd keeps of a language model of so many layers, in bytes."""
    import torch
    import transformers

    transformers.AttentionInterface.register("counted", _attention())
    transformers.AttentionMaskInterface.register("counted", lambda *_, **__: None)
    model = model_of(shape, "meta", torch.bfloat16, layers=layers).bfloat16()  # as under autocast
    model.language.config._attn_implementation = "counted"
    known = {parameter.untyped_storage()._cdata for parameter in model.parameters()}
    kept: dict[int, Any] = {}

    def pack(tensor: Any) -> Any:
        storage = tensor.untyped_storage()
        if storage._cdata not in known:
            kept[storage._cdata] = storage
        return tensor

    width = shape.sizes["hidden"]
    tokens = torch.empty(shape.batch, length, width, dtype=torch.bfloat16, device="meta", requires_grad=True)
    places = torch.zeros(3, shape.batch, length, dtype=torch.long, device="meta")
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        states = model.language(inputs_embeds=tokens, position_ids=places, use_cache=False).last_hidden_state
    assert states.shape == tokens.shape
    return sum(storage.nbytes() for storage in kept.values())


def _attention() -> Any:
    """Attention that keeps what a fused kernel keeps, and computes nothing."""
    import torch

    class Fused(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, query: Any, key: Any, value: Any) -> Any:
            out = torch.empty_like(query)
            ctx.save_for_backward(query, key, value, out, query.new_empty(query.shape[:3], dtype=torch.float32))
            return out

        @staticmethod
        def backward(ctx: Any, *gradients: Any) -> Any:
            raise NotImplementedError

    def attend(module: Any, query: Any, key: Any, value: Any, mask: Any, **options: Any) -> Any:
        return Fused.apply(query, key, value).transpose(1, 2).contiguous(), None

    return attend


# Tables


def show(title: str, rows: list[dict[str, float]]) -> None:
    first = rows[0]
    print(f"\n{title}")
    print(f"{'ratio':>6}{'tokens':>9}{'activations':>13}{'total':>9}{'share':>8}{'s a step':>10}{'of it ours':>12}")
    for row in rows:
        line = f"{row['ratio']:6.2f}{row['tokens']:9,.0f}{row['activations']:9.2f} GiB{row['total']:5.1f} GiB"
        line += f"{row['total'] / first['total']:8.1%}"
        if "seconds" in row:
            line += f"{row['seconds']:10.2f}{row['compression']:10.2f} s"
        print(line)
    reached = [row["total"] / first["total"] for row in rows if row["ratio"] == 0.2 and first["ratio"] == 1.0]
    if reached:
        print(f"at 0.2: {reached[0]:.1%} of the uncompressed memory; the paper: {TARGET:.1%}")


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--shape", choices=sorted(SHAPES))
    arguments.add_argument("--ratios", type=float, nargs="+", default=list(RATIOS))
    arguments.add_argument("--checkpointing", action="store_true")
    arguments.add_argument("--steps", type=int, default=3)
    arguments.add_argument("--json", action="store_true")
    arguments.add_argument("--alone", help=argparse.SUPPRESS)
    given = arguments.parse_args()
    if given.alone:
        (ratio,) = given.ratios
        shape = SHAPES[given.shape]
        found = measured(shape, given.alone, ratio, checkpointing=given.checkpointing, steps=given.steps)
        print(json.dumps(found))
        return
    import torch

    device = "cuda" if torch.cuda.is_available() else "cpu"
    name = given.shape or ("7b" if device == "cuda" else "scaled")
    tables = {}
    if not (name == "7b" and device == "cpu"):
        tables[f"{name}, measured on {device}"] = [
            alone(name, device, ratio, given.checkpointing, given.steps) for ratio in given.ratios
        ]
    if device == "cpu" and given.shape != "scaled":
        tables["7b, counted"] = [counted(SHAPES["7b"], ratio, given.checkpointing) for ratio in given.ratios]
    if given.json:
        print(json.dumps(tables, indent=2))
        return
    for title, rows in tables.items():
        show(title + (", checkpointed" if given.checkpointing else ""), rows)


if __name__ == "__main__":
    main()
