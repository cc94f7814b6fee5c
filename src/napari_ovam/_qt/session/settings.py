"""The annotator's defaults, as a person sets them in napari's Preferences."""

from __future__ import annotations

from dataclasses import dataclass

from napari.settings import get_plugin_settings

from .state import ModelChoice


@dataclass(frozen=True)
class Preferences:
    """What the sections start with.

    Attributes
    ----------
    model, device
        As in `ModelChoice`.
    steps, guidance_scale
        Of new images; 0 for the model's own.
    folder
        Where datasets are written; empty for one in the person's home.
    at_once
        Whether new images get maps and labels of their prompt's nouns by themselves.
    learn
        Whether tokens learn from accepted images by themselves.
    largest_picture
        The longest side in pixels of what is taken out of a multiscale layer.
    stack_memory
        Megabytes for the pictures of a stack around the one that is shown.
    """

    model: str = "tiny"
    device: str = "auto"
    steps: int = 0
    guidance_scale: float = 0
    folder: str = ""
    at_once: bool = True
    learn: bool = True
    largest_picture: int = 8192
    stack_memory: int = 512

    @property
    def choice(self) -> ModelChoice:
        """The model for new images."""
        return ModelChoice(self.model, self.device)


def preferences() -> Preferences:
    """Return the preferences as they are now.

    Where napari does not know the plugin (an embedded viewer without its manifest,
    or a disabled plugin) these are the defaults.
    """
    try:
        values = get_plugin_settings("napari-ovam").annotator
    except (AttributeError, KeyError):
        return Preferences()
    return Preferences(
        # an emptied field means the default, not a model without a name
        model=values.model.strip() or Preferences.model,
        device=values.device,
        steps=values.steps,
        guidance_scale=values.guidance_scale,
        folder=values.folder.strip(),
        at_once=values.at_once,
        learn=values.learn,
        largest_picture=values.largest_picture,
        stack_memory=values.stack_memory,
    )


def preferred_keys() -> dict[str, str]:
    """Return the keys that a person chose, by the names of the actions."""
    try:
        values = get_plugin_settings("napari-ovam").keys
    except (AttributeError, KeyError):
        return {}
    return {name: str(key) for name, key in values}
