"""The public names, the version and the typing marker."""

import importlib.metadata
import inspect
import re
import tomllib
from pathlib import Path

import pytest

import napari_ovam

ROOT = Path(__file__).parents[1]
FOLDER = Path(napari_ovam.__file__).parent
API = ROOT / "docs" / "api.md"


@pytest.mark.parametrize("name", sorted(napari_ovam.__all__))
def test_every_public_name_resolves_and_is_documented(name):
    value = getattr(napari_ovam, name)
    assert name in dir(napari_ovam)
    if name != "Progress":  # an alias of a Callable, which has no docstring
        assert value.__module__.startswith("napari_ovam.")
        doc = inspect.getdoc(value) or ""
        assert doc
        # dataclasses without a docstring get their signature
        assert not doc.startswith(f"{name}(")


def test_docs_api_lists_every_public_name_in_one_line():
    listed = re.findall(r"^\| `(\w+)` \| .+ \|$", API.read_text("utf-8"), re.MULTILINE)
    assert sorted(listed) == sorted(napari_ovam.__all__)


def test_an_unknown_name_is_named():
    with pytest.raises(AttributeError, match="No napari_ovam attribute traec"):
        napari_ovam.traec  # noqa: B018


def test_the_version_is_the_installed_one():
    assert napari_ovam.__version__ == importlib.metadata.version("napari-ovam")
    assert re.fullmatch(r"\d+\.\d+\.\d+", napari_ovam.__version__)


def test_the_package_is_marked_as_typed():
    assert (FOLDER / "py.typed").is_file()


def test_constraints_name_released_versions_for_every_dependency():
    lines = (ROOT / "constraints.txt").read_text("utf-8").splitlines()
    pins = [line for line in lines if line and not line.startswith("#")]
    for pin in pins:  # no local builds, paths, links or options
        assert re.fullmatch(r"[A-Za-z0-9._-]+==[0-9][A-Za-z0-9.]*", pin), pin
    pinned = {_normal(pin.partition("==")[0]) for pin in pins}
    for requirement in importlib.metadata.requires("napari-ovam") or []:
        name = re.match(r"[A-Za-z0-9._-]+", requirement)
        assert name is not None
        assert _normal(name[0]) in pinned


def test_the_conda_recipe_needs_what_the_package_needs():
    yaml = pytest.importorskip("yaml")
    recipe = yaml.safe_load((ROOT / "recipe/recipe.yaml").read_text("utf-8"))
    assert recipe["context"]["version"] == napari_ovam.__version__
    needed = {_normal(each).replace(" ", "") for each in recipe["requirements"]["run"]}
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    for requirement in project["dependencies"]:
        assert _normal(requirement.replace("torch>=", "pytorch>=")) in needed


def test_the_reference_shows_every_public_name():
    text = (ROOT / "docs/reference.md").read_text("utf-8")
    shown = re.findall(r"^::: napari_ovam\..*\.(\w+)$", text, re.MULTILINE)
    assert sorted(shown) == sorted(napari_ovam.__all__)


def _normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()
