"""The pipeline file: every problem at once with its place, and file and object are the same thing."""

import json

import jsonschema
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from llmal.errors import SpecError
from llmal.records import Label
from llmal.spec import Pipeline, json_schema
from llmal.yamlfile import read_yaml

HEAD = "corpus: {path: c.jsonl}\nlabels: {names: [bug, billing]}\n"


def made(text):
    return Pipeline.from_document(read_yaml(text, "p.yaml"))


def problems(text):
    with pytest.raises(SpecError) as caught:
        made(text)
    assert str(caught.value) == "\n".join(caught.value.problems)
    return caught.value.problems


# --- problems -----------------------------------------------------------------------------------------------


def test_a_slip_in_a_plug_in_inside_a_plug_in_is_told_at_its_place():
    found = problems(
        HEAD
        + "select:\n  then:\n    use: mixed\n    of:\n      - margin\n      - {use: entropy, clpi: 0.1}\n"
        "      - margn\n"
    )
    assert found[0] == "p.yaml:8:24: select.then.of.1.clpi: unknown key; did you mean 'clip'?"
    assert found[1].startswith("p.yaml:9:9: select.then.of.2: no select plug-in called 'margn'")
    assert len(found) == 2


def test_plug_ins_inside_a_plug_in_are_written_back():
    text = HEAD + "select: {then: {use: mixed, of: [badge, {use: margin, clip: 0.05}], random: 0.2}}\n"
    assert made(made(text).to_yaml()) == made(text)
    assert made(text).to_spec()["select"]["then"]["of"] == ["badge", {"use": "margin", "clip": 0.05}]
    jsonschema.validate(made(text).to_spec(), json_schema())


@pytest.mark.parametrize(
    ("said", "first", "then"),
    [
        ("margin", None, "margin"),
        ("kmeans", "kmeans", "kmeans"),
        (
            "{use: margin, clip: 0.1, within: {use: anchoral}}",
            None,
            {"use": "margin", "clip": 0.1, "within": {}},
        ),
    ],
)
def test_one_strategy_serves_both_unless_it_needs_a_student(said, first, then):
    whole = made(HEAD + f"select: {said}\n")
    default = made(HEAD).select.first
    assert whole.select.first.to_spec() == (first or default.to_spec())
    assert whole.select.then.to_spec() == then
    assert made(whole.to_yaml()) == whole
    jsonschema.validate(whole.to_spec(), json_schema())
    jsonschema.validate({**whole.to_spec(), "select": then}, json_schema())


def test_every_problem_is_told_at_once_in_file_order_with_line_and_column():
    found = problems(
        "corpus: {path: a, txet: b}\n"
        "labels: {names: [a, null]}\n"
        "selcet: 4\n"
        "select: {first: typclust}\n"
        "filter:\n  use: confidence\n  at_leest: 1\n"
        "rounds: {max: many}\n"
    )
    assert [p.split(": ")[0] for p in found] == [
        f"p.yaml:{at}" for at in ("1:19", "2:10", "3:1", "4:10", "7:3", "8:10")
    ]
    assert found[0].endswith("corpus.txet: unknown key; did you mean 'text'?")
    assert found[1].endswith("label None is not text; put it in quotes")
    assert found[2].endswith("selcet: unknown key; did you mean 'select'?")
    assert "did you mean 'typiclust'?" in found[3]
    assert found[4].endswith("filter.at_leest: unknown key; did you mean 'at_least'?")
    assert found[5].endswith("rounds.max: Input should be a valid integer, got 'many'")


def test_what_is_missing_is_named():
    assert problems("labels: {names: [a, b]}\n") == ["p.yaml:1:1: corpus: required and not there"]


def test_a_file_that_is_no_mapping_says_what_is_expected():
    assert "expected keys such as corpus: and labels:" in problems("- a\n")[0]
    assert "expected keys such as corpus: and labels:" in problems("")[0]


