"""Labelling servers: nothing goes out twice, answers come in as from a file, and no key goes anywhere else.

The clients here stand for the SDKs, which tests do not install; `Studio` answers as label-studio-sdk 2.1 with
a Label Studio 1.23.2 did, `Rg` as argilla 2.8 does.
"""

import contextlib
import io
import json
import sys
from types import SimpleNamespace

import pytest
from typer.testing import CliRunner

from llmal import handover
from llmal.cli import app
from llmal.context import Silent
from llmal.errors import LlmalError, MissingExtra, UserError
from llmal.records import Label, LabelSchema
from llmal.review.exchange import waiting_work
from llmal.review.servers.address import address_of
from llmal.review.servers.traffic import BATCH, BATCH_CHARS, SERVERS, Traffic, called
from llmal.review.stage import Waiting
from llmal.store import schema as t
from llmal.testing.hostile import HOSTILE

KEY = "s3cr3t-k3y-of-somebody"
SCHEMA = LabelSchema("single", (Label(name="bug"), Label(name="=cmd"), Label(name="<b>none")), True)
TEXTS = ["first", *HOSTILE.values(), "a\r\nb\tc", "\u2028x\x85"]
OTHER = LabelSchema("single", (Label(name="bug"), Label(name="new")), False)


@pytest.fixture
def store(filled):
    return filled(TEXTS)


@pytest.fixture(autouse=True)
def key(monkeypatch):
    for kind in SERVERS.values():
        monkeypatch.setenv(kind.key_name, KEY)
        monkeypatch.delenv(kind.url_name, raising=False)


class Studio:
    """A Label Studio server as its SDK shows it; `breaks_at` is the request that fails after it was done."""

    def __init__(self, breaks_at=None):
        self.made, self.requests, self.breaks_at = {}, [], breaks_at
        self.projects = SimpleNamespace(
            list=lambda: [SimpleNamespace(id=i, title=p["title"]) for i, p in self.made.items()],
            create=self._create, import_tasks=self._take, exports=SimpleNamespace(as_file=self._file),
        )  # fmt: skip
        self.tasks = SimpleNamespace(list=self._tasks)
        self.users = SimpleNamespace(list=lambda: [SimpleNamespace(id=1, email="ann@example.org")])

    def _create(self, *, title, label_config):
        self.made[len(self.made) + 1] = {"title": title, "config": label_config, "tasks": []}
        return SimpleNamespace(id=len(self.made))

    def _take(self, id, *, request, request_options):
        assert request_options == {"max_retries": 0}
        self.requests.append(len(request))
        self.made[id]["tasks"] += json.loads(json.dumps(request))
        if len(self.requests) == self.breaks_at:
            raise ConnectionError(f"gone; sent Authorization: Token {KEY}")

    def _tasks(self, *, project, page_size, resolve_uri):
        assert resolve_uri is False
        return iter([SimpleNamespace(data=task["data"]) for task in self.made[project]["tasks"]])

    def _file(self, id, form):
        assert form == "JSON"
        return io.BytesIO(json.dumps(self.made[id]["tasks"]).encode())

    def texts(self):
        return [task["data"]["text"] for project in self.made.values() for task in project["tasks"]]

    def answer(self, i, label, at):
        value = {"type": "choices", "from_name": "label", "value": {"choices": [label]}}
        said = {
            "completed_by": 1,
            "result": [value],
            "was_cancelled": False,
            "lead_time": 2.5,
            "updated_at": at,
        }
        self.made[1]["tasks"][i]["annotations"] = [said]


