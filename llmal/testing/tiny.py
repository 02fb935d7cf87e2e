"""Models of a few thousand weights with their tokenizers: tests of students and servers, no download."""

from __future__ import annotations

import json
import string
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

POSITIONS = 64
"""Tokens the model can read; longer texts must be cut before."""

HIDDEN = 64
"""Width of the chat model."""

GAIN = 12.0
"""How much louder the words of a prompt become by attention: they are few among hundreds of tokens."""


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


def tiny_sentence(folder: Path, words: Iterable[str] = (), *, hidden: int = 32, seed: int = 0) -> Path:
    """Write a sentence-transformers folder: the tiny BERT, the mean of its tokens as the vector.

    Args:
        folder: where to; made when it is not there.
        words: as in `tiny_bert`.
        hidden: width; a multiple of 2.
        seed: of the weights.

    Returns:
        The folder.
    """
    tiny_bert(folder, words, hidden=hidden, seed=seed)
    kinds = {"": "Transformer", "1_Pooling": "Pooling"}
    modules = [
        {"idx": i, "name": str(i), "path": path, "type": f"sentence_transformers.models.{kind}"}
        for i, (path, kind) in enumerate(kinds.items())
    ]
    pooling = {"word_embedding_dimension": hidden, "pooling_mode_mean_tokens": True}
    (folder / "modules.json").write_text(json.dumps(modules), encoding="utf-8")
    (folder / "1_Pooling").mkdir(exist_ok=True)
    (folder / "1_Pooling" / "config.json").write_text(json.dumps(pooling), encoding="utf-8")
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


def tiny_chat(
    folder: Path, words: Mapping[str, Iterable[str]], texts: Iterable[str] = (), *, vocabulary: int = 600
) -> Path:
    """Write a Qwen3 of some hundred thousand weights that answers with the code whose words it reads most.

    The weights are set by hand: attention takes the mean of the words' marks over the whole prompt, the head
    turns it into logits of the codes, and after a code comes the end of the turn. So the answer depends on
    the text and nothing has to be trained.

    Args:
        folder: where to; made when it is not there.
        words: code (one ASCII letter or digit) -> lower-case words that speak for it.
        texts: what the tokenizer's merges are learnt from.
        vocabulary: most tokens, beside the words.

    Returns:
        The folder.
    """
    import torch
    from transformers import Qwen3Config, Qwen3ForCausalLM

    from llmal.weights import quiet

    folder.mkdir(parents=True, exist_ok=True)
    tokenizer = _chat_tokenizer([word for some in words.values() for word in some], list(texts), vocabulary)
    config = Qwen3Config(
        vocab_size=len(tokenizer),
        hidden_size=HIDDEN,
        intermediate_size=HIDDEN,
        num_hidden_layers=1,
        num_attention_heads=2,
        num_key_value_heads=2,
        head_dim=HIDDEN // 2,
        max_position_embeddings=8192,
        tie_word_embeddings=False,
        eos_token_id=tokenizer.eos_token_id,
        bos_token_id=None,
        pad_token_id=tokenizer.pad_token_id,
    )
    with quiet(), torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(0)
        model = Qwen3ForCausalLM(config)
        _count_words(model, tokenizer, words)
        model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def _count_words(model: Any, tokenizer: Any, words: Mapping[str, Iterable[str]]) -> None:
    """Set the weights. Places of the hidden state: 0 is constant, 1 marks a code, 2 and on mark words."""
    import torch

    embed, head, layer = model.model.embed_tokens.weight, model.lm_head.weight, model.model.layers[0]
    attention = layer.self_attn
    codes = [tokenizer.convert_tokens_to_ids(code) for code in words]
    embed.mul_(0.01)  # noise that keeps the tokens apart
    embed[:, 0] = 1.0
    embed[codes, 1] = 20.0
    for place, some in enumerate(words.values(), 2):
        embed[[tokenizer.convert_tokens_to_ids(word) for word in some], place] = 1.0
    attention.q_proj.weight.zero_()  # no query: attention is a plain mean
    attention.v_proj.weight.copy_(torch.eye(HIDDEN))
    attention.v_proj.weight[:2] = 0.0
    attention.o_proj.weight.copy_(GAIN * torch.eye(HIDDEN))
    layer.mlp.down_proj.weight.zero_()
    head.zero_()
    head[:, 0] = -5.0
    head[codes, 0] = 0.0
    head[codes, 1] = -5.0
    head[tokenizer.eos_token_id, 0] = -4.0
    head[tokenizer.eos_token_id, 1] = 5.0
    for place, code in enumerate(codes, 2):
        head[code, place] = 4.0


def _chat_tokenizer(words: list[str], texts: list[str], size: int) -> Any:
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    inner = Tokenizer(models.BPE())
    inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    inner.decoder = decoders.ByteLevel()
    special = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    inner.train_from_iterator(
        texts,
        trainers.BpeTrainer(
            vocab_size=size, initial_alphabet=alphabet, special_tokens=special, show_progress=False
        ),
    )
    inner.add_tokens(words)
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=inner, eos_token="<|im_end|>", pad_token="<|endoftext|>", model_max_length=8192
    )
    tokenizer.chat_template = (
        "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
        "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
    )
    return tokenizer