def test_words_that_older_yaml_turns_into_booleans_stay_words():
    assert list(made("corpus: {path: a}\nlabels: {names: [yes, no, on, off, y]}\n").labels.names) == [
        "yes",
        "no",
        "on",
        "off",
        "y",
    ]


@pytest.mark.parametrize("value", ["true", "null", "1.0", "12", "~"])
@pytest.mark.parametrize("form", ["[a, {}]", "{{a: x, {}: y}}"])
def test_a_label_that_is_no_text_is_refused_with_quotes_as_the_way_out(value, form):
    (problem,) = problems(f"corpus: {{path: a}}\nlabels: {{names: {form.format(value)}}}\n")
    assert problem.startswith("p.yaml:2:")
    assert "put it in quotes" in problem


@pytest.mark.parametrize(
    ("names", "words"),
    [
        ("[a, a]", "label 'a' stands twice"),
        ("[a]", "one label leaves nothing to tell apart"),
        ("[]", "at least 1"),
        ("5", "expected a list of names"),
        ("[a, 'b|c']", "a | inside"),
        ("[a, ' b']", "blanks around it"),
        ("[a, '']", "is blank"),
        ('[a, "b\\nc"]', "line break"),
        ('[a, "b\\u2028c"]', "line break"),
        ('[a, "b\\0"]', "is blank, or has"),
        ('[a, "b\\ud800"]', "is blank, or has"),
        ("[a, [b]]", "is not text"),
    ],
)
def test_labels_no_prompt_could_hold_are_refused_at_their_line(names, words):
    found = problems(f"corpus: {{path: a}}\nlabels: {{names: {names}}}\n")
    assert found[0].startswith("p.yaml:2:")
    assert words in found[0]


@pytest.mark.parametrize(
    ("said", "at", "words"),
    [
        ("{descriptoin: x}", "labels.names.bug.descriptoin", "did you mean 'description'?"),
        ("{name: x}", "labels.names.bug.name", "known: description, examples"),
        ("{examples: just text}", "labels.names.bug.examples", "expected a list of texts"),
        ("{examples: 5}", "labels.names.bug.examples", "expected a list of texts"),
        ("{examples: [5]}", "labels.names.bug.examples", "expected a list of texts"),
        ("{description: 5}", "labels.names.bug.description", "expected a text"),
    ],
)
def test_a_label_said_wrongly_is_told_at_the_label(said, at, words):
    (problem,) = problems(f"corpus: {{path: a}}\nlabels:\n  names:\n    bug: {said}\n    billing:\n")
    assert problem.startswith("p.yaml:4:")
    assert f"{at}: " in problem
    assert words in problem


def test_labels_that_are_prefixes_emoji_quotes_or_formulas_work():
    names = [
        "a",
        "ab",
        "A",
        "👩‍💻",
        "it's",
        'say "x"',
        "=cmd",
        "a, b",
        "#1",
        "- x",
        "null",
        "true",
        "é: ü",
        "{a}",
    ]
    pipeline = Pipeline(corpus={"path": "c.jsonl"}, labels={"names": names})
    assert made(pipeline.to_yaml()).label_schema().names == names


