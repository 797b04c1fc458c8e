"""Lets PyTorch's CUDA build compute gradients where there is no driver, by three functions of its libraries replaced.

The backward pass asks the driver which devices this process has used. Here the answer is none of 127, without the
driver's library. The replacements are machine code, so no compiler is needed; they are written over the first bytes of
the functions, in the memory of this process.
"""

import ctypes
import mmap
import os
import platform
from collections.abc import Mapping
from pathlib import Path

import torch

MOST_DEVICES = 127
RETURN_MOST_DEVICES = bytes([0xB8, MOST_DEVICES, 0, 0, 0, 0xC3])  # mov eax, 127; ret
RETURN = bytes([0xC3])  # ret
# lea rax, [rip + 1]; ret; and at that address a function that returns 0, CUDA's "success": xor eax, eax; ret
RETURN_A_SUCCESS = bytes([0x48, 0x8D, 0x05, 1, 0, 0, 0, 0xC3, 0x31, 0xC0, 0xC3])
REPLACED: Mapping[str, Mapping[str, bytes]] = {
    "libc10_cuda.so": {"_ZN3c104cuda12device_countEv": RETURN_MOST_DEVICES},
    "libtorch_cpu.so": {
        "_ZN2at14DynamicLibraryC1EPKcS2_b": RETURN,  # at::DynamicLibrary, which would load the driver
        "_ZN2at14DynamicLibrary3symEPKc": RETURN_A_SUCCESS,
    },
}
READ_WRITE_EXECUTE, READ_EXECUTE = 7, 5


def why_not() -> str | None:
    """Return why this process cannot have a simulated GPU, or None."""
    if platform.system() != "Linux" or platform.machine() != "x86_64":
        return f"the simulated GPU is made for Linux on x86_64; this is {platform.system()} on {platform.machine()}"
    if torch.version.cuda is None:
        return f"the simulated GPU needs PyTorch's CUDA build; this is {torch.__version__}"
    return None


def replace_driver() -> None:
    """Replace the functions, and let the guard of CUDA devices do nothing.

    Raises:
        OSError: the system does not let a process change its code.
        AttributeError: this version of PyTorch has other functions.
    """
    torch._C._ensureCUDADeviceGuardSet()
    folder = Path(torch.__file__).parent / "lib"
    for library, functions in REPLACED.items():
        loaded = ctypes.CDLL(str(folder / library))
        for name, code in functions.items():
            _overwrite(ctypes.cast(loaded[name], ctypes.c_void_p).value or 0, code)


def _overwrite(address: int, code: bytes) -> None:
    _protect(address, len(code), READ_WRITE_EXECUTE)
    ctypes.memmove(address, code, len(code))
    _protect(address, len(code), READ_EXECUTE)


def _protect(address: int, count: int, access: int) -> None:
    begin = address - address % mmap.PAGESIZE
    size = ctypes.c_size_t(address + count - begin)
    if ctypes.CDLL(None, use_errno=True).mprotect(ctypes.c_void_p(begin), size, access):
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
