"""How the nodes of ComfyUI name what they take and give, for `comfyui`."""

from __future__ import annotations

import re
from typing import NamedTuple

SIDES = {
    "positive": re.compile(r"(^|_)pos(itive)?(?![a-z])|^cond[12]$|\+$", re.IGNORECASE),
    "negative": re.compile(r"(^|_)neg(ative)?(?![a-z])|-$", re.IGNORECASE),
}
CONDITIONING = re.compile(r"cond(itioning)?(_?(\d+|[a-d]|to|from))?", re.IGNORECASE)
TEXTS = (
    *("text", "text_g", "text_l", "clip_g", "clip_l", "t5xxl", "llama", "bert"),
    *("mt5xl", "qwen25_7b", "prompt", "prompt_g", "prompt_l", "user_prompt"),
    *("string", "value", "caption", "wildcard_text", "Text", "String", "STRING"),
)
# What a node remembers of its last run.
RESULTS = re.compile(r"populated_text|(text|preview)_0|preview_(text|markdown)")
SHOWS = re.compile(r"show|display|preview|debug|wildcard", re.IGNORECASE)
PARTS = re.compile(
    r"(text|string|str|prompt|input|line|part)_?([a-f]|\d{1,2})", re.IGNORECASE
)
DELIMITERS = ("delimiter", "separator", "joiner", "sep")
# Inputs that bundle others, and those that hand on whatever they are given.
BUNDLE = re.compile(r"(\w*pipe|(base_)?(ctx|context)(_\d+)?|sdxl_tuple|bus)", re.I)
NEUTRAL = re.compile(
    r"(|\*|any|anything|value|input|source|data|obj|result|on_true|on_false)",
    re.IGNORECASE,
)
SWITCH = re.compile(r"switch|branch|if ?else|conditional", re.IGNORECASE)
HANDED_ON = re.compile(f"{BUNDLE.pattern}|{NEUTRAL.pattern}", re.IGNORECASE)
# Texts and conditionings under other names.
ALIKE = re.compile(r"text|prompt|string|cond", re.IGNORECASE)
# A switch's control, and the pairs of inputs that one which is true or false chooses.
CONTROLS = re.compile(
    r"select|switch|boolean|bool|condition|cond|index|input|choice", re.IGNORECASE
)
PAIRS = (
    *(("on_true", "on_false"), ("tt_value", "ff_value"), ("if_true", "if_false")),
    *(("text_a", "text_b"), ("conditioning_a", "conditioning_b")),
    *(("image_a", "image_b"), ("latent_a", "latent_b"), ("model_a", "model_b")),
    *(("input_true", "input_false"), ("true", "false")),
)
# Their output is no text of the inputs: it is computed, drawn by chance or made up.
OPAQUE = re.compile(
    r"ZeroOut|Regex|Substring|Length|Compare|Contains|CaseConv|Random|Wildcard|"
    r"Tagger|Caption|Interrogat|Florence|Llava|Ollama|LLM|GPT|Gemini|Generat|PromptGen|"
    r"Enhanc|Translat"
)
# The outputs of nodes with several, in order, where the graph does not name them.
CONTEXT = "context model clip vae positive negative latent image seed"
OUTPUTS = {
    "Efficient Loader": "model positive negative latent vae clip",
    "KSampler (Efficient)": "model positive negative latent vae image",
    "KSampler Adv. (Efficient)": "model positive negative latent vae image",
    "Context (rgthree)": CONTEXT,
    "Context Switch (rgthree)": CONTEXT,
    "Context Big (rgthree)": CONTEXT,
    "Context Switch Big (rgthree)": CONTEXT,
    "FromBasicPipe": "model clip vae positive negative",
    "FromBasicPipe_v2": "basic_pipe model clip vae positive negative",
    "easy fullLoader": "pipe model vae clip positive negative latent",
    "easy pipeOut": "pipe model positive negative latent vae clip image seed",
    "Text String": "text text_b text_c text_d",
    **dict.fromkeys(
        (
            *("ControlNetApplyAdvanced", "ControlNetApplySD3", "LTXVConditioning"),
            *("InpaintModelConditioning", "ControlNetInpaintingAliMamaApply"),
            *("InstructPixToPixConditioning", "ACN_AdvancedControlNetApply"),
            *("Apply ControlNet Stack", "CR Apply Multi-ControlNet"),
            *("SDXLPromptStyler", "SDXLPromptStylerAdvanced"),
        ),
        "positive negative",
    ),
}
NO_TEXT = ("model", "clip", "vae", "latent", "image", "seed")
# Where a sampler or a guider gets both sides from, if not from inputs of its own.
ENTRIES = ("guider", "text_embeds")


class Value(NamedTuple):
    """The names of a value, and of the inputs that lead to it."""

    names: tuple[str, ...]
    through: str


LATENT = r"latent(_image|s)?|samples|pixels|images?|optional_latent"
MODEL = r"(opt_)?model\d?|guider|unet"
VALUES = {
    "seed": Value(("seed", "noise_seed"), "noise"),
    "sampler": Value(("sampler_name", "sampler"), "sampler"),
    "steps": Value(("steps", "steps_total"), "sigmas"),
    "guidance_scale": Value(("cfg", "cfg_scale"), "guider"),
    "width": Value(("width", "empty_latent_width"), LATENT),
    "height": Value(("height", "empty_latent_height"), LATENT),
    "model": Value(
        (
            *("ckpt_name", "unet_name", "base_ckpt_name", "checkpoint", "model_name"),
            "model_path",
        ),
        MODEL,
    ),
}
DISTILLED = Value(("guidance",), rf"guider|positive|{CONDITIONING.pattern}")
LITERALS = (
    *("value", "Value", "int", "float", "number", "int_value", "float_value", "seed"),
    *("string", "text"),
)