class Rg:
    """An Argilla server as its SDK shows it, and the module itself."""

    def __init__(self):
        self.made = {}
        self.users = SimpleNamespace(list=lambda: [SimpleNamespace(id="u-1", username="ann")])
        self.workspaces = lambda name: SimpleNamespace(name=name) if name == "ws" else None
        self.Record = SimpleNamespace(from_dict=lambda task: json.loads(json.dumps(task)))
        self.Settings = SimpleNamespace(from_json=lambda path: json.loads(path.read_text(encoding="utf-8")))
        self.Dataset = lambda name, workspace, settings, client: SimpleNamespace(
            create=lambda: self.made.setdefault((workspace, name), _Dataset(settings))
        )
        self.api = SimpleNamespace(records=SimpleNamespace(list=self._list))

    def datasets(self, name, workspace=None):
        return self.made.get((workspace, name))

    def _list(self, dataset_id, *, offset, limit, with_suggestions, with_responses):
        (dataset,) = (d for d in self.made.values() if d.id == dataset_id)
        return [
            SimpleNamespace(
                external_id=row["id"], fields=row["fields"], status=row["status"],
                metadata=[SimpleNamespace(name=k, value=v) for k, v in row["metadata"].items()],
                responses=row.get("said", []) * with_responses,
                suggestions=[SimpleNamespace(question_id=7, **s) for s in row["suggestions"].values()]
                * with_suggestions,
            )
            for row in list(dataset.rows.values())[offset : offset + limit]
        ]  # fmt: skip

    def texts(self):
        return [record["fields"]["text"] for d in self.made.values() for record in d.rows.values()]

    def answer(self, i, label, at, status="submitted"):
        del at  # the SDK keeps no time
        (dataset,) = self.made.values()
        row = list(dataset.rows.values())[i]
        values = None if label is None else {"label": {"value": label}}
        row["said"] = [SimpleNamespace(values=values, user_id="u-1", status=SimpleNamespace(value=status))]
        row["status"] = "completed"


class _Dataset:
    def __init__(self, settings):
        self.id, self.rows, self.requests = object(), {}, []
        self.settings = SimpleNamespace(questions=[SimpleNamespace(id=7, name="label")], given=settings)
        self.records = self

    def log(self, records, batch_size):
        assert batch_size == len(records)
        self.requests.append(len(records))
        self.rows |= {r["id"]: r for r in records}


@pytest.fixture(params=SERVERS)
def there(request, monkeypatch):
    """(kind of server, its client, a way to reach it)."""
    client = Studio() if request.param == "label-studio" else Rg()
    if request.param == "argilla":
        monkeypatch.setitem(sys.modules, "argilla", client)
        monkeypatch.setattr("llmal.review.servers.argilla.need", lambda *_, **__: client)

    def traffic(schema=SCHEMA, dataset="d"):
        given = {"dataset": dataset, "schema": schema, "progress": Silent(), "client": client}
        return Traffic(request.param, "https://labels.example.org", **given)

    return request.param, client, traffic


def works(store, **more):
    queue = [Waiting(s, "unsure", ("bug",), 0.5, ("=cmd", "bug")) for s in store.active()]
    return waiting_work(store, [queue[0]._replace(why="audit"), *queue[1:]], **more)


def test_what_waits_goes_to_the_server_once_and_what_is_new_later(store, there):
    _, client, traffic = there
    some = list(works(store))
    assert traffic().push(some[:5], blind=True) == (5, 0, "d", True)
    assert traffic().push(some, blind=True) == (len(TEXTS) - 5, 5, "d", False)
    assert traffic().push(some, blind=True) == (0, len(TEXTS), "d", False)
    assert sorted(client.texts()) == sorted(item.text for item in store.items(list(range(len(TEXTS)))))


def test_a_push_that_broke_off_after_the_server_took_it_sends_nothing_twice(store, monkeypatch):
    monkeypatch.setattr("llmal.review.servers.traffic.BATCH", 4)
    client = Studio(breaks_at=2)
    given = {"dataset": "d", "schema": SCHEMA, "progress": Silent(), "client": client}
    with pytest.raises(LlmalError, match=r"refused or could not be reached: ConnectionError gone") as found:
        Traffic("label-studio", "https://x.test", **given).push(works(store), blind=True)
    assert KEY not in str(found.value)
    assert found.value.__cause__ is None
    sent = Traffic("label-studio", "https://x.test", **given).push(works(store), blind=True)
    assert (sent.new, sent.known) == (len(TEXTS) - 8, 8)
    assert len(client.texts()) == len(set(client.texts())) == len(TEXTS)


