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
FAMILIES = (
    STABLE_DIFFUSION,
    STABLE_DIFFUSION_XL,
    LATENT_CONSISTENCY,
    PIXART_ALPHA,
    PIXART_SIGMA,
    STABLE_DIFFUSION_3,
)

JOINT = (
    "in its layers the text is changed together with the image, so that the keys of "
    "another text cannot be had from a stored trace"
)
# Why not, by the beginning of a pipeline's name.
_REFUSED = {
    "StableDiffusion3": "a variant of Stable Diffusion 3 whose model is given more "
    "than text and image",
    "Flux": f"Flux: {JOINT}",
    "Chroma": f"Chroma: {JOINT}",
    "AuraFlow": f"AuraFlow: {JOINT}",
    "QwenImage": f"Qwen-Image: {JOINT}",
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
