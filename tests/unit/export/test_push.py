"""Sending an export to a model hub: on request, private, after a yes; the hub here is an object in memory."""

import re
from pathlib import Path
from types import SimpleNamespace

import pytest
from typer.testing import CliRunner

import llmal
from llmal.cli import app
from llmal.errors import LlmalError, ModelError, UserError
from llmal.export import push as module
from llmal.export.push import push
from llmal.testing.contracts.ship import no_network

SECRET = "hf_canary-token-of-nobody"
FILES = {
    "README.md": "# card",
    "llmal.json": "{}",
    "model.safetensors": "weights",
    "a/config.json": "{}",
}
LEFT = {"notes.pdf": "x", "run.py": "x", ".env": "x"}


class Hub:
    """What `push` uses of a hub's client, and what it was sent."""

    def __init__(self, repos=None, fails=None):
        self.repos, self.fails, self.sent = dict(repos or {}), fails, {}

    def create_repo(self, repo_id, *, private, exist_ok, repo_type):
        assert (exist_ok, repo_type) == (True, "model")
        full = repo_id if "/" in repo_id else f"me/{repo_id}"
        self.repos.setdefault(full, private)
        return type("Url", (str,), {"repo_id": full})(f"https://hub.test/{full}")

    def repo_info(self, repo_id, *, repo_type):
        return SimpleNamespace(private=self.repos[repo_id])

    def upload_folder(self, *, repo_id, folder_path, allow_patterns, repo_type, commit_message):
        if self.fails:
            raise self.fails
        self.sent[repo_id] = {name: (Path(folder_path) / name).read_text() for name in allow_patterns}


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", SECRET)
    for name, body in (FILES | LEFT).items():
        (tmp_path / "model" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "model" / name).write_text(body)
    (tmp_path / "outside.json").write_text("private")
    (tmp_path / "model" / "link.json").symlink_to(tmp_path / "outside.json")
    return tmp_path / "model"


@pytest.mark.parametrize("public", [False, True])
def test_what_was_shown_is_sent_and_nothing_else(public, folder):
    hub, asked = Hub(), []
    with no_network():
        address = push(folder, "me/topics", public=public, agree=lambda t: not asked.append(t), hub=hub)
    assert address == "https://hub.test/me/topics"
    assert hub.repos == {"me/topics": not public}
    assert hub.sent == {"me/topics": FILES}
    (text,) = asked
    assert all(name in text for name in FILES)
    assert not any(name in text for name in [*LEFT, "link.json"])
    assert ("PUBLIC" in text) == public
    assert ("private" in text) != public


def test_nothing_leaves_without_a_yes(folder):
    hub = Hub()
    assert push(folder, "me/topics", public=False, agree=lambda _: False, hub=hub) is None
    assert (hub.repos, hub.sent) == ({}, {})


def test_a_name_without_an_owner_is_the_token_s(folder):
    hub = Hub()
    push(folder, "topics", public=False, agree=lambda _: True, hub=hub)
    assert hub.repos == {"me/topics": True}


def test_a_public_repository_gets_nothing_that_was_meant_to_be_private(folder):
    hub = Hub({"me/topics": False})
    with pytest.raises(UserError, match=r"me/topics: the repository .* and public\. Say --public"):
        push(folder, "me/topics", public=False, agree=lambda _: True, hub=hub)
    assert hub.sent == {}


def test_without_a_token_it_says_where_to_put_one(folder, monkeypatch):
    monkeypatch.delenv("HF_TOKEN")
    with pytest.raises(UserError, match="no token to write to the hub with. Put it into the environment"):
        push(folder, "me/topics", public=False, agree=pytest.fail, hub=Hub())


@pytest.mark.parametrize("name", ["", "a/b/c", "../x", "/x", "me/", "me/to pics", "me/.x", "https://x/y"])
def test_a_name_no_hub_takes(name, folder):
    with pytest.raises(UserError, match="is no name of a repository"):
        push(folder, name, public=False, agree=pytest.fail, hub=Hub())


def test_what_could_run_is_never_sent(folder):
    (folder / "a" / "pytorch_model.bin").write_bytes(b"\x80\x04")
    with pytest.raises(ModelError, match="is a pickle"):
        push(folder, "me/topics", public=False, agree=pytest.fail, hub=Hub())


def test_a_folder_that_is_no_export(tmp_path):
    with pytest.raises(UserError, match="no exported classifier here"):
        push(tmp_path, "me/topics", public=False, agree=pytest.fail, hub=Hub())


def test_a_refusal_is_told_without_the_token(folder):
    hub = Hub(fails=ConnectionError(f"401 for\nBearer {SECRET}"))
    with pytest.raises(LlmalError, match=r"the hub did not take it: 401 for Bearer \*\*\*") as caught:
        push(folder, "me/topics", public=False, agree=lambda _: True, hub=hub)
    assert caught.value.__suppress_context__


# --- the verb


@pytest.fixture
def verb(folder, monkeypatch):
    """`llmal export` on a run whose export is at hand; returns the hub, and how to call it."""
    hub = Hub()

    def exported(run, out):
        folder.rename(out)
        return {"export": str(out)}

    monkeypatch.setattr("llmal.report._exported", exported)
    monkeypatch.setattr(module, "_client", lambda token: {SECRET: hub}[token])
    return hub, lambda *words, said="": CliRunner().invoke(app, ["export", "run", *words], input=said)


def test_the_verb_sends_after_a_yes(verb, tmp_path):
    hub, call = verb
    done = call("--push", "me/topics", said="y\n")
    assert done.exit_code == 0, done.output
    assert done.stdout.endswith("\nsent to https://hub.test/me/topics\n")
    assert "model.safetensors" in done.stderr
    assert hub.sent == {"me/topics": FILES}
    assert hub.repos == {"me/topics": True}
    assert SECRET not in done.output


def test_the_verb_sends_nothing_after_a_no(verb, tmp_path):
    hub, call = verb
    done = call("--push", "me/topics", "--out", str(tmp_path / "kept"), said="n\n")
    assert (done.exit_code, hub.repos) == (0, {})
    assert done.stdout.endswith("nothing was sent\n")
    assert (tmp_path / "kept" / "llmal.json").is_file()


def test_the_verb_sends_nothing_unasked(verb, tmp_path):
    hub, call = verb
    done = call("--out", str(tmp_path / "kept"))
    assert (done.exit_code, hub.repos) == (0, {})
    assert "sent" not in done.output


def test_the_verb_needs_a_place(verb):
    assert verb[1]().exit_code == 2


def test_no_other_part_of_llmal_sends_anything_to_a_hub():
    package = Path(llmal.__file__).parent
    sends = re.compile(r"upload_|create_repo|push_to_hub|create_commit|export\.push|import push")
    files = {
        file.relative_to(package).as_posix()
        for file in package.rglob("*.py")
        if sends.search(file.read_text())
    }
    assert files == {"export/push.py", "report.py"}
