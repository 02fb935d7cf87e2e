"""The `review:` part of a pipeline file: read back as written, and wrong values told in one line."""

import pytest

from llmal.errors import SpecError
from llmal.records import recipe
from llmal.review.options import SETS, ReviewSpec
from llmal.spec import Pipeline

FILE = "corpus: {path: c.jsonl}\nlabels: {names: [a, b, c]}\n"


def read(tmp_path, more):
    path = tmp_path / "p.yaml"
    path.write_text(FILE + more, encoding="utf-8")
    return Pipeline.from_yaml(path)


def test_a_file_without_the_part_asks_for_lists_where_they_pay_and_does_not_mention_them(tmp_path):
    pipeline = read(tmp_path, "")
    assert pipeline.review == ReviewSpec(candidates="auto", miss=(0.05, 0.1, 0.2), by_class=False)
    assert "review" not in pipeline.to_spec()


def test_the_part_is_read_back_as_it_was_written(tmp_path):
    pipeline = read(tmp_path, "review: {candidates: always, miss: [0, 0.1], by_class: true}\n")
    assert pipeline.review == ReviewSpec(candidates="always", miss=(0, 0.1), by_class=True)
    (tmp_path / "again.yaml").write_text(pipeline.to_yaml(), encoding="utf-8")
    assert Pipeline.from_yaml(tmp_path / "again.yaml") == pipeline
    assert pipeline.review.recipe() != read(tmp_path, "").review.recipe()


def test_what_people_see_is_read_back_as_it_was_written(tmp_path):
    part = "{show: assisted, order: doubt, overlap: 1, people: 3, guidelines: guide.md}"
    review = read(tmp_path, f"review: {part}\n").review
    assert (review.show, review.order, review.overlap, review.people) == ("assisted", "doubt", 1, 3)
    assert review.guidelines == "guide.md"
    plain = ReviewSpec()
    assert (plain.show, plain.order, plain.overlap, plain.people) == ("blind", "value", 0.1, 2)


@pytest.mark.parametrize(
    ("part", "again"),
    [
        ({"show": "assisted"}, False),
        ({"order": "doubt"}, False),
        ({"overlap": 0.5}, False),
        ({"people": 5}, False),
        ({"guidelines": "guide.md"}, False),
        ({"candidates": "always"}, True),
        ({"miss": (0.3,)}, True),
        ({"by_class": True}, True),
    ],
)
def test_only_what_candidate_sets_depend_on_makes_new_ones(part, again):
    assert (ReviewSpec(**part).recipe() != ReviewSpec().recipe()) == again


def test_every_option_is_known_to_change_sets_or_not(tmp_path):
    """A new option has to be put in `SETS` or in the list above, or old sets would serve new options."""
    known = {"show", "order", "overlap", "people", "guidelines"}
    assert set(ReviewSpec.model_fields) == SETS | known


def test_sets_made_before_there_were_other_options_still_count():
    said = {"candidates": "auto", "miss": [0.05, 0.1, 0.2], "by_class": False}
    assert ReviewSpec().recipe() == recipe("review", said)


@pytest.mark.parametrize(
    ("part", "words"),
    [
        ("{candidates: sometimes}", "review.candidates: .*'auto', 'never' or 'always'"),
        ("{miss: [1.0]}", "review.miss.0: .*less than 1"),
        ("{miss: []}", "review.miss: .*at least 1 item"),
        ("{miss: ['0.1']}", "review.miss.0: .*valid number"),
        ("{mis: [0.1]}", "review.mis: unknown key; did you mean 'miss'"),
        ("{show: both}", "review.show: .*'blind' or 'assisted'"),
        ("{order: longest}", "review.order: .*'value' or 'doubt'"),
        ("{overlap: 1.5}", "review.overlap: .*less than or equal to 1"),
        ("{people: 1}", "review.people: .*greater than or equal to 2"),
        ("{guidelines: ''}", "review.guidelines: .*at least 1 character"),
    ],
)
def test_a_wrong_value_is_told_in_one_line(tmp_path, part, words):
    with pytest.raises(SpecError, match=words):
        read(tmp_path, f"review: {part}\n")
