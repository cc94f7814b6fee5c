"""Generate or load an image."""

from __future__ import annotations

import random
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from magicgui.widgets import CheckBox, ComboBox, FloatSpinBox, SpinBox
from magicgui.widgets import LineEdit as LineEditForm
from napari.layers import Image
from qtpy.QtGui import QAction
from qtpy.QtWidgets import (
    QComboBox,
    QFileDialog,
    QLabel,
    QLineEdit,
    QMenu,
    QPushButton,
    QWidget,
)

from napari_ovam.weights.recent import recent_models

from .images import read_image, reader_of_layer
from .layers import role_of
from .section import More, Section, button, form, listen, small_button
from .settings import preferences
from .state import ModelChoice

if TYPE_CHECKING:
    from collections.abc import Callable

    from napari_ovam import GenerationSettings

_STABLE_DIFFUSION = "stable-diffusion-v1-5/stable-diffusion-v1-5"
PROMPT = "a cat and a hat on the grass"
_BRANCHES = {"conditional (DAAM)": "cond", "unconditional (OVAM)": "uncond"}


class ImageSection(Section):
    """Model, prompt and settings; Generate and Load."""

    title: ClassVar[str] = "Image"

    def build(self) -> None:
        """Make the widgets."""
        self.model = QComboBox()
        self.model.setObjectName("model")
        self.model.setEditable(True)
        known = ["tiny", *recent_models(), _STABLE_DIFFUSION]
        self.model.addItems(list(dict.fromkeys(known)))
        self.model.setCurrentText(self.session.choice.model)
        self.model.setToolTip(
            "The embedded model, a hub id (owner/name), a diffusers folder or a "
            ".safetensors file"
        )
        self.model.setSizeAdjustPolicy(
            QComboBox.SizeAdjustPolicy.AdjustToMinimumContentsLengthWithIcon
        )
        self.model.setMinimumContentsLength(8)
        self.device = QComboBox()
        self.device.setObjectName("device")
        self.device.addItems(["auto", "cpu", "cuda", "mps"])
        self.device.setCurrentText(self.session.choice.device)
        self.device.setMinimumContentsLength(4)
        self.device.setToolTip("Where the model runs; auto takes the fastest there is")
        browse = small_button(
            "…", "model_browse_button", self._browse_model, "Choose a model on disk"
        )
        self.row(self._caption("Model"), self.model, browse, self.device, stretch=1)
        self.prompt = QLineEdit(PROMPT)
        self.prompt.setObjectName("prompt")
        self.prompt.setToolTip("What the image shall show, or shows")
        self.prompt.returnPressed.connect(self.generate)
        self.row(self._caption("Prompt"), self.prompt, stretch=1)
        self.box.addWidget(More(self._form(), "more settings"))
        self.load_button = QPushButton("Load…")
        self.load_button.setObjectName("load_button")
        self.load_button.setToolTip("Annotate an image from disk or from a layer")
        self._menu = QMenu(self)
        self._menu.aboutToShow.connect(self._fill_menu)
        self.load_button.setMenu(self._menu)
        self.generate_button = button(
            "Generate", "generate_button", self.generate, "Make an image of the prompt"
        )
        self.row(self.generate_button, self.load_button)
        self.trace_anyway = button(
            "Trace the image itself", "trace_anyway_button", lambda: None
        )
        self.trace_anyway.hide()
        self.box.addWidget(self.trace_anyway)
        self._differs: Callable[[], None] | None = None
        self.trace_anyway.clicked.connect(self._trace_anyway)
        listen(self, self.session.reproduction_differs, self._offer_trace)
        listen(self, self.session.settings_restored, self._restore)
        self.at_key("generate", self.generate)

    def _caption(self, text: str) -> QLabel:
        label = QLabel(text)
        label.setFixedWidth(54)
        return label

    def _form(self) -> QWidget:
        self.negative = LineEditForm(label="Negative", name="negative")
        self.negative.tooltip = "What to keep away from"
        self.seed = SpinBox(label="Seed", name="seed", min=0, max=2**31 - 1, value=5)
        self.steps = SpinBox(label="Steps", name="steps", min=0, max=1000, value=0)
        self.guidance = FloatSpinBox(
            label="Guidance", name="guidance", min=0.0, max=50.0, step=0.5, value=0.0
        )
        self.width_ = SpinBox(label="Width", name="width", min=0, max=4096, step=8)
        self.height_ = SpinBox(label="Height", name="height", min=0, max=4096, step=8)
        chosen = preferences()
        self.steps.value, self.guidance.value = chosen.steps, chosen.guidance_scale
        self.width_.value = self.height_.value = 0
        self.count = SpinBox(label="Images", name="count", min=1, max=1000, value=1)
        self.count.tooltip = "How many, with one seed after the other"
        self.branch = ComboBox(label="Record", name="branch", choices=list(_BRANCHES))
        self.branch.tooltip = "Which half of the guidance batch the maps come from"
        self.exact = CheckBox(
            text="Everything in full precision", name="exact", value=False
        )
        self.exact.tooltip = "Exact maps at the price of memory (1.4 GB at 512×512)"
        for field in (self.steps, self.guidance, self.width_, self.height_):
            field.tooltip = "0: the model's own"
        note = QLabel("0 stands for the model's own value.")
        dice = small_button("⚄", "dice_button", self._roll, "A seed by chance")
        fields = form(
            self.negative,
            (self.seed, dice),
            self.steps,
            self.guidance,
            self.width_,
            self.height_,
            self.count,
            self.branch,
            self.exact,
        )
        layout: Any = fields.layout()
        layout.insertRow(2, note)
        return fields

    def _roll(self) -> None:
        self.seed.value = random.randrange(2**31)  # noqa: S311 (no secret)

    def _choose(self) -> None:
        self.session.choice = ModelChoice(
            self.model.currentText().strip(), self.device.currentText()
        )

    def generate(self) -> None:
        """Generate with the values of the form."""
        prompt = self.prompt.text()
        if not prompt.strip():
            self.session.complain("The prompt is empty: say what to draw")
            return
        self._choose()
        guidance = float(self.guidance.value)
        values: dict[str, Any] = {
            "prompt": prompt,
            "negative_prompt": self.negative.value,
            "seed": int(self.seed.value),
            "steps": int(self.steps.value) or None,
            "guidance_scale": guidance or None,
            "height": int(self.height_.value) or None,
            "width": int(self.width_.value) or None,
        }
        trace: dict[str, Any] = {"branch": _BRANCHES[self.branch.value]}
        if self.exact.value:
            trace |= {"layers": None, "calls": None, "dtype": None}
        self.session.images.generate(values, count=int(self.count.value), trace=trace)

    # -- loading ---------------------------------------------------------------

    def _fill_menu(self) -> None:
        self._menu.clear()
        self._add("From disk…", self._browse_image)
        for layer in self.session.viewer.layers:
            if isinstance(layer, Image) and not role_of(layer)[1]:
                self._add(f"Layer {layer.name}", partial(self._load_layer, layer))

    def _add(self, text: str, chosen: Callable[..., None]) -> None:
        action = QAction(text, self._menu)
        action.triggered.connect(chosen)
        self._menu.addAction(action)

    def _browse_image(self, *_: Any) -> None:
        path, _filter = QFileDialog.getOpenFileName(
            self, "Load an image", "", "Images (*.png *.jpg *.jpeg *.webp *.tif *.bmp)"
        )
        if path:
            self.load_path(path)

    def load_path(self, path: str | Path) -> None:
        """Load an image from disk."""
        self._choose()
        path = Path(path)
        self.session.images.load(
            partial(read_image, path), path.stem, prompt=self.prompt.text()
        )

    def _load_layer(self, layer: Image, *_: Any) -> None:
        self.load_layer(layer)

    def load_layer(self, layer: Image) -> None:
        """Load an image from a layer."""
        self._choose()
        try:
            pixels = reader_of_layer(layer)
        except ValueError as error:
            self.session.complain(error, "Nothing was changed.")
            return
        self.session.images.load(lambda: (pixels(), None), layer.name)

    def _restore(self, settings: GenerationSettings) -> None:
        """Show the settings that an image of ours was made with."""
        self.prompt.setText(settings.prompt)
        self.negative.value = settings.negative_prompt
        self.seed.value = min(settings.seed, int(self.seed.max))
        self.steps.value = settings.steps or 0
        self.guidance.value = settings.guidance_scale or 0.0
        self.width_.value = settings.width or 0
        self.height_.value = settings.height or 0

    def _offer_trace(self, load: Callable[[], None]) -> None:
        self._differs = load
        self.trace_anyway.show()

    def _trace_anyway(self) -> None:
        self.trace_anyway.hide()
        if self._differs is not None:
            self._differs()

    def _browse_model(self) -> None:
        path, _filter = QFileDialog.getOpenFileName(
            self,
            "Choose model_index.json of a diffusers folder, or a checkpoint",
            "",
            "Models (model_index.json *.safetensors)",
        )
        if path:
            chosen = Path(path)
            if chosen.name == "model_index.json":
                chosen = chosen.parent
            self.model.setCurrentText(str(chosen))
