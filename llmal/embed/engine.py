"""What runs a sentence-transformers model on a processor: chosen, compared with the library, and told."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from llmal import extras, weights
from llmal.batching import by_length, padded
from llmal.embed import openvino
from llmal.embed.autocast import Autocast
from llmal.errors import ModelError

MEAN_COSINE = 0.9999
"""Mean cosine to float32 with which a backend is used; bfloat16 has .99999 on film reviews."""

LEAST_COSINE = 0.999
"""Least cosine of one text to float32 with which a backend is used; bfloat16 has .9999 on `PARITY`."""

INT8_COSINE = 0.98
"""Mean cosine to float32 with which int8 is used; all-MiniLM-L6-v2 has .9977 on `PARITY`."""

POOLINGS = frozenset({"mean", "cls", "max"})
"""Ways to pool that the tests compare with the library."""

PARITY = (
    "",
    "no",
    "A film that is both funny and sad, with a cast that never puts a foot wrong.",
    "I waited forty minutes on the phone and was then cut off. Never again!",
    "  Leading blanks, UPPER CASE, MiXeD cAsE and a trailing newline\n",
    "The central bank left its key rate at 3.75 % on Thursday, as 41 of 45 economists had expected.",
    "How do I change the address on my account?",
    "def mean(x): return sum(x) / len(x)  # fails on an empty list",
    "Caf\u00e9, \u0441\u043b\u043e\u0432\u043e, \u4f60\u597d, \u0645\u0631\u062d\u0628\u0627, \U0001f984",
    "<b>bold</b> &amp; {{ template }} https://example.org/a?b=c#d",
    "1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20",
    "Rain in the north, sunny spells elsewhere, and a gale warning for the west coast this evening.",
    "The defendant appealed; the court of appeal upheld the sentence, and costs were awarded. " * 3,
    "We measured the melting point of four samples and found no difference beyond the error of the device. "
    * 12,
    "word " * 700,
)
"""Texts on which a backend is compared: short, long, beyond the model's length, other scripts, markup."""

PARITY_BATCH = 4
"""Texts a forward pass of the library's in the comparison: more would pad them all to the longest."""


class Batch(NamedTuple):
    """Texts of similar length as a model reads them.

    Attributes:
        rows: (n,) where the texts stand among those asked for.
        ids: (n, tokens) int64.
        mask: (n, tokens) int64, 1 where there is a token.
    """

    rows: NDArray[np.int64]
    ids: NDArray[np.int64]
    mask: NDArray[np.int64]


class Engine(Protocol):
    """Runs the forward pass of one model.

    Attributes:
        budget: padded tokens of one batch.
    """

    budget: int

    def run(self, batches: Iterator[Batch], out: NDArray[np.float32]) -> None:
        """Write the vectors of each batch into its rows of `out`, (n, d)."""


class Library:
    """Sentence-transformers' own loop in float32.

    Attributes:
        model: the SentenceTransformer.
        note: what runs it, for the run's line; empty where there was nothing to choose.
    """

    def __init__(self, model: Any, note: str = "") -> None:
        self.model = model
        self.note = note

    def encode(self, texts: list[str], batch_size: int) -> NDArray[np.float32]:
        """(n, d) float32 unit rows."""
        vectors = self.model.encode(
            texts, batch_size=batch_size, normalize_embeddings=True, show_progress_bar=False
        )
        return np.asarray(vectors, dtype=np.float32)


class Fast(Library):
    """An engine over the model's own tokenizer: sorted by length, in batches of so many padded tokens."""

    def __init__(self, model: Any, engine: Engine, width: int) -> None:
        super().__init__(model)
        self.engine = engine
        self.width = width

    def encode(self, texts: list[str], batch_size: int) -> NDArray[np.float32]:
        """(n, d) float32 unit rows; the batches are the engine's, whatever `batch_size` says."""
        tokens = self.model.tokenizer(texts, truncation=True)["input_ids"]
        out = np.zeros((len(texts), self.width), np.float32)
        self.engine.run(self._batches(tokens), out)
        out /= np.maximum(np.linalg.norm(out, axis=1, keepdims=True), 1e-12)
        return out

    def _batches(self, tokens: list[list[int]]) -> Iterator[Batch]:
        pad, left = self.model.tokenizer.pad_token_id, self.model.tokenizer.padding_side == "left"
        for rows in by_length([len(ids) for ids in tokens], self.engine.budget):
            yield Batch(rows, *padded([tokens[row] for row in rows], pad, left=left))


