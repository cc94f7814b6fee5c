"""The graph of ComfyUI's editor, as the graph that it runs.

The editor keeps nodes as it draws them: links apart, values in the order of the fields,
and nodes that only it knows (reroutes, primitives, "set" and "get"). Groups that were
made into one node are not opened.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

_CONTROLS = ("fixed", "increment", "decrement", "randomize")
_MUTED, _BYPASSED = 2, 4
# The fields of older workflows, which name only those that were made inputs.
_SAMPLING = "steps cfg sampler_name scheduler"
_FIELDS = {
    "KSampler": f"seed {_SAMPLING} denoise",
    "KSampler (Efficient)": f"seed {_SAMPLING} denoise",
    "KSamplerAdvanced": f"add_noise noise_seed {_SAMPLING}",
    "SamplerCustom": "add_noise noise_seed cfg",
    "RandomNoise": "noise_seed",
    "KSamplerSelect": "sampler_name",
    "BasicScheduler": "scheduler steps denoise",
    "CFGGuider": "cfg",
    "FluxGuidance": "guidance",
    "CLIPTextEncode": "text",
    "CLIPTextEncodeFlux": "clip_l t5xxl guidance",
    "CLIPTextEncodeSDXL": (
        "width height crop_w crop_h target_width target_height text_g text_l"
    ),
    "CheckpointLoaderSimple": "ckpt_name",
    "UNETLoader": "unet_name",
    "EmptyLatentImage": "width height",
    "EmptySD3LatentImage": "width height",
    "StringConcatenate": "string_a string_b delimiter",
    "Efficient Loader": (
        "ckpt_name vae_name clip_skip lora_name lora_model_strength lora_clip_strength "
        "positive negative token_normalization weight_interpretation "
        "empty_latent_width empty_latent_height"
    ),
}


def nodes_of_workflow(workflow: Mapping[str, Any]) -> dict[str, Any]:
    """Return `{id: {"class_type": ..., "inputs": {...}}}`, without muted nodes."""
    nodes = {
        str(node["id"]): node
        for node in _dicts(workflow.get("nodes"))
        if "id" in node and node.get("mode") != _MUTED
    }
    links = _links(workflow.get("links"))
    named = {
        _name(node): name
        for name, node in nodes.items()
        if node.get("type") == "SetNode"
    }
    return {name: _node(node, links, nodes, named) for name, node in nodes.items()}


def output_names(workflow: Mapping[str, Any]) -> dict[str, list[str]]:
    """Return the names of each node's outputs."""
    return {
        str(node.get("id")): [
            str(each.get("name", "")) for each in _dicts(node.get("outputs"))
        ]
        for node in _dicts(workflow.get("nodes"))
        if node.get("type") != "Reroute"
    }


def _node(
    node: Mapping[str, Any],
    links: Mapping[str, list[Any]],
    nodes: Mapping[str, Mapping[str, Any]],
    named: Mapping[str, str],
) -> dict[str, Any]:
    if node.get("type") == "GetNode":
        start = named.get(_name(node))
        return {"class_type": "Reroute", "inputs": {"": [start, 0]} if start else {}}
    inputs = _values(node)
    for each in _dicts(node.get("inputs")):
        link = links.get(str(each.get("link")))
        if link is not None:
            origin = _behind_bypassed(link, links, nodes)
            inputs[str(each.get("name", ""))] = origin
    if node.get("type") in ("Reroute", "SetNode"):
        linked = [value for value in inputs.values() if isinstance(value, list)]
        inputs = {"": linked[0]} if linked else {}
    return {"class_type": str(node.get("type")), "inputs": inputs}


def _behind_bypassed(
    link: list[Any],
    links: Mapping[str, list[Any]],
    nodes: Mapping[str, Mapping[str, Any]],
) -> list[Any]:
    """Follow a link through nodes that are bypassed: by the first input of its type."""
    for _ in range(len(nodes)):
        node = nodes.get(link[0])
        if node is None or node.get("mode") != _BYPASSED:
            break
        outputs = _dicts(node.get("outputs"))
        kind = outputs[link[1]].get("type") if link[1] < len(outputs) else None
        same = (each for each in _dicts(node.get("inputs")) if each.get("type") == kind)
        found = next((links.get(str(each.get("link"))) for each in same), None)
        if found is None:
            break
        link = found
    return link


def _values(node: Mapping[str, Any]) -> dict[str, Any]:
    """Return the values of a node's fields by their names."""
    values = node.get("widgets_values")
    if isinstance(values, dict):
        return dict(values)
    if not isinstance(values, list):
        return {}
    kind = str(node.get("type"))
    if kind == "PrimitiveNode":
        return {"value": values[0]} if values else {}
    names = _FIELDS.get(kind, "").split()
    if not names:
        fields = (each.get("widget") for each in _dicts(node.get("inputs")))
        names = [str(field.get("name")) for field in fields if isinstance(field, dict)]
        settled = [v for v in values if v not in _CONTROLS]
        if len(names) != len(settled):  # an older workflow: only a lone text is sure
            texts = [value for value in values if isinstance(value, str)]
            return {"text": texts[0]} if len(texts) == 1 and len(values) == 1 else {}
    found: dict[str, Any] = {}
    rest = list(reversed(values))
    for name in names:
        if not rest:
            break
        found[name] = rest.pop()
        if name.endswith("seed") and rest and rest[-1] in (*_CONTROLS, None):
            rest.pop()
    return found


def _links(links: Any) -> dict[str, list[Any]]:
    """Return [node, slot] by the ids of links."""
    found: dict[str, list[Any]] = {}
    for link in links if isinstance(links, list) else ():
        if isinstance(link, dict):
            keys = ("id", "origin_id", "origin_slot")
            link = [link.get(key) for key in keys]
        if isinstance(link, list) and len(link) >= 3 and isinstance(link[2], int):
            found[str(link[0])] = [str(link[1]), link[2]]
    return found


def _name(node: Mapping[str, Any]) -> str:
    values = node.get("widgets_values")
    return str(values[0]) if isinstance(values, list) and values else ""


def _dicts(items: Any) -> list[dict[str, Any]]:
    items = items if isinstance(items, list) else []
    return [item for item in items if isinstance(item, dict)]
