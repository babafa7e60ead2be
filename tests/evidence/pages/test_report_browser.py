"""The page in a real browser, at the width of a phone and of a desk."""

import re
import shutil
import subprocess
from html import escape
from pathlib import Path

import pytest
from test_report_sweep import MIXERS, RATES, made_up

from memlm_evidence.claims import decide
from memlm_evidence.experiments.table import CLAIMS, claims_page, read_results
from memlm_evidence.pages.demo import demo_page
from memlm_evidence.sweep.page import sweep_page

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
MEASURE = """<script>
const frame = document.querySelector("iframe");
frame.onload = () => {
  const root = frame.contentDocument.documentElement, box = root.querySelector(".scroll");
  document.body.dataset.found =
    [frame.contentWindow.innerWidth, root.scrollWidth, box.clientWidth, box.scrollWidth].join(" ");
};
</script>"""


def widths(page: str, width: int, folder: Path) -> list[int]:
    """Widths of window, page, first table's box and its content; in a frame, for no window is less than 500 px wide."""
    page = re.sub("<meta http-equiv[^>]*>", "", page)
    outer = folder / "outer.html"
    frame = f'<iframe style="border:0;width:{width}px;height:900px" srcdoc="{escape(page)}"></iframe>'
    outer.write_text(f'<!doctype html><meta charset="utf-8"><body>{frame}{MEASURE}', encoding="utf-8")
    command = [str(CHROMIUM), "--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={folder / 'profile'}"]
    command += ["--window-size=1400,1000", "--virtual-time-budget=5000", "--dump-dom", outer.as_uri()]
    shown = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True).stdout
    found = re.search(r'data-found="([\d ]+)"', shown)
    assert found, shown[-2000:]
    return [int(value) for value in found[1].split()]


@pytest.mark.skipif(CHROMIUM is None, reason="no chromium on PATH")
@pytest.mark.parametrize("width", [360, 1280])
def test_the_page_does_not_scroll_sideways(folder: Path, recorded: Path, width: int) -> None:
    inner, page, box, table = widths(demo_page(folder, recorded).to_html(), width, folder)
    assert inner == width
    assert page <= inner
    assert (table > box) == (width == 360)


@pytest.mark.skipif(CHROMIUM is None, reason="no chromium on PATH")
@pytest.mark.parametrize("width", [360, 1280])
def test_the_claims_do_not_scroll_sideways(width: int, tmp_path: Path) -> None:
    results = read_results([Path(__file__).parents[3] / "docs" / "results"])
    inner, page, box, table = widths(claims_page(decide(results, CLAIMS), results).to_html(), width, tmp_path)
    assert inner == width
    assert page <= inner
    assert (table > box) == (width == 360)


@pytest.mark.skipif(CHROMIUM is None, reason="no chromium on PATH")
@pytest.mark.parametrize("width", [360, 1280])
def test_a_sweeps_long_names_do_not_make_its_page_scroll(tmp_path: Path, width: int) -> None:
    swept = made_up(MIXERS, RATES, missing=1)
    inner, page, _, _ = widths(sweep_page(swept).to_html(), width, tmp_path)
    assert page <= inner == width
