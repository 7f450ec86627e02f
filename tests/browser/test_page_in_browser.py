"""The page that looks inside, in a real browser, used by mouse and by keyboard."""

import re

import pytest

from tests.browser.webdriver import ENTER, SHIFT, SPACE, TAB

pytestmark = pytest.mark.ends

STATE = "#state"
FIRST_EVENT = "#events details:first-child"
HOSTILE = b"<script>window.ran = 1</script><img src=x onerror='window.ran = 2'>"


def row_of(topic):
    """Return the expression for the cells of a topic's row, as texts."""
    return (
        f"[...document.querySelectorAll('#topics tr')].map(row => [...row.children].map(cell => cell.innerText.trim()))"
        f".find(cells => cells[0] === '{topic}')"
    )


def live(tab, served):
    """Open the page and wait for its first data."""
    tab.open(served.address)
    tab.until_text(STATE, "Live")


def rounds_here(tab, served):
    """Load the page in this tab and wait for four rounds of it: the clock of tests that see nothing happen."""
    live(tab, served)
    tab.until("performance.getEntriesByType('resource').length >= 8")


def tab_to(tab, selector):
    """Press Tab until an element has the focus."""
    for _ in range(40):
        tab.press(TAB)
        if tab.run("return document.activeElement.matches(arguments[0])", selector):
            return
    raise AssertionError(f"Tab does not lead to {selector}")


def test_topics_are_there_and_follow(tab, served):
    """Each topic has its count, size and rate, and what is published shows without a reload; they stand by name."""
    served.publish("weather", b'{"city": "Seattle"}', b'{"city": "Berlin"}')
    live(tab, served)
    assert re.match(r"\d+ B\Z", tab.until(row_of("weather"))[2])
    assert tab.until(row_of("orders"))[1:3] == ["0", "0 B"]
    assert tab.run("return [...document.querySelectorAll('#topics button')].map(e => e.innerText)") == [
        "orders",
        "weather",
    ]
    assert [tab.text("#all-topics"), tab.text("#all-events")] == ["2", "2"]
    served.publish("orders", *[b"x" * 500] * 1300)
    size = tab.until(f"(cells => cells[1] === '1,300' && cells)({row_of('orders')})")[2]
    assert re.match(r"[6-9]\d\d kB\Z", size), "the data, and what a node keeps with it"
    tab.until(f"parseFloat({row_of('orders')}[3].replace(',', '')) > 1")
    tab.until_text("#all-events", "1,302")
    assert tab.text("#all-bytes").endswith(" kB")
    curves = "[...document.querySelectorAll('.curve .line')].map(path => path.getAttribute('d')[0])"
    assert tab.until(f"(drawn => drawn.every(first => first === 'M') && drawn)({curves})") == ["M", "M", "M"]


def test_a_rate_falls_back_to_nothing(tab, served):
    """A rate is that of the last seconds, so it ends when publishing does."""
    live(tab, served)
    served.publish("weather", *[b"x"] * 30)
    tab.until(f"{row_of('weather')}[3] !== '0'")
    tab.until(f"{row_of('weather')}[3] === '0'")


def test_last_events_follow(tab, served):
    """The last events of the chosen topic stand newest first, and an open one stays open while others arrive."""
    served.publish("weather", b"the first", mimetype="text/plain")
    live(tab, served)
    tab.until_text(FIRST_EVENT, "the first")
    tab.click(FIRST_EVENT + " summary")
    tab.until_text(FIRST_EVENT + " .inside", "text/plain")
    served.publish("weather", b"the second", mimetype="text/plain")
    tab.until_text(FIRST_EVENT, "the second")
    opened = tab.run("return [...document.querySelectorAll('#events details')].map(e => e.open)")
    assert opened == [False, True]
    assert tab.text("#events-title") == "Last events of weather"
    assert tab.text("#events-shown") == "2 of 2, newest first"


def test_all_of_an_event_is_shown(tab, served):
    """An opened event shows its mimetype, schema, metadata and data: JSON indented, its numbers as they came."""
    data = b'{"big": 12345678901234567890, "list": [], "text": "a, {b}: \\"c\\""}'
    served.publish("weather", data, schema_name="Reading", schema_version="1.4.0", meta={"station": "KSEA"})
    live(tab, served)
    tab.click(FIRST_EVENT + " summary")
    shown = tab.until_text(FIRST_EVENT + " dl", "KSEA")
    assert "application/json" in shown and "Reading v1.4.0" in shown and f"{len(data)} bytes" in shown
    indented = '{\n  "big": 12345678901234567890,\n  "list": [],\n  "text": "a, {b}: \\"c\\""\n}'
    assert tab.run("return document.querySelector('#events pre').textContent") == indented


def test_binary_data_is_shown_in_hexadecimal(tab, served):
    """What is no text is shown byte by byte."""
    served.publish("weather", bytes(range(18)), mimetype="application/octet-stream")
    live(tab, served)
    tab.click(FIRST_EVENT + " summary")
    shown = tab.until_text(FIRST_EVENT + " pre", "00 01")
    assert shown.split() == [f"{number:02x}" for number in range(18)]