def test_a_thousand_labels_work():
    pipeline = Pipeline(corpus={"path": "c.jsonl"}, labels={"names": [f"label {i}" for i in range(1000)]})
    assert made(pipeline.to_yaml()) == pipeline


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("annotate: {use: llm, model: m, api_key_env: my-secret-value}", "not the key itself"),
        ("annotate: {use: llm}", "annotate.model: required and not there"),
        ("annotate: {}", "expected a annotate plug-in"),
        ("annotate: [llm]", "expected a annotate plug-in"),
        ("select: {first: margin}", "needs a student"),
        ("select: {use: margin, clpi: 0.1}", "select.clpi: unknown key; did you mean 'clip'?"),
        ("select: {use: margin, first: kmeans}", "select.first: unknown key"),
        ("select: marginn", "did you mean 'margin'?"),
        ("select: [margin]", "expected a strategy, or `first` and `then`"),
        ("select: {then: 'no.such.module:Thing'}", "cannot import"),
        ("select: {then: '.relative:Thing'}", "cannot import"),
        ("select: {then: ':Thing'}", "cannot import"),
        ("select: {then: 'json:JSONDecoder'}", "is not a select plug-in"),
        ("embed: margin", "no embed plug-in called 'margin'"),
        ("version: 2", "version"),
        ("budget: {usd: -1}", "greater than or equal to 0"),
        ("seed: -1", "greater than or equal to 0"),
        ("rounds: {size: 0}", "greater than or equal to 1"),
        ("audit: {size: '5'}", "valid integer, got '5'"),
    ],
)
def test_a_wrong_value_is_one_line_that_says_what_is_expected(line, words):
    (problem,) = problems(HEAD + line + "\n")
    assert problem.startswith("p.yaml:3:")
    assert words in problem
    assert "my-secret-value" not in problem


@pytest.mark.parametrize("usd", [float("inf"), float("nan"), -1])
def test_a_cap_that_is_no_amount_is_refused(usd):
    with pytest.raises(ValidationError):
        Pipeline(corpus={"path": "a"}, labels={"names": ["a", "b"]}, budget={"usd": usd})


def test_a_cap_is_exact_to_the_picodollar():
    budget = Pipeline(corpus={"path": "a"}, labels={"names": ["a", "b"]}, budget={"usd": 0.1}).budget
    assert budget.caps().cost == 100_000_000_000


@pytest.mark.parametrize("content", [None, b"\xff\xfe\x00"])
def test_a_file_that_cannot_be_read_is_one_line(tmp_path, content):
    path = tmp_path / "p.yaml"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(SpecError, match="cannot read the pipeline file"):
        Pipeline.from_yaml(path)


# --- file and object ----------------------------------------------------------------------------------------

words = st.text(
    st.characters(exclude_categories=["Cs"], exclude_characters="\ufeff\ufffe\uffff"), max_size=30
)
nasty = st.sampled_from(
    [
        "a: b",
        "# no",
        "- x",
        "null",
        "yes",
        "1e3",
        "012",
        "'",
        '"',
        "a\nb",
        "  a",
        "a  ",
        "\x85",
        "\u2028x",
        "\t",
        "\0",
        "😀",
        "=1",
        "x" * 200,
        "word " * 60,
        "a\n\n  b\n",
        "\x7f",
        "\x1b[31m",
    ]
)
said = st.one_of(words, nasty)
names = st.one_of(
    st.text(
        st.characters(exclude_categories=["Cs", "Cc", "Zl", "Zp"], exclude_characters="|\ufeff\ufffe\uffff"),
        min_size=1,
        max_size=12,
    ),
    st.sampled_from(["null", "yes", "1.0", "=cmd", "👩‍💻", "it's", "str", "Label", "~", "n" * 150]),
).filter(lambda n: n == n.strip())
label = st.one_of(
    said,
    st.none(),
    st.fixed_dictionaries({}, optional={"description": said, "examples": st.lists(said, max_size=3)}),
)
optional = {
    "seed": st.integers(0, 2**40),
    "audit": st.fixed_dictionaries({}, optional={"size": st.integers(0, 999), "annotate": st.booleans()}),
    "rounds": st.fixed_dictionaries({}, optional={"max": st.integers(1, 9), "size": st.integers(1, 999)}),
    "embed": st.sampled_from(["sentence", "hashing", {"use": "hashing", "dim": 64}]),
    "select": st.fixed_dictionaries(
        {},
        optional={
            "first": st.sampled_from(["uniform", "typiclust"]),
            "then": st.sampled_from(["margin", "uniform"]),
        },
    ),
    "annotate": st.sampled_from(
        [
            "zero-shot",
            {"use": "zero-shot", "temperature": 0.1},
            {"use": "llm", "model": "m", "price": "local"},
            {"use": "llm", "model": "m", "price": {"input": 0.15, "output": 0.6}, "api_key_env": "KEY"},
            {"use": "recorded", "path": "a b.csv", "confidence": "conf"},
        ]
    ),
    "filter": st.floats(0, 1).map(lambda x: {"use": "confidence", "at_least": x}),
    "train": st.sampled_from([{}, {"final": "linear"}, {"rounds": "linear", "final": "finetune"}]),
    "route": st.floats(0, 1).map(lambda x: {"use": "threshold", "at_least": x}),
    "budget": st.fixed_dictionaries(
        {}, optional={"usd": st.floats(0, 1e6), "calls": st.integers(0, 10**9), "people": st.integers(0, 999)}
    ),
}
pipelines = st.fixed_dictionaries(
    {
        "corpus": st.fixed_dictionaries(
            {"path": said},
            optional={"text": said, "id": said, "gold": said, "max_chars": st.integers(100, 9999)},
        ),
        "labels": st.fixed_dictionaries(
            {
                "names": st.one_of(
                    st.lists(names, min_size=2, max_size=5, unique=True),
                    st.dictionaries(names, label, min_size=2, max_size=5),
                )
            },
            optional={"kind": st.sampled_from(["single", "multi"]), "abstain": st.booleans()},
        ),
    },
    optional=optional,
)


