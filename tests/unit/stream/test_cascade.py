"""A cascade over made streams: who answers, what is asked, what is learnt, and what a change does."""

import json

import numpy as np
import pytest
from safetensors.numpy import load, save
from scipy.sparse import csr_matrix

from llmal.stream.cascade import FADED, Cascade, Options, Verdict
from llmal.stream.levels import COLUMNS, chances
from llmal.stream.state import packed, unpacked
from llmal.stream.tally import Tally

BLOCK = 64
WIDTH = 8


def made(n, seed=0, *, hard=0.3, noise=0.3, turned_from=None):
    """Hashed rows, vectors and the model's labels of n texts of three classes; a share of them is guesswork.

    From `turned_from` on the model calls plain texts of the first class by the second's name.
    """
    rng = np.random.default_rng(seed)
    kinds, guessed = rng.integers(3, size=n), rng.random(n) < hard
    look = np.where(guessed, 3, kinds)
    vectors = noise * rng.normal(size=(n, WIDTH))
    vectors[np.arange(n), look] += 1.0
    vectors = (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)
    columns = np.column_stack([look * 50 + rng.integers(50, size=n), 200 + rng.integers(400, size=(3, n)).T])
    values, ends = np.full(4 * n, 0.5, np.float32), np.arange(0, 4 * n + 1, 4)
    labels = kinds.copy()
    if turned_from is not None:
        labels[(np.arange(n) >= turned_from) & (kinds == 0) & ~guessed] = 1
    return csr_matrix((values, columns.ravel(), ends), (n, COLUMNS)), vectors, labels


def streamed(stream, options, cascade=None, first=0, last=None, block=BLOCK):
    """Run a cascade over a stream; it, what it decided by row, and the counts."""
    grams, vectors, labels = stream
    n = len(labels) if last is None else last
    cascade = cascade or Cascade(options, 3, WIDTH)
    tally = Tally()
    asked, said, risks, chance = [], [], [], []
    for start in range(first, n, block):
        rows = np.arange(start, min(n, start + block))
        verdict = cascade.judge(grams[rows], lambda i, rows=rows: vectors[rows[i]])
        places = np.flatnonzero(verdict.asked)
        if cascade.ready:
            tally.explored(verdict, places, labels[rows[places]])
        cascade.learn(verdict, places, labels[rows[places]], grams[rows], vectors[rows[places]])
        asked.append(verdict.asked)
        said.append(np.where(verdict.asked, labels[rows], verdict.label))
        risks.append(verdict.risk)
        chance.append(verdict.chance)
    return cascade, tally, *map(np.concatenate, (asked, said, risks, chance))


def test_no_student_answers_before_the_warm_up_is_over():
    _, _, asked, _, _, chance = streamed(made(320), Options(mu=1e9, explore=0.0, warmup=100))
    assert asked[:100].all()
    assert (chance[:100] == 1).all()
    assert not asked[160:].any()


def test_at_any_price_nothing_but_chance_is_asked_after_the_warm_up():
    _, _, asked, _, _, chance = streamed(made(1200), Options(mu=np.inf, explore=0.05))
    assert (chance[asked][64 + BLOCK :] == 0.05).all()
    assert 0.02 < asked[200:].mean() < 0.09
    assert not streamed(made(800), Options(mu=np.inf, explore=0.0))[2][200:].any()


def test_where_calls_are_free_nearly_all_is_asked():
    assert streamed(made(640), Options(mu=0.0))[2].mean() > 0.95


@pytest.mark.parametrize("share", [0.15, 0.3, 0.6])
def test_a_share_of_calls_is_kept_over_the_stream(share):
    assert streamed(made(1500), Options(share=share))[2].mean() == pytest.approx(share, abs=0.04)


def test_calls_go_where_students_would_be_wrong():
    _, _, labels = stream = made(1500)
    _, _, asked, said, _, _ = streamed(stream, Options(share=0.3))
    # Calls at random leave 0.7 of the guesswork, wrong in two cases of three: 1 - 0.7 x 0.3 x 2 / 3 = 0.86.
    assert (said == labels)[500:].mean() > 0.92
    assert asked[500:].mean() < 0.33


def test_a_wanted_agreement_is_nearly_met_with_fewer_calls_than_all():
    _, _, labels = stream = made(1500)
    _, _, asked, said, _, _ = streamed(stream, Options(quality=0.95))
    assert (said == labels)[500:].mean() > 0.93
    assert asked[500:].mean() < 0.5


def test_students_tell_truly_how_often_the_model_would_say_otherwise():
    _, _, labels = stream = made(3000)
    _, _, asked, said, risks, _ = streamed(stream, Options(mu=np.inf, explore=0.15))
    answered = ~asked & (np.arange(3000) > 500)
    wrong = (said != labels)[answered]
    assert risks[answered].mean() == pytest.approx(wrong.mean(), abs=0.04)
    sure = risks[answered] < 0.3
    assert risks[answered][sure].mean() == pytest.approx(wrong[sure].mean(), abs=0.08)
    assert wrong[~sure].mean() > wrong[sure].mean() + 0.3


