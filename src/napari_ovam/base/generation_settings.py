"""What an image is made from."""

from dataclasses import dataclass


@dataclass(frozen=True)
class GenerationSettings:
    """What an image is made from; None stands for the model's own default.

    Attributes
    ----------
    prompt, negative_prompt
        What to draw, and what to keep away from.
    seed
        From 0 to 2**63 - 1. Noise is drawn on the CPU, so that a seed means the same
        on every device (results still differ by rounding; before torch 2.13 half
        precision drew other noise than full).
    steps
        Denoising steps, at least 1. A scheduler may run one more (PNDM does).
    guidance_scale
        How strongly the prompt pulls, 0 or more; up to 1 there is no guidance.
    height, width
        Pixels.
    """

    prompt: str
    negative_prompt: str = ""
    seed: int = 0
    steps: int | None = None
    guidance_scale: float | None = None
    height: int | None = None
    width: int | None = None
