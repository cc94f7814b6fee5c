"""A model whose text changes in every layer, in the panel: as any other."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import joint_models
import numpy as np
import pytest

from napari_ovam import load_trace


@pytest.fixture(scope="module")
def model_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a small Flux on disk."""
    folder = tmp_path_factory.mktemp("flux")
    joint_models.flux().save_pretrained(folder)
    defaults = '{"steps": 4, "height": 64, "width": 64}'
    (folder / "ovam_defaults.json").write_text(defaults)
    return folder


def test_from_prompt_to_token(panel: Any) -> None:
    session = panel.session
    panel.press("generate_button")
    sample = session.current
    assert sample.trace.stream is not None
    panel.press("map_button")
    cat = panel.number("cat")
    assert panel.layer("map", cat).data.shape == sample.shape == (64, 64)
    panel.press("labels_button")
    assert panel.labels().data.any()
    panel.find("iterations").setValue(5)
    panel.press("optimize_button")
    assert session.view(cat).scores is not None
    traces = Path(session.project.path) / "traces"
    panel.bot.waitUntil(lambda: any(traces.glob("*.safetensors")), timeout=30_000)
    (path,) = traces.glob("*.safetensors")
    again = load_trace(path)
    layer, expected = again.layers[0], sample.trace.layers[0]
    assert layer.name == expected.name
    np.testing.assert_array_equal(layer.queries, expected.queries)
