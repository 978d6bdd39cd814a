"""The CLIP model: checkpoint, device, precision, device check, and fast forwards (CUDA graphs, CPU kernels)."""

from __future__ import annotations

from maskscore_worker.model.allocator import collect_rarely, keep_freed_memory
from maskscore_worker.model.clip import ClipModel, load_model
from maskscore_worker.model.configuration import read_configuration
from maskscore_worker.model.cpu_threads import CROPS_PER_PASS, ComputeThreads
from maskscore_worker.model.cuda_graphs import CudaGraphEncoder, graph_batch_sizes
from maskscore_worker.model.device import choose_device
from maskscore_worker.model.device_check import DeviceBroken, DeviceCheck, is_out_of_memory
from maskscore_worker.model.precision import FP16_MOST, ImagePrecision, choose_precision, precisions_of
from maskscore_worker.model.tokens import missing_tokenizer

__all__ = [
    "CROPS_PER_PASS",
    "FP16_MOST",
    "ClipModel",
    "ComputeThreads",
    "CudaGraphEncoder",
    "DeviceBroken",
    "DeviceCheck",
    "ImagePrecision",
    "choose_device",
    "choose_precision",
    "collect_rarely",
    "graph_batch_sizes",
    "is_out_of_memory",
    "keep_freed_memory",
    "load_model",
    "missing_tokenizer",
    "precisions_of",
    "read_configuration",
]
