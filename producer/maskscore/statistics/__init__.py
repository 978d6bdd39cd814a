"""Estimates with 95 % intervals by image: shares, AUROCs, operating points, reliability, differences; their diagrams.

Pure Python: needs no further package.
"""

from __future__ import annotations

from maskscore.statistics.diagrams import SVG_STYLE, precision_recall_diagram, reliability_diagram
from maskscore.statistics.intervals import Estimate, Ranked, Scored, clustered_mean, hits_of_images, t_quantile
from maskscore.statistics.operating_points import OperatingPoint, operating_curve, operating_point, point_at_recall
from maskscore.statistics.paired_differences import Difference
from maskscore.statistics.reliability import ReliabilityBin, reliability_bins

__all__ = [
    "SVG_STYLE",
    "Difference",
    "Estimate",
    "OperatingPoint",
    "Ranked",
    "ReliabilityBin",
    "Scored",
    "clustered_mean",
    "hits_of_images",
    "operating_curve",
    "operating_point",
    "point_at_recall",
    "precision_recall_diagram",
    "reliability_bins",
    "reliability_diagram",
    "t_quantile",
]
