"""Measures on labelled masks: whether the true class ranks first, and how well objects and background separate.

Needs Pillow (``maskscore[report]``), no model: the scores come from the service.
"""

from maskscore.evaluation.candidate_differences import CandidateDifference, Entry
from maskscore.evaluation.candidates import Candidate
from maskscore.evaluation.chart import draw
from maskscore.evaluation.class_prompts import ClassPrompts, read_classes
from maskscore.evaluation.coco_evaluation import CocoEvaluation, views_of
from maskscore.evaluation.evaluation_run import EvaluationResult, evaluate
from maskscore.evaluation.image_locations import image_uris
from maskscore.evaluation.labelled_coco import LabelledImage, LabelledMask, read_coco
from maskscore.evaluation.measurements import Measurement
from maskscore.evaluation.negative_sampling import sample_negatives
from maskscore.evaluation.score_figures import ClassFigures, ScoreFigures
from maskscore.evaluation.scoring_speed import ScoringSpeed
from maskscore.evaluation.stored_scores import ImagesByName, ScoredImage

__all__ = [
    "Candidate",
    "CandidateDifference",
    "ClassFigures",
    "ClassPrompts",
    "CocoEvaluation",
    "Entry",
    "EvaluationResult",
    "ImagesByName",
    "LabelledImage",
    "LabelledMask",
    "Measurement",
    "ScoreFigures",
    "ScoredImage",
    "ScoringSpeed",
    "draw",
    "evaluate",
    "image_uris",
    "read_classes",
    "read_coco",
    "sample_negatives",
    "views_of",
]
