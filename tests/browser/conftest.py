"""A browser and a node for it to look at.

Where Chromium or its driver is not installed nothing is collected here, and the end of the run says so.
"""

import shutil

import pytest

from ensign_sync.events import Event
from tests.browser.webdriver import Browser
from tests.threads import no_thread_stays

__all__ = ["no_thread_stays"]

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
CHROMEDRIVER = shutil.which("chromedriver")
INSTALLED = bool(CHROMIUM and CHROMEDRIVER)

collect_ignore_glob = [] if INSTALLED else ["test_*.py"]


def pytest_terminal_summary(terminalreporter):
    """Say what was left out."""
    if not INSTALLED:
        terminalreporter.write_line("tests/browser was not run: it needs chromium and chromedriver (chromium-driver)")


@pytest.fixture(scope="session")
def browser():
    """One browser for all tests."""
    started = Browser(CHROMIUM, CHROMEDRIVER)
    yield started
    started.close()


@pytest.fixture
def served():
    """What the browser looks at: a node with the topics orders and weather, both empty."""
    with Served(["orders", "weather"]) as running:
        yield running


@pytest.fixture
def tab(browser, served):
    """A tab of its own; whatever its console got that the test did not take is an error.

    It is closed before the node stops, whose end the page would tell its console.
    """
    before = browser.tab()
    mine = browser.new_tab()
    browser.console()
    yield browser
    browser.switch(mine)
    console = browser.console()
    browser.close_tab()
    browser.switch(before)
    assert console == []


class Served:
    """A node with its page.

    Attributes:
        address: The address that ``serve`` would print.
        base: The same without the token.
    """

    def __init__(self, topics):
        self._topics = topics
        self._clients = []
        self._start(0)

    def _start(self, port):
        from ensign_sync.node import Node  # here, since nothing is needed where there is no browser

        self._node = Node(topics=self._topics, strict=False, auth_port=port, page=True)
        self.address = self._node.page_url
        self.base = self.address.partition("?")[0]

    def __enter__(self):
        return self

    def __exit__(self, *_):
        for client in self._clients:
            client.close()
        self._node.stop()

    def _client(self):
        self._clients.append(self._node.client())
        return self._clients[-1]

    def restart(self):
        """Stop, and start another node at the same address, which makes another token."""
        port = int(self.base.rstrip("/").rpartition(":")[2])
        self._node.stop()
        self._start(port)

    def publish(self, topic, *payloads, **options):
        """Publish events to a topic; the options are those of ``Event``."""
        with self._node.client() as client:
            client.publish(topic, *[Event(payload, **options) for payload in payloads])

    def subscribe(self, topic):
        """Leave a subscriber connected; returns how its user agent begins."""
        self._client().subscribe(topic)
        return "ensign-sync/"
