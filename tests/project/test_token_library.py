"""The token library: nothing is replaced, nothing is lost, bad files are listed."""

import datetime
import multiprocessing
import subprocess
import sys
import time

import numpy as np
import pytest
import torch
from PIL import Image

from napari_ovam import Token, encode_phrase, load_token, load_tokens, save_token
from napari_ovam.diffusion.phrases import text_space
from napari_ovam.project.token_library import (
    TokenLibrary,
    TokenLibraryError,
    library_folder,
)
from napari_ovam.project.token_library.entry import preview_picture


@pytest.fixture
def library(tmp_path):
    return TokenLibrary(tmp_path / "library")


def token(name="cat", model="abc", seed=0, text_dim=12, **info):
    rows = torch.randn(2, text_dim, generator=torch.Generator().manual_seed(seed))
    return Token(name, model, rows, info=info)


def test_the_users_folder(monkeypatch, tmp_path):
    monkeypatch.setenv("NAPARI_OVAM_TOKENS", str(tmp_path / "mine"))
    assert library_folder() == tmp_path / "mine"
    assert TokenLibrary().entries() == []
    assert not (tmp_path / "mine").exists()
    monkeypatch.delenv("NAPARI_OVAM_TOKENS")
    assert library_folder().name == "tokens"


def test_a_token_comes_back_with_what_is_known_of_it(library):
    picture = np.full((20, 30, 3), 7, np.uint8)
    made = token(phrase="a cat", losses=[1.0, 0.5], scores={"after": 0.75})
    entry = library.add(made, images=3, preview=picture)
    assert (entry.name, entry.model, entry.phrase) == ("cat", "abc", "a cat")
    assert (entry.images, entry.iou, entry.rows, entry.text_dim) == (3, 0.75, 2, 12)
    added = datetime.datetime.fromisoformat(entry.date)
    assert abs((datetime.datetime.now(datetime.UTC) - added).total_seconds()) < 60
    np.testing.assert_array_equal(np.array(Image.open(entry.preview)), picture)
    again = library.load("cat")
    torch.testing.assert_close(again.embedding, made.embedding)
    assert again.info["losses"] == [1.0, 0.5]
    assert library.entries() == [entry]


def test_a_second_token_of_a_name_gets_a_number(library):
    one, two, three = (library.add(token(seed=i)) for i in range(3))
    names = ["cat.safetensors", "cat-2.safetensors", "cat-3.safetensors"]
    assert [e.path.name for e in (one, two, three)] == names
    torch.testing.assert_close(library.load("cat").embedding, token().embedding)
    torch.testing.assert_close(library.load("cat-3").embedding, token(seed=2).embedding)
    assert len(list(library.folder.iterdir())) == 3


@pytest.mark.parametrize(
    "name", ["../../etc/x", "a/b\\c", "猫 🐱", "x" * 300, "q\"u,o'te", "..", "CON", " "]
)
def test_any_name_gets_a_file_in_the_folder(library, name):
    entry = library.add(token(name))
    assert entry.path.parent == library.folder
    assert entry.name == name
    assert len(entry.path.name.encode()) < 120
    assert library.load(entry.path).name == name
    assert library.entries() == [entry]


def _add(folder, seed):
    TokenLibrary(folder).add(token(seed=seed))


def test_programs_that_add_at_once_replace_nothing(library):
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        other = pool.starmap_async(_add, [(library.folder, i) for i in range(4)])
        while not list(library.folder.glob("*.safetensors")) and not other.ready():
            time.sleep(0.05)  # until it has imported all it needs
        for seed in range(4, 8):
            _add(library.folder, seed)
        other.get()
    rows = {
        tuple(library.load(e.path).embedding.flatten().tolist())
        for e in library.entries()
    }
    assert len(rows) == 8


def test_entries_are_found_and_sorted(library):
    library.add(token("dog", "m1", phrase="a dog"), images=5, iou=0.5)
    library.add(token("Cat", "m2", phrase="tabby"), images=1, iou=0.9)
    library.add(token("ant", "m1", phrase="ant"))

    def names(*text, **options):
        return [e.name for e in library.entries(*text, **options)]

    assert names() == ["ant", "Cat", "dog"]
    assert names("TAB") == ["Cat"]
    assert names(model="m1") == ["ant", "dog"]
    assert names(sort="iou", descending=True) == ["Cat", "dog", "ant"]
    assert names(sort="iou") == ["dog", "Cat", "ant"]
    assert names(sort="images", descending=True)[0] == "dog"
    assert len(names(sort="date")) == 3
    with pytest.raises(TokenLibraryError, match="size"):
        library.entries(sort="size")


