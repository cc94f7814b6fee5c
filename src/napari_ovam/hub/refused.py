"""Why pipelines of diffusers are not supported, by their names.

docs/models.md lists them, and a test asks this of each that the library has.
"""

from __future__ import annotations

import re

_MORE = (
    "its model is given more than a text and one image (ControlNet, a reference, a "
    "mask, several times in a step), which a trace cannot show it again"
)
_KIN = (
    "it is like the models with joint attention that are supported, and was not tried"
)
_SHARED = (
    "text and image share one softmax, so that what the text gets depends on the "
    "image's keys, which are not stored"
)
_TIMED = "the keys of its text are others in each denoising step"
_PERTURBED = "perturbed guidance shows the model each image three times"
_MANY = "its guidance shows the model three images at a time"
_STEERED = "it changes the attention while it runs"
_IMAGE = "it is driven by an image, which stands where the text would, or beside it"
_EDIT = "it changes an image by an instruction, which is shown with it"
_UPSCALE = "it enlarges or refines what another model made"
_PARTS = "it is made of several models that hand on to one another"
_VIDEO = "its text attention is as Wan's, but it was not tried"
_UNET = "its text attention is as Stable Diffusion's, but it was not tried"
_VARIANT = "the text-to-image or text-to-video one is supported, this was not tried"
_TEXTLESS = "it reads no text"
_OTHER = "it makes no pictures"
_ONNX = "it does not run in torch"
_MODULAR = "put together from blocks: load the model by its ordinary pipeline"

# By the beginnings of names; the first that fits counts.
_REASONS: dict[str, str] = {
    _MODULAR: r"\w*ModularPipeline$",
    _ONNX: r"Onnx|StableDiffusionOnnx",
    _PERTURBED: (
        r"(StableDiffusion|StableDiffusionXL|StableDiffusionControlNet)PAG|"
        r"StableDiffusionXLControlNetPAG|AnimateDiffPAG|\w+PAGPipeline$"
    ),
    _MORE: r"StableDiffusion3|Flux(?!2)|QwenImage(?!21)|ZImage|VisualCloze",
    _KIN: (
        r"Flux2|Chroma(?!.*Edit)|AuraFlow|QwenImage21|Bria|CogVideoX|CogView|ConsisID|"
        r"EasyAnimate|ErnieImage|GlmImage|HiDreamImage|HunyuanImage|HunyuanVideo|"
        r"HunyuanSkyreels|Ideogram4|JoyImage|Krea2|LongCatImage|Lumina2|Mochi|"
        r"MotifVideo|NucleusMoE|OmniGen|OvisImage|Cosmos3"
    ),
    _SHARED: r"PRX|IF|StableCascade|UnCLIP|StableUnCLIP|Amused",
    _TIMED: r"Kandinsky5|Kandinsky6|LTX2",
    _MANY: r"StableDiffusionInstructPix2Pix|StableDiffusionXLInstructPix2Pix",
    _STEERED: (
        r"StableDiffusionAttendAndExcite|StableDiffusionSAG|"
        r"StableDiffusionPix2PixZero|StableDiffusionModelEditing|"
        r"SemanticStableDiffusion|StableDiffusionGLIGEN|LEditsPP|"
        r"StableDiffusionDiffEdit|StableDiffusionPanorama|StableDiffusionParadigms|"
        r"CycleDiffusion|TextToVideoZero"
    ),
    _IMAGE: (
        r"StableDiffusionImageVariation|PaintByExample|StableVideoDiffusion|"
        r"BlipDiffusion|WanImageToVideo|WanAnimate|WanVACE|I2VGenXL|"
        r"SkyReelsV2ImageToVideo|SkyReelsV2DiffusionForcing|LTXImageToVideo|"
        r"LTXCondition|LTXI2V|SanaImageToVideo|CosmosVideoToWorld|PIA|"
        r"Cosmos2VideoToWorld|Cosmos2_5|AnyFlowFAR|SanaWM|StableDiffusionDepth2Img|"
        r"KandinskyPrior|ShapEImg2Img"
    ),
    _EDIT: r"ChronoEdit|LucyEdit|DreamLite",
    _UPSCALE: (
        r"\w*Upsample|\w*Upscale|LDMSuperResolution|LTX2Video|"
        r"StableDiffusionLatentUpscale"
    ),
    _PARTS: r"Kandinsky(?!3)|Wuerstchen|UniDiffuser|VersatileDiffusion",
    _VIDEO: r"AnyFlow|Helios|Cosmos|Latte|Allegro",
    _UNET: (
        r"AnimateDiff|StableDiffusionAdapter|StableDiffusionXLAdapter|"
        r"StableDiffusion(XL)?ControlNetXS|StableDiffusionXLControlNetUnion|"
        r"StableDiffusionLDM3D|StableDiffusionPipelineSafe|LDMTextToImage|"
        r"TextToVideoSD|VideoToVideoSD|AltDiffusion|VQDiffusion|"
        r"StableDiffusionInpaintPipelineLegacy|HunyuanDiTControlNet|SanaControlNet|Kolors"
    ),
    _VARIANT: r"Kandinsky3Img2Img|SanaSprintImg2Img|WanVideoToVideo",
    _TEXTLESS: (
        r"DDIM|DDPM|PNDM|LDMPipeline$|ConsistencyModel|DiT|RePaint|ScoreSdeVe|"
        r"KarrasVe|Marigold"
    ),
    _OTHER: (
        r"AceStep|Audio|MusicLDM|StableAudio|LongCatAudio|Dance|SpectrogramDiffusion|"
        r"ShapE|DiffusionGemma|LLaDA2|RFD4|MiniMax"
    ),
}


def why_refused(class_name: str) -> str:
    """Return why a pipeline of this class is not supported, "" if that is not known."""
    for reason, starts in _REASONS.items():
        if re.match(starts, class_name):
            return reason
    return ""


def refused_by_reason(class_names: list[str]) -> dict[str, list[str]]:
    """Return names of pipelines by why they are refused, as docs/models.md has them."""
    found: dict[str, list[str]] = {reason: [] for reason in _REASONS}
    for name in sorted(class_names):
        found.setdefault(why_refused(name), []).append(name)
    return {reason: names for reason, names in found.items() if names}
