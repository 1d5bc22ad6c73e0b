"""Runs a command in bad weather: `python weather.py WEATHER COMMAND ...`. Tests start this file as a program."""

from __future__ import annotations

import ctypes
import os
import resource
import sys

_DROP_FROM_BOUNDING_SET = 24  # of prctl
_PASSES_BY_PERMISSIONS = (1, 2)  # what root may do to files whatever their mode says


def main(weather: str, *command: str) -> None:
    """Become that command."""
    if weather == "mortal":
        # Whoever is root obeys the modes of files from now on; who is not does so already.
        for capability in _PASSES_BY_PERMISSIONS:
            ctypes.CDLL(None).prctl(_DROP_FROM_BOUNDING_SET, capability, 0, 0, 0)
    else:
        resource.setrlimit(resource.RLIMIT_FSIZE, (int(weather), int(weather)))
    os.environ["PYTHONDONTWRITEBYTECODE"] = "1"  # or half of a module would be kept
    os.execv(command[0], command)


main(*sys.argv[1:])
