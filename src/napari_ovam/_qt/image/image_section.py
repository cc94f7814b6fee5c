"""Generate or load an image."""

from __future__ import annotations

import random
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from magicgui.widgets import CheckBox, ComboBox, FloatSpinBox, SpinBox
from magicgui.widgets import LineEdit as LineEditForm
from qtpy.QtCore import Qt
from qtpy.QtWidgets import (
    QFileDialog,
    QFormLayout,
    QInputDialog,
    QLabel,
    QLineEdit,
    QMenu,
    QPushButton,
    QWidget,
)

from napari_ovam._qt.layers.layers import SampleLayers
from napari_ovam._qt.session.settings import preferences
from napari_ovam._qt.session.state import ModelChoice
from napari_ovam._qt.widgets.reach import reveal
from napari_ovam._qt.widgets.row import Row
from napari_ovam._qt.widgets.section import (
    Section,
    button,
    check_box,
    chooser,
    debounced,
    form,
    listen,
    menu_button,
    menu_entry,
    more,
    small_button,
)
from napari_ovam.hub.recent import recent_models
from napari_ovam.images.files import PICTURE_SUFFIXES

from .generating import Images
from .images import read_image
from .layer_form import LayerForm
from .layer_pictures import loadable
from .look_fields import look_fields
from .stacking import Stacking

if TYPE_CHECKING:
    from collections.abc import Callable

    from napari.layers import Image
    from qtpy.QtCore import QMimeData
    from qtpy.QtGui import QDragEnterEvent, QDropEvent

    from napari_ovam import GenerationSettings
    from napari_ovam._qt.session.session import Session

    from .generating import Read
    from .images import SeveralPages
    from .layer_pictures import Source
    from .model_picker import ModelPicker

_STABLE_DIFFUSION = "stable-diffusion-v1-5/stable-diffusion-v1-5"
PROMPT = "a cat and a hat on the grass"
_BRANCHES = {"conditional (DAAM)": "cond", "unconditional (OVAM)": "uncond"}