def test_a_blind_project_gets_no_machines_answer_and_items_that_measure_never_do(store, there):
    kind, client, traffic = there
    traffic(dataset="blind").push(works(store), blind=True)
    traffic(dataset="assisted").push(works(store), blind=False)
    guesses = {}
    for n, name in enumerate(("blind", "assisted"), 1):
        if kind == "label-studio":
            guesses[name] = [bool(task["predictions"]) for task in client.made[n]["tasks"]]
        else:
            guesses[name] = [bool(r["suggestions"]) for r in client.made[None, name].rows.values()]
    assert guesses == {
        "blind": [False] * len(TEXTS),
        "assisted": [False] + [True] * (len(TEXTS) - 1),
    }


def test_answers_come_back_once_and_a_changed_mind_is_one_more(store, there, tmp_path):
    _, client, traffic = there
    traffic().push(works(store), blind=True)
    client.answer(0, "bug", "2026-11-01T10:00:00Z")
    client.answer(1, "no such label", "2026-11-01T10:00:00Z")
    folder = tmp_path / "pulled"
    taken = traffic().pull(store, folder, person="someone")
    (name,) = (path.name for path in folder.iterdir())
    assert (taken.new, taken.open) == (1, len(TEXTS) - 2)
    assert taken.aside == [f"{name}:2: no label called 'no such label'"]
    assert traffic().pull(store, folder, person="someone").new == 0
    client.answer(0, "=cmd", "2026-11-01T11:00:00Z")
    assert traffic().pull(store, folder, person="someone").new == 1
    assert traffic().pull(store, folder, person="someone").new == 0
    said = [(a.person.partition("@")[0], a.labels) for a in store.read(t.answer.select())]
    assert said == [("ann", '["bug"]'), ("ann", '["=cmd"]')]


def test_what_was_said_here_since_is_not_undone_by_a_server_that_tells_no_time(store, there, tmp_path):
    _, client, traffic = there
    traffic().push(works(store), blind=True)
    client.answer(0, "bug", "2026-11-01T10:00:00Z")
    traffic().pull(store, tmp_path / "p", person="someone")
    (before,) = store.read(t.answer.select())
    later = {**before._mapping, "n": 2, "labels": '["=cmd"]', "source": "page-1:x", "at": before.at + 60}
    store.add(t.answer, [later])
    assert traffic().pull(store, tmp_path / "p", person="someone").new == 0
    assert store.answers() == {0: ("=cmd",)}


def test_a_data_set_for_other_labels_or_that_is_not_there_is_refused(store, there, tmp_path):
    _, client, traffic = there
    with pytest.raises(UserError, match=r"d: no such data set on the server. Push first"):
        traffic().pull(store, tmp_path, person="someone")
    traffic().push(list(works(store))[:2], blind=True)
    with pytest.raises(UserError, match=r"d: the data set holds items for other labels. Name another"):
        traffic(OTHER).push(works(store), blind=True)
    assert len(client.texts()) == 2
    assert called(tmp_path, SCHEMA, None) != called(tmp_path, OTHER, None)


def test_a_response_without_a_value_is_counted_and_the_others_come_in(store, monkeypatch, tmp_path):
    client = Rg()
    monkeypatch.setattr("llmal.review.servers.argilla.need", lambda *_, **__: client)
    monkeypatch.setattr("llmal.review.servers.argilla.PAGE", 3)
    given = {"dataset": "d", "schema": SCHEMA, "progress": Silent(), "client": client}
    Traffic("argilla", "https://x.test", **given).push(works(store), blind=False)
    client.answer(0, None, None, status="discarded")
    client.answer(1, "bug", None, status="draft")
    client.answer(2, "bug", None)
    taken = Traffic("argilla", "https://x.test", **given).pull(store, tmp_path, person="someone")
    assert (taken.new, taken.skipped, taken.open) == (1, 2, len(TEXTS) - 3)
    (answer,) = store.read(t.answer.select())
    assert (answer.person, answer.saw, answer.shown) == ("ann", '["bug"]', '["=cmd", "bug"]')


