"""Builds sdist and wheel, installs the wheel into an empty environment, and runs the demo there."""

import os
import pathlib
import subprocess
import sys
import tarfile
import venv
import zipfile

ROOT = pathlib.Path(__file__).parent.parent


def main() -> None:
    """Do it all in the folder that is named on the command line."""
    folder = pathlib.Path(sys.argv[1]).resolve() / "package"
    subprocess.run([sys.executable, "-m", "build", "--outdir", str(folder / "dist"), str(ROOT)], check=True)
    (wheel,) = sorted((folder / "dist").glob("*.whl"))
    (sdist,) = sorted((folder / "dist").glob("*.tar.gz"))
    check_contents(wheel, sdist)
    venv.EnvBuilder(with_pip=True, clear=True).create(folder / "empty")
    python = folder / "empty" / "bin" / "python"
    clean = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "PYTHONHOME")}
    subprocess.run([str(python), "-m", "pip", "install", "-q", str(wheel)], check=True, env=clean)
    for command in (["-c", "import ensign_sync; print(ensign_sync.__version__)"], ["-m", "ensign_sync", "demo"]):
        subprocess.run([str(python), "-W", "error", *command], check=True, env=clean, cwd=str(folder))
    subprocess.run([str(python.parent / "ensign-sync"), "--version"], check=True, env=clean, cwd=str(folder))


def check_contents(wheel: pathlib.Path, sdist: pathlib.Path) -> None:
    """What has to be in the packages is, and nothing else at the top."""
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
    for wanted in ("py.typed", "cli/seattle-weather.csv", "node/page.html", "api/v1beta1/event_pb2.pyi"):
        assert f"ensign_sync/{wanted}" in names, f"the wheel lacks {wanted}"
    tops = {name.split("/")[0] for name in names}
    assert len(tops) == 2 and "ensign_sync" in tops, f"the wheel holds {sorted(tops)}"
    with tarfile.open(sdist) as archive:
        inside = archive.getnames()
    for wanted in ("README.rst", "LICENSE", "protos/api/v1beta1/event.proto", "tests/conftest.py", "tox.ini"):
        assert any(name.endswith("/" + wanted) for name in inside), f"the sdist lacks {wanted}"


if __name__ == "__main__":
    main()
