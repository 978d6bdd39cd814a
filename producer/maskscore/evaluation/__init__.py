"""Measures on labelled masks: whether the true class ranks first, and how well objects and background separate.

Needs Pillow (``maskscore[report]``), no model: the scores come from the service.
"""

from maskscore.evaluation.chart import draw
from maskscore.evaluation.classes import Classes, read_classes
from maskscore.evaluation.dataset import LabelledImage, LabelledMask, read_coco
from maskscore.evaluation.figures import Figures, Share
from maskscore.evaluation.run import Question, evaluate

__all__ = [
    "Classes",
    "Figures",
    "LabelledImage",
    "LabelledMask",
    "Question",
    "Share",
    "draw",
    "evaluate",
    "read_classes",
    "read_coco",
]
