"""The model card and llmal.json: a head that hubs read, measures with intervals, hashes, versions, limits."""

import json
import re

import numpy as np
import pytest
from huggingface_hub import ModelCard

from llmal.embed.hashing import Hashing
from llmal.embed.sentence import Sentence
from llmal.export.card import card
from llmal.export.stage import Parcel
from llmal.records import Label, LabelSchema
from llmal.state import base_model
from llmal.testing import parcels
from llmal.testing.contracts.ship import FACTS
from llmal.train.finetune import Finetune
from llmal.train.linear import Linear
from llmal.weights import DEFAULT_ENCODER
from llmal.yamlfile import read_yaml

MEASURES = {
    "student.accuracy": {"value": 0.875, "low": 0.81, "high": 0.92, "n": 160},
    "student.macro_f1": {"value": 0.84, "low": 0.77, "high": 0.9, "n": 160},
    "student.ece": {"value": 0.05, "low": 0.0, "high": 0.1, "n": 160},
    "annotator.accuracy": {"value": 0.8, "low": 0.7, "high": 0.9, "n": 160},
    "student.recall[no]": {"value": None, "low": None, "high": None, "n": 0},
}
ODD = LabelSchema(
    "single",
    (
        Label(name="no"),
        Label(name="yes, really: a | b", description="<script>alert(1)</script>\n---\n# not a heading"),
        Label(name="=cmd"),
    ),
    False,
)


def parcel_of(tmp_path, **facts):
    return Parcel(tmp_path, "finetune", None, ODD, 0.9, 128, FACTS | facts)


def test_hubs_can_read_the_head(tmp_path):
    made = ModelCard(card(parcel_of(tmp_path, base="org/base-model", measures=MEASURES)))
    assert made.data.library_name == "transformers"
    assert made.data.pipeline_tag == "text-classification"
    assert made.data.base_model == "org/base-model"
    assert made.data.metrics == ["accuracy", "f1"]
    found = {(r.metric_type, r.metric_value): r for r in made.data.eval_results}
    assert set(found) == {("accuracy", 0.875), ("f1", 0.84)}
    told = found["accuracy", 0.875]
    assert told.metric_name == "accuracy (95 % interval 0.810 to 0.920, n = 160)"
    assert (told.task_type, told.dataset_type) == ("text-classification", "audit-sample")


def test_what_was_not_measured_is_not_in_the_head(tmp_path):
    made = ModelCard(card(parcel_of(tmp_path, measures={})))
    assert made.data.eval_results is None
    assert made.data.metrics is None
    assert made.data.base_model is None
    assert "Nothing: no answers of people were known" in made.text


def test_odd_labels_stay_text(tmp_path):
    text = card(parcel_of(tmp_path, measures=MEASURES))
    assert "<script>" not in text
    assert "- `yes, really: a | b`: &lt;script>alert(1)&lt;/script> --- # not a heading\n" in text
    assert text.count("\n---\n") == 1, "only the end of the head stands alone on a line"
    head = text.split("---\n")[1]
    assert read_yaml(head, "card").data["pipeline_tag"] == "text-classification"


MARKUP = ("![x](//evil.test/a.png)", "[x](javascript:alert(1))", "<img src=//evil.test/a>", "`<b>` ![a][b]",
          "[b]: //evil.test/a", "\\![x](//evil.test/a)", "<https://evil.test>", "&lt;img src=x&gt; ![",
          "a | b | c",
          "**b** __c__ *d* _e_", "# h", "--- \n\n***\n- x\n> y\n```\nz")  # fmt: skip
"""What Markdown would make a picture, a link or a heading of."""


def test_no_name_or_meaning_becomes_a_picture_a_link_or_a_tag(tmp_path):
    markdown_it = pytest.importorskip("markdown_it")
    labels = tuple(Label(name=a, description=b) for a, b in zip(MARKUP, MARKUP[::-1], strict=True))
    measures = {f"student.recall[{one}]": MEASURES["student.accuracy"] for one in MARKUP}
    made = parcel_of(tmp_path, measures=measures, certificate={"words": " ".join(MARKUP)})
    made = made._replace(schema=LabelSchema("single", labels, False))
    shown = markdown_it.MarkdownIt("commonmark").enable("table").render(card(made).split("---", 2)[2])
    tags = set(re.findall(r"<([a-z0-9]+)", shown))
    assert tags <= {"h1", "h2", "p", "ul", "li", "code", "pre", "table", "thead", "tbody", "tr", "th", "td"}
    assert "<code>![x](//evil.test/a.png)</code>" in shown
    assert "<td>student.recall[![x](//evil.test/a.png)]</td>" in shown


def test_the_card_tells_measures_hash_and_limits(tmp_path):
    text = card(parcel_of(tmp_path, measures=MEASURES))
    assert "| student.accuracy | 0.875 | 0.810 to 0.920 | 160 |" in text
    assert "recall[no]" not in text
    assert "data hash `data-0`" in text
    assert "Learnt from 9 labelled texts (9 from people)" in text
    assert "it reads 128 tokens at most" in text
    assert "not calibrated" in text


@pytest.mark.parametrize("case", ["many", "linear"])
def test_llmal_json_states_what_the_classifier_is(case, exports):
    parcel, folder = exports(case)
    said = json.loads((folder / "llmal.json").read_text(encoding="utf-8"))
    assert (said["format"], said["student"], said["kind"]) == (1, parcel.kind, parcel.schema.kind)
    assert [label["name"] for label in said["labels"]] == parcel.schema.names
    assert (said["threshold"], said["data"]) == (0.9, FACTS["data"])
    assert said["measures"] == FACTS["measures"]
    assert {"onnx", "onnxruntime", "torch", "transformers"} <= set(said["versions"])
    text = (folder / "README.md").read_text(encoding="utf-8")
    assert all(f"{name} {version}" in text for name, version in said["versions"].items())


def usage(folder):
    """The lines of the card that say how to use it without llmal, made to run on this folder."""
    text = (folder / "README.md").read_text(encoding="utf-8")
    return text.split("Without llmal:\n\n```python\n")[1].split("```")[0].replace("FOLDER", str(folder))


def test_the_card_s_own_lines_run_for_a_transformers_student(exports):
    import llmal

    _, folder = exports("many")
    names = {}
    exec(usage(folder), names)
    texts = parcels.texts(20)
    found = names["classify"](texts)
    assert [one["label"] for one in found] == llmal.load(folder, backend="onnx").predict(texts)


def test_the_card_s_own_lines_run_for_a_linear_student(exports, tmp_path):
    import llmal

    folder, names = exports("linear")[1], {}
    exec(usage(folder), names)
    probs = 1 / (1 + np.exp(-names["scores"][0]))
    assert probs == pytest.approx(llmal.load(folder, backend="onnx").predict_proba(["a text"])[0], abs=1e-4)


def test_the_base_model_is_named_and_a_folder_is_not(tmp_path):
    """A place on this machine stays here; the weights of the offline package are those of the hub's name."""
    (tmp_path / "config.json").write_text("{}")
    assert base_model(Finetune(), Hashing()) == DEFAULT_ENCODER
    assert base_model(Finetune(model="all-MiniLM-L6-v2"), Hashing()) == DEFAULT_ENCODER
    assert base_model(Finetune(model="org/other"), Hashing()) == "org/other"
    assert base_model(Linear(), Sentence(model="org/encoder")) == "org/encoder"
    assert base_model(Finetune(model=str(tmp_path)), Hashing()) is None
    assert base_model(Linear(), Hashing()) is None
