"""Every pipeline class that an adapter lists is recorded like the text-to-image one."""

from __future__ import annotations

import diffusers
import numpy as np
import pytest
import small_models
from PIL import Image
from probing import check_parity

from napari_ovam import encode_phrase
from napari_ovam.diffusion.architectures import ARCHITECTURES

pytestmark = pytest.mark.filterwarnings("ignore:__array__:DeprecationWarning")
CLASSES = [
    name
    for a in ARCHITECTURES
    for name in a.family.pipelines
    if name.startswith(("StableDiffusion", "LatentConsistency"))
    and not name.startswith("StableDiffusion3")  # see test_joint
]


@pytest.fixture(scope="module")
def xl():
    return small_models.xl()


@pytest.fixture(scope="module")
def consistent(make_pipe):
    return small_models.lcm(make_pipe())


@pytest.mark.parametrize("name", CLASSES)
def test_parity(pipe, xl, consistent, name):
    base = xl if "XL" in name else consistent if "Latent" in name else pipe
    extra = {} if base is xl else {"requires_safety_checker": False}
    if "ControlNet" in name:
        make = small_models.xl_controlnet if base is xl else small_models.sd_controlnet
        extra["controlnet"] = make(*[base] * (base is not xl))
    other = getattr(diffusers, name)(**{**base.components, **extra})
    other.set_progress_bar_config(disable=True)
    ramp = Image.fromarray(np.tile(np.arange(32, dtype=np.uint8) * 8, (32, 1)))
    picture = ramp.convert("RGB")
    settings = {} if "Latent" in name else {"guidance_scale": 4.0}
    size = {"height": 32, "width": 32}
    if "Img2Img" in name or "Inpaint" in name:
        settings |= {"image": picture, "strength": 1.0}
        settings |= {"mask_image": ramp, **size} if "Inpaint" in name else {}
        settings |= {"control_image": picture, **size} if "ControlNet" in name else {}
    elif "ControlNet" in name:
        settings |= {"image": picture, **size}
    rows = encode_phrase(other, "a hat").embedding
    row = 0 if "Latent" in name else 1
    trace, _ = check_parity(other, other.unet, rows, row=row, **settings)
    assert (trace.branch, trace.image_size) == ("cond", (32, 32))
