"""What the README shows runs as it stands."""

import json
import os
import pathlib
import re
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).parent.parent
README = (ROOT / "README.rst").read_text(encoding="utf-8")


def blocks():
    """Return the Python programs of the README, each with the section it stands in."""
    found = []
    for section in re.split(r"\n(?=[^\n]+\n-{3,}\n)", README)[1:]:
        title = section.strip().splitlines()[0]
        for block in re.findall(r"\.\. code-block:: python\n\n((?: {4}.*\n|\n)+)", section):
            lines = [line[4:] for line in block.splitlines()]
            found.append(pytest.param("\n".join(lines), id=title))
    return found


BLOCKS = blocks()


@pytest.mark.parametrize("program", BLOCKS)
def test_programs_run(program, tmp_path):
    """Each program of the README runs without a warning, and says nothing on stderr."""
    (tmp_path / "my_project_key.json").write_text(json.dumps({"ClientID": "id", "ClientSecret": "secret"}))
    env = {name: value for name, value in os.environ.items() if not name.startswith(("ENSIGN_", "GRPC_"))}
    env["PYTHONPATH"] = os.pathsep.join(path for path in [str(ROOT), *sys.path] if path)
    result = subprocess.run(
        [sys.executable, "-W", "error", "-c", program], capture_output=True, timeout=60, env=env, cwd=str(tmp_path)
    )
    assert result.stderr.decode() == ""
    assert result.returncode == 0


def test_there_are_programs():
    """The pattern above finds what the README has."""
    assert len(BLOCKS) == README.count(".. code-block:: python") >= 4


def test_the_two_commands_are_single_lines():
    """CI reads the two commands between their marks; each is one line that can be copied."""
    for mark in ("demo", "test"):
        (text,) = re.findall(rf"\.\. {mark}-command\n\n::\n\n((?: {{4}}.*\n)+)\n\.\. end", README)
        assert len(text.splitlines()) == 1


def test_the_version_is_the_same_everywhere():
    """setup.cfg, the package and CHANGES tell the same version."""
    import configparser

    from ensign_sync import __version__

    setup = configparser.ConfigParser(interpolation=None)
    setup.read(str(ROOT / "setup.cfg"), encoding="utf-8")
    assert setup["metadata"]["version"] == __version__
    assert f"\n{__version__} " in (ROOT / "CHANGES.rst").read_text(encoding="utf-8")
