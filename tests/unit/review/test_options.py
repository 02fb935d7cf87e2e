"""The `review:` part of a pipeline file: read back as written, and wrong values told in one line."""

import pytest

from llmal.errors import SpecError
from llmal.review.options import ReviewSpec
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


@pytest.mark.parametrize(
    ("part", "words"),
    [
        ("{candidates: sometimes}", "review.candidates: .*'auto', 'never' or 'always'"),
        ("{miss: [1.0]}", "review.miss.0: .*less than 1"),
        ("{miss: []}", "review.miss: .*at least 1 item"),
        ("{miss: ['0.1']}", "review.miss.0: .*valid number"),
        ("{mis: [0.1]}", "review.mis: unknown key; did you mean 'miss'"),
    ],
)
def test_a_wrong_value_is_told_in_one_line(tmp_path, part, words):
    with pytest.raises(SpecError, match=words):
        read(tmp_path, f"review: {part}\n")
