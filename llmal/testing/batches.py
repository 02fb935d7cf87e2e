"""FakeLM's file and batch endpoints: batches that run, expire, lose lines, or vanish, as a script says."""

from __future__ import annotations

import asyncio
import json
import random
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from fractions import Fraction
from typing import TYPE_CHECKING, Any, NamedTuple

from aiohttp import web

from llmal.testing.chat import Rejection, check_request
from llmal.testing.faults import Fault, status
from llmal.testing.wire import Meeting, Wire, reset

if TYPE_CHECKING:
    from llmal.testing.fakelm import FakeLM

CALL_KINDS = frozenset({"status", "redirect", "lost", "hang", "html", "cut"})
END_KINDS = frozenset({"expired", "cancelled", "failed", "gone"})
LINE_KINDS = frozenset(
    {"missing", "no_status", "error", "malformed", "broken", "duplicate", "no_result_file"}
)
PAGE = 20


class BatchFault(NamedTuple):
    """One scripted fault of the batch endpoints.

    Attributes:
        kind: of a call: `status`, `redirect` (to `to`), `lost` (done, then the connection is reset before the
            answer), `hang`, `html` (200 and a web page), `cut` (a download that breaks off). Of a batch's
            end: `expired`, `cancelled`, `failed` (at validation), `gone` (404 from then on). Of its results:
            `missing`, `no_status` (status_code 0), `error` (status `code`), `malformed` (200 without
            choices), `broken` (half a line), `duplicate` (each twice), `unknown` (lines of nobody),
            `no_result_file` (the output has expired: 404).
        path: for a call: `upload`, `create`, `list`, `retrieve` or `content`.
        times: for a call: the first so many calls of that path.
        batch: for the rest: the so-manieth batch made, from 1; None: every one.
        rows: the places of the lines concerned, in the order of the input; None: all. For `expired` and
            `cancelled`: the lines that were not done.
        code: HTTP status, or the code of a failed batch.
        retry_after: seconds, for `status`.
        to: where to redirect.
    """

    kind: str
    path: str = ""
    times: int = 1
    batch: int | None = None
    rows: Sequence[int] | None = None
    code: int | str = 500
    retry_after: float | timedelta | None = None
    to: str = ""

    def concerns(self, row: int) -> bool:
        """Whether it strikes the line at this place of the input."""
        return self.rows is None or row in self.rows


@dataclass
class _Batch:
    """A batch at the provider."""

    number: int
    file: str
    metadata: dict[str, str]
    lines: list[dict[str, Any]]
    looks: int = 0
    state: str = "validating"
    output: str | None = None
    errors: str | None = None
    wrong: list[dict[str, Any]] = field(default_factory=list)
    made_at: int = field(default_factory=lambda: int(time.time()))

    @property
    def id(self) -> str:
        return f"batch_{self.number:04d}"


