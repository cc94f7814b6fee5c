"""Train, validation and test images, dealt by chance with every class in its share."""

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace

import numpy as np

from napari_ovam.base.ids import IGNORE

from .dataset import SPLITS, ExportItem


@dataclass(frozen=True)
class Split:
    """How images are dealt to train, validation and test.

    Parameters
    ----------
    train, val, test
        Their shares, 0 to 1, together 1.
    seed
        The same seed, images and labels give the same split.
    """

    train: float = 0.8
    val: float = 0.1
    test: float = 0.1
    seed: int = 0

    def __post_init__(self) -> None:
        shares = (self.train, self.val, self.test)
        if not all(0 <= share <= 1 for share in shares) or abs(sum(shares) - 1) > 1e-6:
            raise ValueError(
                f"the shares of train, val and test are {shares}; they must add up to 1"
            )

    def deal(self, items: Iterable[ExportItem]) -> Iterator[ExportItem]:
        """Yield the items, each with its split; read once, one at a time.

        An image goes by chance to a split that still lacks images, and the more so the
        more it lacks images with the classes of this one; rare classes count more.
        """
        random = np.random.default_rng(self.seed)
        shares = np.array([self.train, self.val, self.test])
        seen: Counter[int] = Counter()
        dealt: dict[int, np.ndarray[tuple[int], np.dtype[np.float64]]] = {}
        for item in items:
            # The background stands for the image as such: every image counts for it.
            kinds = {0, *(int(i) for i in np.unique(item.labels))} - {IGNORE}
            seen.update(kinds)
            lack = np.zeros(3)
            for kind in kinds:
                has = dealt.setdefault(kind, np.zeros(3))
                lack += (shares * seen[kind] - has) / seen[kind]
            lack = np.where(shares > 0, lack.clip(min=0), 0)
            place = int(random.choice(3, p=lack / lack.sum()))
            for kind in kinds:
                dealt[kind][place] += 1
            yield replace(item, split=SPLITS[place])


def parse_split(text: str, seed: int = 0) -> Split:
    """Return a split from its shares as text, "0.8,0.1,0.1" or "0.8,0.2".

    It raises `ValueError` if these are no two or three shares that add up to 1.
    """
    try:
        shares = [float(part) for part in text.split(",")]
    except ValueError:
        shares = []
    if len(shares) not in (2, 3):
        raise ValueError(
            f"the split is {text!r}: give the shares of train, validation and test, "
            "such as 0.8,0.1,0.1"
        )
    train, val, test = [*shares, 0.0][:3]
    return Split(train, val, test, seed)
