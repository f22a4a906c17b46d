"""Where the heavy steps are computed.

Each implementation of the rasteriser has the signature and the rules of facemodel.rasterizer.rasterize. torch and what
builds on it are imported only once a device needs them.
"""
from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec

from threadpoolctl import ThreadpoolController

from facemodel import rasterizer
from facemodel.errors import InputError

DEVICES = ("auto", "cpu", "cuda", "pytorch3d")
INSTALL = {"cuda": 'pip install -e ".[gpu]"', "pytorch3d": 'pip install -e ".[pytorch3d]"'}


@dataclass(frozen=True)
class Backend:
    """What computes.

    name : str, 'cpu' (numba), 'cuda' (nvdiffrast and torch) or 'pytorch3d' (on the CPU, to compare with)
    rasterize : callable like facemodel.rasterizer.rasterize
    torch_device : str, where fitting.photometric_torch assembles normal equations; None: fitting.photometric does
    """

    name: str
    rasterize: Callable
    torch_device: str | None = None

    def description(self):
        """The device in words, for reports."""
        if self.torch_device is None:
            return "the CPU"
        import torch
        return torch.cuda.get_device_name(self.torch_device) if torch.cuda.is_available() else self.torch_device


CPU = Backend("cpu", rasterizer.rasterize)


def backend_for(device="auto"):
    """The backend of a name in DEVICES; 'auto' takes CUDA where nvdiffrast, torch and a GPU are there, else the CPU.

    Raises
    ------
    InputError : the device can't be had; the message says what is missing and how to install it
    """
    if device not in DEVICES:
        raise InputError(f"--device {device}: no such device; choose one of {', '.join(DEVICES)}")
    if device == "cpu":
        return CPU
    if device == "pytorch3d":
        _require(device, "torch", "pytorch3d")
        from facemodel.rasterizer_pytorch3d import rasterize
        return Backend("pytorch3d", rasterize)
    if device == "auto" and not (_installed("nvdiffrast") and _installed("torch") and _has_gpu()):
        return CPU
    _require(device, "torch", "nvdiffrast")
    if not _has_gpu():
        import torch
        why = "finds no NVIDIA GPU" if torch.version.cuda else "is built for the CPU only"
        raise InputError(f"--device cuda: torch {torch.__version__} {why}; leave --device out to compute on the CPU")
    from facemodel.rasterizer_nvdiffrast import NvdiffrastRasterizer
    return Backend("cuda", NvdiffrastRasterizer("cuda"), "cuda")


def torch_device(name="auto"):
    """The torch.device for networks, which need no more than torch, of 'auto', 'cpu' or 'cuda'.

    One of several processes (LOCAL_RANK) takes the GPU of its number.

    Raises
    ------
    InputError : CUDA was asked for and can't be had
    """
    import torch
    if name == "cuda" and not torch.cuda.is_available():
        raise InputError("--device cuda: no CUDA device found; use --device cpu")
    if name == "cpu" or not torch.cuda.is_available():
        return torch.device("cpu")
    torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", 0)))
    return torch.device("cuda", torch.cuda.current_device())


@contextmanager
def inference():
    """For what a network of torch answers about one frame: no gradients are kept, and it is computed in one thread.

    Frames are under way in several threads as it is. And how many torch would take on its own changes within a process
    (it shares OpenMP with numba, whose first parallel loop in a thread sets their number), and with it last bits.
    """
    import torch
    with _thread_pools().limit(limits=1, user_api="openmp"), torch.inference_mode():
        yield


@cache
def _thread_pools():
    return ThreadpoolController()


def has_bfloat16():
    """Whether this processor multiplies in bfloat16 by itself (AVX512-BF16), in half the time; others imitate it."""
    import torch
    return bool(getattr(torch.cpu, "_is_avx512_bf16_supported", bool)())


def _installed(package):
    return find_spec(package) is not None


def _has_gpu():
    import torch
    return torch.cuda.is_available()


def _require(device, *packages):
    missing = [p for p in packages if not _installed(p)]
    if missing:
        raise InputError(f"--device {device}: {' and '.join(missing)} not installed; install with {INSTALL[device]}, "
                         "or leave --device out to compute on the CPU")