def test_markup_is_text(tab, served):
    """Markup in data, metadata and schema is shown as it is written, and nothing of it runs."""
    text = HOSTILE.decode()
    served.publish("weather", HOSTILE, mimetype="text/html", schema_name=text, meta={text: text})
    live(tab, served)
    tab.click(FIRST_EVENT + " summary")
    assert tab.until_text(FIRST_EVENT + " dl", "<script>").count(text) == 3
    assert tab.text(FIRST_EVENT + " pre") == text
    tab.click("#ask")
    tab.press(ENTER)
    tab.until_text("#rows details", text)
    found = tab.run("return [window.ran, document.querySelectorAll('script').length, document.images.length]")
    assert found == [None, 1, 0]


def test_the_policy_holds(tab, served):
    """Were a text to become markup after all, the browser would refuse."""
    live(tab, served)
    refused = tab.run("try { document.body.innerHTML = '<b>'; return ''; } catch (error) { return error.name; }")
    assert refused == "TypeError"
    assert any("TrustedHTML" in message for message in tab.console())


def test_the_query_box_by_keyboard(tab, served):
    """Tab leads to the box, Enter runs the query, Tab and Enter open a row of the answer."""
    served.publish("weather", *[f"event {number}".encode() for number in range(5)], mimetype="text/plain")
    live(tab, served)
    tab_to(tab, "#query")
    tab.press("SELECT * FROM weather OFFSET 1 LIMIT 3", ENTER)
    tab.until_text("#query-said", "3 events in")
    shown = tab.run("return [...document.querySelectorAll('#rows .data')].map(e => e.innerText)")
    assert shown == ["event 1", "event 2", "event 3"]
    tab_to(tab, "#rows summary")
    tab.press(ENTER)
    tab.until_text("#rows details:first-child .inside", "text/plain")


def test_a_query_over_two_lines(tab, served):
    """Shift and Enter start a new line, and do not run the query."""
    served.publish("weather", b"x")
    live(tab, served)
    tab_to(tab, "#query")
    tab.press("SELECT *")
    tab.chord(SHIFT, ENTER)
    tab.press("FROM weather")
    assert tab.run("return document.querySelector('#query').value") == "SELECT *\nFROM weather"
    assert tab.text("#query-said") == ""
    tab.press(ENTER)
    tab.until_text("#query-said", "1 event in")


def test_a_wrong_query(tab, served):
    """The node's own words say what is wrong with a query, and the next one makes them go away."""
    served.publish("weather", b"x")
    live(tab, served)
    tab_to(tab, "#query")
    tab.press("SELECT * FORM weather", ENTER)
    tab.until_text("#query-said", 'syntax error at position 9 near "FORM"')
    assert tab.run("return document.querySelector('#query').getAttribute('aria-invalid')") == "true"
    assert ["400" in message for message in tab.console()] == [True]
    tab.click("#clear")
    tab.press("SELECT * FROM weather", ENTER)
    tab.until_text("#query-said", "1 event in")
    assert tab.run("return document.querySelector('#query').getAttribute('aria-invalid')") == "false"


def test_a_topic_is_chosen_by_keyboard(tab, served):
    """A topic is a button: Enter shows its events, and it keeps the focus while the numbers change."""
    served.publish("weather", b"sunny", mimetype="text/plain")
    live(tab, served)
    tab_to(tab, "#topics tr:nth-child(1) button")
    tab.press(ENTER)
    tab.until_text("#events-empty", "There is no event yet.")
    tab.press(TAB, SPACE)
    tab.until_text(FIRST_EVENT, "sunny")
    served.publish("weather", b"cloudy", mimetype="text/plain")
    tab.until_text(FIRST_EVENT, "cloudy")
    focused = tab.run("return [document.activeElement.innerText, document.activeElement.getAttribute('aria-pressed')]")
    assert focused == ["weather", "true"]


def test_the_focus_is_visible(tab, served):
    """Whatever Tab leads to has an outline."""
    served.publish("weather", b"x")
    live(tab, served)
    seen = []
    for _ in range(12):
        tab.press(TAB)
        focus = "const e = document.activeElement, s = getComputedStyle(e); return [e.id || e.tagName, s.outlineStyle, "
        name, style, width = tab.run(focus + "parseFloat(s.outlineWidth)]")
        if name == "BODY":
            break
        assert style == "solid" and width >= 2, name
        seen.append(name)
    assert seen[:6] == ["pause", "BUTTON", "BUTTON", "query", "run", "ask"]
    assert "SUMMARY" in seen


def test_clients(tab, served):
    """Who is connected is shown, with what it reads."""
    live(tab, served)
    assert tab.text("#clients-empty") == "No client has a stream open."
    program = served.subscribe("weather")
    shown = tab.until_text("#clients li", "subscribe")
    assert program in shown and "weather" in shown
    assert tab.text("#all-clients") == "1"


