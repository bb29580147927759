"""Digits drawn with Pillow's own font, warped and centred like MNIST's.

Only Pillow draws, and every coordinate it is given is a multiple of 1/16: one seed gives the same bytes on
every machine with the same Pillow.
"""

from __future__ import annotations

import hashlib
import math
import random
import zlib
from contextlib import suppress
from functools import lru_cache
from pathlib import Path

import numpy as np
import PIL
import torch
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from identity_props.task.keeping import CACHE, keep

Images = NDArray[np.uint8]  # [n, 28, 28]
WORTH_KEEPING = 1000  # images, a quarter of a second
CANVAS, WARPED, GRID = 80, 60, 6  # glyph drawn, warped size, cells a side of the warping mesh
STROKES = (0, 1, 2)


@lru_cache(maxsize=4)
def rendered(n: int, seed: str) -> Tensor:
    """Images [n, 28, 28] uint8 of one random stream; what takes long is kept on disk for the next process."""
    images = _kept(n, seed) if n >= WORTH_KEEPING else draw(n, seed)
    return torch.from_numpy(images)


def draw(n: int, seed: str) -> Images:
    """Images [n, 28, 28], 0.25 ms each."""
    stream = random.Random(seed)
    glyphs = {(c, s): _glyph(c, s) for c in "0123456789" for s in STROKES}
    pairs = list(glyphs)
    drawn = (_digit(glyphs[stream.choice(pairs)], stream) for _ in range(n))
    return np.stack([np.asarray(image) for image in drawn])


def _kept(n: int, seed: str) -> Images:
    """Read from CACHE, else drawn and written there; a file that is damaged, which its checksum tells, is replaced."""
    source = hashlib.sha256(Path(__file__).read_bytes())  # other code, other images
    source.update(f"{PIL.__version__}/{n}/{seed}".encode())
    file = CACHE / f"digits-{source.hexdigest()[:16]}.zlib"
    with suppress(OSError, zlib.error, ValueError):
        pixels = np.frombuffer(zlib.decompress(file.read_bytes()), np.uint8)
        return pixels.reshape(n, 28, 28).copy()  # which may be written to
    images = draw(n, seed)
    keep(file, zlib.compress(images.tobytes()))
    return images


def _glyph(character: str, stroke: int) -> Image.Image:
    image, centre = Image.new("L", (CANVAS, CANVAS)), (CANVAS / 2, CANVAS / 2)
    font = ImageFont.load_default(size=60)
    ImageDraw.Draw(image).text(centre, character, 255, font, anchor="mm", stroke_width=stroke)
    return image


def _digit(glyph: Image.Image, stream: random.Random) -> Image.Image:
    """One glyph, warped, fitted to a box of 18-22 pixels and centred by mass in 28 x 28."""
    mesh = _mesh(stream)
    size = (WARPED, WARPED)
    warped = glyph.transform(size, Image.Transform.MESH, mesh, Image.Resampling.BILINEAR)
    ink = warped.crop(warped.getbbox())
    factor = stream.uniform(18, 22) / max(ink.size)
    size = (max(1, round(ink.width * factor)), max(1, round(ink.height * factor)))
    fitted, image = ink.resize(size, Image.Resampling.BILINEAR), Image.new("L", (28, 28))
    image.paste(fitted, _corner(fitted))
    return image


def _mesh(stream: random.Random) -> list[tuple[tuple[int, ...], tuple[float, ...]]]:
    """A jittered grid under a random rotation, shear and stretch, as Pillow's quad mesh."""
    angle, shear, stretch = stream.uniform(-0.25, 0.25), stream.uniform(-0.5, 0.5), stream.uniform(0.8, 1.3)
    cos, sin = math.cos(angle), math.sin(angle)

    def source(i: int, j: int) -> tuple[float, float]:
        x, y = (j / GRID - 0.5) * CANVAS, (i / GRID - 0.5) * CANVAS
        u = stretch * (cos * x - sin * y + shear * y) + CANVAS / 2 + stream.uniform(-8, 8)
        v = sin * x + cos * y + CANVAS / 2 + stream.uniform(-8, 8)
        # sin and cos may differ in their last bit between machines: a coarse grid hides it
        return round(u * 16) / 16, round(v * 16) / 16

    vertex = [[source(i, j) for j in range(GRID + 1)] for i in range(GRID + 1)]
    cell, cells = WARPED // GRID, [(i, j) for i in range(GRID) for j in range(GRID)]
    return [
        (
            (j * cell, i * cell, (j + 1) * cell, (i + 1) * cell),
            vertex[i][j] + vertex[i + 1][j] + vertex[i + 1][j + 1] + vertex[i][j + 1],
        )
        for i, j in cells
    ]


def _corner(fitted: Image.Image) -> tuple[int, int]:
    """Upper left corner that puts the centre of mass at (14, 14), kept inside 28 x 28."""
    ink = np.asarray(fitted, dtype=np.int64)
    total = int(ink.sum())
    x = int((ink.sum(0) * np.arange(ink.shape[1])).sum()) // total
    y = int((ink.sum(1) * np.arange(ink.shape[0])).sum()) // total
    clamp = [min(max(14 - c, 0), 28 - size) for c, size in zip((x, y), fitted.size, strict=True)]
    return clamp[0], clamp[1]