def test_a_workspace_can_be_named_and_one_that_is_not_there_is_refused(store, monkeypatch):
    client = Rg()
    monkeypatch.setattr("llmal.review.servers.argilla.need", lambda *_, **__: client)
    given = {"schema": SCHEMA, "progress": Silent(), "client": client}
    Traffic("argilla", "https://x.test", dataset="ws/d", **given).push(works(store), blind=True)
    assert list(client.made) == [("ws", "d")]
    with pytest.raises(UserError, match="--dataset: no workspace called 'gone'"):
        Traffic("argilla", "https://x.test", dataset="gone/d", **given).push(works(store), blind=True)


def test_two_projects_of_one_title_are_not_guessed_between(store):
    client = Studio()
    client._create(title="d", label_config="")
    client._create(title="d", label_config="")
    given = {"dataset": "d", "schema": SCHEMA, "progress": Silent(), "client": client}
    with pytest.raises(UserError, match="2 projects have this title"):
        Traffic("label-studio", "https://x.test", **given).push(works(store), blind=True)


def test_requests_are_bounded_in_items_and_in_characters(store, monkeypatch):
    monkeypatch.setattr("llmal.review.servers.traffic.BATCH_CHARS", 2000)
    client = Studio()
    given = {"dataset": "d", "schema": SCHEMA, "progress": Silent(), "client": client}
    Traffic("label-studio", "https://x.test", **given).push(works(store), blind=True)
    assert sum(client.requests) == len(TEXTS)
    sizes = [len(json.dumps(task)) for task in client.made[1]["tasks"]]
    start = 0
    for n in client.requests:
        assert n == 1 or sum(sizes[start : start + n]) < 2 * 2000
        start += n
    assert max(client.requests) > 1
    assert (BATCH, BATCH_CHARS) == (200, 4_000_000)


@pytest.mark.parametrize(
    ("url", "words"),
    [
        (None, "--url: no address of the server. Say --url https://HOST, or set LABEL_STUDIO_URL"),
        ("http://labels.example.org", "--url: the key would cross the network in clear text. Use https"),
        ("http://127.0.0.1.example.org", "clear text"),
        ("https://ann:pw@labels.example.org", "--url: an address must not carry a password"),
        ("ftp://labels.example.org", "expected an address such as https://host"),
        ("labels.example.org", "expected an address such as https://host"),
        ("https://[labels", "expected an address such as https://host"),
        ("https://labels.example.org:99999999", "expected an address such as https://host"),
        ("https://labels.example.org/?next=x", "expected an address such as https://host"),
    ],
)
def test_an_address_is_given_by_the_user_and_safe_for_a_key(url, words):
    with pytest.raises(UserError) as found:
        address_of(url, url_name="LABEL_STUDIO_URL", key_name="LABEL_STUDIO_API_KEY")
    assert words in str(found.value)
    assert KEY not in str(found.value)
    assert "pw" not in str(found.value)


@pytest.mark.parametrize(
    "url", ["http://127.0.0.1:8080/", "http://localhost", "http://[::1]:1", "https://x.test/ls"]
)
def test_this_machine_and_https_will_do_and_no_key_is_shown(url, monkeypatch):
    monkeypatch.setenv("LABEL_STUDIO_URL", url)
    address = address_of(None, url_name="LABEL_STUDIO_URL", key_name="LABEL_STUDIO_API_KEY")
    assert address.url == url.rstrip("/")
    assert KEY not in repr(address)
    with address.transport() as client:
        assert client.follow_redirects is False
        assert client.trust_env is not address.here


@pytest.mark.parametrize("value", ["", "  ", "two words", "k\u20ac", "a\r\nX-Evil: 1"])
def test_a_key_that_is_none_is_not_sent_and_not_shown(value, monkeypatch):
    monkeypatch.setenv("ARGILLA_API_KEY", value)
    with pytest.raises(UserError, match=r"^ARGILLA_API_KEY: ") as found:
        address_of("https://x.test", url_name="ARGILLA_API_URL", key_name="ARGILLA_API_KEY")
    assert not value.strip() or value not in str(found.value)


