"""Build and install the package in each way, and check what a user would get.

    python tests/check_package.py WORKDIR

Runs in a throw-away environment that has what builds it, lazy-loader and npe2
(tox -e package).
"""

import subprocess
import sys
import zipfile
from pathlib import Path

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "src" / "napari_ovam"

SMOKE = """
import importlib.metadata, importlib.util, pathlib, napari_ovam
version = importlib.metadata.version("napari-ovam")
assert napari_ovam.__version__ == version, (napari_ovam.__version__, version)
folder = pathlib.Path(napari_ovam.__file__).parent
for name in ("py.typed", "napari.yaml", "__init__.pyi"):
    assert (folder / name).is_file(), folder / name
scripts = importlib.metadata.entry_points(group="console_scripts")
module = scripts["napari-ovam"].module
assert importlib.util.find_spec(module), module
print("napari-ovam", version, "in", folder)
"""


def run(*command: str | Path, cwd: Path = ROOT) -> None:
    print("$", *command, flush=True)
    subprocess.run(command, check=True, cwd=cwd)


def pip(*arguments: str | Path) -> None:
    run(sys.executable, "-m", "pip", "--quiet", *arguments)


def main(work: Path) -> None:
    work.mkdir(parents=True, exist_ok=True)
    run(sys.executable, "-m", "build", "--no-isolation", "--outdir", work, ROOT)
    (wheel,), (sdist,) = work.glob("*.whl"), work.glob("*.tar.gz")

    tracked = {
        path.relative_to(PACKAGE.parent).as_posix()
        for path in PACKAGE.rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    with zipfile.ZipFile(wheel) as archive:
        packed = {n for n in archive.namelist() if n.startswith("napari_ovam/")}
    if tracked != packed:
        sys.exit(f"source and wheel differ: {sorted(tracked ^ packed)}")

    for artefact in ([wheel], [sdist], ["--editable", ROOT]):
        pip("uninstall", "--yes", "napari-ovam")
        pip("install", "--no-deps", "--no-build-isolation", *artefact)
        run(sys.executable, "-c", SMOKE, cwd=work)
        run(Path(sys.executable).with_name("npe2"), "validate", "napari-ovam", cwd=work)


if __name__ == "__main__":
    main(Path(sys.argv[1]).resolve())
