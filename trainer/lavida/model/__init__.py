"""LAVIDA, the model. Read lavida.py first: it is the whole of it on one page.

- compress.py: the densest visual tokens (eq. 3-4); pruning.py: static patches left out at evaluation
- mllm.py: the language model that sees, with <SEG> (eq. 5); families.py: what differs between such models;
  pretrained.py: their weights, <SEG> and LoRA
- text.py: the listed names by CLIP (eq. 6)
- segmenter.py: SAM 2: features, and masks for prompts (eq. 6, 9)
- projector.py: names, features and <SEG> to a prompt for each frame (eq. 7-8)
- lavida.py: LavidaModel, all of them: build, forward, score
- config.py: ModelConfig, their settings together, and what is float32
- folder.py: a model on disk
- tiny.py, mllm_tiny.py: small random parts of the same classes
"""

from __future__ import annotations

from lavida.model.compress import compress_tokens
from lavida.model.config import PAPER, ModelConfig, Part
from lavida.model.lavida import LavidaModel, Output, Scores
from lavida.model.segmenter import Features

__all__ = ["PAPER", "Features", "LavidaModel", "ModelConfig", "Output", "Part", "Scores", "compress_tokens"]
