"""A picture of one number per head, layers by heads; drawn without matplotlib, which a training process need not load."""

import io
from collections.abc import Sequence

from PIL import Image, ImageDraw

CELL, MARGIN = 44, 30  # pixels
DARK, LIGHT = (38, 41, 91), (253, 231, 76)  # colour-blind safe: told apart by lightness alone


def heat_map(layer: Sequence[int], head: Sequence[int], value: Sequence[float]) -> bytes:
    """A PNG with a cell per head: layers from the bottom up, heads from left to right; dark is 0 and light is 1.

    layer, head, value: an entry per head, values 0 to 1, which are written into the cells.
    """
    layers, heads = max(layer) + 1, max(head) + 1
    image = Image.new("RGB", (MARGIN + heads * CELL, layers * CELL + MARGIN), "white")
    draw = ImageDraw.Draw(image)
    for row, column, number in zip(layer, head, value, strict=True):
        share = min(max(number, 0.0), 1.0)
        colour = tuple(round(dark + share * (light - dark)) for dark, light in zip(DARK, LIGHT, strict=True))
        left, top = MARGIN + column * CELL, (layers - 1 - row) * CELL
        draw.rectangle((left, top, left + CELL - 2, top + CELL - 2), fill=colour)
        middle = (left + CELL // 2 - 1, top + CELL // 2 - 1)
        draw.text(middle, f"{number:.2f}", fill="black" if share > 0.5 else "white", anchor="mm")
    for row in range(layers):
        draw.text((MARGIN // 2, (layers - 1 - row) * CELL + CELL // 2), f"L{row}", fill="black", anchor="mm")
    for column in range(heads):
        draw.text(
            (MARGIN + column * CELL + CELL // 2, layers * CELL + MARGIN // 2), f"H{column}", fill="black", anchor="mm"
        )
    png = io.BytesIO()
    image.save(png, format="PNG")
    return png.getvalue()
