"""Images are scored by a CLIP model that is at hand, of the class that people have."""

import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch
from transformers import (
    CLIPConfig,
    CLIPImageProcessor,
    CLIPModel,
    CLIPProcessor,
    CLIPTokenizer,
)
from typer.testing import CliRunner

from napari_ovam.cli import app
from napari_ovam.project import Project
from napari_ovam.workflows.dataset.making import ModelMaker
from napari_ovam.workflows.dataset.plan import Plan, PlanError
from napari_ovam.workflows.dataset.scores import ClipScorer
from napari_ovam.workflows.dataset.shards import read_records


@pytest.fixture(scope="module")
def clip(tmp_path_factory, tiny):
    """A small CLIP model with random weights, and the embedded model's tokenizer."""
    folder = tmp_path_factory.mktemp("clip")
    tokenizer = CLIPTokenizer.from_pretrained(tiny.tokenizer.name_or_path)
    small = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2}
    small["num_attention_heads"] = 2
    torch.manual_seed(0)
    config = CLIPConfig(
        text_config={
            **small,
            "vocab_size": len(tokenizer),
            "eos_token_id": tokenizer.eos_token_id,
            "max_position_embeddings": 16,
        },
        vision_config={**small, "image_size": 32, "patch_size": 8},
        projection_dim=8,
    )
    CLIPModel(config).save_pretrained(folder)
    images = CLIPImageProcessor(size={"shortest_edge": 32}, crop_size=32)
    tokenizer.model_max_length = 16
    CLIPProcessor(images, tokenizer).save_pretrained(folder)
    return folder


def test_a_score_is_the_cosine_of_what_the_model_makes_of_both(clip):
    image = np.random.default_rng(0).integers(0, 255, (48, 64, 3)).astype(np.uint8)
    scorer = ClipScorer(str(clip), torch.device("cpu"))
    model = CLIPModel.from_pretrained(clip).eval()
    processor = CLIPProcessor.from_pretrained(clip)
    text = processor.tokenizer(["a cat"], return_tensors="pt")
    pixels = processor.image_processor(images=[image], return_tensors="pt")
    with torch.no_grad():
        made = model(**text, **pixels)
    cosine = torch.cosine_similarity(made.image_embeds, made.text_embeds)
    assert scorer(image, "a cat") == pytest.approx(float(cosine), abs=1e-5)
    assert scorer(image, "a hat") != pytest.approx(scorer(image, "a cat"), abs=1e-4)
    assert -1 <= scorer(image, "a very long prompt " * 60) <= 1


def test_a_plan_is_filtered_by_it(clip, tmp_path):
    project = Project.create(tmp_path / "pets")
    project.classes.add("cat")
    project.save()
    runner, out = CliRunner(), tmp_path / "night"
    arguments = ["dataset", "plan", str(project.path), "--out", str(out)]
    arguments += ["--template", "a {class} on the grass", "--clip", str(clip)]
    size = ["--height", "64", "--width", "64", "--steps", "2"]
    more = [*size, "--filter", "clip=1.0", "--agreement", "none"]
    made = runner.invoke(app, [*arguments, *more])
    assert made.exit_code == 0, made.output
    made = runner.invoke(app, ["dataset", "run", str(out)])
    assert made.exit_code == 0, made.output
    (row,) = [r for record in read_records(out, Plan.load(out)) for r in record["rows"]]
    (sample,) = Project.open(out).samples
    score = ClipScorer(str(clip), torch.device("cpu"))
    expected = score(Project.open(out).load_image(sample.name), "a cat on the grass")
    assert row["scores"]["clip"] == pytest.approx(expected, abs=1e-3)
    assert "clip" in sample.provenance["dataset"]["reasons"], "no cosine reaches 1"
    other = tmp_path / "other"
    shutil.copytree(clip, other)
    model = CLIPModel.from_pretrained(other)
    with torch.no_grad():
        model.visual_projection.weight.neg_()
    model.save_pretrained(other)
    told = replace(Plan.load(out), clip_model=str(other))
    assert told.hash == Plan.load(out).hash, "where it lies decides nothing"
    with pytest.raises(PlanError, match="other weights than the plan's CLIP"):
        ModelMaker(told, out, "cpu")


def test_a_folder_without_one_is_refused_when_it_is_planned(tmp_path):
    project = Project.create(tmp_path / "pets")
    project.classes.add("cat")
    project.save()
    (tmp_path / "empty").mkdir()
    arguments = ["dataset", "plan", str(project.path), "--out", str(tmp_path / "a")]
    arguments += ["--template", "a {class}", "--clip", str(tmp_path / "empty")]
    made = CliRunner().invoke(app, arguments)
    assert made.exit_code != 0
    assert "there is no CLIP model in" in made.output
    assert not (tmp_path / "a").exists()
