"""The report as people see it: in Chromium, light and dark, by mouse, finger and keyboard, narrow, and on paper."""

import threading
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer

import pytest

from eval.report import write_report
from tests.browser import open_browser
from tests.eval.report.fake_run import fake_run

BY_FILE = (
    "[...document.querySelectorAll('h3')].find(h => h.textContent === 'By file').nextElementSibling.nextElementSibling"
)
COLUMN = "(t, c) => [...t.querySelectorAll('tbody tr')].map(row => row.cells[c].textContent)"
# Of each text on the page the contrast to what lies behind it (WCAG 2.2, section 1.4.3), the lowest first.
CONTRAST = """(() => {
  const rgb = text => text.match(/[\\d.]+/g).map(Number);
  const light = color => rgb(color).slice(0, 3).map(v => v / 255)
    .map(v => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4)
    .reduce((sum, v, i) => sum + v * [0.2126, 0.7152, 0.0722][i], 0);
  const behind = e => { for (; e; e = e.parentElement) {
    const color = getComputedStyle(e).backgroundColor, alpha = rgb(color)[3];
    if (alpha === undefined) return color;
    if (alpha > 0) throw new Error("a background that lets something through: " + color);
  } return "rgb(255, 255, 255)"; };
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT), found = [];
  while (walker.nextNode()) {
    const e = walker.currentNode.parentElement;
    if (!walker.currentNode.data.trim() || ["SCRIPT", "STYLE", "title"].includes(e.tagName)) continue;
    const style = getComputedStyle(e);
    const text = light(e instanceof SVGElement ? style.fill : style.color);
    const [one, other] = [text, light(behind(e))].sort((a, b) => b - a);
    found.push([(one + 0.05) / (other + 0.05), walker.currentNode.data.trim().slice(0, 30)]);
  }
  return found.sort((a, b) => a[0] - b[0]);
})()"""


class Handler(SimpleHTTPRequestHandler):
    def log_message(self, *_):
        self.server.asked.append(self.path)


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    folder = fake_run(tmp_path_factory.mktemp("run"))
    write_report(folder, title="networkx on a laptop")
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Handler, directory=folder))
    server.asked, server.folder, server.root = [], folder, f"http://127.0.0.1:{server.server_port}/"
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server
    server.shutdown()
    server.server_close()


@pytest.fixture(scope="module")
def browser(server, tmp_path_factory):
    with open_browser(tmp_path_factory.mktemp("profile")) as browser:
        yield browser


@pytest.fixture
def page(browser, server):
    """The report, freshly opened in a wide and light window; whatever a test does, the console stays empty."""
    browser.show(width=1200)
    browser.errors.clear()
    browser.asked.clear()
    server.asked.clear()
    browser.open(server.root + "report.html")
    yield browser
    assert browser.errors == []


def middle(browser, expression):
    """Where in the window an element's middle is, once it was scrolled there."""
    box = f"{expression}.scrollIntoView({{block: 'center'}}), JSON.stringify({expression}.getBoundingClientRect())"
    box = browser.value(f"({box}, JSON.parse(JSON.stringify({expression}.getBoundingClientRect())))")
    return box["x"] + box["width"] / 2, box["y"] + box["height"] / 2


def test_the_page_alone_is_asked_for_and_its_links_lead_somewhere(page, server):
    assert server.asked == ["/report.html"]
    assert page.asked == [server.root + "report.html"]
    assert page.value("document.links.length") == 7
    assert page.value("[...document.links].filter(a => !document.getElementById(a.hash.slice(1))).length") == 0
    page.value("document.querySelector('nav a[href=\"#embed\"]').click()")
    page.wait_for("Math.abs(document.getElementById('embed').getBoundingClientRect().top - 16) < 2")


def test_a_script_that_an_escape_had_missed_would_not_run(browser, server):
    text = (server.folder / "report.html").read_text()
    smuggled = "<script>window.smuggled = 1</script><img src=/x.png onerror='window.smuggled = 1'></main>"
    (server.folder / "smuggled.html").write_text(text.replace("</main>", smuggled))
    server.asked.clear()
    browser.open(server.root + "smuggled.html")
    assert browser.value("[window.smuggled ?? 'held', document.querySelectorAll('th button').length > 9]") == [
        "held",
        True,
    ]
    assert server.asked == ["/smuggled.html"] and "Content Security Policy" in str(browser.errors)


def test_a_click_sorts_a_table_and_a_key_too(page):
    head = f"{BY_FILE}.querySelectorAll('th')[4]"
    state = f"({COLUMN})({BY_FILE}, 4).map(text => parseFloat(text.replace('−', '-')))"
    x, y = middle(page, f"{head}.querySelector('button')")
    for direction, is_reversed in (("ascending", False), ("descending", True)):
        page.mouse("mousePressed", x, y)
        page.mouse("mouseReleased", x, y)
        page.wait_for(f"{head}.getAttribute('aria-sort') === '{direction}'")
        values = page.value(state)
        assert len(values) == 57 and values == sorted(values, reverse=is_reversed) and values[0] != values[-1]
    page.value(f"{BY_FILE}.querySelector('th button').focus()")
    page.press("Enter")
    page.wait_for(f"{BY_FILE}.querySelector('th').getAttribute('aria-sort') === 'ascending'")
    assert page.value(f"{head}.hasAttribute('aria-sort')") is False
    names = page.value(f"({COLUMN})({BY_FILE}, 0)")
    assert names[:3] == [f"networkx/module_{i}.py" for i in range(3)] and names[-1].endswith("_56.py")  # 2 before 10


