"""Counts of a pairing: files, pairs, files without a partner; and the message where there is no pair."""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

from maskscore.dataset.storage_roots import StorageRoot
from maskscore.formats import MASKS_SUFFIXES, Naming, Orphans
from maskscore.text import counted

__all__ = ["MOST_NAMES", "PairingCounts", "no_pairs_message"]

MOST_NAMES = 5
"""How many names of each kind are kept."""


@dataclass(slots=True)
class PairingCounts:
    """Counts of a pairing; lists hold the first few names.

    ``ambiguous_masks`` are those of ``lonely_masks`` that mean several images, or one that another name means, too.
    ``complete`` is false where ``limit`` ended the listing.
    ``orphans`` are the annotations of a dataset file that are of none of its images.
    """

    images: int = 0
    masks: int = 0
    pairs: int = 0
    images_without_masks: int = 0
    masks_without_image: int = 0
    masks_not_used: int = 0
    lonely_images: list[str] = field(default_factory=list)
    lonely_masks: list[str] = field(default_factory=list)
    ambiguous_masks: list[str] = field(default_factory=list)
    others: Counter[str] = field(default_factory=Counter)
    orphans: Orphans = field(default_factory=Orphans)
    complete: bool = True

    def document(self) -> dict[str, Any]:
        """Return it as a JSON object."""
        # Not `asdict`, which makes something else of a Counter.
        document = {item.name: getattr(self, item.name) for item in fields(self)}
        return {**document, "orphans": asdict(self.orphans)}


def no_pairs_message(
    counts: PairingCounts, images: StorageRoot, masks: StorageRoot | Path | None, naming: Naming
) -> str:
    """Return the sentence for a dataset without one pair: what was looked for, what was seen, what may help."""
    where = "beside them" if masks is None else f"in {getattr(masks, 'uri', masks)}"
    seen = [f"{counted(counts.images, 'image')}{_named(counts.lonely_images)}"]
    seen.append(
        f"{counted(counts.masks, 'image')} in the dataset file{_named(counts.lonely_masks)}"
        if isinstance(masks, Path)
        else f"{counted(counts.masks, 'masks file')}{_named(counts.lonely_masks)}"
    )
    if counts.others:
        some = ", ".join(f"{count:,} {name}" for name, count in counts.others.most_common(5))
        seen.append(f"other files: {some}")
    if masks is None:
        hint = "Say where the masks are with --masks: a folder, a prefix, or a dataset file such as COCO's."
    elif isinstance(masks, Path):
        hint = "Give the folder whose images the file names."
    else:
        hint = "Other endings are said with --image-suffix and --masks-suffix."
    return (
        f"Not one image with masks was found. Looked for: images in {images.uri}, and {where} for each "
        f"{_sought(masks, naming)}. Seen: {'; '.join(seen)}. {hint}"
    )


def _sought(masks: StorageRoot | Path | None, naming: Naming) -> str:
    if isinstance(masks, Path):
        return "an entry with its path or file name"
    if naming.masks_suffix:
        return f"a file of its name that ends in {naming.masks_suffix}"
    return f"a file of its name ({', '.join(MASKS_SUFFIXES)}, a picture), or a folder of pictures"


def _named(names: list[str]) -> str:
    return f" ({', '.join(names[:2])}{', ...' if len(names) > 2 else ''})" if names else ""