def opened(model: Any, *, backend: str, precision: str) -> Library:
    """The fastest way to run a model here whose vectors are those of the library.

    Args:
        model: a SentenceTransformer.
        backend: auto, torch or openvino.
        precision: auto, float32 or int8.

    Raises:
        MissingExtra: openvino was asked for, or int8, which needs it, and is not installed.
        ModelError: int8 was asked for, and the model cannot be run in it or loses too much.
    """
    if backend == "openvino" or precision == "int8":
        why = "for `precision: int8`" if precision == "int8" else "for `backend: openvino`"
        extras.openvino(why=why)
    exact = precision == "float32" or not weights.has_bf16("cpu")
    wanted = _wanted(model, backend, precision, exact)
    if not wanted:
        return Library(model)
    said = unsuited(model)
    for name in () if said else wanted:
        made = _compared(model, name, precision if precision == "int8" else "f32" if exact else "bf16")
        if isinstance(made, Fast):
            return made
        said = made
    if precision == "int8":
        raise ModelError(f"this model cannot be run in int8: {said}", where="embed", hint="Leave int8 out")
    return Library(model, f"by sentence-transformers in float32: {said}")


def _wanted(model: Any, backend: str, precision: str, exact: bool) -> list[str]:
    """Engines to try, the fastest first; none where the library's own loop is the thing to run."""
    if model.device.type != "cpu":
        return []
    if backend == "openvino" or precision == "int8":
        return ["openvino"]
    there = backend == "auto" and importlib.util.find_spec("openvino") is not None
    return [*(["openvino"] if there else []), *([] if exact else ["torch"])]


def unsuited(model: Any) -> str:
    """Why a model is left to the library: words; nothing for a text encoder, pooled, perhaps normalised."""
    kinds = [type(module).__name__ for module in model]
    if kinds not in (["Transformer", "Pooling"], ["Transformer", "Pooling", "Normalize"]):
        return f"the model has parts beyond encoder, pooling and length ({', '.join(kinds)})"
    pooling = model[1]
    mode = getattr(pooling, "pooling_mode", None) or pooling.get_pooling_mode_str()
    if mode not in POOLINGS:
        return f"its pooling ({mode}) is not among those compared"
    if model.default_prompt_name is not None or model.truncate_dim is not None:
        return "the model puts a prompt before texts, or cuts its vectors"
    tokenizer = getattr(model, "tokenizer", None)
    if getattr(tokenizer, "pad_token_id", None) is None:
        return "its tokenizer has no padding"
    if any(weight.dtype.itemsize != 4 for weight in model.parameters()):
        return "its weights are not float32"
    return ""


def _compared(model: Any, name: str, arithmetic: str) -> Fast | str:
    """The engine, once it gave the library's vectors for `PARITY`; else what was wrong."""
    texts = list(PARITY)
    wanted = Library(model).encode(texts, PARITY_BATCH)
    try:
        engine: Engine = Autocast(model) if name == "torch" else openvino.Compiled(model, arithmetic)
        made = Fast(model, engine, wanted.shape[1])
        found = made.encode(texts, PARITY_BATCH)
    except Exception as error:  # a converter raises what it likes on a model it does not know
        return f"{name} cannot run it ({' '.join(str(error).split())[:200]})"
    cosines = np.einsum("nd,nd->n", found.astype(np.float64), wanted.astype(np.float64))
    mean, least = float(cosines.mean()), float(cosines.min())
    words = {"f32": "float32", "bf16": "bfloat16"}.get(arithmetic, arithmetic)
    least_mean, least_one = (INT8_COSINE, 0.0) if arithmetic == "int8" else (MEAN_COSINE, LEAST_COSINE)
    if not (mean >= least_mean and least >= least_one):  # holds for NaN too
        return f"the vectors of {name} in {words} differ (cosine {mean:.4f}, least {least:.4f})"
    made.note = f"by {name} in {words}, cosine to float32 {_floor(mean)} (least {_floor(least)})"
    return made


def _floor(cosine: float) -> str:
    """Five decimals, never rounded up to 1."""
    return f"{np.floor(min(cosine, 1.0) * 1e5) / 1e5:.5f}"
