"""Copies of the data of a node, made while it goes on: from its data file, or over HTTP by who has its own key."""

import json
import os
import urllib.error
import urllib.parse
import urllib.request
from typing import Any

from ..exceptions import AuthenticationError, NodeError, NodeStorageError
from ..settings import Credentials
from .look import is_loopback
from .schema import unchanged
from .storage import copy_to, new_file

_CHUNK = 1 << 20
_TIMEOUT = 30.0


def copy_file(source: str, target: str) -> int:
    """Copy a data file, whether a node holds it or not; returns the size of the copy in bytes.

    Raises:
        NodeStorageError: There is no such data file, or the target exists or cannot be written.
    """
    if not os.path.isfile(source):
        raise NodeStorageError(f"there is no data file {source}")
    with unchanged(source) as connection:
        copy_to(connection, source, target)
    return os.path.getsize(target)


def fetch(auth_url: str, key: Credentials, target: str) -> int:
    """Fetch a copy from a node; ``key`` must be its own, which ``serve`` prints. Returns its size in bytes.

    Raises:
        AuthenticationError: The node knows no such key, or it is not the node's own.
        NodeError: There is no node at the address.
        NodeStorageError: The target exists or cannot be written.
    """
    body = json.dumps({"client_id": key.client_id, "client_secret": key.client_secret}).encode("utf-8")
    with _open(auth_url, "/v1/authenticate", body) as reply:
        token = json.loads(reply.read())["access_token"]
    new_file(target)
    try:
        with _open(auth_url, "/v1/backup", None, token) as reply, open(target, "wb") as copy:
            for piece in iter(lambda: reply.read(_CHUNK), b""):
                copy.write(piece)
            if copy.tell() != int(reply.headers["Content-Length"]):
                raise NodeError(f"the copy broke off after {copy.tell()} bytes; try again")
            return copy.tell()
    except BaseException:
        os.unlink(target)
        raise


def _open(auth_url: str, path: str, body: Any = None, token: str = "") -> Any:
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    request = urllib.request.Request(auth_url.rstrip("/") + path, body, headers)
    here = is_loopback(urllib.parse.urlsplit(auth_url).hostname or "")
    opener = urllib.request.build_opener(*([urllib.request.ProxyHandler({})] if here else []))
    try:
        return opener.open(request, timeout=_TIMEOUT)
    except urllib.error.HTTPError as error:
        with error:
            if error.code in (401, 403):
                text = f"{auth_url} refused the key: a backup needs the key that 'ensign-sync serve' prints"
                raise AuthenticationError(text) from error
            if error.code == 500:
                raise NodeError(f"{auth_url} could not make a copy: {_reason(error)}") from error
            raise NodeError(f"{auth_url}{path} answered {error.code}: only our own node makes backups") from error
    except (OSError, ValueError) as error:
        text = f"{auth_url} cannot be reached: {error}; is the node running, and is this its auth URL?"
        raise NodeError(text) from error


def _reason(error: urllib.error.HTTPError) -> str:
    """Return what the node says is wrong."""
    try:
        return str(json.loads(error.read())["error"])
    except (ValueError, KeyError, TypeError):
        return str(error)
