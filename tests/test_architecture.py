"""The rooms of the package and who may import whom, read from the source of every module."""

import ast
import pathlib

import pytest

PACKAGE = pathlib.Path(__file__).parent.parent / "ensign_sync"

#: Values may import values that stand before them here, so there is no cycle.
VALUES = (
    "version exceptions times ids mimetypes enum ack nack events topics projects status settings".split()
)
CLIENT = "catalog checkpoint cursor subscription client".split()
HANDOVER = ["handover"]
NODE_LOW = {
    "node.wal": [],
    "node.schema": ["values", "node.wal"],
    "node.storage": ["values", "node.schema"],
    "node.claims": ["values"],
    "node.keys": ["values", "node.storage"],
    "node.sessions": ["values", "protocol.frames"],
    "node.group_state": ["values"],
    "node.fault_state": ["values"],
    "node.clock": [],
    "node.timer": ["handover"],
    "node.pool": ["handover"],
    "node.rpc": ["handover"],
    "node.relay": ["values", "handover"],
    "node.page": ["values"],
    "node.broker": ["values", "handover", "wire", "node.storage", "node.book", "node.clock", "node.fault_state"],
}

#: Room -> what it may import; "values" stands for all values, a room for all its modules.
RULES = {
    "protocol": ["values", "protocol"],
    "wire": ["values", "wire", "protocol.frames", "api", "google.protobuf"],
    "ensql": ["values", "ensql"],
    "handover": ["exceptions", "handover"],
    "transport": ["values", "wire", "handover", "transport", "protocol.retry", "protocol.tokens", "protocol.frames"]
    + ["grpc", "requests"],
    "streams": ["values", "protocol", "wire.codec", "wire.keys", "wire.methods", "handover", "transport", "streams"],
    "client": ["values", "ensql", "streams", "transport", "handover", *CLIENT, "node.embedded"],
    **dict.fromkeys(["publisher", "subscriber", "decorators"], ["values", "client"]),
    "ensign": ["values", "client", "decorators"],
    "node": ["values", "wire", "ensql", "handover", "node", "grpc"],
    "cli": ["values", "cli", "root", "client", "node.server", "node", "exceptions"],
    **NODE_LOW,
}
#: Two wings that meet in one place each: an embedded endpoint starts a node, and a node hands out clients of itself.
#: And a node that is to run in a process of its own is one of a class below it.
LAZY = {("node.server", "client"), ("client", "node.embedded"), ("node.server", "node.process")}

STANDARD = set(
    "abc argparse ast atexit base64 binascii bisect calendar collections concurrent contextlib copy copyreg csv"
    " datetime enum fcntl functools gc hashlib heapq hmac http importlib inspect io ipaddress itertools json locale"
    " logging math multiprocessing operator os pathlib pickle queue random re secrets select selectors shlex shutil"
    " signal socket socketserver sqlite3 ssl statistics string struct subprocess sys tempfile textwrap threading"
    " time traceback types typing urllib warnings weakref zlib __future__".split()
)


def modules():
    """Yield (dotted name below the package, path) of every module that is ours."""
    for path in sorted(PACKAGE.rglob("*.py")):
        parts = path.relative_to(PACKAGE).with_suffix("").parts
        if parts[0] != "api":
            yield ".".join(parts[:-1] if parts[-1] == "__init__" else parts), path


MODULES = list(modules())


def imports(name, path):
    """Yield what a module imports: names below the package as they are, others with their top-level package."""
    package = name.split(".") if path.name == "__init__.py" else name.split(".")[:-1]
    package = [part for part in package if part]
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield alias.name
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            module = node.module.split(".") if node.module else []
            if node.level == 0 and module[:1] == ["ensign_sync"]:
                module = module[1:]
            elif node.level == 0:
                yield ".".join(module)
                continue
            target = base + module
            for alias in node.names:
                inner = [*target, alias.name]
                is_module = (PACKAGE.joinpath(*inner).with_suffix(".py")).exists() or PACKAGE.joinpath(*inner).is_dir()
                yield "ensign_sync." + ".".join(inner if is_module else target)


def room_of(name):
    """Return the room of a module."""
    if name in NODE_LOW:
        return name
    head = name.split(".")[0]
    if head in VALUES:
        return "values"
    return "client" if head in CLIENT else head


def allowed(name, imported):
    """Tell whether a module may import another."""
    if (name, imported.replace("ensign_sync.", "", 1)) in LAZY:
        return True
    if not imported.startswith("ensign_sync"):
        top = imported.split(".")[0]
        if top in STANDARD:
            return True
        rules = RULES.get(room_of(name), [])
        return any(imported == rule or imported.startswith(rule + ".") for rule in rules)
    inner = imported[len("ensign_sync.") :] if imported != "ensign_sync" else "root"
    if room_of(name) == "values":
        return inner in VALUES and VALUES.index(inner) < VALUES.index(name)
    for rule in RULES.get(room_of(name), []):
        if inner == rule or inner.startswith(rule + ".") or (rule == "values" and inner in VALUES):
            return True
    return False


ROOMS = [(name, path) for name, path in MODULES if name not in ("", "__main__")]


@pytest.mark.parametrize(("name", "path"), ROOMS, ids=[name for name, _ in ROOMS])
def test_imports(name, path):
    """A module imports only what its room may."""
    wrong = [imported for imported in imports(name, path) if not allowed(name, imported)]
    assert not wrong, f"{name} may not import {wrong}"


def test_no_asyncio_anywhere():
    """Nothing is asynchronous."""
    for name, path in MODULES:
        assert not any(imported.split(".")[0] == "asyncio" for imported in imports(name, path)), name
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            assert not isinstance(node, (ast.AsyncFunctionDef, ast.Await, ast.AsyncFor, ast.AsyncWith)), name


def test_no_import_cycles():
    """Whoever is imported does not import back, over any number of steps; imports in functions count too."""
    known = {name for name, _ in MODULES}
    graph = {}
    for name, path in MODULES:
        found = {i[len("ensign_sync.") :] for i in imports(name, path) if i.startswith("ensign_sync.")}
        graph[name] = {target for target in found & known if target != name and (name, target) not in LAZY}
    graph[""] = set()  # the package itself loads its names when they are used
    graph.pop("node", None)
    done, path = set(), []

    def visit(name):
        if name in done or name not in graph:
            return
        assert name not in path, f"cycle: {' -> '.join(path[path.index(name):] + [name])}"
        path.append(name)
        for target in sorted(graph[name]):
            visit(target)
        path.pop()
        done.add(name)

    for name in sorted(graph):
        visit(name)


def test_the_values_have_no_clock_but_as_a_default():
    """Only times.py looks at a clock, for a new id, and events.py for the default of an event's making."""
    for name, path in MODULES:
        if name.split(".")[0] in (*VALUES, "protocol") and name not in ("times", "events"):
            assert not {"time", "threading", "socket"} & {i.split(".")[0] for i in imports(name, path)}, name


def test_generated_code_is_behind_the_wire():
    """Only the wire room knows protobuf."""
    for name, path in MODULES:
        if room_of(name) != "wire":
            found = [i for i in imports(name, path) if i.startswith(("google", "ensign_sync.api"))]
            assert not found, f"{name} imports {found}"