def test_damaged_files_are_listed_as_such(library):
    good = library.add(token("zebra"))
    data = good.path.read_bytes()
    bad = {
        "cut": data[: len(data) // 2],
        "empty": b"",
        "text": b"not a token at all",
        "huge": b"\xff" * 64,
    }
    for name, content in bad.items():
        (library.folder / f"{name}.safetensors").write_bytes(content)
    (library.folder / ".cat.safetensors.123.tmp").write_bytes(data[:50])
    (library.folder / ".123.safetensors").write_bytes(data[:50])
    (library.folder / "folder.safetensors").mkdir()
    entries = library.entries()
    assert entries[0] == good
    assert sorted(e.name for e in entries[1:]) == sorted([*bad, "folder"])
    assert all(e.damaged for e in entries[1:])
    assert library.entries(model="abc") == [good]
    library.remove("cut")
    assert "cut" not in [e.name for e in library.entries()]


def test_what_is_removed_can_be_put_back(library):
    entry = library.add(token(seed=1), preview=np.zeros((8, 8, 3), np.uint8))
    gone = library.remove("cat")
    assert library.entries() == []
    assert gone.parent.name == "removed"
    assert [e.name for e in library.removed()] == ["cat"]
    library.add(token(seed=2))  # takes the name meanwhile
    back = library.restore(gone)
    assert back.path.name == "cat-2.safetensors"
    assert back.preview is not None
    torch.testing.assert_close(
        library.load(back.path).embedding, token(seed=1).embedding
    )
    assert library.removed() == []
    for _ in range(2):  # two of a name can wait there as well
        library.remove(library.add(token(seed=3)).path)
    assert len(library.removed()) == 2
    with pytest.raises(TokenLibraryError, match="nothing"):
        library.restore("nothing.safetensors")
    assert entry.path.exists()


def test_a_token_is_found_by_path_file_or_name(library, tmp_path):
    entry = library.add(token("a cat"))
    for key in (entry.path, "a-cat", "a-cat.safetensors", "a cat"):
        assert library.find(key) == entry.path
    library.add(token("a cat"))
    with pytest.raises(TokenLibraryError, match=r"2 tokens.*a-cat-2"):
        library.find("a cat")
    save_token(token(), tmp_path / "other.safetensors")
    for key in ("dog", tmp_path / "other.safetensors", "../other.safetensors"):
        with pytest.raises(TokenLibraryError):
            library.find(key)


def test_tokens_go_out_and_come_in(library, tmp_path):
    made = token("a cat", images=4)
    library.add(made)
    for name in ("out.safetensors", "out.npy"):
        path = library.export("a cat", tmp_path / name)
        with pytest.raises(FileExistsError, match="exists"):
            library.export("a cat", path)
    assert np.load(tmp_path / "out.npy").shape == (2, 12)
    (entry,) = library.import_file(tmp_path / "out.safetensors")
    assert (entry.path.name, entry.images) == ("a-cat-2.safetensors", 4)
    with pytest.warns(UserWarning, match="text encoder"):
        (entry,) = library.import_file(tmp_path / "out.npy")
    assert (entry.name, entry.model) == ("out", "")
    torch.testing.assert_close(library.load("out").embedding, made.embedding)


def test_the_references_dictionary_comes_in_without_unpickling(library, tmp_path, pipe):
    classes = {name: np.full(32, i, np.float32) for i, name in enumerate("abc")}
    path = tmp_path / "voc.npy"
    np.save(path, classes)
    with (
        pytest.warns(UserWarning, match="text encoder"),
        pytest.raises(TokenLibraryError, match="3 tokens have no background"),
    ):
        library.import_file(path)
    assert library.entries() == []
    with pytest.warns(UserWarning, match="text encoder"):
        entries = library.import_file(path, target=text_space(pipe))
    assert [e.name for e in entries] == ["a", "b", "c"]
    start = encode_phrase(pipe, "cat").embedding[0]
    rows = library.load("c").embedding
    torch.testing.assert_close(rows, torch.stack([start, torch.full((32,), 2.0)]))

    class Evil:
        def __reduce__(self):
            return (print, ("run",))

    np.save(path, {"a": Evil()})
    with pytest.raises(ValueError, match=r"only arrays are read"):
        library.import_file(path, target=text_space(pipe))
    assert len(library.entries()) == 3


def test_a_preview_shows_image_and_map():
    image = np.full((300, 200, 3), 90, np.uint8)
    values = np.zeros((300, 200), np.float32)
    values[:150] = 1
    picture = preview_picture(image, values)
    assert picture.shape == (128, 170, 3)
    assert (picture[:, :85] == 90).all()
    assert picture[10, 100].sum() > picture[-10, 100].sum()


def test_listing_needs_no_torch(library):
    library.add(token())
    code = (
        "import sys; from napari_ovam.project.token_library import TokenLibrary;"
        f"print(len(TokenLibrary({str(library.folder)!r}).entries()),"
        "'torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout.split() == ["1", "False"], done.stderr


def test_own_files_read_back_elsewhere(library, tmp_path):
    entry = library.add(token("cat"))
    assert load_token(entry.path).name == "cat"
    assert list(load_tokens(entry.path)) == ["cat"]
