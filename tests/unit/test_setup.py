"""Before a run: init, check, plan and doctor; one line for a fault, and the exit code."""

import json
import subprocess
import sys

import pytest

from llmal import cli, setup
from llmal.errors import CorpusError, LlmalError, UserError
from llmal.spec import Pipeline
from llmal.store import schema as t
from llmal.store.store import open_store

HEAD = "corpus: {path: c.jsonl}\nlabels: {names: [bug, billing]}\n"


@pytest.fixture
def project(tmp_path, monkeypatch, capsys):
    """Writes a pipeline and a corpus, runs `llmal` in process, and returns exit code, stdout and stderr."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "excepthook", sys.excepthook)

    def go(*args, file=HEAD, corpus=b'{"text": "it crashed"}\n{"text": "refund me"}\n'):
        (tmp_path / "p.yaml").write_text(file, encoding="utf-8")
        if corpus is not None:
            (tmp_path / "c.jsonl").write_bytes(corpus)
        monkeypatch.setattr(sys, "argv", ["llmal", *args])
        with pytest.raises(SystemExit) as end:
            cli.main()
        said = capsys.readouterr()
        return end.value.code or 0, said.out, said.err

    go.folder = tmp_path
    return go


# --- check --------------------------------------------------------------------------------------------------


def test_a_good_file_is_fine(project):
    code, out, err = project("check", "p.yaml")
    assert (code, err) == (0, "")
    assert out == "p.yaml: fine; 2 labels, prompt and corpus are there\n"


@pytest.mark.parametrize(
    ("corpus", "start"),
    [
        (b"", "c.jsonl: no usable text in 0 rows"),
        (b'{"text": ""}\n{"text": null}\n', "c.jsonl: no usable text in 2 rows"),
        (b'{"body": "x"}\n', "c.jsonl:1: no column 'text'; the row has: body"),
        (b'{"text": "a"}\n{"text": 5}\n', "c.jsonl:2: column 'text' holds int, not text"),
        (b"a,b\nc,d\ne,f\n", "c.jsonl: 3 of 3 rows are unreadable"),
        ('{"text": "a"}\n'.encode("utf-16") + b"\n", "c.jsonl: the file ends inside a character"),
        (b'{"text": "a\\u202e\\n\\ud800": 1}\n', "c.jsonl: no usable text in 1 rows"),
        (b'{"\\u202ex\\n\\ud800": "a"}\n', "c.jsonl:1: no column 'text'; the row has: \ufffdx\ufffd\ufffd"),
        (None, "c.jsonl: no such corpus file"),
    ],
)
def test_a_bad_corpus_is_one_line_with_its_place_and_exit_code_2(project, corpus, start):
    code, out, err = project("check", "p.yaml", corpus=corpus)
    assert (code, out) == (2, "")
    assert err.startswith(start)
    assert len(err.splitlines()) == 1
    assert "Traceback" not in err


def test_an_id_for_two_texts_names_both_rows(project):
    file = "corpus: {path: c.jsonl, id: id}\nlabels: {names: [bug, billing]}\n"
    code, _, err = project(
        "check", "p.yaml", file=file, corpus=b'{"id": 1, "text": "a"}\n{"id": 1, "text": "b"}\n'
    )
    assert code == 2
    assert err.startswith("c.jsonl:2: id '1' stands for two texts, in rows 1 and 2")


def test_every_problem_of_the_file_is_a_line_with_its_place(project):
    code, _, err = project(
        "check", "p.yaml", file=HEAD + "selcet: 1\nrounds: {sise: 5}\nselect: {first: typclust}\n"
    )
    assert code == 2
    assert [line.split(": ")[0] for line in err.splitlines()] == ["p.yaml:3:1", "p.yaml:4:10", "p.yaml:5:10"]
    assert err.count("did you mean") == 3


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("annotate: {use: llm, model: m, api_key_env: sk-proj-CANARYCANARYCANARY0}", "environment variable"),
        ("embed: !!python/object/apply:os.system ['touch owned']", "is not allowed"),
        (
            "a: &a [x,x,x]\n"
            + "".join(f"a{i}: &a{i} [{','.join([f'*a{i - 1}' if i else '*a'] * 9)}]\n" for i in range(9)),
            "aliases that repeat",
        ),
        ("labels: {names: [a, b]}", "stands twice"),
        ("\tembed: sentence", "tabs"),
        ("annotate: {use: llm, model: m, prompt: gone.md}", "cannot read the prompt"),
        ("annotate: {use: recorded, path: gone.csv}", "no such file of recorded answers"),
    ],
)
def test_what_is_unsafe_or_missing_is_refused_in_one_line_without_showing_a_key(project, line, words):
    code, out, err = project("check", "p.yaml", file=f"{HEAD}{line}\n")
    assert (code, out) == (2, "")
    assert words in err
    assert "CANARY" not in err
    assert "Traceback" not in err
    assert not (project.folder / "owned").exists()


def test_a_demonstration_with_a_label_that_is_gone_is_found_before_anything_is_paid(project):
    (project.folder / "p.md").write_text(
        "---\ndemonstrations: [{text: a, label: bgu}]\n---\nDo.\n", encoding="utf-8"
    )
    code, _, err = project(
        "check", "p.yaml", file=HEAD + "annotate: {use: llm, model: m, price: local, prompt: p.md}\n"
    )
    assert code == 2
    assert err.startswith("annotate.prompt: demonstration 1: label 'bgu' is not one of labels.names")


def test_the_installed_command_says_the_same(project):
    project("check", "p.yaml")
    (project.folder / "c.jsonl").write_bytes(b"\xff\n")
    done = subprocess.run(
        [sys.executable, "-m", "llmal.cli", "check", "p.yaml"],
        cwd=project.folder,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.splitlines() == ["c.jsonl: no usable text in 1 rows. The file needs rows with text"]


# --- init ---------------------------------------------------------------------------------------------------


def corpus_of(folder, *rows):
    path = folder / "c.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def test_init_writes_a_file_that_checks_as_it_is(tmp_path):
    corpus = corpus_of(
        tmp_path,
        {"id": "1", "body": "it crashed", "label": "bug"},
        {"id": "2", "body": "refund", "label": "billing"},
    )
    out = tmp_path / "new" / "p.yaml"
    out.parent.mkdir()
    made = setup.write_pipeline(corpus, ["bug", "billing"], out)
    found = setup.check_pipeline(out)
    assert found["labels"] == ["bug", "billing"]
    spec = Pipeline.from_yaml(out).corpus
    assert (spec.text, spec.id, spec.gold) == ("body", "id", "label")
    assert (tmp_path / "new" / "prompts" / "classify.md").is_file()
    assert made["pipeline"] == str(out)


def test_init_takes_no_column_for_gold_that_holds_other_labels(tmp_path):
    corpus = corpus_of(tmp_path, {"text": "it crashed", "category": "electronics"})
    setup.write_pipeline(corpus, ["bug", "billing"], tmp_path / "p.yaml")
    setup.check_pipeline(tmp_path / "p.yaml")
    assert Pipeline.from_yaml(tmp_path / "p.yaml").corpus.gold is None


def test_init_never_overwrites(tmp_path):
    out = tmp_path / "p.yaml"
    out.write_text("mine", encoding="utf-8")
    with pytest.raises(UserError, match="exists already"):
        setup.write_pipeline(corpus_of(tmp_path, {"text": "a"}), ["a", "b"], out)
    assert out.read_text(encoding="utf-8") == "mine"


@pytest.mark.parametrize("labels", ["bug", "bug,bug", "bug,", "a|b,c", " , "])
def test_init_refuses_labels_no_file_could_hold_in_one_line(project, labels):
    code, out, err = project("init", "c.jsonl", "--labels", labels, "--out", "new.yaml")
    assert (code, out) == (2, "")
    assert err.startswith("--labels: ")
    assert len(err.splitlines()) == 1
    assert not (project.folder / "new.yaml").exists()


@pytest.mark.parametrize(
    ("rows", "words"),
    [([], "no readable row"), ([{"n": 1, "m\u202e": 2}], "no column with text among n, m\ufffd")],
)
def test_init_refuses_a_corpus_without_text(tmp_path, rows, words):
    with pytest.raises(CorpusError, match=words):
        setup.write_pipeline(corpus_of(tmp_path, *rows), ["a", "b"], tmp_path / "p.yaml")


# --- list, doctor -------------------------------------------------------------------------------------------


def test_the_list_of_plug_ins_has_words_for_each():
    found = setup.plugins()
    assert set(found) <= set(setup.STAGES)
    assert all(
        words and not words.startswith("cannot") for names in found.values() for words in names.values()
    )


def states(run):
    return {check["about"]: check for check in setup.doctor(run)["checks"]}


def test_doctor_finds_a_whole_store_whole_and_names_damage(tmp_path):
    store = open_store(tmp_path / "run")
    store.add(t.meta, [{"name": f"n{i}", "value": "x" * 500} for i in range(200)])
    store.close()
    assert states(tmp_path / "run")["store"]["state"] == "ok"
    path = tmp_path / "run" / "store.sqlite"
    body = bytearray(path.read_bytes())
    body[len(body) - 40_000 : len(body) - 20_000] = b"\x5a" * 20_000
    path.write_bytes(body)
    assert states(tmp_path / "run")["store"]["state"] == "bad"
    path.write_bytes(b"\x5a" * 5000)
    assert states(tmp_path / "run")["store"]["state"] == "bad"
    assert states(tmp_path / "gone")["store"]["state"] == "bad"


def test_doctor_refuses_a_compromised_package(monkeypatch):
    real = setup.metadata.version
    monkeypatch.setattr(
        setup.metadata,
        "version",
        lambda name: {"litellm": "1.82.7", "cleanlab": "2.8.1"}.get(name) or real(name),
    )
    found = states(None)
    assert found["litellm"]["state"] == found["cleanlab"]["state"] == "bad"
    assert "compromised" in found["litellm"]["words"]


def test_every_error_is_an_exit_code_of_its_own_kind():
    def kinds(cls):
        return {cls} | {k for sub in cls.__subclasses__() for k in kinds(sub)}

    assert {k.exit_code for k in kinds(LlmalError)} == {1, 2, 3, 4, 5, 130}
