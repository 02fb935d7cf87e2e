"""A real browser for the pages: started once a file; screenshots go where `LLMAL_ARTEFACTS` says.

Needs playwright and a chromium of the machine (Debian: `apt-get install chromium`); `LLMAL_CHROMIUM` names
another one.
"""

import os
import shutil
from pathlib import Path

import pytest

CHROMIUM = os.environ.get("LLMAL_CHROMIUM") or shutil.which("chromium") or "/usr/bin/chromium"
QUIET = ("--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking",
         "--disable-component-update", "--disable-sync")  # fmt: skip
"""Started as root in a container, without a screen, asking nobody for anything."""


@pytest.fixture(scope="module")
def browser():
    playwright = pytest.importorskip("playwright.sync_api", reason="needs playwright")
    if not Path(CHROMIUM).is_file():
        pytest.skip("needs chromium: apt-get install chromium")
    with playwright.sync_playwright() as started:
        opened = started.chromium.launch(executable_path=CHROMIUM, args=list(QUIET))
        yield opened
        opened.close()


@pytest.fixture(scope="module")
def artefacts(tmp_path_factory):
    folder = Path(os.environ.get("LLMAL_ARTEFACTS") or tmp_path_factory.mktemp("screenshots"))
    folder.mkdir(parents=True, exist_ok=True)
    return folder
