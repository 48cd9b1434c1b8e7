"""Draw a heat map with one value per head. Pillow is used because matplotlib would slow down the start of training processes."""

import io
from collections.abc import Sequence

from PIL import Image, ImageDraw

CELL, MARGIN = 44, 30  # pixels
DARK, LIGHT = (38, 41, 91), (253, 231, 76)  # they differ in lightness, so the map is readable without color vision


def heat_map(layer: Sequence[int], head: Sequence[int], value: Sequence[float]) -> bytes:
    """A PNG with one cell per head. Layers run from bottom to top, and heads from left to right; 0 is dark and 1 is light.

    layer, head, value: one entry per head. The values, from 0 to 1, are printed in the cells.
    """
    layers, heads = max(layer) + 1, max(head) + 1
    image = Image.new("RGB", (MARGIN + heads * CELL, layers * CELL + MARGIN), "white")
    canvas = ImageDraw.Draw(image)
    for row, column, number in zip(layer, head, value, strict=True):
        share = min(max(number, 0.0), 1.0)
        color = tuple(round(dark + share * (light - dark)) for dark, light in zip(DARK, LIGHT, strict=True))
        left, top = MARGIN + column * CELL, (layers - 1 - row) * CELL
        canvas.rectangle((left, top, left + CELL - 2, top + CELL - 2), fill=color)
        middle = (left + CELL // 2 - 1, top + CELL // 2 - 1)
        canvas.text(middle, f"{number:.2f}", fill="black" if share > 0.5 else "white", anchor="mm")
    for row in range(layers):
        canvas.text((MARGIN // 2, (layers - 1 - row) * CELL + CELL // 2), f"L{row}", fill="black", anchor="mm")
    for column in range(heads):
        middle = (MARGIN + column * CELL + CELL // 2, layers * CELL + MARGIN // 2)
        canvas.text(middle, f"H{column}", fill="black", anchor="mm")
    png = io.BytesIO()
    image.save(png, format="PNG")
    return png.getvalue()
