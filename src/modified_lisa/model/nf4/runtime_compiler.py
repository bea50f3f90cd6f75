"""CUDA C++ compiled while the program runs, by NVRTC, which comes with PyTorch for CUDA; no toolkit is needed.

By the C interfaces of NVRTC and of the driver, which are stable; torch's own wrapper is private, and looks for a
toolkit.
"""

import ctypes
import functools
import importlib.util
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

__all__ = ["Kernel", "compile_cubin", "shared_memory"]

_MOST_SHARED = 8
"""CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES."""
_SHARED_OF_BLOCK, _SHARED_OF_PROCESSOR = 97, 81
"""CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_BLOCK_OPTIN and ..._PER_MULTIPROCESSOR."""
_CLUSTER = 4
"""CU_LAUNCH_ATTRIBUTE_CLUSTER_DIMENSION."""


@functools.cache
def shared_memory(device: torch.device) -> tuple[int, int]:
    """Bytes of shared memory that a block may have, and that a processor of ``device`` has."""
    with torch.cuda.device(device):
        number = ctypes.c_int(torch.cuda.current_device())
        found = []
        for attribute in (_SHARED_OF_BLOCK, _SHARED_OF_PROCESSOR):
            value = ctypes.c_int()
            check(_driver().cuDeviceGetAttribute(ctypes.byref(value), attribute, number))
            found.append(value.value)
    return found[0], found[1]


class _Attribute(ctypes.Structure):
    """CUlaunchAttribute: its value is a union of 64 bytes, here three numbers."""

    _fields_ = (("id", ctypes.c_int), ("pad", ctypes.c_byte * 4), ("value", ctypes.c_uint * 16))


class _Launch(ctypes.Structure):
    """CUlaunchConfig."""

    _fields_ = (
        ("grid", ctypes.c_uint * 3),
        ("block", ctypes.c_uint * 3),
        ("shared", ctypes.c_uint),
        ("stream", ctypes.c_void_p),
        ("attributes", ctypes.POINTER(_Attribute)),
        ("count", ctypes.c_uint),
    )


class Kernel:
    """One ``extern "C"`` kernel on the current device.

    Args:
        cubin: as of `compile_cubin`.
        shared: bytes of dynamic shared memory.

    Raises:
        RuntimeError: whatever the driver says.
    """

    def __init__(self, cubin: bytes, name: str, shared: int) -> None:
        self.shared = shared
        self._driver = _driver()
        self._bind()
        module, self._function = ctypes.c_void_p(), ctypes.c_void_p()
        check(self._driver.cuModuleLoadData(ctypes.byref(module), cubin))
        check(self._driver.cuModuleGetFunction(ctypes.byref(self._function), module, name.encode()))
        check(self._driver.cuFuncSetAttribute(self._function, _MOST_SHARED, shared))

    def __call__(
        self, grid: tuple[int, int], threads: int, cluster: int, arguments: Sequence[torch.Tensor | int]
    ) -> None:
        """Launch on the current stream; ``cluster`` blocks of the grid's first axis go together (1: older GPUs have no
        clusters). Numbers are int32."""
        self._bind()
        values = [
            ctypes.c_void_p(one.data_ptr()) if isinstance(one, torch.Tensor) else ctypes.c_int(one)
            for one in arguments
        ]
        pointers = (ctypes.c_void_p * len(values))(*(ctypes.addressof(value) for value in values))
        together = _Attribute(id=_CLUSTER)
        together.value[:3] = (cluster, 1, 1)
        launch = _Launch(
            grid=(*grid, 1),
            block=(threads, 1, 1),
            shared=self.shared,
            stream=torch.cuda.current_stream().cuda_stream,
            attributes=ctypes.pointer(together),
            count=int(cluster > 1),
        )
        check(self._driver.cuLaunchKernelEx(ctypes.byref(launch), self._function, pointers, None))

    def _bind(self) -> None:
        """Make the context that torch uses this thread's, if the thread has none yet."""
        context = ctypes.c_void_p()
        check(self._driver.cuCtxGetCurrent(ctypes.byref(context)))
        if not context:
            device = ctypes.c_int(torch.cuda.current_device())
            check(self._driver.cuDevicePrimaryCtxRetain(ctypes.byref(context), device))
            check(self._driver.cuCtxSetCurrent(context))


def check(status: int) -> None:
    """RuntimeError with the driver's words for a ``status`` that is not 0."""
    if status:
        text = ctypes.c_char_p()
        _driver().cuGetErrorString(status, ctypes.byref(text))
        raise RuntimeError(f"CUDA driver: {(text.value or b'unknown error').decode()} ({status})")


@functools.cache
def _driver() -> Any:
    return ctypes.CDLL("libcuda.so.1")


@functools.cache
def nvrtc() -> Any:
    """NVRTC of PyTorch's version of CUDA. OSError where there is none."""
    major = (torch.version.cuda or "0").split(".")[0]
    places: list[Path | str] = [f"libnvrtc.so.{major}"]
    spec = importlib.util.find_spec("nvidia")
    for folder in (spec.submodule_search_locations or []) if spec else []:
        places += sorted(Path(folder).glob(f"*/lib/libnvrtc.so.{major}"))
    for place in places:
        try:
            return ctypes.CDLL(str(place))
        except OSError:
            continue
    raise OSError(f"libnvrtc.so.{major} is not installed")


def compile_cubin(source: str, architecture: str, defines: dict[str, object]) -> bytes:
    """Machine code of ``source`` for an architecture such as ``sm_90``.

    Raises:
        OSError: there is no NVRTC.
        RuntimeError: what the compiler says.
    """
    library = nvrtc()
    options = [f"--gpu-architecture={architecture}", "--std=c++17"]
    options += [f"-D{name}={value}" for name, value in defines.items()]
    program = ctypes.c_void_p()

    def checked(status: int) -> None:
        if status:
            size = ctypes.c_size_t()
            library.nvrtcGetProgramLogSize(program, ctypes.byref(size))
            log = ctypes.create_string_buffer(size.value)
            library.nvrtcGetProgramLog(program, log)
            raise RuntimeError(f"NVRTC ({status}): {log.value.decode(errors='replace')}")

    checked(library.nvrtcCreateProgram(ctypes.byref(program), source.encode(), b"kernel.cu", 0, None, None))
    try:
        given = (ctypes.c_char_p * len(options))(*(option.encode() for option in options))
        checked(library.nvrtcCompileProgram(program, len(options), given))
        size = ctypes.c_size_t()
        checked(library.nvrtcGetCUBINSize(program, ctypes.byref(size)))
        cubin = ctypes.create_string_buffer(size.value)
        checked(library.nvrtcGetCUBIN(program, cubin))
        return cubin.raw
    finally:
        library.nvrtcDestroyProgram(ctypes.byref(program))
