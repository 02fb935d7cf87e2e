"""The verbs: each parses its arguments, calls one function and prints.

Results go to stdout, progress to stderr.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from llmal.errors import Interrupted, LlmalError

if TYPE_CHECKING:
    from llmal.context import Progress

app = typer.Typer(
    name="llmal",
    help=(
        "From a corpus of unlabelled text to a labelled corpus, a small classifier and numbers that are true."
    ),
    no_args_is_help=True,
    add_completion=True,
    rich_markup_mode=None,  # texts from corpora pass through help and errors; none of it is markup
    pretty_exceptions_enable=False,
)

File = Annotated[Path, typer.Argument(help="Pipeline file (YAML).")]
Run = Annotated[Path, typer.Argument(help="Run folder, as `llmal run` printed it.")]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object instead of text.")]
Folder = Annotated[Path | None, typer.Option("--run", help="Run folder; runs/NAME beside you when absent.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="No progress.")]


@app.callback()
def _options(debug: Annotated[bool, typer.Option("--debug", help="Show tracebacks.")] = False) -> None:
    if debug:
        os.environ["LLMAL_DEBUG"] = "1"


@app.command()
def init(
    corpus: Annotated[Path, typer.Argument(help="Your corpus: JSONL, CSV, TSV or Parquet.")],
    labels: Annotated[str, typer.Option("--labels", "-l", help="Label names, with commas between.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="File to write.")] = Path("pipeline.yaml"),
    as_json: Json = False,
) -> None:
    """Write a pipeline file for a corpus, and a prompt beside it to edit."""
    from llmal.setup import write_pipeline

    made = write_pipeline(corpus, [name.strip() for name in labels.split(",")], out)
    _show(
        made,
        as_json,
        lambda: f"wrote {made['pipeline']} and {made['prompt']}; next: llmal plan {made['pipeline']}",
    )


@app.command()
def check(file: File, as_json: Json = False) -> None:
    """Check a pipeline file: every problem at once, with line and column; nothing is run or paid."""
    from llmal.setup import check_pipeline

    found = check_pipeline(file)
    _show(found, as_json, lambda: f"{file}: fine; {len(found['labels'])} labels, prompt and corpus are there")


@app.command()
def plan(file: File, run: Folder = None, as_json: Json = False) -> None:
    """Say what a run would take: items, calls, tokens, money, time, people. Nothing is paid."""
    from llmal import planning, report

    found = planning.plan(file, _run_folder(file, run))
    _show(found, as_json, lambda: report.plan_text(found))


@app.command()
def run(
    file: File,
    run: Folder = None,
    until: Annotated[str | None, typer.Option("--until", help="Stop after this stage.")] = None,
    rounds: Annotated[
        int | None, typer.Option("--rounds", min=1, help="At most this many rounds now.")
    ] = None,
    retry_failed: Annotated[
        bool, typer.Option("--retry-failed", help="Ask again about items whose calls failed.")
    ] = False,
    watch: Annotated[
        bool, typer.Option("--watch", help="While items wait for people, go on by itself as answers come.")
    ] = False,
    pause: Annotated[
        float, typer.Option("--pause", min=0, help="With --watch: seconds of silence that count as a pause.")
    ] = 30.0,
    quiet: Quiet = False,
    as_json: Json = False,
) -> None:
    """Run a pipeline, or go on where it stopped. Nothing paid for is paid for twice.

    What waits for people is said at the end, and the next run goes by their answers. With --watch that is at
    once when half of what waited is answered, after a pause when a tenth is, after twenty pauses in any case.
    """
    from llmal import report
    from llmal.runner import run as run_line
    from llmal.spec import Pipeline

    if watch and until is not None:
        raise typer.BadParameter("--watch goes on until nothing waits; leave --until out")
    pipeline = Pipeline.from_yaml(file)
    given: dict[str, Any] = {
        "home": file.parent.resolve(), "progress": _progress(quiet),
        "rounds": rounds, "retry_failed": retry_failed,
    }  # fmt: skip
    if watch:
        from llmal.watching import watch as go_on

        outcome = go_on(pipeline, _run_folder(file, run), pause=pause, **given)
    else:
        outcome = run_line(pipeline, _run_folder(file, run), until=until, **given)
    _show(outcome.as_json(), as_json, lambda: report.outcome_text(outcome))


@app.command()
def status(run: Run, as_json: Json = False) -> None:
    """Show where a run stands; also while it goes on."""
    from llmal import report

    outcome = report.state_of(run)
    _show(outcome.as_json(), as_json, lambda: report.outcome_text(outcome))


@app.command()
def explain(
    run: Run, item: Annotated[str, typer.Argument(help="An id of your corpus.")], as_json: Json = False
) -> None:
    """Show one item's whole way: why it was picked, what was answered, what was decided."""
    from llmal.explain import explain as way
    from llmal.explain import explain_text

    found = way(run, item)
    _show(found, as_json, lambda: explain_text(found))


