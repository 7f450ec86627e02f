"""The generated modules beside those of another client in the same process."""

import importlib.util
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import List

import pytest
from google.protobuf.internal import api_implementation

ROOT = Path(__file__).resolve().parents[2]
API = ROOT / "ensign_sync" / "api"

OURS = "ensign_sync.api"
API_MODULES = [f"v1beta1.{name}_pb2" for name in ("ensign", "event", "groups", "query", "topic")]
OTHER_MODULES = ["mimetype.v1beta1.mimetype_pb2", "region.v1beta1.region_pb2"]
SERVER_MODULES = ["pagination.pagination_pb2"]

# Arguments: the modules to import, in this order, then the module with the foreign Event.
SCRIPT = """
import importlib, pickle, sys
modules = [importlib.import_module(name) for name in sys.argv[1:]]
theirs = modules[-1]
from ensign_sync.api.v1beta1 import ensign_pb2, event_pb2
event = event_pb2.Event(data=b"x", metadata={"k": "v"})
assert theirs.Event.FromString(event.SerializeToString()).SerializeToString() == event.SerializeToString()
request = ensign_pb2.PublisherRequest(event=event_pb2.EventWrapper(event=event.SerializeToString()))
shared = theirs.Event is event_pb2.Event  # so it is with upb; the older C++ code makes two classes
for message in (event, request, (theirs if shared else event_pb2).Event(data=b"x")):
    assert type(message).__module__ in sys.modules, type(message)
    assert pickle.loads(pickle.dumps(message)) == message
print("ok")
"""


def ours(server: bool) -> List[str]:
    """The names of our modules, with or without those that only the embedded server uses."""
    return [f"{OURS}.{name}" for name in API_MODULES + OTHER_MODULES + (SERVER_MODULES if server else [])]


def run(script: str, *arguments: str, path: str = "") -> None:
    """Run a script in a new process that finds our package, and expect it to print "ok"."""
    parts = [path, str(ROOT), os.environ.get("PYTHONPATH", "")]
    environment = dict(os.environ, PYTHONPATH=os.pathsep.join(part for part in parts if part))
    done = subprocess.run(
        [sys.executable, "-c", script] + list(arguments),
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert (done.returncode, done.stdout) == (0, "ok\n"), done.stdout


def write_foreign(folder: Path, importable: bool) -> None:
    """Write a package foreign_client with the same descriptors, whose classes name their module rightly or wrongly."""
    for source in list(API.rglob("*_pb2.py")) + list(API.rglob("__init__.py")):
        text = source.read_text(encoding="utf-8")
        text = re.sub(r"^import sys as _sys\n(?:for .*\n|  .*\n)+", "", text, flags=re.MULTILINE)
        assert "_sys.modules" not in text
        package = "foreign_client." if importable else ""
        text = text.replace("DESCRIPTOR, 'ensign_sync.api.", f"DESCRIPTOR, '{package}")
        text = text.replace("from ensign_sync.api.", "from foreign_client.")
        target = folder / "foreign_client" / source.relative_to(API)
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(text, encoding="utf-8")


@pytest.mark.parametrize("importable", [True, False])
@pytest.mark.parametrize("first", ["ours", "theirs"])
def test_equal_descriptors_in_one_process(tmp_path: Path, first: str, importable: bool) -> None:
    """A second package with the same descriptors can be imported before or after ours, and messages can be pickled."""
    write_foreign(tmp_path, importable)
    mine = ours(server=True)
    theirs = [name.replace(OURS, "foreign_client") for name in mine]
    names = mine + theirs if first == "ours" else theirs + mine
    run(SCRIPT, *names, "foreign_client.v1beta1.event_pb2", path=str(tmp_path))


@pytest.mark.parametrize("first", ["ours", "theirs"])
def test_other_health_protocol_in_one_process(tmp_path: Path, first: str) -> None:
    """The health messages under another file name, as grpcio-health-checking has them, do not clash with ours."""
    text = (API / "health" / "v1" / "health_pb2.py").read_text(encoding="utf-8")
    text = text.replace("grpc/health/v1", "grpc_health/v1").replace("DescriptorPool()", "Default()")
    (tmp_path / "foreign_health_pb2.py").write_text(text.replace(f"{OURS}.health.v1.", "foreign_"), encoding="utf-8")
    names = [f"{OURS}.health.v1.health_pb2", "foreign_health_pb2"]
    if first == "theirs":
        names.reverse()
    script = """
import importlib, sys
modules = [importlib.import_module(name) for name in sys.argv[1:]]
assert modules[0].HealthCheckRequest is not modules[1].HealthCheckRequest
data = [module.HealthCheckResponse(status=1).SerializeToString() for module in modules]
assert data[0] == data[1]
print("ok")
"""
    if api_implementation.Type() != "python":  # the pure Python implementation checks names across pools
        run(script, *names, path=str(tmp_path))


def descriptors(names: List[str]) -> str:
    """A digest of the descriptors of modules, made in a new process."""
    script = """
import hashlib, importlib, sys
data = [importlib.import_module(name).DESCRIPTOR.serialized_pb for name in sys.argv[1:]]
print(hashlib.sha256(b"".join(data)).hexdigest())
"""
    environment = dict(os.environ, PYTHONPATH=os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")]))
    command = [sys.executable, "-c", script] + names
    return subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True, check=True).stdout


@pytest.mark.parametrize("first", ["ours", "theirs"])
def test_pyensign_in_one_process(first: str) -> None:
    """The official client, where one with these descriptors is installed, can be imported before or after ours."""
    theirs = [f"pyensign.api.{name}" for name in API_MODULES] + [f"pyensign.{name}" for name in OTHER_MODULES]
    mine = ours(server=False)
    # Older official clients have older descriptors under the same names: those cannot be in one process with these.
    if importlib.util.find_spec("pyensign") is not None and descriptors(theirs) == descriptors(mine):
        names = mine + theirs if first == "ours" else theirs + mine
        run(SCRIPT, *names, "pyensign.api.v1beta1.event_pb2")
