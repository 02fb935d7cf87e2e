"""A BERT of some ten thousand random weights with its tokenizer: tests of students without a download."""

from __future__ import annotations

import string
from collections.abc import Iterable
from pathlib import Path
from typing import Any

POSITIONS = 64
"""Tokens the model can read; longer texts must be cut before."""


def tiny_bert(
    folder: Path, words: Iterable[str] = (), *, hidden: int = 32, layers: int = 1, seed: int = 0
) -> Path:
    """Write the model as a transformers folder (safetensors); it learns well at a rate of 0.004.

    Args:
        folder: where to; made when it is not there.
        words: lower-case words that are one token each; any other word is spelt.
        hidden: width; a multiple of 2.
        layers: count.
        seed: of the weights; the process's own randomness is left alone.

    Returns:
        The folder.
    """
    import torch
    from transformers import BertConfig, BertModel

    from llmal.weights import quiet

    letters = string.ascii_lowercase + string.digits
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    spelling = [*letters, *(f"##{c}" for c in letters), *string.punctuation]
    vocabulary = list(dict.fromkeys([*special, *spelling, *sorted(words)]))
    config = BertConfig(
        vocab_size=len(vocabulary),
        hidden_size=hidden,
        num_hidden_layers=layers,
        num_attention_heads=2,
        intermediate_size=2 * hidden,
        max_position_embeddings=POSITIONS,
    )
    folder.mkdir(parents=True, exist_ok=True)
    with quiet(), torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        BertModel(config).save_pretrained(folder)
    _tokenizer(vocabulary).save_pretrained(folder)
    return folder


def _tokenizer(vocabulary: list[str]) -> Any:
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    index = {word: i for i, word in enumerate(vocabulary)}
    inner = Tokenizer(models.WordPiece(index, unk_token="[UNK]"))
    inner.normalizer = normalizers.BertNormalizer(lowercase=True)
    inner.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    inner.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", index["[CLS]"]), ("[SEP]", index["[SEP]"])]
    )
    names = {"unk": "[UNK]", "pad": "[PAD]", "cls": "[CLS]", "sep": "[SEP]", "mask": "[MASK]"}
    tokens = {f"{name}_token": token for name, token in names.items()}
    return PreTrainedTokenizerFast(tokenizer_object=inner, model_max_length=POSITIONS, **tokens)
