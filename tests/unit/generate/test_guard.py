"""The leak guard: what counts as a text that measures, come back."""

import numpy as np
import pytest

from llmal.generate.guard import COPIED, Measuring, alike, leaks, nearest, pieces_of

SECRET = "The invoice of last month was charged twice and nobody answers my mails"


def held(texts, vectors):
    return Measuring(np.asarray(vectors, np.float32), [pieces_of(text) for text in texts])


def far(n):
    return np.eye(8, dtype=np.float32)[1 : n + 1]


@pytest.mark.parametrize(
    "copy",
    [
        SECRET,
        SECRET.upper(),
        SECRET.replace(" ", "  \n"),
        SECRET.replace(" ", ", ") + "!!!",
        SECRET.replace("i", "i\u0301").replace("e", "\u00e9"),
        SECRET.replace("a", "\u0430").replace("o", "\u043e"),
        SECRET.translate({c: c + 0xFEE0 for c in range(0x21, 0x7F)}),
        SECRET.replace("invoice", "invo\u200bice"),
        SECRET.replace("month", "week"),
        "Hello! " + SECRET,
        SECRET[: len(SECRET) * 2 // 3],
    ],
    ids=["same", "case", "blanks", "marks", "accents", "cyrillic", "wide", "hidden", "word", "more", "less"],
)
def test_a_copy_is_found_by_its_letters_where_the_encoder_sees_another_text(copy):
    measuring = held([SECRET], np.eye(8)[:1])
    assert leaks([copy, "Where can I change my e-mail address?"], far(2), measuring, cosine=0.95) == [
        True, False
    ]  # fmt: skip


def test_a_paraphrase_is_found_by_the_encoder_where_the_letters_differ():
    measuring = held([SECRET], np.eye(8)[:1])
    near = np.array([[0.97, np.sqrt(1 - 0.97**2), *[0] * 6], [0.9, np.sqrt(1 - 0.81), *[0] * 6]])
    assert leaks(["Billed two times!", "Billed again"], near, measuring, cosine=0.95) == [True, False]


def test_short_texts_and_texts_of_no_letters_do_not_crash_and_match_themselves_alone():
    texts = ["no", "?!", "", "\u65e5\u672c\u8a9e\u306e\u6587"]
    measuring = held(texts, np.eye(8)[4:8])
    assert leaks(["no", "\u65e5\u672c\u8a9e\u306e\u6587", "yes"], far(3), measuring, cosine=0.95) == [
        True, True, False
    ]  # fmt: skip
    assert leaks(["no"], far(1), held([], np.zeros((0, 8))), cosine=0.95) == [False]


def test_the_measure_of_copies_is_dices():
    assert alike(frozenset("abcd"), frozenset("cdef")) == pytest.approx(0.5)
    assert alike(pieces_of("one text here"), pieces_of("One  text, here!")) == 1.0
    assert 0 < COPIED < 1


def test_the_nearest_known_text_is_found_over_blocks_and_rows_left_out_do_not_count():
    rng = np.random.default_rng(0)
    known = rng.normal(size=(20_000, 8)).astype(np.float32)
    known /= np.linalg.norm(known, axis=1, keepdims=True)
    mine = known[[3, 19_999]]
    np.testing.assert_allclose(nearest(mine, known, []), [1, 1], atol=1e-6)
    want = [(mine[0] @ np.delete(known, 3, 0).T).max(), 1]
    np.testing.assert_allclose(nearest(mine, known, [3]), want, atol=1e-6)
    assert nearest(mine, known[:0], []).tolist() == [-1, -1]
