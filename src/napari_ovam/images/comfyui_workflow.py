"""The graph of ComfyUI's editor, as the graph that it runs.

The editor keeps nodes as it draws them: links apart, values in the order of the fields,
nodes that were made into one (subgraphs), and nodes that only it knows (reroutes,
primitives, "set" and "get").
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

_CONTROLS = ("fixed", "increment", "decrement", "randomize")
_MUTED, _BYPASSED = 2, 4
_INPUT, _OUTPUT = "-10", "-20"  # the ends of a subgraph
_DEEPEST, _MOST = 8, 50_000  # subgraphs in one another, nodes and links in all
_LONGEST = 50  # links of bypassed nodes after one another
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
    """Return `{id: {"class_type": ..., "inputs": {...}}}`, without muted nodes.

    Those in a subgraph are called as ComfyUI does: "12:5", node 5 in node 12.
    """
    flat = _Flat(workflow)
    sets = {n: node for n, node in flat.nodes.items() if node.get("type") == "SetNode"}
    named = {_name(node): name for name, node in sets.items()}
    return {
        name: _node(node, flat, named)
        for name, node in flat.nodes.items()
        if node.get("mode") != _BYPASSED
    }


def output_names(workflow: Mapping[str, Any]) -> dict[str, list[str]]:
    """Return the names of each node's outputs."""
    return {
        name: [str(each.get("name", "")) for each in _dicts(node.get("outputs"))]
        for name, node in _Flat(workflow).nodes.items()
        if node.get("type") != "Reroute"
    }


class _Flat:
    """The nodes and links of a workflow, those of its subgraphs beside the others.

    Attributes
    ----------
    nodes
        By id; the links of their inputs are keys of `links`.
    links
        Where each begins, [node, output]; None for one that nothing feeds.
    """

    def __init__(self, workflow: Mapping[str, Any]) -> None:
        self.nodes: dict[str, dict[str, Any]] = {}
        self.links: dict[str, list[Any] | None] = {}
        self._ends: dict[str, dict[Any, list[Any] | None]] = {}
        definitions = workflow.get("definitions")
        groups = definitions.get("subgraphs") if isinstance(definitions, dict) else ()
        self._groups = {str(group.get("id")): group for group in _dicts(groups)}
        self._left = _MOST
        self._add(workflow, "", {}, _DEEPEST)

    def _add(
        self, scope: Mapping[str, Any], prefix: str, given: Mapping[Any, Any], left: int
    ) -> dict[Any, list[Any] | None]:
        """Add what a scope holds; return where its outputs begin, by their numbers."""
        ends: dict[Any, list[Any] | None] = {}
        links, nodes = list(_links(scope.get("links"))), _dicts(scope.get("nodes"))
        self._left -= len(links) + len(nodes)
        if self._left < 0:
            return ends
        for name, origin, slot, target, end in links:
            inside = [f"{prefix}{origin}", slot]
            self.links[prefix + name] = given.get(slot) if origin == _INPUT else inside
            if target == _OUTPUT:
                ends[end] = self.links[prefix + name]
        for node in nodes:
            if node.get("mode") == _MUTED:
                continue
            name = f"{prefix}{node.get('id')}"
            inputs = [
                {**each, "link": f"{prefix}{each.get('link')}"}
                for each in _dicts(node.get("inputs"))
            ]
            group = self._groups.get(str(node.get("type")))
            if group is None or left == 0 or node.get("mode") == _BYPASSED:
                self.nodes[name] = {**node, "inputs": inputs}
            else:
                fed = {i: self._fed(node, name, i, e) for i, e in enumerate(inputs)}
                self._ends[name] = self._add(group, f"{name}:", fed, left - 1)
        return ends

    def _fed(
        self, node: Mapping[str, Any], name: str, slot: int, given: Mapping[str, Any]
    ) -> list[Any] | None:
        """Return where an input of a subgraph begins: at a link or at its own field."""
        values = _values(node)
        if given["link"] not in self.links and given.get("name") in values:
            field = f"{name}:field {slot}"
            self.nodes[field] = {
                "type": "PrimitiveNode",
                "widgets_values": [values[given["name"]]],
            }
            return [field, 0]
        return self.links.get(given["link"])

    def begin(self, link: str) -> list[Any] | None:
        """Return where a link begins, behind subgraphs and nodes that are bypassed.

        A bypassed node hands on its first input of the output's type.
        """
        found = self.links.get(link)
        for _ in range(_LONGEST):
            if found is None:
                return None
            if found[0] in self._ends:
                found = self._ends[found[0]].get(found[1])
                continue
            node = self.nodes.get(found[0], {})
            if node.get("mode") != _BYPASSED:
                return found
            outputs = _dicts(node.get("outputs"))
            kind = outputs[found[1]].get("type") if found[1] < len(outputs) else None
            same = (e for e in _dicts(node.get("inputs")) if e.get("type") == kind)
            found = next((self.links.get(e["link"]) for e in same), None)
        return None


def _node(
    node: Mapping[str, Any], flat: _Flat, named: Mapping[str, str]
) -> dict[str, Any]:
    if node.get("type") == "GetNode":
        start = named.get(_name(node))
        return {"class_type": "Reroute", "inputs": {"": [start, 0]} if start else {}}
    inputs = _values(node)
    for each in _dicts(node.get("inputs")):
        if (origin := flat.begin(str(each.get("link")))) is not None:
            inputs[str(each.get("name", ""))] = origin
    if node.get("type") in ("Reroute", "SetNode"):
        linked = [value for value in inputs.values() if isinstance(value, list)]
        inputs = {"": linked[0]} if linked else {}
    return {"class_type": str(node.get("type")), "inputs": inputs}


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


def _links(links: Any) -> Iterator[tuple[str, str, int, str, Any]]:
    """Yield each link's id, its node and output, the node that it feeds and where."""
    keys = ("id", "origin_id", "origin_slot", "target_id", "target_slot")
    for link in links if isinstance(links, list) else ():
        if isinstance(link, dict):
            link = [link.get(key) for key in keys]
        if isinstance(link, list) and len(link) >= 3 and isinstance(link[2], int):
            name, origin, slot, target, end = [*link, None, None][:5]
            end = end if isinstance(end, int) else None
            yield str(name), str(origin), slot, str(target), end


def _name(node: Mapping[str, Any]) -> str:
    values = node.get("widgets_values")
    return str(values[0]) if isinstance(values, list) and values else ""


def _dicts(items: Any) -> list[dict[str, Any]]:
    items = items if isinstance(items, list) else []
    return [item for item in items if isinstance(item, dict)]
