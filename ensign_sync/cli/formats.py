"""How an event is printed."""

import base64
import json
import math
from typing import Any, Dict, List, Optional

from .. import mimetypes, times
from ..events import Event
from .output import one_line

_JSON = (mimetypes.ApplicationJSON, mimetypes.ApplicationJSONLD)

#: The columns of ``query --format csv``.
COLUMNS = "id topic mimetype schema meta created committed data data_base64".split()


def loads(data: bytes) -> Any:
    """Decode JSON; ValueError for what is none, NaN and infinite numbers included."""
    try:
        return json.loads(data.decode("utf-8"), parse_constant=_refuse, parse_float=_finite)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None


def _refuse(constant: str) -> None:
    raise ValueError(f"{constant} is no JSON")


def _finite(text: str) -> float:
    number = float(text)
    if math.isinf(number):
        raise ValueError(f"{text} is too large")
    return number


def as_text(data: bytes) -> Optional[str]:
    """Return data that is UTF-8 as text, else None."""
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError:
        return None


def mimetype_name(number: int) -> str:
    """Return the text of a mimetype, or its number where it has none: a server checks nothing."""
    try:
        return mimetypes.to_str(number)
    except ValueError:
        return str(int(number))


def schema_name(event: Event) -> str:
    """Return the schema as ``publish --schema`` takes it."""
    return f"{event.type.name}:{event.type.semver()}"


def as_object(event: Event) -> Dict[str, Any]:
    """Return an event as a JSON object: its data decoded if it is JSON, else as text, else under ``data_base64``."""
    return {
        "id": str(event.id) if event.id is not None else None,
        "topic": event.topic,
        "mimetype": mimetype_name(event.mimetype),
        "schema": schema_name(event),
        "meta": event.meta,
        "created": times.to_rfc3339(event.created) if event.created is not None else None,
        "committed": times.to_rfc3339(event.committed) if event.committed is not None else None,
        **_data(event),
    }


def as_json(event: Event) -> str:
    """Return an event as a line of JSON."""
    return json.dumps(as_object(event), ensure_ascii=False)


def as_cells(event: Event) -> List[str]:
    """Return the cells of an event for the COLUMNS; data stays as it was published."""
    cells = as_object(event)
    data = event.data or b""
    text = as_text(data)
    cells["meta"] = json.dumps(event.meta, ensure_ascii=False) if event.meta else ""
    cells["data"] = text or ""
    cells["data_base64"] = _base64(data) if text is None else ""
    return [cells[name] or "" for name in COLUMNS]


def as_row(event: Event, longest: int) -> List[str]:
    """Return id, schema and the beginning of the data, on one line."""
    data = event.data or b""
    start = data[: 4 * longest]  # no character takes more bytes
    return [str(event.id or ""), one_line(schema_name(event)), one_line(start.decode("utf-8", "replace"))[:longest]]


def _data(event: Event) -> Dict[str, Any]:
    data = event.data or b""
    if event.mimetype in _JSON:
        try:
            return {"data": loads(data)}
        except ValueError:
            pass  # a server checks nothing; shown as what it is
    text = as_text(data)
    return {"data": text} if text is not None else {"data_base64": _base64(data)}


def _base64(data: bytes) -> str:
    return base64.b64encode(data).decode("ascii")
