"""Fake keys, and registries that hold them."""

import base64
import hashlib
import json
import os
import random
import shutil
import string
import subprocess
import time
import uuid
from collections.abc import Callable, Iterable
from pathlib import Path

FOUR = ("prefixed", "base64url", "uuid", "hex")
FIVE = (*FOUR, "base64")
WORD = string.ascii_letters + string.digits
Entry = Callable[[str], dict[str, str]]


def key(shape: str, index: int) -> str:
    """A fake key, the same at every call."""
    r = random.Random(f"{shape} {index}")
    if shape in ("prefixed", "of a rule"):
        return ("glpat-" if shape == "of a rule" else "acme_live_") + "".join(r.choices(WORD, k=20))
    if shape == "base64url":
        return "".join(r.choices(WORD + "-_", k=44))
    if shape == "uuid":
        return str(uuid.UUID(int=r.getrandbits(128), version=4))
    if shape == "hex":
        return f"{r.getrandbits(256):064x}"
    return base64.b64encode(b"\xfb\xff" + r.randbytes(32)).decode()  # has all of `+/=`


def keys(shapes: tuple[str, ...], count: int) -> list[str]:
    """So many of these shapes by turns."""
    return [key(shapes[n % len(shapes)], n // len(shapes)) for n in range(count)]


def plain(value: str) -> dict[str, str]:
    """What to import, of a key itself."""
    return {"key": value}


def hashed(value: str) -> dict[str, str]:
    """What to import, of a key that shall be known by its SHA-256 alone."""
    digest = hashlib.sha256(value.encode()).hexdigest()
    if any(character in value for character in "+/="):
        return {"sha256": digest, "shape": f"base64:{len(value)}"}
    return {"sha256": digest, "shape": f"base64url:{len(value)}"}


def make_registry(folder: Path, binary: Path, values: Iterable[str], entry: Entry = plain) -> float:
    """By the program that is measured, so that its format is the right one. Answers the seconds
    that the import took."""
    shutil.rmtree(folder, ignore_errors=True)
    subprocess.run([binary, "init", "--dir", folder], check=True, stdout=subprocess.DEVNULL)
    entries = ({"name": "k", "owner": "a@example.com"} | entry(value) for value in values)
    lines = "\n".join(map(json.dumps, entries)).encode()
    began = time.perf_counter()
    command = [str(binary), "key", "import", "-", "--all-or-nothing", "--registry", str(folder)]
    subprocess.run(command, check=True, input=lines, stdout=subprocess.DEVNULL)
    took = time.perf_counter() - began
    os.sync()  # what is still to be written would slow down what is measured next
    return took