class Batches:
    """The batch side of a `FakeLM`; its answers, counts and bills are the server's own.

    A batch ends when it has been looked at `looks` times; its calls run then, each at `share` of the price.
    Results come in an order of their own.

    Attributes:
        faults: the script.
        calls: path -> requests received.
        share: of the price that a call in a batch costs.
        looks: how often a batch is retrieved before it has ended.
        most_rows: lines a file may have.
    """

    def __init__(self, server: FakeLM) -> None:
        self.server = server
        self.share = Fraction(1, 2)
        self.looks = 2
        self.most_rows = 50_000
        self.reset()

    def reset(self) -> None:
        """Forget every file, batch, count and fault."""
        self.faults: tuple[BatchFault, ...] = ()
        self.calls: Counter[str] = Counter()
        self._struck: Counter[int] = Counter()
        self._files: dict[str, bytes] = {}
        self._batches: list[_Batch] = []

    @property
    def made(self) -> int:
        """Batches made."""
        return len(self._batches)

    @property
    def sizes(self) -> list[int]:
        """Lines of each batch, in the order they were made."""
        return [len(batch.lines) for batch in self._batches]

    def fill(self, n: int) -> None:
        """Make batches of somebody else, so that a list has several pages."""
        for _ in range(n):
            self._batches.append(_Batch(self.made + 1, "file-x", {"whose": "another"}, [], state="completed"))

    def add_routes(self, app: web.Application) -> None:
        """Serve the endpoints."""
        add = app.router.add_route
        for method, path, name, handler in (
            ("POST", "/v1/files", "upload", self._upload),
            ("GET", "/v1/files/{id}/content", "content", self._content),
            ("POST", "/v1/batches", "create", self._create),
            ("GET", "/v1/batches", "list", self._list),
            ("GET", "/v1/batches/{id}", "retrieve", self._retrieve),
            ("POST", "/v1/batches/{id}/cancel", "cancel", self._cancel),
        ):
            add(method, path, self._guarded(name, handler))

    def _guarded(self, name: str, handler: Any) -> Any:
        """A handler behind the key and the script, with OpenAI-shaped refusals."""

        async def handle(request: web.Request) -> web.StreamResponse:
            self.calls[name] += 1
            try:
                key = self.server._check_key(request)
                fault = self._of_call(name)
                if fault is None or fault.kind == "cut":
                    return await self._said(request, await handler(request), fault)
                if fault.kind == "hang":
                    await asyncio.sleep(30)
                if fault.kind == "lost":
                    await handler(request)
                    wire = Wire(request, self.server, Meeting())
                    await reset(wire)
                    return wire.response
                if fault.kind == "redirect":
                    return web.Response(status=307, headers={"Location": fault.to})
                if fault.kind == "html":
                    return web.Response(text="<!doctype html>Sign in", content_type="text/html")
                raise status(key, status=int(fault.code), retry_after=fault.retry_after)
            except Rejection as no:
                return web.json_response(no.body, status=no.status, headers=no.headers)

        return handle

    async def _said(
        self, request: web.Request, said: dict[str, Any] | bytes, fault: BatchFault | None
    ) -> web.StreamResponse:
        if isinstance(said, dict):
            return web.json_response(said)
        answer = web.StreamResponse(headers={"Content-Length": str(len(said))})
        await answer.prepare(request)
        if fault is not None:  # half of it, and the connection is gone
            await answer.write(said[: len(said) // 2])
            answer.force_close()
            if request.transport is not None:
                request.transport.close()
            return answer
        await answer.write(said)
        await answer.write_eof()
        return answer

    def _of_call(self, path: str) -> BatchFault | None:
        for place, fault in enumerate(self.faults):
            if fault.kind in CALL_KINDS and fault.path == path and self._struck[place] < fault.times:
                self._struck[place] += 1
                return fault
        return None

    def _of_batch(self, batch: _Batch, *kinds: str) -> list[BatchFault]:
        return [f for f in self.faults if f.kind in kinds and f.batch in (None, batch.number)]

    async def _upload(self, request: web.Request) -> dict[str, Any]:
        form = await request.post()
        given = form.get("file")
        if form.get("purpose") != "batch" or not isinstance(given, web.FileField):
            raise Rejection(400, "Expected a file with the purpose `batch`.", code="invalid_value")
        name = f"file-{len(self._files) + 1:04d}"
        self._files[name] = given.file.read()
        return {"id": name, "object": "file", "purpose": "batch", "bytes": len(self._files[name])}

    async def _content(self, request: web.Request) -> bytes:
        found = self._files.get(request.match_info["id"])
        if found is None:
            raise Rejection(404, "No such File object.", code="not_found")
        return found

    async def _create(self, request: web.Request) -> dict[str, Any]:
        body = await request.json()
        given = self._files.get(body.get("input_file_id"))
        if given is None or body.get("completion_window") != "24h":
            raise Rejection(400, "Expected an input file and a completion window of 24h.")
        lines = [json.loads(line) for line in given.split(b"\n") if line]
        names = [line["custom_id"] for line in lines]
        batch = _Batch(self.made + 1, body["input_file_id"], dict(body.get("metadata") or {}), lines)
        if len(set(names)) < len(names) or len(lines) > self.most_rows or not lines:
            batch.state = "failed"
            batch.wrong = [{"code": "invalid_batch", "message": "Names repeat, or too many lines."}]
        self._batches.append(batch)
        return self._card(batch)

    async def _list(self, request: web.Request) -> dict[str, Any]:
        newest = self._batches[::-1]
        after = request.query.get("after")
        start = next((i + 1 for i, one in enumerate(newest) if one.id == after), 0)
        page = newest[start : start + min(PAGE, int(request.query.get("limit", PAGE)))]
        return {"object": "list", "data": [self._card(one) for one in page], "has_more": False}

    async def _retrieve(self, request: web.Request) -> dict[str, Any]:
        batch = next((one for one in self._batches if one.id == request.match_info["id"]), None)
        if batch is None or self._of_batch(batch, "gone"):
            raise Rejection(404, "No batch with this id.", code="not_found")
        if batch.state in ("validating", "in_progress"):
            batch.looks += 1
            batch.state = "in_progress"
            if batch.looks >= self.looks:
                self._end(batch)
        return self._card(batch)

    async def _cancel(self, request: web.Request) -> dict[str, Any]:
        batch = next(one for one in self._batches if one.id == request.match_info["id"])
        batch.state = "cancelled"
        return self._card(batch)

    def _card(self, batch: _Batch) -> dict[str, Any]:
        done = len(batch.lines) if batch.output or batch.errors else 0
        return {
            "id": batch.id,
            "object": "batch",
            "endpoint": "/v1/chat/completions",
            "input_file_id": batch.file,
            "completion_window": "24h",
            "status": batch.state,
            "output_file_id": batch.output,
            "error_file_id": batch.errors,
            "errors": {"object": "list", "data": batch.wrong} if batch.wrong else None,
            "created_at": batch.made_at,
            "metadata": batch.metadata,
            "request_counts": {"total": len(batch.lines), "completed": done, "failed": 0},
        }

    # --- a batch runs ---------------------------------------------------------------------------------------

    def _end(self, batch: _Batch) -> None:
        """Run what the script lets run, and write the result files."""
        refused = self._of_batch(batch, "failed")
        if refused:
            batch.state = "failed"
            batch.wrong = [{"code": str(refused[0].code), "message": "The batch cannot be run."}]
            return
        short = self._of_batch(batch, "expired", "cancelled")
        batch.state = short[0].kind if short else "completed"
        output: list[bytes] = []
        errors: list[bytes] = []
        for place, line in enumerate(batch.lines):
            if short and short[0].concerns(place):
                words = {"code": f"batch_{batch.state}", "message": "It was not done in time."}
                errors.append(_line(line, None, words))
                continue
            struck = [f for f in self._of_batch(batch, *LINE_KINDS) if f.concerns(place)]
            spared = any(fault.kind == "error" for fault in struck)  # refused before it runs: free
            code, body = (0, {}) if spared else self._run(line["body"])
            written = _spoilt(line, code, body, struck)
            (output if code == 200 else errors).extend(written)
        if self._of_batch(batch, "unknown"):
            output.append(_line({"custom_id": "nobody"}, {"status_code": 200, "body": {}}, None))
        random.Random(batch.number).shuffle(output)
        batch.output = self._keep(f"{batch.id}-out", output)
        batch.errors = self._keep(f"{batch.id}-err", errors)
        if self._of_batch(batch, "no_result_file") and batch.output:
            del self._files[batch.output]

    def _keep(self, name: str, lines: list[bytes]) -> str | None:
        if not lines:
            return None
        self._files[name] = b"".join(lines)
        return name

    def _run(self, body: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        """One call, as the chat endpoint would make it, wire faults left out; charged at `share`."""
        server = self.server
        try:
            ask = server._receive(body)
            fault: Fault | None = server._fault(ask)
            check_request(
                body,
                model=server.model,
                max_top_logprobs=server._max_top_logprobs,
                max_model_len=server._max_model_len,
            )
            done = server._work(ask, fault, "", share=self.share)
        except Rejection as no:
            return no.status, no.body
        server.note_answered(ask.item, 1)
        server.note_status(200)
        return 200, json.loads(done)


def _line(line: dict[str, Any], response: dict[str, Any] | None, error: dict[str, Any] | None) -> bytes:
    entry = {"id": "batch_req", "custom_id": line["custom_id"], "response": response, "error": error}
    return json.dumps(entry).encode() + b"\n"


def _spoilt(
    line: dict[str, Any], code: int, body: dict[str, Any], struck: Sequence[BatchFault]
) -> list[bytes]:
    """The lines of results for one call, less what the script takes away."""
    whole = _line(line, {"status_code": code, "request_id": "r", "body": body}, None)
    for fault in struck:
        if fault.kind == "missing":
            return []
        if fault.kind == "no_status":
            return [_line(line, {"status_code": 0, "request_id": "", "body": {}}, None)]
        if fault.kind == "error":
            words = {"error": {"message": "scripted", "code": None, "type": "server_error"}}
            return [_line(line, {"status_code": fault.code, "request_id": "r", "body": words}, None)]
        if fault.kind == "malformed":
            return [_line(line, {"status_code": 200, "body": body | {"choices": []}}, None)]
        if fault.kind == "broken":
            return [whole[: len(whole) // 2] + b"\n"]
        if fault.kind == "duplicate":
            return [whole, whole]
    return [whole]
