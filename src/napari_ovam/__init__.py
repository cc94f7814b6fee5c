"""Open-vocabulary attention maps for semi-automatic mask annotation.

The public names are loaded when they are first used (PEP 562), so that importing the
package, or asking the command line for help, does not wait for torch.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .diffusion import Generation as Generation
    from .diffusion import GenerationSettings as GenerationSettings
    from .diffusion import generate as generate
    from .export import ExportItem as ExportItem
    from .export import LabelClass as LabelClass
    from .export import export_dataset as export_dataset
    from .labels import LabelSettings as LabelSettings
    from .labels import best_threshold as best_threshold
    from .labels import iou as iou
    from .labels import labels_to_target as labels_to_target
    from .labels import maps_to_labels as maps_to_labels
    from .maps import attention_maps as attention_maps
    from .maps import joint_map as joint_map
    from .maps import phrase_map as phrase_map
    from .maps import phrase_maps as phrase_maps
    from .models import load_pipeline as load_pipeline
    from .optimize import OptimizationSettings as OptimizationSettings
    from .optimize import optimize_token as optimize_token
    from .progress import Cancelled as Cancelled
    from .progress import Progress as Progress
    from .recording import record as record
    from .token_files import load_token as load_token
    from .token_files import load_tokens as load_tokens
    from .token_files import save_token as save_token
    from .tokens import Token as Token
    from .tokens import encode_phrase as encode_phrase
    from .trace import LayerTrace as LayerTrace
    from .trace import SelfTrace as SelfTrace
    from .trace import Trace as Trace
    from .trace import TraceSettings as TraceSettings
    from .trace_files import load_trace as load_trace
    from .trace_files import save_trace as save_trace
    from .tracing import trace_image as trace_image

__version__ = "0.1.0"

_MODULES = {
    "Cancelled": "progress",
    "ExportItem": "export",
    "Generation": "diffusion",
    "GenerationSettings": "diffusion",
    "LabelClass": "export",
    "LabelSettings": "labels",
    "LayerTrace": "trace",
    "OptimizationSettings": "optimize",
    "Progress": "progress",
    "SelfTrace": "trace",
    "Token": "tokens",
    "Trace": "trace",
    "TraceSettings": "trace",
    "attention_maps": "maps",
    "best_threshold": "labels",
    "encode_phrase": "tokens",
    "export_dataset": "export",
    "generate": "diffusion",
    "iou": "labels",
    "joint_map": "maps",
    "labels_to_target": "labels",
    "load_pipeline": "models",
    "load_token": "token_files",
    "load_tokens": "token_files",
    "load_trace": "trace_files",
    "maps_to_labels": "labels",
    "optimize_token": "optimize",
    "phrase_map": "maps",
    "phrase_maps": "maps",
    "record": "recording",
    "save_token": "token_files",
    "save_trace": "trace_files",
    "trace_image": "tracing",
}


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        msg = f"module {__name__!r} has no attribute {name!r}"
        raise AttributeError(msg)
    value = getattr(import_module(f".{_MODULES[name]}", __name__), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_MODULES})
