"""The families of models that are supported, by the names of their pipelines.

How a family works is said by its adapter (`napari_ovam.diffusion.architectures`).
"""

from __future__ import annotations

from typing import NamedTuple

from napari_ovam.hub.refused import why_refused


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
KOLORS = Family("Kolors", ("KolorsPipeline",))
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
SANA = Family("Sana", ("SanaPipeline",))
SANA_SPRINT = Family("Sana-Sprint", ("SanaSprintPipeline",))
HUNYUAN_DIT = Family("HunyuanDiT", ("HunyuanDiTPipeline",))
LUMINA_NEXT = Family("Lumina-Next", ("LuminaPipeline",))
KANDINSKY_3 = Family("Kandinsky 3", ("Kandinsky3Pipeline",))
SANA_VIDEO = Family("Sana-Video", ("SanaVideoPipeline",))
WAN = Family("Wan", ("WanPipeline",))
SKYREELS = Family("SkyReels-V2", ("SkyReelsV2Pipeline",))
LTX_VIDEO = Family("LTX-Video", ("LTXPipeline",))
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
FAMILIES = tuple(each for each in list(vars().values()) if isinstance(each, Family))


def find_family(class_name: object) -> Family:
    """Return the family of a pipeline's class name.

    It raises `ModelError` if the class is not supported; the message says why, if that
    is known.
    """
    for family in FAMILIES:
        if class_name in family.pipelines:
            return family
    known = "; ".join(f"{name} ({pipelines[0]})" for name, pipelines in FAMILIES)
    if reason := why_refused(str(class_name)):
        raise ModelError(
            f"{class_name} is not supported ({reason}). Supported are: {known}."
        )
    raise ModelError(f"{class_name} is not supported yet. Supported are: {known}.")
