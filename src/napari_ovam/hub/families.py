"""The families of models that are supported, by the names of their pipelines.

How a family works is said by its adapter (`napari_ovam.diffusion.architectures`).
"""

from __future__ import annotations

from typing import NamedTuple


class ModelError(ValueError):
    """A model that cannot be used; the message says what it is and what to do."""


class Family(NamedTuple):
    """What people call a family, and its pipelines, the text-to-image one first."""

    name: str
    pipelines: tuple[str, ...]


STABLE_DIFFUSION = Family(
    "Stable Diffusion 1.x and 2.x",
    (
        "StableDiffusionPipeline",
        "StableDiffusionImg2ImgPipeline",
        "StableDiffusionInpaintPipeline",
        "StableDiffusionControlNetPipeline",
        "StableDiffusionControlNetImg2ImgPipeline",
        "StableDiffusionControlNetInpaintPipeline",
    ),
)
STABLE_DIFFUSION_XL = Family(
    "Stable Diffusion XL",
    (
        "StableDiffusionXLPipeline",
        "StableDiffusionXLImg2ImgPipeline",
        "StableDiffusionXLInpaintPipeline",
        "StableDiffusionXLControlNetPipeline",
        "StableDiffusionXLControlNetImg2ImgPipeline",
        "StableDiffusionXLControlNetInpaintPipeline",
    ),
)
LATENT_CONSISTENCY = Family(
    "Latent consistency models",
    (
        "LatentConsistencyModelPipeline",
        "LatentConsistencyModelImg2ImgPipeline",
    ),
)
PIXART_ALPHA = Family(
    "PixArt-alpha",
    ("PixArtAlphaPipeline",),
)
PIXART_SIGMA = Family(
    "PixArt-Sigma",
    ("PixArtSigmaPipeline",),
)
STABLE_DIFFUSION_3 = Family(
    "Stable Diffusion 3 and 3.5",
    (
        "StableDiffusion3Pipeline",
        "StableDiffusion3Img2ImgPipeline",
        "StableDiffusion3InpaintPipeline",
    ),
)
FLUX = Family(
    "Flux.1",
    ("FluxPipeline", "FluxImg2ImgPipeline", "FluxInpaintPipeline"),
)
FLUX_2_KLEIN = Family(
    "Flux.2 Klein",
    ("Flux2KleinPipeline",),
)
QWEN_IMAGE = Family(
    "Qwen-Image",
    (
        "QwenImagePipeline",
        "QwenImageImg2ImgPipeline",
        "QwenImageInpaintPipeline",
    ),
)
Z_IMAGE = Family(
    "Z-Image",
    ("ZImagePipeline", "ZImageImg2ImgPipeline", "ZImageInpaintPipeline"),
)
FAMILIES = (
    STABLE_DIFFUSION,
    STABLE_DIFFUSION_XL,
    LATENT_CONSISTENCY,
    PIXART_ALPHA,
    PIXART_SIGMA,
    STABLE_DIFFUSION_3,
    FLUX,
    FLUX_2_KLEIN,
    QWEN_IMAGE,
    Z_IMAGE,
)

_MORE = (
    "its model is given more than a text and one image (ControlNet, a reference, a "
    "mask, several times in a step), which a trace cannot show it again"
)
_KIN = (
    "it is like the models with joint attention that are supported, and was not tried"
)
# Why not, by the beginning of a pipeline's name.
_REFUSED = {
    "StableDiffusion3": f"a variant of Stable Diffusion 3: {_MORE}",
    "Flux2": f"Flux.2: {_KIN}",
    "Flux": f"a variant of Flux: {_MORE}",
    "QwenImage": f"a variant of Qwen-Image: {_MORE}",
    "ZImage": f"a variant of Z-Image: {_MORE}",
    **dict.fromkeys(("Chroma", "AuraFlow"), _KIN),
    **dict.fromkeys(
        ("StableDiffusionPAG", "StableDiffusionXLPAG"),
        "perturbed guidance shows the UNet each image three times",
    ),
    "StableDiffusionInstructPix2Pix": "its guidance shows the UNet three images at a "
    "time, one of them twice without text",
}


def find_family(class_name: object) -> Family:
    """Return the family of a pipeline's class name.

    It raises `ModelError` if the class is not supported; the message says why, if that
    is known.
    """
    for family in FAMILIES:
        if class_name in family.pipelines:
            return family
    known = "; ".join(f"{name} ({pipelines[0]})" for name, pipelines in FAMILIES)
    for start, reason in _REFUSED.items():
        if str(class_name).startswith(start):
            raise ModelError(
                f"{class_name} is not supported ({reason}). Supported are: {known}."
            )
    raise ModelError(f"{class_name} is not supported yet. Supported are: {known}.")
