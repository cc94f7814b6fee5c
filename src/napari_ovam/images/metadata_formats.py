"""What each tool writes into its images, taken apart.

Each function takes a text and returns what it says under our names (those of
`ImageMetadata`, the size as "width" and "height"), as it says it: nothing is checked
here. Text that is not of the kind gives an empty mapping, or one of the errors in
`MALFORMED`.
"""

from __future__ import annotations

import json
import re
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from napari_ovam.images.comfyui import read_graph

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

MALFORMED = (
    ValueError,
    TypeError,
    KeyError,
    IndexError,
    AttributeError,
    RecursionError,
)
Found = dict[str, Any]

# Texts beyond this are kept raw and not taken apart.
_LONGEST = 2**22
# Names of our fields elsewhere, in lower case, without spaces, hyphens and underscores.
_NAMES = {
    "prompt": ("prompt", "positiveprompt", "positive", "c"),
    "negative_prompt": ("negativeprompt", "negative", "uc"),
    "seed": ("seed",),
    "sampler": ("sampler", "samplername", "scheduler", "schedulername"),
    "steps": ("steps", "numinferencesteps"),
    "guidance_scale": ("guidancescale", "cfgscale", "cfg", "scale"),
    "width": ("width",),
    "height": ("height",),
    "model": (
        *("model", "modelname", "basemodel", "basemodelname", "modelid"),
        *("usestablediffusionmodel", "stablediffusionmodel", "pretrainedmodel"),
        "pretrainedmodelnameorpath",
    ),
}
# Names that one tool alone writes.
_TOOLS = {
    "suiimageparams": "SwarmUI",
    "usestablediffusionmodel": "Easy Diffusion",
    "stablediffusionmodel": "Easy Diffusion",
}


def read_infotext(text: str) -> Found:
    """Take apart what AUTOMATIC1111's web UI and its heirs write.

    The prompt, "Negative prompt: ", and a line of "Key: value", separated by commas;
    values that hold commas or colons are JSON strings.
    https://github.com/AUTOMATIC1111/stable-diffusion-webui/blob/master/modules/infotext_utils.py
    """
    if len(text) > _LONGEST:
        return {}
    lines = text.strip().splitlines()
    # Extensions append lines: the last that has settings counts.
    for last in range(len(lines) - 1, -1, -1):
        values = _pairs(lines[last])
        if len(values.keys() & {"Steps", "Seed", "Sampler", "CFG scale", "Size"}) > 1:
            break
    else:
        return {}
    first = next(
        (i for i, line in enumerate(lines[:last]) if _negative(line) is not None), last
    )
    negative = [_negative(lines[first]) or "", *lines[first + 1 : last]]
    width, _, height = values.get("Size", "").partition("x")
    version = values.get("Version", "")
    tools = {"f": "Forge", "napari-ovam": "napari-ovam", "Fooocus": "Fooocus"}
    own = (tool for start, tool in tools.items() if version.startswith(start))
    return {
        "tool": values.get("App") or next(own, "AUTOMATIC1111"),
        "prompt": "\n".join(lines[:first]).strip(),
        "negative_prompt": "\n".join(negative).strip() if first < last else "",
        "seed": values.get("Seed"),
        "sampler": " ".join(
            values[key] for key in ("Sampler", "Schedule type") if values.get(key)
        ),
        "steps": values.get("Steps"),
        "guidance_scale": values.get("CFG scale"),
        "width": width,
        "height": height,
        "model": values.get("Model") or values.get("Model hash"),
    }


def _negative(line: str) -> str | None:
    start, colon, rest = line.partition("Negative prompt:")
    return rest.strip() if colon and not start.strip() else None


def _pairs(line: str) -> dict[str, str]:
    """Return the "Key: value" pairs of a line, in one pass however it is written."""
    pairs, at, decoder = dict[str, str](), 0, json.JSONDecoder()
    while (colon := line.find(":", at)) >= 0:
        key = line[at:colon].rpartition(",")[2].strip()
        start = colon + 1
        while line[start : start + 1] == " ":
            start += 1
        value, at = None, start
        if line[start : start + 1] == '"':
            try:
                value, at = decoder.raw_decode(line, start)
            except ValueError:
                return pairs  # a quote without its end
        if value is None:
            end = line.find(",", start)
            value, at = (line[start:end], end) if end >= 0 else (line[start:], -1)
        if re.fullmatch(r"\w[\w /-]{0,60}", key):
            pairs[key] = value.strip()
        if at < 0 or (at := line.find(",", at) + 1) == 0:
            break
    return pairs


def _read_invokeai_2(content: Mapping[str, Any]) -> Found:
    """Take apart `sd-metadata`, of InvokeAI 2."""
    image = dict(content["image"])
    prompts = image.pop("prompt", "")
    if not isinstance(prompts, str):
        prompts = " ".join(str(each["prompt"]) for each in prompts)
    return {
        **read_mapping(image),
        **_bracketed(prompts),
        "model": content.get("model_weights") or content.get("model_id"),
        "tool": "InvokeAI",
    }


