"""Names of files that every usual system takes."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from napari_ovam.base.names import check_name, is_reserved, safe_name
from napari_ovam.project import Project


@pytest.mark.parametrize(
    ("wanted", "made"),
    [
        ("aux", "aux-image"),
        ("NUL", "NUL-image"),
        ("com1", "com1-image"),
        ("lpt9.png", "lpt9-png"),
        ("COM¹", "COM¹-image"),
        ("a cat.", "a-cat"),
        (" a/b\\c: d? ", "a-b-c-d"),
        ("...", "image"),
        ("cafe\u0301", "café"),
        ("-_-", "image"),
        ("猫" * 60, "猫" * 26),
    ],
)
def test_a_name_is_made_safe(wanted, made):
    assert safe_name(wanted) == made


def test_devices_are_known_with_and_without_an_ending():
    assert is_reserved("Aux.tar.gz")
    assert is_reserved("nul ")
    assert not is_reserved("auxiliary")


@settings(max_examples=100, deadline=None)
@given(st.text(max_size=120))
def test_every_text_becomes_a_name_that_stays(text):
    name = safe_name(text)
    check_name(name)
    assert safe_name(name) == name
    assert len(name.encode()) <= 90


@settings(max_examples=15, deadline=None)
@given(
    st.lists(
        st.text(max_size=12) | st.sampled_from(["aux", "AUX", "é", "e\u0301", "con."]),
        min_size=1,
        max_size=6,
    )
)
def test_images_of_any_names_are_all_in_a_project(tmp_path_factory, names):
    project = Project.create(tmp_path_factory.mktemp("p") / "p")
    made = [
        project.add_sample(
            np.full((4, 4, 3), i, np.uint8), name=project.reserve(name)
        ).name
        for i, name in enumerate(names)
    ]
    assert len({name.casefold() for name in made}) == len(names)
    opened = Project.open(project.path)
    assert [opened.load_image(name)[0, 0, 0] for name in made] == list(
        range(len(names))
    )
    assert opened.notes == []