def test_pause(tab, served):
    """Pause stops the numbers, and the second press takes up what came meanwhile."""
    live(tab, served)
    tab_to(tab, "#pause")
    tab.press(SPACE)
    tab.until_text(STATE, "Paused")
    served.publish("weather", b"x")
    page = tab.tab()
    tab.new_tab("window")  # beside the page, which stays visible
    rounds_here(tab, served)
    tab.close_tab()
    tab.switch(page)
    assert tab.run("return document.hidden") is False
    assert tab.until(row_of("weather"))[1] == "0"
    tab.press(SPACE)
    tab.until(f"{row_of('weather')}[1] === '1'")


def test_a_hidden_tab_asks_nothing(tab, served):
    """While another tab is in front the page is silent; when it is back it is up to date."""
    live(tab, served)
    tab.run(
        "window.seen = []; document.addEventListener('visibilitychange', () =>"
        " seen.push([document.hidden, performance.getEntriesByType('resource').length]));"
    )
    page = tab.tab()
    tab.new_tab()  # before the page, which is hidden
    rounds_here(tab, served)
    served.publish("weather", b"x")
    tab.close_tab()
    tab.switch(page)
    (hidden, before), (visible, after) = tab.until("seen.length === 2 && seen")
    assert (hidden, visible) == (True, False)
    assert after - before <= 2, "a round that was on its way may end, and none begins"
    tab.until(f"{row_of('weather')}[1] === '1'")


def test_no_token(tab, served):
    """Without the token, or with a wrong one, there is nothing to see but where the address comes from."""
    for address in (served.base, served.base + "?token=wrong"):
        tab.open(address)
        tab.until_text("body", "ensign-sync serve")
        assert tab.run("return document.querySelectorAll('table, textarea').length") == 0
        assert ["403" in message for message in tab.console()] == [True]


def test_reload(tab, served):
    """The address bar does not keep the token, yet the page can be loaded again; another tab cannot."""
    live(tab, served)
    assert tab.run("return location.href") == served.base
    tab.click("#topics tr:nth-child(2) button")
    tab.reload()
    tab.until_text(STATE, "Live")
    assert tab.run("return location.href") == served.base
    assert tab.text("#events-title") == "Last events of weather"
    assert ["403" in message for message in tab.console()] == [True]
    page = tab.tab()
    tab.new_tab()
    tab.open(served.base)
    tab.until_text("body", "ensign-sync serve")
    tab.console()
    tab.close_tab()
    tab.switch(page)


def test_a_node_that_was_started_again(tab, served):
    """The page says that its token is no longer known; a reload does not go round in circles."""
    live(tab, served)
    served.restart()
    tab.until_text("#notice", "Open the whole address that ensign-sync serve printed")
    assert tab.text(STATE) == "Refused"
    tab.reload()
    tab.until("location.search && sessionStorage.getItem('ensign-token') === null")
    tab.until_text("h1", "This address is not complete")
    tab.console()
    tab.open(served.address)
    tab.until_text(STATE, "Live")


def test_everything_has_a_name(tab, served):
    """A screen reader is told what each control and each region is."""
    served.publish("weather", b"x")
    served.subscribe("weather")
    live(tab, served)
    tab.click("#ask")
    tab.press(ENTER)
    tab.until_text("#query-said", "1 event in")
    tree = tab.devtools("Accessibility.getFullAXTree")["nodes"]
    roles = {"button", "textbox", "region", "table", "image", "columnheader", "rowheader", "DisclosureTriangle"}
    found = [node for node in tree if node.get("role", {}).get("value") in roles]
    assert {node["role"]["value"] for node in found} == roles
    assert [node["role"]["value"] for node in found if not node["name"]["value"].strip()] == []
    assert [node["name"]["value"] for node in found if node["role"]["value"] == "textbox"] == ["Query in EnSQL"]


def test_a_phone(tab, served):
    """On a narrow screen nothing has to be scrolled sideways, however long the names are."""
    served.publish("weather", b"x" * 2000, meta={"a-very-long-key-" * 10: "v" * 250}, mimetype="text/plain")
    served.subscribe("weather")
    tab.devtools("Emulation.setDeviceMetricsOverride", width=340, height=700, deviceScaleFactor=2, mobile=True)
    try:
        live(tab, served)
        tab.click(FIRST_EVENT + " summary")
        tab.until_text(FIRST_EVENT + " .inside", "text/plain")
        assert tab.run("return document.documentElement.scrollWidth") <= 340
        boxes = "[...document.querySelectorAll('.tile, .card, .scroll, .inside, .clients li')]"
        assert tab.run(f"return {boxes}.filter(e => e.scrollWidth > e.clientWidth).map(e => e.className)") == []
    finally:
        tab.devtools("Emulation.clearDeviceMetricsOverride")