def test_numbers_sort_as_numbers_and_what_was_not_measured_comes_last(page):
    page.value("""document.body.insertAdjacentHTML('beforeend', '<table id=t><thead><tr><th>x</th></tr></thead><tbody>'
        + ['1,200', '–', '−3', '[+0.5, 9]', '20 · needs 7'].map(x => `<tr><td>${x}`).join('') + '</table>')""")
    for _ in range(2):
        page.value("sort(document.getElementById('t'), 0)")
        shown = page.value(f"({COLUMN})(document.getElementById('t'), 0)")
        assert shown[-1] == "–"
    assert shown[:4] == ["1,200", "20 · needs 7", "[+0.5, 9]", "−3"]


def test_a_curve_tells_its_values_to_mouse_finger_and_keys(page):
    figure = "document.querySelector('#cpt ~ .figures figure.curve')"
    told = f"{figure}.querySelector('p').textContent.replace(/\\s+/g, ' ')"
    svg = f"{figure}.querySelector('svg')"
    assert page.value(told).startswith("step 80 training ") and " at " not in page.value(told)
    values = page.value(f"JSON.parse({svg}.dataset.lines)")
    x, y = middle(page, svg)
    width = page.value(f"{svg}.getBoundingClientRect().width")
    page.mouse("mouseMoved", x - width / 2 + values[0][29][0] / 440 * width, y)
    page.wait_for(f"{told}.startsWith('step 30 training {values[0][29][2]} mean of 4 steps {values[1][26][2]} ')")
    assert "validation" in page.value(told) and page.value(told).endswith(" at 20")
    assert page.value(f"getComputedStyle({figure}.querySelector('.cursor')).visibility") == "visible"

    page("Emulation.setTouchEmulationEnabled", enabled=True)
    point = {"x": x - width / 2 + values[0][9][0] / 440 * width, "y": y}
    page("Input.dispatchTouchEvent", type="touchStart", touchPoints=[point])
    page("Input.dispatchTouchEvent", type="touchEnd", touchPoints=[])
    page("Emulation.setTouchEmulationEnabled", enabled=False)
    page.wait_for(f"{told}.startsWith('step 10 ')")

    page.value(f"{svg}.focus()")
    for key, step in (("ArrowRight", 11), ("Home", 1), ("ArrowLeft", 1), ("PageDown", 11), ("End", 80)):
        page.press(key)
        page.wait_for(f"{told}.startsWith('step {step} ')")
        assert page.value(f"{svg}.getAttribute('aria-valuetext')").startswith(f"step {step}, training ")
    assert page.value(f"{svg}.getAttribute('role')") == "slider"


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_every_text_stands_out_from_what_lies_behind_it(page, scheme):
    page.show(width=1200, scheme=scheme)
    page.value("document.querySelectorAll('details').forEach(d => d.open = true)")
    lowest, *others = page.value(CONTRAST)
    assert lowest[0] >= 4.5 and len(others) > 500, lowest
    paper = page.value("getComputedStyle(document.body).backgroundColor")
    assert paper == ("rgb(252, 252, 250)" if scheme == "light" else "rgb(21, 24, 27)")


def test_a_phone_scrolls_down_and_never_sideways(page):
    page.show(width=390, height=844)
    for is_open in ("false", "true"):
        page.value(f"document.querySelectorAll('details').forEach(d => d.open = {is_open})")
        assert page.value("[document.documentElement.scrollWidth, innerWidth]") == [390, 390]
    assert page.value("parseFloat(getComputedStyle(document.querySelector('.chart text')).fontSize) * 330 / 440") > 9.5


def test_paper_shows_everything_uncut_and_in_light(page):
    hidden = "[...document.querySelectorAll('details pre, details td, dd')].filter(e => !e.checkVisibility()).length"
    assert page.value(hidden) > 100
    page.show(width=688, scheme="dark", media="print")  # A4 within its margins
    assert page.value(hidden) == 0
    cut = "[...document.querySelectorAll('pre, .table')].filter(e => getComputedStyle(e).overflow !== 'visible').length"
    assert page.value(cut) == 0 and page.value("document.documentElement.scrollWidth") <= 688
    assert page.value("getComputedStyle(document.documentElement).getPropertyValue('--paper')").strip() == "#fcfcfa"


def test_without_script_everything_is_there_to_read(page):
    page("Emulation.setScriptExecutionDisabled", value=True)
    page("Page.reload")
    page.wait_for("document.readyState === 'complete' && !document.querySelector('th button')")
    assert page.value("document.querySelector('.curve p').textContent").startswith("step 80")
    assert page.value("document.querySelector('.curve svg').getAttribute('role')") == "img"
    page("Emulation.setScriptExecutionDisabled", value=False)
