"""An HTTP relay before an auth service: the network's own record of which tokens were asked for, and by what."""

import http.client
import http.server
import json
import threading
from typing import Any, Dict, List, NamedTuple


class Exchange(NamedTuple):
    """A request and its reply."""

    path: str
    request: Dict[str, Any]
    status: int
    reply: Dict[str, Any]


class Recorder:
    """Passes POST requests on to an auth service. A context manager that ends with the block.

    Attributes:
        url: What clients take for the auth service.
        exchanges: What was said so far, in the order of the replies.
    """

    def __init__(self, target: str) -> None:
        self.exchanges: List[Exchange] = []
        address = target.partition("://")[2]
        exchanges = self.exchanges

        class Handler(_Handler):
            pass

        Handler.address, Handler.exchanges = address, exchanges
        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,), name="recorder", daemon=True)
        self._thread.start()

    def __enter__(self) -> "Recorder":
        return self

    def __exit__(self, *_: Any) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(10.0)


class _Handler(http.server.BaseHTTPRequestHandler):
    address: str
    exchanges: List[Exchange]
    timeout = 30.0

    def do_POST(self) -> None:  # noqa: N802 - the name that http.server looks for
        body = self.rfile.read(int(self.headers["Content-Length"]))
        connection = http.client.HTTPConnection(self.address, timeout=10.0)
        try:
            connection.request("POST", self.path, body, {"Content-Type": self.headers["Content-Type"]})
            answer = connection.getresponse()
            data = answer.read()
        finally:
            connection.close()
        # Before the reply goes out, so that whoever has it finds it here.
        self.exchanges.append(Exchange(self.path, json.loads(body), answer.status, json.loads(data)))
        self.send_response(answer.status)
        self.send_header("Content-Type", answer.headers["Content-Type"])
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing: the record is kept."""