@given(pipelines)
@settings(max_examples=25, deadline=None, database=None)
def test_a_pipeline_written_as_yaml_and_read_back_is_equal(data):
    pipeline = Pipeline.model_validate(data)
    again = made(pipeline.to_yaml())
    assert again == pipeline
    assert again.to_yaml() == pipeline.to_yaml()
    assert again.label_schema().recipe() == pipeline.label_schema().recipe()
    assert again.annotate.recipe() == pipeline.annotate.recipe()


def test_a_labels_examples_survive_the_frozen_copy_of_a_run(tmp_path):
    (tmp_path / "pipeline.yaml").write_text(
        made("corpus: {path: c}\nlabels: {names: {bug: {examples: [crash, it fails]}, b: x}}\n").to_yaml(),
        encoding="utf-8",
    )
    schema = Pipeline.from_yaml(tmp_path / "pipeline.yaml").label_schema()
    assert schema.labels[0] == Label(name="bug", examples=("crash", "it fails"))


def test_a_label_object_must_carry_the_name_it_stands_under():
    with pytest.raises(ValidationError, match="stands under the name"):
        Pipeline(corpus={"path": "a"}, labels={"names": {"bug": Label(name="bgu"), "b": ""}})


def test_defaults_stay_out_of_the_file():
    spec = made(HEAD).to_spec()
    assert spec == {
        "version": 1,
        "corpus": {"path": "c.jsonl"},
        "labels": {"names": {"bug": "", "billing": ""}},
    }


def test_other_adds_the_last_class():
    pipeline = made("corpus: {path: c}\nlabels: {names: [bug], other: none of them}\n")
    assert pipeline.label_schema().names == ["bug", "other"]
    assert "keep one" in problems("corpus: {path: c}\nlabels: {names: [Other, b], other: x}\n")[0]


def test_the_json_schema_accepts_what_the_package_accepts_and_refuses_typing_slips():
    schema = json_schema()
    jsonschema.Draft7Validator.check_schema(schema)
    validator = jsonschema.Draft7Validator(schema)
    good = made(HEAD + "annotate: {use: llm, model: m}\nselect: {first: uniform}\n").to_spec()
    assert validator.is_valid(json.loads(json.dumps(good)))
    assert validator.is_valid({"corpus": {"path": "a"}, "labels": {"names": ["a", "b"]}})
    assert not validator.is_valid({**good, "selcet": 1})
    assert not validator.is_valid({**good, "annotate": {"use": "llm", "modle": "m"}})