class ImageSection(Section):
    """Model, prompt and settings; Generate and Load."""

    title: ClassVar[str] = "Image"
    session: Session

    def build(self) -> None:
        """Make the widgets."""
        known = ["tiny", *recent_models(), _STABLE_DIFFUSION]
        self.model = chooser(
            "model",
            "The embedded model, a hub id (owner/name), a diffusers folder or a "
            ".safetensors file",
            dict.fromkeys(known),
        )
        self._picker: ModelPicker | None = None
        self.model.setEditable(True)
        self.model.setCurrentText(self.session.choice.model)
        self.device = chooser(
            "device",
            "Where the model runs; auto takes the fastest there is",
            ["auto", "cpu", "cuda", "mps"],
            shown=4,
        )
        self.device.setCurrentText(self.session.choice.device)
        browse = small_button(
            "…",
            "model_browse_button",
            self.pick_model,
            "Models on this computer and on the hub: size, memory, download",
        )
        self.prompt = QLineEdit(PROMPT)
        self.prompt.setObjectName("prompt")
        self.prompt.setMaxLength(100_000)  # Qt's own would cut what a file says
        self.prompt.setToolTip("What the image shall show, or shows")
        self.prompt.returnPressed.connect(self.generate)
        self.prompt.textChanged.connect(debounced(self, self._follow))
        self._follow()
        first = QFormLayout()
        first.setSpacing(4)
        first.addRow("Model", Row(self.model, browse))
        first.addRow("Prompt", self.prompt)
        self.box.addLayout(first)
        self.box.addWidget(more(self._form(), "more settings"))
        self.load_button = menu_button(
            "Load…",
            "load_button",
            self._fill_menu,
            "Annotate an image from disk or from a layer",
        )
        self.generate_button = button(
            "Generate", "generate_button", self.generate, "Make an image of the prompt"
        )
        self.row(self.generate_button, self.load_button)
        self.layer_form = LayerForm(self.session, self._load_source)
        self.box.addWidget(self.layer_form)
        self._add_offers()
        self.setAcceptDrops(True)
        images = self.session.feature(Images)
        listen(self, images.reproducible, self._offer_again)
        listen(self, images.reproduced, lambda name: self.model.setCurrentText(name))
        listen(self, images.syntax_found, self._offer_plain)
        listen(self, images.pages_found, self._ask_page)
        listen(self, images.differs, self.trace_anyway.offer)
        listen(self, self.session.settings_restored, self._restore)
        self.at_key("generate", self.generate)

    def _add_offers(self) -> None:
        """Add buttons that show when there is a second way to load an image."""
        self.trace_anyway = _Offer("Trace the image itself", "trace_anyway_button")
        self.make_again = _Offer("Make it again, exactly", "make_again_button")
        text = "Trace it with the plain words"
        self.plain_prompt = _Offer(text, "plain_prompt_button")
        self._offers = self.trace_anyway, self.make_again, self.plain_prompt
        for offer in self._offers:
            self.box.addWidget(offer)

    def _form(self) -> QWidget:
        self.negative = LineEditForm(label="Negative", name="negative")
        self.negative.tooltip = "What to keep away from"
        self.seed = SpinBox(label="Seed", name="seed", min=0, max=2**63 - 1, value=5)
        self.steps = SpinBox(label="Steps", name="steps", min=0, max=1000, value=0)
        self.guidance = FloatSpinBox(
            label="Guidance", name="guidance", min=0.0, max=100.0, step=0.5, value=0.0
        )
        size: dict[str, Any] = {"min": 0, "max": 16_384, "step": 8, "value": 0}
        self.width_ = SpinBox(label="Width", name="width", **size)
        self.height_ = SpinBox(label="Height", name="height", **size)
        chosen = preferences()
        self.steps.value, self.guidance.value = chosen.steps, chosen.guidance_scale
        self.count = SpinBox(label="Images", name="count", min=1, max=1000, value=1)
        self.count.tooltip = "How many, with one seed after the other"
        self.frames = SpinBox(label="Frames", name="frames", min=0, max=65536, value=0)
        self.frames.tooltip = (
            "Of a video, where the model makes one; 0: its own default"
        )
        self.branch = ComboBox(label="Record", name="branch", choices=list(_BRANCHES))
        self.branch.tooltip = "Which half of the guidance batch the maps come from"
        self.exact = CheckBox(text="Full precision", name="exact", value=False)
        self.exact.tooltip = "Exact maps at the price of memory (1.4 GB at 512×512)"
        sizes = self.width_, self.height_
        for field in (self.steps, self.guidance, *sizes, self.frames):
            field.tooltip = "0: the model's own"
        note = QLabel("0 stands for the model's own value.")
        loaded = QLabel("How the model looks at a loaded image:")
        for text in (note, loaded):
            text.setWordWrap(True)
        self.look = look_fields()
        dice = small_button("⚄", "dice_button", self._roll, "A seed by chance")
        fields = form(
            self.negative,
            (self.seed, dice),
            self.steps,
            self.guidance,
            *sizes,
            self.count,
            self.frames,
            self.branch,
            self.exact,
            *self.look,
        )
        layout: Any = fields.layout()
        layout.insertRow(10, loaded)
        layout.insertRow(2, note)
        self.at_once = check_box(
            "Maps and labels at once",
            "at_once",
            "A new image is searched for the nouns of its prompt, and labels are "
            "proposed. Without: press Map, then Labels from maps",
            self._set_at_once,
            checked=self.session.at_once,
        )
        layout.insertRow(0, "Device", self.device)
        layout.insertRow(0, self.at_once)
        return fields

    def _roll(self) -> None:
        self.seed.value = random.randrange(2**31)  # noqa: S311 (no secret)

    def _choose(self) -> None:
        self.session.choice = ModelChoice(
            self.model.currentText().strip(), self.device.currentText()
        )

    def _follow(self) -> None:
        self.session.phrases.follow(self.prompt.text())

    def _set_at_once(self, on: bool) -> None:
        self.session.at_once = on

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
        self.session.feature(Images).generate(
            values,
            count=int(self.count.value),
            trace=trace,
            frames=int(self.frames.value) or None,
        )

    # -- loading ---------------------------------------------------------------

    def _fill_menu(self, menu: QMenu) -> None:
        menu_entry(menu, "From disk…", self._browse_image)
        for name, layers in loadable(self.session.viewer.layers).items():
            menu_entry(menu, name, partial(self.load_layer, *layers))

    def _browse_image(self) -> None:
        path, _filter = QFileDialog.getOpenFileName(
            self, "Load an image", "", f"Images (*{' *'.join(PICTURE_SUFFIXES)})"
        )
        if path:
            self.load_path(path)

    def load_path(self, path: str | Path, page: int | None = None) -> None:
        """Load an image from disk; of several pages, the one from 0 that is named."""
        path = Path(path)
        name = path.stem if page is None else f"{path.stem} page {page + 1}"
        text = self.prompt.text()
        self._load(lambda _: read_image(path, page), name, prompt=text)

    def _load(self, read: Read, name: str, **known: Any) -> None:
        self._choose()
        for offer in self._offers:
            offer.hide()
        self.session.feature(Images).load(read, name, look=self._look(), **known)

    def _look(self) -> dict[str, Any]:
        return {field.name: field.value for field in self.look}

    def _ask_page(self, several: SeveralPages) -> None:
        """Ask which page of a file is wanted; the panel stays usable meanwhile."""
        dialog = QInputDialog(self)
        dialog.setObjectName("page_dialog")
        dialog.setAttribute(Qt.WidgetAttribute.WA_DeleteOnClose)
        dialog.setWindowTitle(f"Pages of {several.path.name}")
        dialog.setLabelText(
            f"Which page or frame, 1 to {several.count}?\n\nFor its channels or all of "
            "a stack, open the file\nin napari, and choose its layer under Load…"
        )
        dialog.setInputMode(QInputDialog.InputMode.IntInput)
        dialog.setIntRange(1, several.count)
        dialog.intValueSelected.connect(
            lambda number: self.session.in_turn(
                partial(self.load_path, several.path, number - 1)
            )
        )
        dialog.show()

    def dragEnterEvent(self, event: QDragEnterEvent | None) -> None:
        """Take image files; napari shows others, such as tokens, in its own way."""
        if event is not None and _dropped(event.mimeData()):
            event.acceptProposedAction()

    def dropEvent(self, event: QDropEvent | None) -> None:
        """Load image files one after the other."""
        if event is not None and (paths := _dropped(event.mimeData())):
            event.acceptProposedAction()
            for path in paths:
                self.session.in_turn(partial(self.load_path, path))

    def load_layer(self, *layers: Image) -> None:
        """Load a layer, or several as one, once channels and planes are chosen."""
        try:
            self.layer_form.ask(layers)
        except ValueError as error:
            self.session.complain(error, "Nothing was changed.")

    def _load_source(self, source: Source, planes: list[tuple[int, ...]]) -> None:
        """Load a picture of layers, or make samples of several planes."""
        self._choose()
        if len(planes) > 1:
            self.session.feature(Stacking).load(source, planes)
            return
        at = planes[0] if planes else ()
        self._load(
            lambda progress: (source.pictures.read(at, progress), None),
            source.title(at),
            about=source.about(at),
            added=partial(source.lead, self.session.feature(SampleLayers)),
        )

    def _restore(self, settings: GenerationSettings) -> None:
        """Show the settings that an image was made with."""
        self.prompt.setText(settings.prompt)
        self.prompt.setCursorPosition(0)
        self._follow()
        self.negative.value = settings.negative_prompt
        self.seed.value = settings.seed
        for field, value in (
            (self.steps, settings.steps),
            (self.guidance, settings.guidance_scale),
            (self.width_, settings.width),
            (self.height_, settings.height),
        ):
            field.value = min(value or 0, field.max)

    def _offer_again(self, model: str, load: Callable[[], None]) -> None:
        def make_again() -> None:
            self.model.setCurrentText(model)
            self._choose()
            load()

        self.make_again.offer(
            make_again,
            f"With {model}: the trace of how it was made, where the same pixels come "
            "out",
        )

    def _offer_plain(self, taken: str, load: Callable[[], None]) -> None:
        tip = f"Without what the model reads as words: {taken}"
        self.plain_prompt.offer(load, tip)

    def pick_model(self) -> None:
        """Show what models there are."""
        from .model_picker import ModelPicker

        if self._picker is None:
            self._picker = ModelPicker(self.session, self.window())
            self._picker.chosen.connect(self.model.setCurrentText)
            self.destroyed.connect(self._picker.deleteLater)
        self._choose()
        self._picker.look()


class _Offer(QPushButton):
    """A second way to load an image: shown when there is one, until it is taken."""

    def __init__(self, text: str, name: str) -> None:
        super().__init__(text)
        self.setObjectName(name)
        self.hide()
        self._call: Callable[[], None] = lambda: None
        self.clicked.connect(self._take)

    def offer(self, call: Callable[[], None], tip: str = "") -> None:
        """Show the button, which calls something."""
        self._call = call
        self.setToolTip(tip)
        reveal(self)

    def _take(self) -> None:
        self.hide()
        self._call()


def _dropped(data: QMimeData | None) -> list[Path]:
    """Return the image files among what is dropped."""
    urls = data.urls() if data is not None else []
    paths = [Path(url.toLocalFile()) for url in urls if url.isLocalFile()]
    return [path for path in paths if path.suffix.lower() in PICTURE_SUFFIXES]
