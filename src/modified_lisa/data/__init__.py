"""Samples: images with a query and the pixels that answer it."""

from modified_lisa.data.annotation import Annotation, Shape, rasterize, read_annotation
from modified_lisa.data.check import Problem, check_folder
from modified_lisa.data.reasonseg import ReasonSegDataset
from modified_lisa.data.sample import Sample

__all__ = [
    "Annotation",
    "Problem",
    "ReasonSegDataset",
    "Sample",
    "Shape",
    "check_folder",
    "rasterize",
    "read_annotation",
]