def read_dream(text: str) -> Found:
    """Take apart `Dream`, the command line of the first InvokeAI."""
    quoted = re.match(r'\s*"((?:[^"\\]|\\.)*)"(.*)', text[:_LONGEST], re.DOTALL)
    if quoted is None:
        return {}
    words = quoted[2].split()
    options = {a[1:]: b for a, b in pairwise(words) if a[:1] == "-"}
    if not options:
        return {}
    names = {
        **{"s": "steps", "S": "seed", "C": "guidance_scale", "A": "sampler"},
        **{"W": "width", "H": "height"},
    }
    return {
        **{name: options.get(key) for key, name in names.items()},
        **_bracketed(quoted[1].replace('\\"', '"')),
        "tool": "InvokeAI",
    }


def _bracketed(prompt: str) -> Found:
    """Split a prompt whose [parts in brackets] are what is not wanted."""
    return {
        "prompt": " ".join(re.sub(r"\[[^\[\]]*\]", " ", prompt).split()),
        "negative_prompt": ", ".join(re.findall(r"\[([^\[\]]*)\]", prompt)),
    }


def read_json(text: str, workflow: str = "") -> Found:
    """Take apart a JSON object, of whichever tool it is by what it holds.

    `workflow` is the editor's form of a graph of ComfyUI, where another text has it.
    """
    return _of_object(_object(text), lambda: _object(workflow))


def _of_object(
    content: dict[str, Any], workflow: Callable[[], dict[str, Any]], depth: int = 0
) -> Found:
    if depth > 3 or not content:
        return {}
    for name in ("sui_image_params", "Comment"):  # SwarmUI, NovelAI
        inner = _inner(content.get(name))
        if inner:
            tool = {"sui_image_params": "SwarmUI"}.get(name) or content.get("Software")
            found = _of_object(inner, workflow, depth + 1)
            return {**found, "tool": tool or found.get("tool")}
    drawn = _inner(content.get("workflow"))
    prompt = _inner(content.get("prompt"))
    if _is_graph(prompt):
        return read_graph(prompt, drawn or workflow())
    if _is_graph(content):
        # What Civitai asked its ComfyUI for stands beside the graph.
        extra = read_mapping(_inner(content.get("extraMetadata")))
        known = {name: value for name, value in extra.items() if value is not None}
        return {**read_graph(content, workflow()), **known}
    if _is_graph(drawn) and "prompt" not in content:
        return read_graph(drawn)
    if isinstance(content.get("image"), dict):
        return _read_invokeai_2(content)
    return read_mapping(content)


def _is_graph(content: Mapping[str, Any]) -> bool:
    """Whether it is a graph of ComfyUI, in either form."""
    if isinstance(content.get("nodes"), list) and "links" in content:
        return True
    nodes = (node for node in content.values() if isinstance(node, dict))
    return any("inputs" in node for node in nodes)


def _inner(value: Any) -> dict[str, Any]:
    """Return an object inside another: as it is, or as JSON in a string."""
    return value if isinstance(value, dict) else _object(value)


def read_mapping(content: Mapping[str, Any]) -> Found:
    """Take settings out of a mapping whose names are any tool's."""
    by_name = {
        re.sub(r"[ _-]", "", str(key)[:100].lower()): value
        for key, value in content.items()
    }
    found: Found = {}
    for field, names in _NAMES.items():
        values = (by_name[name] for name in names if by_name.get(name) is not None)
        found[field] = next(values, None)
    model = found["model"]
    if isinstance(model, dict):
        names = ("name", "model_name", "label", "modelFileName")
        found["model"] = next((model[n] for n in names if model.get(n)), None)
    size = by_name.get("size", by_name.get("resolution"))
    sides = re.findall(r"\d+", str(size)[:40]) if found["width"] is None else []
    if len(sides) == 2:
        found["width"], found["height"] = sides
    software = by_name.get("software", by_name.get("version"))
    own = (tool for name, tool in _TOOLS.items() if name in by_name)
    found["tool"] = next(own, None)
    if "appversion" in by_name and "generationmode" in by_name:
        found["tool"] = "InvokeAI"
    elif isinstance(software, str) and re.match(r"\w*Fooocus|NovelAI", software):
        found["tool"] = software.partition(" ")[0]
    return found


def _object(text: Any) -> dict[str, Any]:
    """Return a JSON object, {} for anything else."""
    if not isinstance(text, str) or len(text) > _LONGEST:
        return {}
    # ComfyUI's EXIF begins with "prompt:" or "Workflow:".
    start = re.match(r"\s*(\w{1,20}:\s*)?(?={)", text)
    content = json.loads(text[start.end() :].rstrip("\0 \n")) if start else None
    return content if isinstance(content, dict) else {}
