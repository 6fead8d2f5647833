"""Whether EGL or OSMesa can make an OpenGL context here, asked in a process of its own.

`python gl_probe.py egl|osmesa` exits 0 if so. A broken driver may crash the process that loads it, and a loaded one
stays loaded, so `lit_pwm.tasks.rendering` runs this file instead of importing it; hence nothing but the standard
library. The steps are those by which dm_control makes its contexts.
"""

from __future__ import annotations

import ctypes
import os
import sys

_EGL_PLATFORM_DEVICE_EXT = 0x313F
_EGL_OPENGL_API = 0x30A2
# Red, green, blue, alpha, depth and stencil bits; colour buffer type RGB; pbuffer surface; OpenGL; the list's end.
_EGL_ATTRIBUTES = (
    0x3024, 8, 0x3023, 8, 0x3022, 8, 0x3021, 8, 0x3025, 24, 0x3026, 8, 0x303F, 0x308E, 0x3033, 1, 0x3040, 8, 0x3038
)  # fmt: skip
_MAX_DEVICES = 10
_GL_RGBA = 0x1908


def load_library(name: str) -> ctypes.CDLL:
    """A shared library by its short name, looked for as PyOpenGL does.

    Raises:
        OSError: there is none that loads.
    """
    base = f"lib{name}.so"
    for file in (base, *(f"{base}.{version}" for version in range(9, -1, -1))):
        try:
            return ctypes.CDLL(file, ctypes.RTLD_GLOBAL)
        except OSError:
            continue
    raise OSError(f"no library {name} loads")


def _load_opengl() -> None:
    try:
        load_library("OpenGL")
    except OSError:
        load_library("GL")


def egl_works() -> bool:
    """Whether a headless EGL display initialises on a device and gives an OpenGL context.

    Raises:
        OSError: a library is missing.
        AttributeError: a library lacks a function.
    """
    _load_opengl()
    egl = load_library("EGL")
    pointer, integer = ctypes.c_void_p, ctypes.c_int32
    egl.eglGetProcAddress.restype, egl.eglGetProcAddress.argtypes = pointer, [ctypes.c_char_p]
    egl.eglInitialize.argtypes = [pointer, pointer, pointer]
    egl.eglChooseConfig.argtypes = [pointer, pointer, pointer, integer, ctypes.POINTER(integer)]
    egl.eglCreateContext.restype, egl.eglCreateContext.argtypes = pointer, [pointer, pointer, pointer, pointer]
    query_address = egl.eglGetProcAddress(b"eglQueryDevicesEXT")
    display_address = egl.eglGetProcAddress(b"eglGetPlatformDisplayEXT")
    if not (query_address and display_address):
        return False
    query = ctypes.CFUNCTYPE(ctypes.c_uint, integer, ctypes.POINTER(pointer), ctypes.POINTER(integer))(query_address)
    get_display = ctypes.CFUNCTYPE(pointer, ctypes.c_uint, pointer, pointer)(display_address)

    found, devices = integer(), (pointer * _MAX_DEVICES)()
    if not query(_MAX_DEVICES, devices, ctypes.byref(found)):
        return False
    chosen = os.environ.get("MUJOCO_EGL_DEVICE_ID")
    candidates = range(found.value) if chosen is None else range(found.value)[int(chosen) : int(chosen) + 1]
    for index in candidates:
        display = get_display(_EGL_PLATFORM_DEVICE_EXT, devices[index], None)
        if display and egl.eglInitialize(display, None, None):
            # dm_control takes the first device that initialises; if that one cannot draw, nothing will.
            attributes = (integer * len(_EGL_ATTRIBUTES))(*_EGL_ATTRIBUTES)
            config, count = pointer(), integer()
            egl.eglChooseConfig(display, attributes, ctypes.byref(config), 1, ctypes.byref(count))
            egl.eglBindAPI(_EGL_OPENGL_API)
            return count.value > 0 and bool(egl.eglCreateContext(display, config, None, None))
    return False


def osmesa_works() -> bool:
    """Whether OSMesa gives a context.

    Raises:
        OSError: the library is missing.
        AttributeError: the library lacks a function.
    """
    osmesa = load_library("OSMesa")
    create = osmesa.OSMesaCreateContextExt
    create.restype = ctypes.c_void_p
    create.argtypes = [ctypes.c_uint, ctypes.c_int, ctypes.c_int, ctypes.c_int, ctypes.c_void_p]
    return bool(create(_GL_RGBA, 24, 8, 0, None))


if __name__ == "__main__":
    try:
        works = {"egl": egl_works, "osmesa": osmesa_works}[sys.argv[1]]()
    except (OSError, AttributeError, ValueError):
        works = False
    # Drivers' own clean-up at exit is no part of the question, and may crash.
    os._exit(0 if works else 1)
