"""The command line as a whole: help, exit codes, errors."""

import subprocess
import sys

import pytest

import ensign_sync
from ensign_sync.cli import COMMANDS


def test_version(call):
    """--version names the program and the version."""
    assert call("--version") == (0, f"ensign-sync {ensign_sync.__version__}\n", "")


@pytest.mark.parametrize("command", [[], *([name] for name in COMMANDS), ["topics", "list"]], ids=" ".join)
def test_help(call, command):
    """--help works for every command; that of the program documents the exit codes."""
    code, out, err = call(*command, "--help")
    assert (code, err) == (0, "")
    assert "usage: ensign-sync" in out
    assert command or all(text in out for text in ("exit codes:", "130", *COMMANDS))


WRONG = {
    "no command": [],
    "unknown command": ["frobnicate"],
    "no topic": ["publish"],
    "no action": ["topics"],
    "no topics": ["subscribe"],
    "no query": ["query"],
    "no program": ["run", "--"],
    "abbreviated option": ["publish", "weather", "--json"],
    "bad count": ["subscribe", "weather", "--count", "0"],
    "bad timeout": ["status", "--timeout", "-1"],
    "bad port": ["serve", "--port", "65536"],
    "bad schema": ["publish", "weather", "--schema", "Weather"],
    "bad version": ["publish", "weather", "--schema", "Weather:one"],
    "bad mimetype": ["publish", "weather", "--mimetype", "nonsense"],
    "bad meta": ["publish", "weather", "--meta", "key"],
    "bad format": ["query", "SELECT * FROM weather", "--format", "xml"],
}


@pytest.mark.parametrize("arguments", WRONG.values(), ids=WRONG.keys())
def test_bad_usage(call, arguments):
    """A command line that makes no sense is exit code 2 with the usage, before anything connects."""
    code, out, err = call(*arguments)
    assert (code, out) == (2, "")
    assert err.startswith("usage: ensign-sync")


def test_no_credentials(call):
    """What is missing is one line that names the ways to give it, and exit code 1."""
    code, out, err = call("status")
    assert (code, out) == (1, "")
    assert err.startswith("ensign-sync: client_id and client_secret required")
    assert err.count("\n") == 1


def test_help_and_the_like_load_no_grpc(bare_env):
    """Whatever does not connect is fast: gRPC, requests and SQLite are not even imported."""
    program = (
        "import sys, ensign_sync.cli as cli; cli.main(['--version']); cli.main(['publish']);"
        " print({'grpc', 'requests', 'sqlite3', 'google.protobuf'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", program], env=bare_env, capture_output=True, check=True)
    assert done.stdout.splitlines()[-1] == b"set()"
