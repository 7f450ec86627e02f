"""A browser driven over WebDriver (https://www.w3.org/TR/webdriver/), which is JSON over HTTP."""

import base64
import http.client
import json
import os
import re
import shutil
import subprocess
import tempfile
import time
from typing import Any, Dict, List, Optional, Tuple, cast

#: How long something may take to come true, in seconds.
PATIENCE = 20.0

TAB, ENTER, SHIFT, SPACE = "\ue004", "\ue007", "\ue008", " "

#: Looks again and again, in the page, until a function returns something true.
_UNTIL = """
const look = () => { %s }, done = arguments[arguments.length - 1], given = arguments;
const again = () => { const seen = look(); seen ? done(seen) : setTimeout(again, 30); };
again();
"""


class WebDriverError(Exception):
    """The browser cannot do what was asked; ``kind`` is the name that the standard gives the error."""

    def __init__(self, kind: str, message: str) -> None:
        super().__init__(f"{kind}: {message}")
        self.kind = kind


class Browser:
    """A Chromium without a window, and the driver that it takes."""

    def __init__(self, chromium: str, chromedriver: str) -> None:
        """Start both; the caller closes them."""
        self._folder = tempfile.mkdtemp(prefix="browser-")  # for what both would leave behind
        self._driver = subprocess.Popen(
            [chromedriver, "--port=0"],
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env={**os.environ, "TMPDIR": self._folder},
        )
        self._session = ""
        try:
            self._port = self._port_told()
            options = {
                "binary": chromium,
                # The sandbox does not work for root, as whom tests run in containers; nor is shared memory large there.
                "args": ["--headless=new", "--no-sandbox", "--disable-dev-shm-usage", "--window-size=1280,900"],
            }
            wanted = {
                "goog:chromeOptions": options,
                "goog:loggingPrefs": {"browser": "ALL"},
                "timeouts": {"script": int(PATIENCE * 1000)},
            }
            made = self._call("POST", "/session", {"capabilities": {"alwaysMatch": wanted}})
            self._session = f"/session/{made['sessionId']}"
        except BaseException:
            self.close()
            raise

    def _port_told(self) -> int:
        assert self._driver.stdout is not None
        for line in self._driver.stdout:
            found = re.search(rb"started successfully on port (\d+)", line)
            if found:
                return int(found.group(1))
        raise WebDriverError("session not created", "chromedriver ended before it told its port")

    def close(self) -> None:
        """End the browser and its driver."""
        try:
            if self._session:
                self._call("DELETE", self._session)
        finally:
            self._driver.terminate()
            self._driver.wait(PATIENCE)
            if self._driver.stdout is not None:
                self._driver.stdout.close()
            shutil.rmtree(self._folder, ignore_errors=True)

    def _call(self, method: str, path: str, body: Optional[Dict[str, Any]] = None) -> Any:
        connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=3 * PATIENCE)
        try:
            sent = None if body is None else json.dumps(body).encode("ascii")
            connection.request(method, path, sent, {"Content-Type": "application/json"})
            answer = connection.getresponse()
            value = json.loads(answer.read().decode("utf-8"))["value"]
        finally:
            connection.close()
        if answer.status >= 400:
            raise WebDriverError(value["error"], value["message"])
        return value

    def _do(self, command: str, **body: Any) -> Any:
        return self._call("POST", f"{self._session}/{command}", body)

    # where it is

    def open(self, url: str) -> None:
        """Go to an address and wait until it is loaded."""
        self._do("url", url=url)

    def reload(self) -> None:
        """Load the page again."""
        self._do("refresh")

    def new_tab(self, kind: str = "tab") -> str:
        """Open a tab, or a "window", before the present one and go there; returns its handle."""
        handle = cast(str, self._do("window/new", type=kind)["handle"])
        self.switch(handle)
        return handle

    def tab(self) -> str:
        """Return the handle of the tab."""
        return cast(str, self._call("GET", f"{self._session}/window"))

    def switch(self, handle: str) -> None:
        """Turn to a tab."""
        self._do("window", handle=handle)

    def close_tab(self) -> None:
        """Close the tab; another one must be chosen then."""
        self._call("DELETE", f"{self._session}/window")

    # what it shows

    def run(self, script: str, *arguments: Any) -> Any:
        """Run the body of a function in the page and return what it returns."""
        return self._do("execute/sync", script=script, args=list(arguments))

    def until(self, expression: str, *arguments: Any) -> Any:
        """Wait until an expression is true in the page, and return it; ``given`` are the arguments."""
        limit = time.monotonic() + PATIENCE
        while True:
            try:
                script = _UNTIL % f"return {expression};"
                return self._do("execute/async", script=script, args=list(arguments))
            except WebDriverError as error:
                # Another page came in between: then that one is looked at.
                if "unloaded" in str(error) and time.monotonic() < limit:
                    continue
                shown = self.run("return document.body.innerText")
                raise AssertionError(f"never came true: {expression} {arguments}; the page shows:\n{shown}") from error

    def text(self, selector: str) -> str:
        """Return what an element shows."""
        return cast(str, self.run("return document.querySelector(arguments[0]).innerText", selector))

    def until_text(self, selector: str, part: str) -> str:
        """Wait until an element shows a text, and return all that it shows."""
        shows = "(e => e && e.innerText.includes(given[1]) && e.innerText)(document.querySelector(given[0]))"
        return cast(str, self.until(shows, selector, part))

    def console(self) -> List[str]:
        """Return what the console has got since it was asked last."""
        return [entry["message"] for entry in self._do("se/log", type="browser")]

    def screenshot(self) -> bytes:
        """Return a PNG of what is visible."""
        return base64.b64decode(self._call("GET", f"{self._session}/screenshot"))

    # what a person does

    def press(self, *keys: str) -> None:
        """Press keys one after the other; the characters of a text count as keys."""
        self._keys([(kind, key) for text in keys for key in text for kind in ("keyDown", "keyUp")])

    def chord(self, held: str, key: str) -> None:
        """Press a key while another is held."""
        self._keys([("keyDown", held), ("keyDown", key), ("keyUp", key), ("keyUp", held)])

    def _keys(self, moves: List[Tuple[str, str]]) -> None:
        actions = [{"type": kind, "value": key} for kind, key in moves]
        self._do("actions", actions=[{"type": "key", "id": "keyboard", "actions": actions}])

    def click(self, selector: str) -> None:
        """Click on an element."""
        found = self._do("element", using="css selector", value=selector)
        self._do(f"element/{next(iter(found.values()))}/click")

    def devtools(self, command: str, **parameters: Any) -> Any:
        """Send a command of the protocol that the developer tools speak."""
        return self._do("goog/cdp/execute", cmd=command, params=parameters)