@app.command()
def review(
    run: Run,
    out: Annotated[
        Path | None, typer.Option("--out", help="Write what waits for people to this .jsonl or .csv.")
    ] = None,
    into: Annotated[Path | None, typer.Option("--in", help="Take people's answers from this table.")] = None,
    person: Annotated[
        list[str] | None,
        typer.Option("--person", help="Who answers; on the page repeatable, each gets an address. [someone]"),
    ] = None,
    adjudicator: Annotated[
        list[str] | None,
        typer.Option("--adjudicator", help="Who of them settles disputes; repeatable. [the first]"),
    ] = None,
    spreadsheet: Annotated[
        bool, typer.Option("--for-spreadsheet", help="CSV whose cells no spreadsheet runs.")
    ] = False,
    form: Annotated[
        str | None,
        typer.Option("--format", help="Of another tool's file: label-studio, argilla or prodigy."),
    ] = None,
    answered: Annotated[
        bool, typer.Option("--answered", help="With --out: write what people answered, not what waits.")
    ] = False,
    push: Annotated[
        str | None,
        typer.Option(
            "--push", help="Send what waits to a server: label-studio or argilla; key in its _API_KEY."
        ),
    ] = None,
    pull: Annotated[
        str | None, typer.Option("--pull", help="Take the answers of such a server; before --push.")
    ] = None,
    url: Annotated[
        str | None, typer.Option("--url", help="Of the server; https, but on this machine.")
    ] = None,
    dataset: Annotated[
        str | None,
        typer.Option("--dataset", help="Project or data set there; named after the run when absent."),
    ] = None,
    host: Annotated[
        str, typer.Option("--host", help="Of the page: where it listens, this machine alone unless you say.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option("--port", min=0, max=65535, help="Of the page; 0: any free one.")] = 0,
    as_json: Json = False,
) -> None:
    """Label what waits on a local page, one key a label; or as a table with --out and --in.

    Runs may go on meanwhile: each goes by what was said when it began.
    """
    from llmal import handover

    people = tuple(person or ("someone",))
    server = push or pull
    if server is not None and (out or into or form or answered or spreadsheet):
        raise typer.BadParameter("--push and --pull are for a server; leave what is for a file out")
    if out is None and into is None and server is None:
        from llmal.desk.options import Options
        from llmal.desk.server import serve as listen

        left = listen(run, Options(host, port, people, tuple(adjudicator or ())))
        _show({"waiting": left}, as_json, lambda: f"{left} items wait for people")
        return
    if len(people) > 1 or adjudicator:
        raise typer.BadParameter("one --person with a file, which may name others itself; no --adjudicator")
    if server is not None:
        bar = _progress(as_json)
        found = handover.review_server(
            run, push=push, pull=pull, url=url, dataset=dataset, person=people[0], progress=bar
        )
    else:
        found = handover.review(
            run, out=out, into=into, person=people[0], spreadsheet=spreadsheet, form=form, answered=answered
        )
    _show(found, as_json, lambda: handover.review_text(found))


@app.command(name="report")
def report_(
    run: Run,
    html: Annotated[
        Path | None, typer.Option("--html", help="Write the page with figures to this file, anew.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Say what labels and student are worth, with intervals, and what to do next."""
    from llmal import report

    found = report.full(run, html=html)
    _show(found, as_json, lambda: report.full_text(found))


@app.command()
def export(
    run: Run,
    out: Annotated[Path | None, typer.Option("--out", "-o", help="Folder to write.")] = None,
    push: Annotated[
        str | None, typer.Option("--push", help="Send it to a model hub as OWNER/NAME; token in HF_TOKEN.")
    ] = None,
    public: Annotated[bool, typer.Option("--public", help="With --push: everybody may read it.")] = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="With --push: send without asking.")] = False,
    as_json: Json = False,
) -> None:
    """Write the run's classifier to a folder of your choice, or send it to a model hub."""
    from llmal import report

    if out is None and push is None:
        raise typer.BadParameter("name a folder with --out, or a repository with --push")
    found = report.export(
        run, out, push=push, public=public, agree=lambda text: yes or _agreed(text, "Send it?")
    )
    _show(found, as_json, lambda: report.export_text(found))


@app.command()
def predict(
    folder: Annotated[Path, typer.Argument(help="Exported folder.")],
    file: Annotated[Path, typer.Argument(help="JSONL, CSV, TSV or Parquet; - reads JSONL from stdin.")],
    text: Annotated[str, typer.Option("--text", help="Column with the text.")] = "text",
    out: Annotated[
        Path | None,
        typer.Option("--out", "-o", help="JSONL, CSV, TSV or Parquet; JSONL to stdout when absent."),
    ] = None,
    row_id: Annotated[str | None, typer.Option("--id", help="Column that names a row.")] = None,
    keep: Annotated[
        str, typer.Option("--keep", help="Of the input's columns: all, or the id alone.")
    ] = "all",
    probs: Annotated[bool, typer.Option("--probs", help="Write every class's probability.")] = False,
    backend: Annotated[
        str | None, typer.Option("--backend", help="What computes, as in llmal.load; the best when absent.")
    ] = None,
    spreadsheet: Annotated[
        bool, typer.Option("--for-spreadsheet", help="CSV whose cells no spreadsheet runs.")
    ] = False,
    force: Annotated[
        bool, typer.Option("--force", help="Write over an output, or what another job left unfinished.")
    ] = False,
    quiet: Quiet = False,
    as_json: Json = False,
) -> None:
    """Label a file of any size with an exported classifier; killed, the same command goes on."""
    from llmal.bulk.job import predict_file, told_text
    from llmal.bulk.wish import Wish

    stdin, stdout = (path is None or str(path) == "-" for path in (file, out))
    if as_json and stdout:
        raise typer.BadParameter("with --json, name a file with --out")
    wish = Wish(text, row_id, keep, probs, backend, spreadsheet, force)
    given, place = None if stdin else file, None if stdout else out
    done = predict_file(folder, given, out=place, wish=wish, progress=_progress(quiet))
    if place is not None:
        _show(done, as_json, lambda: told_text(done))


@app.command()
def serve(
    folder: Annotated[Path, typer.Argument(help="Run folder, or exported folder.")],
    host: Annotated[
        str, typer.Option("--host", help="Address to listen at; another than this machine's needs a token.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option("--port", min=0, max=65535, help="0: any free one.")] = 8000,
    token: Annotated[
        str | None, typer.Option("--token", envvar="LLMAL_TOKEN", help="What clients have to show.")
    ] = None,
    llm: Annotated[
        bool, typer.Option("--llm", help="Ask the pipeline's language model what the student may not answer.")
    ] = False,
    usd: Annotated[float | None, typer.Option("--usd", min=0, help="Most dollars for that.")] = None,
    calls: Annotated[int | None, typer.Option("--calls", min=0, help="Most calls for that.")] = None,
    llm_timeout: Annotated[
        float, typer.Option("--llm-timeout", min=0.1, help="Seconds a request waits for it.")
    ] = 20.0,
    queue: Annotated[
        bool, typer.Option("--queue/--no-queue", help="Keep what people have to answer, for `llmal review`.")
    ] = True,
    on_drift: Annotated[
        str, typer.Option("--on-drift", help="defer: machines answer no more; warn: they do, marked.")
    ] = "defer",
    check_share: Annotated[
        float, typer.Option("--check-share", min=0, max=1, help="Share of answers that people check.")
    ] = 0.0,
    alarm_rate: Annotated[
        float, typer.Option("--alarm-rate", help="Probability of ever raising a false alarm.")
    ] = 0.05,
    backend: Annotated[
        str | None, typer.Option("--backend", help="What computes, as in llmal.load; the best when absent.")
    ] = None,
    state: Annotated[
        Path | None, typer.Option("--state", help="Folder for queue and ledger; beside what is served.")
    ] = None,
    pipeline: Annotated[
        Path | None, typer.Option("--pipeline", help="Pipeline file, for an export without its run.")
    ] = None,
) -> None:
    """Serve a classifier over HTTP: student, then language model, then people, under its certificate."""
    from llmal.serve.options import Options
    from llmal.serve.server import serve as listen

    if on_drift not in ("defer", "warn"):
        raise typer.BadParameter("expected defer or warn", param_hint="--on-drift")
    given = Options(
        host, port, token, llm, usd, calls, llm_timeout, queue, "warn" if on_drift == "warn" else "defer",
        check_share, alarm_rate, backend, state, pipeline,
    )  # fmt: skip
    listen(folder, given)


@app.command()
def stream(
    file: File,
    source: Annotated[Path, typer.Option("--in", help="JSONL, CSV or TSV; - reads JSONL from stdin.")],
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="JSONL, CSV or TSV; JSONL to stdout when absent or -.")
    ] = None,
    run: Annotated[
        Path | None, typer.Option("--run", help="Keeps ledger and students; runs/NAME-stream when absent.")
    ] = None,
    mu: Annotated[
        float,
        typer.Option("--mu", help="Ask where the chance of another answer than the model's is above this."),
    ] = 0.1,
    share: Annotated[
        float | None, typer.Option("--share", help="Ask about this share of rows instead.")
    ] = None,
    quality: Annotated[
        float | None, typer.Option("--quality", help="Ask so that this share of rows gets the model's label.")
    ] = None,
    explore: Annotated[
        float, typer.Option("--explore", help="Chance of asking about a row that students would answer.")
    ] = 0.02,
    rule: Annotated[
        str, typer.Option("--rule", help="When to ask: calibrated, or nets as published.")
    ] = "calibrated",
    text: Annotated[str, typer.Option("--text", help="Column with the text; corpus.text when absent.")] = "",
    row_id: Annotated[
        str | None, typer.Option("--id", help="Column that names a row; corpus.id when absent.")
    ] = None,
    with_text: Annotated[bool, typer.Option("--with-text", help="Write the texts too.")] = False,
    block: Annotated[int, typer.Option("--block", min=1, max=1024, help="Rows decided about at once.")] = 32,
    export: Annotated[
        str | None, typer.Option("--export", help="At the end write the encoder's student to this folder.")
    ] = None,
    force: Annotated[
        bool, typer.Option("--force", help="Write over an output, or what another job left unfinished.")
    ] = False,
    quiet: Quiet = False,
    as_json: Json = False,
) -> None:
    """Label a stream: students where they are sure, else the pipeline's annotator, from whom they learn."""
    from llmal.stream import job
    from llmal.stream.cascade import RULES, Options
    from llmal.stream.wish import Wish

    if rule not in RULES:
        raise typer.BadParameter(f"--rule is one of {', '.join(RULES)}")
    place = None if out is None or str(out) == "-" else out
    if as_json and place is None:
        raise typer.BadParameter("with --json, name a file with --out")
    asked = Options(mu, share, quality, explore, rule=rule)
    wish = Wish(asked, text, row_id, with_text, block, force=force, export=export)
    given = None if str(source) == "-" else source
    folder = (run or Path("runs") / f"{file.stem}-stream").resolve()
    done = job.stream_file(file, given, out=place, wish=wish, folder=folder, progress=_progress(quiet))
    if place is not None:
        _show(done, as_json, lambda: job.told_text(done))


@app.command(name="compile")
def compile_(
    file: File,
    run: Folder = None,
    use: Annotated[str, typer.Option("--use", help="guidelines, bootstrap, mipro or gepa.")] = "guidelines",
    usd: Annotated[
        float | None, typer.Option("--usd", min=0, help="Most dollars now, inside the run's budget.")
    ] = None,
    calls: Annotated[
        int | None, typer.Option("--calls", min=0, help="Most calls now, inside the run's budget.")
    ] = None,
    settings: Annotated[
        list[str] | None, typer.Option("--set", help="NAME=VALUE, an option of the optimiser; repeatable.")
    ] = None,
    share: Annotated[
        str, typer.Option("--share", help="Of people's answers: to learn from, choose on, judge by.")
    ] = "0.3,0.35,0.35",
    certain: Annotated[
        bool, typer.Option("--certain", help="Keep it only if the whole interval of the gain is above 0.")
    ] = False,
    abstained: Annotated[
        float, typer.Option("--abstained", min=0, max=0.99, help="Worth of an answer that declines.")
    ] = 0.0,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what it would take, and stop.")] = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Start without asking.")] = False,
    revert: Annotated[bool, typer.Option("--revert", help="Put the prompt back as it was before.")] = False,
    quiet: Quiet = False,
    as_json: Json = False,
) -> None:
    """Better the prompt from people's answers; kept only if better on answers no optimiser saw."""
    from llmal.tune import stage, words

    if revert:
        back = stage.revert(file)
        _show(back, as_json, lambda: back["reverted"])
        return
    wish = stage.Wish(
        use, words.settings(settings or []), usd, calls, words.shares(share),
        "certain" if certain else "positive", abstained, dry_run,
    )  # fmt: skip
    found = stage.compile_prompt(
        file, _run_folder(file, run), wish, progress=_progress(quiet), agree=lambda text: yes or _agreed(text)
    )
    _show(found, as_json, lambda: words.outcome_text(found))


@app.command(name="list")
def list_(as_json: Json = False) -> None:
    """List the plug-ins of every stage, those of other packages included."""
    from llmal.setup import plugins

    found = plugins()
    lines = [
        f"{stage:9} {name:12} {about}" for stage, names in found.items() for name, about in names.items()
    ]
    _show(found, as_json, lambda: "\n".join(lines))


@app.command()
def schema(
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="File to write; stdout when absent.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Print the JSON schema of pipeline files, for editors."""
    from llmal.spec import json_schema

    text = json.dumps(json_schema(), indent=1) + "\n"
    if out is None:
        sys.stdout.write(text)
    else:
        out.write_text(text, encoding="utf-8")
        _show({"schema": str(out)}, as_json, lambda: f"wrote {out}")


@app.command()
def doctor(
    run: Annotated[Path | None, typer.Argument(help="Run folder to look at too.")] = None,
    as_json: Json = False,
) -> None:
    """Look for what commonly breaks: packages, weights, disk, and a run's store."""
    from llmal.setup import doctor as look

    found = look(run)
    marks = {"ok": "ok  ", "warn": "look", "bad": "BAD "}
    _show(
        found,
        as_json,
        lambda: "\n".join(f"{marks[f['state']]} {f['about']}: {f['words']}" for f in found["checks"]),
    )
    if any(f["state"] == "bad" for f in found["checks"]):
        raise typer.Exit(1)


def _agreed(text: str, question: str = "Start?") -> bool:
    sys.stderr.write(text + "\n")
    return typer.confirm(question, err=True)


def _run_folder(file: Path, given: Path | None) -> Path:
    return (given or Path("runs") / file.stem).resolve()


def _progress(quiet: bool) -> Progress:
    from llmal.context import Silent, progress_for_terminal

    return Silent() if quiet else progress_for_terminal()


def _show(found: Any, as_json: bool, text: Callable[[], str]) -> None:
    sys.stdout.write((json.dumps(found, indent=1, ensure_ascii=False) if as_json else text()) + "\n")


STOPPED = Interrupted("stopped on request; everything committed is kept", hint="The same command goes on")
"""What Ctrl+C ends a verb with that has nothing else to say."""


def heard(dropped: sys.UnraisableHookArgs) -> None:
    """Say Ctrl+C again where it fell into a destructor: Python drops it there, and the verb would go on."""
    if dropped.exc_type is not KeyboardInterrupt:
        sys.__unraisablehook__(dropped)
        return
    import signal
    import threading

    # From another thread, and a moment later: raised in here it would be dropped once more.
    main_thread = threading.main_thread().ident or 0
    threading.Timer(0.05, signal.pthread_kill, (main_thread, signal.SIGINT)).start()


def main() -> None:
    """Entry point: one line for an error, the traceback only with --debug, exit codes from `llmal.errors`."""
    # Threads that spin while they wait starve whatever runs beside them, and each other: one epoch took up to
    # 30 s instead of 4 to 9 s on two busy cores. Sleeping ones do not.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    sys.unraisablehook = heard
    try:
        app(standalone_mode=True)
    except LlmalError as error:
        if os.environ.get("LLMAL_DEBUG"):
            raise
        sys.stderr.write(f"{error}\n")
        sys.exit(error.exit_code)
    except SystemExit as end:
        if end.code == Interrupted.exit_code:  # what typer makes of Ctrl+C, without a word
            sys.stderr.write(f"{STOPPED}\n")
        raise
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # the reader left: nobody to tell
        sys.exit(0)
    except Exception as error:
        if os.environ.get("LLMAL_DEBUG"):
            raise
        sys.stderr.write(
            f"unexpected {type(error).__name__}: {str(error)[:300]}. Run with --debug to see where\n"
        )
        sys.exit(1)


if __name__ == "__main__":
    main()
