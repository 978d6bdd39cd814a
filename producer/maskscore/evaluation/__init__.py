"""Measures on labelled masks: whether the true class ranks first, and how well objects and background separate.

Needs Pillow (``maskscore[report]``), no model: the scores come from the service.
"""

from maskscore.evaluation.chart import draw
from maskscore.evaluation.classes import Classes, read_classes
from maskscore.evaluation.dataset import LabelledImage, LabelledMask, read_coco
from maskscore.evaluation.figures import Figures, Share
from maskscore.evaluation.images import (
    image_uris,
)
from maskscore.evaluation.run import Question, evaluate
from maskscore.evaluation.sampling import (
    sample_negatives,
)

__all__ = [
    "Classes",
    "Figures",
    "LabelledImage",
    "LabelledMask",
    "Question",
    "Share",
    "draw",
    "evaluate",
    "image_uris",
    "read_classes",
    "read_coco",
    "sample_negatives",
]