def test_what_a_server_says_is_told_without_headers_keys_and_control_characters():
    address = address_of("https://x.test", url_name="X", key_name="ARGILLA_API_KEY")

    class ApiError(Exception):
        status_code, headers = 401, {"set-cookie": "sessionid=abc"}
        body = {"detail": f"bad\x1b[2J token {KEY}\nnext" + "x" * 1000}

        def __str__(self):
            return f"{self.headers} {self.body}"

    told = str(address.told(ApiError()))
    assert told.startswith("https://x.test: the server refused or could not be reached: ApiError 401 bad")
    for secret in (KEY, "sessionid", "\x1b", "\n"):
        assert secret not in told
    assert len(told) < 450


@pytest.mark.parametrize("tool", SERVERS)
def test_without_the_sdk_the_pip_line_is_told(store, tool):
    given = {"dataset": "d", "schema": SCHEMA, "progress": Silent()}
    if any(name in sys.modules for name in ("argilla", "label_studio_sdk")):
        pytest.skip("an SDK is installed here")
    with pytest.raises(MissingExtra, match=rf'pip install "llmal\[{tool}\]"'):
        Traffic(tool, "https://x.test", **given).push(works(store), blind=True)


@pytest.mark.parametrize("name", ["", "  ", "a\nb", "\u202egnp", "x" * 201])
def test_a_name_nobody_can_type_is_no_name_of_a_data_set(tmp_path, name):
    with pytest.raises(UserError, match="--dataset"):
        called(tmp_path, SCHEMA, name)


def test_a_kind_of_server_that_is_none_is_refused():
    with pytest.raises(UserError, match="no server called 'doccano'. Known: label-studio, argilla"):
        Traffic("doccano", "https://x.test", dataset="d", schema=SCHEMA, progress=Silent())


@pytest.mark.parametrize("show", ["blind", "assisted"])
def test_review_takes_answers_first_then_sends_what_waits_as_the_file_shows_it(
    store, tmp_path, monkeypatch, show
):
    client = Studio()

    @contextlib.contextmanager
    def opened(run, write=False, beside=False):
        yield SimpleNamespace(label_schema=lambda: SCHEMA, review=SimpleNamespace(show=show)), store, None

    monkeypatch.setattr(handover, "opened", opened)
    monkeypatch.setattr(
        handover, "waiting_now", lambda *_: [Waiting(0, "unsure", ("bug",)), Waiting(1, "audit")]
    )
    monkeypatch.setattr(SERVERS["label-studio"], "client", staticmethod(lambda address: client))
    asked = {"url": "https://x.test", "dataset": None, "person": "ann", "progress": Silent()}
    found = handover.review_server(tmp_path / "my run", push="label-studio", pull=None, **asked)
    name = f"llmal-my-run-{SCHEMA.recipe()[-8:]}"
    assert handover.review_text(found) == f"sent 2 items to the new data set {name} (0 were there already)"
    assert [bool(task["predictions"]) for task in client.made[1]["tasks"]] == [show == "assisted", False]
    client.answer(1, "=cmd", "2026-11-01T10:00:00Z")
    found = handover.review_server(tmp_path / "my run", push="label-studio", pull="label-studio", **asked)
    assert handover.review_text(found).splitlines() == [
        "took 1 new answers (0 known already, 1 rows open)",
        f"sent 0 items to the data set {name} (2 were there already)",
    ]
    assert (tmp_path / "my run/pulled/label-studio.json").stat().st_mode & 0o777 == 0o600
    assert not [p for p in tmp_path.rglob("*") if p.is_file() and KEY.encode() in p.read_bytes()]


def test_options_of_files_and_of_servers_do_not_mix():
    for wrong in (["--out", "x.csv"], ["--in", "x.csv"], ["--answered"], ["--adjudicator", "ann"]):
        done = CliRunner().invoke(app, ["review", "run", "--push", "argilla", *wrong])
        assert done.exit_code == 2