def test_agreement_from_rows_asked_by_chance_is_unbiased_and_its_interval_holds():
    n, sums, held = 2000, [], 0
    for seed in range(300):
        rng = np.random.default_rng(seed)
        risk = rng.beta(1, 3, n)
        wanted = risk > 0.4
        chance = np.where(wanted, 1.0, np.where(np.arange(n) < n // 2, 0.05, 0.2))  # as after an alarm
        asked = rng.random(n) < chance
        wrong = rng.random(n) < risk
        places, nobody = np.flatnonzero(asked), np.zeros(n, np.int64)
        tally = Tally(sources={"student:encoder": int((~asked).sum()), "llm": int(asked.sum())})
        tally.explored(
            Verdict(asked, chance, nobody, nobody, risk, np.zeros((n, 2, 2), np.float32)),
            places,
            wrong[places].astype(np.int64),
        )
        found = tally.agreement()
        truth = (~wrong)[~wanted].mean()
        sums.append((found["students"]["value"] - truth, (~wrong)[asked].mean() - truth))
        held += found["students"]["low"] <= truth <= found["students"]["high"]
        whole = (~wrong | asked).mean()
        assert abs(found["output"]["value"] - whole) < 0.12
    ours, naive = np.array(sums).T
    assert abs(ours.mean()) < 4 * ours.std() / np.sqrt(len(sums))
    assert held >= 0.92 * len(sums)
    assert naive.mean() < -0.05, "all rows asked about would do as well: the test proves nothing"


def test_a_change_where_students_are_sure_is_noticed_by_chance_alone_and_answered_with_calls():
    stream = made(4000, hard=0.1, noise=0.12, turned_from=2000)
    cascade, _, asked, said, _, _ = streamed(stream, Options(mu=0.3))
    assert cascade.alarms
    assert min(cascade.alarms) >= 2000
    assert asked[3000:3500].mean() > 1.5 * asked[1000:2000].mean()
    assert (said == stream[2])[3500:].mean() > 0.95
    blind, _, asked, said, _, _ = streamed(stream, Options(mu=0.3, explore=0.0))
    assert not blind.alarms, "what is asked for other reasons would do: the test proves nothing"
    assert asked[3000:3500].mean() < 1.5 * asked[1000:2000].mean()
    assert (said == stream[2])[3500:].mean() < 0.75


def test_after_an_alarm_what_is_older_counts_less():
    cascade = streamed(made(800), Options(share=0.5))[0]
    before = cascade.records.weights.copy()
    cascade._alert(BLOCK)
    assert (cascade.records.weights[:-100] == FADED * before[:-100]).all()
    assert (cascade.records.weights[-100:] == before[-100:]).all()
    assert cascade.explore > cascade.options.explore


@pytest.mark.parametrize("rule", ["calibrated", "nets"])
def test_kept_as_bytes_and_read_again_a_cascade_goes_on_the_same(rule):
    stream = made(1024)
    options = Options(mu=0.2 if rule == "calibrated" else 5e-4, rule=rule)
    whole = streamed(stream, options)
    half = streamed(stream, options, last=512)[0]
    arrays, facts = packed(half)
    again = unpacked(load(save(arrays)), json.loads(json.dumps(facts)), options)
    rest = streamed(stream, options, again, first=512)
    for all_rows, late in zip(whole[2:], rest[2:], strict=True):
        np.testing.assert_array_equal(all_rows[512:], late)
    for one, other in zip(whole[0].levels, rest[0].levels, strict=True):
        np.testing.assert_array_equal(one.coef, other.coef)


def test_a_fresh_cascade_can_be_kept_too():
    options = Options()
    arrays, facts = packed(Cascade(options, 3, WIDTH))
    again = unpacked(load(save(arrays)), json.loads(json.dumps(facts)), options)
    np.testing.assert_array_equal(streamed(made(200), options, again)[3], streamed(made(200), options)[3])


def test_nothing_may_be_asked_once_the_budget_is_spent():
    grams, vectors, _ = stream = made(400)
    cascade = streamed(stream, Options(), last=320)[0]
    verdict = cascade.judge(grams[320:], lambda i: vectors[320:][i], paid=False)
    assert not verdict.asked.any()
    assert (verdict.label >= 0).all()
    unlearnt = Cascade(Options(), 3, WIDTH).judge(grams[:5], lambda i: vectors[i], paid=False)
    assert not unlearnt.asked.any()
    assert (unlearnt.label == -1).all()


def test_chances_belong_to_rows_however_these_come_in_blocks():
    whole = chances(3, 0, 1000, salt=1)
    parts = np.concatenate([chances(3, first, 250, salt=1) for first in range(0, 1000, 250)])
    np.testing.assert_array_equal(whole, parts)
    assert np.histogram(chances(0, 0, 100_000, salt=1), 10, (0, 1))[0].std() < 200
    assert abs(np.corrcoef(whole, chances(4, 0, 1000, salt=1))[0, 1]) < 0.1
