"""Pictures of labelled volumes: PNG files as bytes, the same bytes for the same input.

Superior is up in coronal and sagittal planes, anterior is up in axial planes; left and posterior are on the left. So
every plane grows with its array indices to the right and upwards; the letters at its edges say so.
"""

import colorsys
import io
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

Case = tuple[str, NDArray[np.floating], NDArray[np.integer]]
Rgb = NDArray[np.uint8]

_PANEL = 190  # pixels of a panel's longest side
_GAP = 6
_TEXT_HEIGHT = 24
_BACKGROUND = (17, 20, 24)
_TEXT = (226, 230, 235)
_FILL = 0.3  # opacity of a label over the image; its outline is opaque
# Okabe and Ito 2008: told apart with every common form of colour vision.
_FIRST_COLOURS = (
    (230, 159, 0),
    (86, 180, 233),
    (0, 158, 115),
    (240, 228, 66),
    (0, 114, 178),
    (213, 94, 0),
    (204, 121, 167),
)


class _Plane(NamedTuple):
    """The array axes (0 = D, 1 = H, 2 = W) that a plane cuts and shows, and the letters of its left and upper edges."""

    cut: int
    up: int
    right: int
    left_letter: str
    top_letter: str


_PLANES = (_Plane(0, 1, 2, "L", "A"), _Plane(1, 0, 2, "L", "S"), _Plane(2, 0, 1, "P", "S"))


def label_colours(num_labels: int) -> Rgb:
    """One colour per contiguous label id, all different: uint8 [num_labels, 3]. The background's is never drawn."""
    colours = [_BACKGROUND, *_FIRST_COLOURS]
    for index in range(max(0, num_labels - len(colours))):
        hue = index * (math.sqrt(5) - 1) / 2 % 1  # the golden angle: neighbours in the list lie far apart
        red, green, blue = colorsys.hsv_to_rgb(hue, (0.55, 0.85, 0.7)[index % 3], (1.0, 0.95, 0.75)[index // 3 % 3])
        colours.append((round(red * 255), round(green * 255), round(blue * 255)))
    return np.array(colours[:num_labels], dtype=np.uint8)


def montage(
    cases: Sequence[Case], labels: Mapping[int, str], spacing_mm: tuple[float, float, float], num_columns: int = 1
) -> bytes:
    """Axial, coronal and sagittal slices of each case, plain above and with the mask below, as one PNG.

    Each plane goes through the slice with most foreground. All panels share one scale, so sizes compare; each
    image is shown between its own percentiles 0.5 and 99.5.

    Args:
        cases: (title, image [D, H, W] in any unit, mask [D, H, W]) each.
        labels: {id in the masks: name}, the background 0 included.
        spacing_mm: Voxel size along (D, H, W), the same for all cases.
        num_columns: Cases next to each other.

    Raises:
        ValueError: There is no case, an image and its mask differ in shape, or a mask holds an id that has no name.
    """
    ids, colours = _palette(cases, labels)
    extents_mm = np.array([np.array(image.shape) * spacing_mm for _, image, _ in cases])
    scale = _PANEL / extents_mm.max()
    cell = np.ceil(extents_mm.max(axis=0) * scale).astype(int)
    tiles = [_tile(case, ids, colours, np.array(spacing_mm) * scale, cell) for case in cases]
    return _png(_with_legend(_grid(tiles, min(num_columns, len(tiles))), cases, labels, colours))


def panels(
    image: NDArray[np.floating], mask: NDArray[np.integer], colours: Rgb, pixels_per_voxel: NDArray[np.floating]
) -> list[tuple[Rgb, Rgb]]:
    """The axial, coronal and sagittal panel of a case, (plain, with the mask) each, as RGB arrays [rows, columns, 3].

    Args:
        image: [D, H, W].
        mask: [D, H, W], contiguous ids.
        colours: uint8 [K, 3].
        pixels_per_voxel: Along (D, H, W).
    """
    grey = _grey_levels(image)
    pairs = []
    for plane in _PLANES:
        foreground = np.count_nonzero(mask, axis=tuple({0, 1, 2} - {plane.cut}))
        at = int(np.argmax(foreground)) if foreground.any() else mask.shape[plane.cut] // 2
        size = (
            max(1, round(mask.shape[plane.right] * pixels_per_voxel[plane.right])),
            max(1, round(mask.shape[plane.up] * pixels_per_voxel[plane.up])),
        )
        plain = _resized(_upright(np.take(grey, at, axis=plane.cut)), size, Image.Resampling.BICUBIC)
        shown = _resized(_upright(np.take(mask, at, axis=plane.cut)).astype(np.int32), size, Image.Resampling.NEAREST)
        rgb = np.repeat(plain[..., None], 3, axis=2)
        pairs.append((rgb, _overlaid(rgb, shown, colours)))
    return pairs


def _palette(cases: Sequence[Case], labels: Mapping[int, str]) -> tuple[NDArray[np.int64], Rgb]:
    """The label ids, ascending, and their colours."""
    if not cases:
        raise ValueError("a montage needs at least one case")
    ids = np.array(sorted({0, *labels}))
    for title, image, mask in cases:
        if image.shape != mask.shape or image.ndim != 3:
            raise ValueError(f"{title}: image {image.shape} and mask {mask.shape} must have the same shape [D, H, W]")
        unnamed = sorted(set(np.unique(mask).tolist()) - set(ids.tolist()))
        if unnamed:
            raise ValueError(f"{title}: the mask holds the labels {unnamed}, which have no name")
    return ids, label_colours(len(ids))


def _grey_levels(image: NDArray[np.floating]) -> NDArray[np.uint8]:
    low, high = np.percentile(image, (0.5, 99.5))
    if high <= low:
        return np.full(image.shape, 128, dtype=np.uint8)
    return np.round(np.clip((image - low) / (high - low), 0, 1) * 255).astype(np.uint8)


def _upright(plane: NDArray[Any]) -> NDArray[Any]:
    """Rows of a picture run downwards, those of our axes upwards."""
    return np.ascontiguousarray(plane[::-1])


def _resized(plane: NDArray[Any], size: tuple[int, int], filter_: Image.Resampling) -> NDArray[Any]:
    return np.asarray(Image.fromarray(plane).resize(size, filter_))


def _overlaid(rgb: Rgb, mask: NDArray[np.integer], colours: Rgb) -> Rgb:
    """Labels as a tint with an opaque outline, so that the image stays visible underneath."""
    outline = np.zeros(mask.shape, dtype=bool)
    for edges, side in ((outline, mask), (outline.T, mask.T)):
        changes = side[1:] != side[:-1]
        edges[1:] |= changes
        edges[:-1] |= changes
    opacity = (np.where(outline, 1.0, _FILL) * (mask > 0))[..., None]
    return np.round(rgb * (1 - opacity) + colours[mask] * opacity).astype(np.uint8)


def _tile(
    case: Case, ids: NDArray[np.int64], colours: Rgb, pixels_per_voxel: NDArray[np.floating], cell: NDArray[np.integer]
) -> Image.Image:
    """A case: its title, then three planes plain, then the same with the mask. `cell`: pixels along (D, H, W)."""
    title, image, mask = case
    widths = [int(cell[plane.right]) for plane in _PLANES]
    height = int(max(cell[plane.up] for plane in _PLANES))
    tile = Image.new("RGB", (sum(widths) + 2 * _GAP, _TEXT_HEIGHT + 2 * height + _GAP), _BACKGROUND)
    draw = ImageDraw.Draw(tile)
    draw.text((0, _TEXT_HEIGHT // 2), _fitted(title, tile.width), _TEXT, _font(15), anchor="lm")
    left = 0
    pairs = panels(image, np.searchsorted(ids, mask), colours, pixels_per_voxel)
    for plane, pair, width in zip(_PLANES, pairs, widths, strict=True):
        rows, columns, _ = pair[0].shape
        corner_left = left + (width - columns) // 2
        for row, panel in enumerate(pair):
            corner_top = _TEXT_HEIGHT + row * (height + _GAP) + (height - rows) // 2
            tile.paste(Image.fromarray(panel), (corner_left, corner_top))
            _letter(draw, (corner_left + 3, corner_top + rows // 2), plane.left_letter, "lm")
            _letter(draw, (corner_left + columns // 2, corner_top + 3), plane.top_letter, "mt")
        left += width + _GAP
    return tile


def _letter(draw: ImageDraw.ImageDraw, place: tuple[int, int], letter: str, anchor: str) -> None:
    draw.text(place, letter, (255, 255, 255), _font(11), anchor=anchor, stroke_width=1, stroke_fill=_BACKGROUND)


def _grid(tiles: list[Image.Image], num_columns: int) -> Image.Image:
    width, height = tiles[0].size
    rows = math.ceil(len(tiles) / num_columns)
    gap = 3 * _GAP
    sheet = Image.new("RGB", (num_columns * (width + gap) + gap, rows * (height + gap) + gap), _BACKGROUND)
    for index, tile in enumerate(tiles):
        row, column = divmod(index, num_columns)
        sheet.paste(tile, (gap + column * (width + gap), gap + row * (height + gap)))
    return sheet


def _with_legend(sheet: Image.Image, cases: Sequence[Case], labels: Mapping[int, str], colours: Rgb) -> Image.Image:
    """Below the sheet, the colour and name of every label that occurs in the cases."""
    occurring = sorted({int(label) for _, _, mask in cases for label in np.unique(mask)} - {0})
    position = {label: index for index, label in enumerate(sorted({0, *labels}))}
    names = [_fitted(labels[label], sheet.width - 70) for label in occurring]
    column = max([_font(13).getlength(name) for name in names], default=0) + 48
    per_row = max(1, int((sheet.width - 3 * _GAP) // column))
    rows = math.ceil(len(names) / per_row)
    whole = Image.new("RGB", (sheet.width, sheet.height + rows * _TEXT_HEIGHT + 2 * _GAP), _BACKGROUND)
    whole.paste(sheet, (0, 0))
    draw = ImageDraw.Draw(whole)
    for index, (label, name) in enumerate(zip(occurring, names, strict=True)):
        row, place = divmod(index, per_row)
        left, middle = 3 * _GAP + int(place * column), sheet.height + row * _TEXT_HEIGHT + _TEXT_HEIGHT // 2
        draw.rectangle((left, middle - 7, left + 14, middle + 7), tuple(colours[position[label]].tolist()))
        draw.text((left + 22, middle), name, _TEXT, _font(13), anchor="lm")
    return whole


def _font(size: int) -> ImageFont.FreeTypeFont:
    import matplotlib as mpl

    # Pillow's own font knows Latin letters only; label names may be Greek or Cyrillic.
    return ImageFont.truetype(Path(mpl.get_data_path()) / "fonts" / "ttf" / "DejaVuSans.ttf", size)


def _fitted(text: str, width: int) -> str:
    """The text, with its end cut where it is wider than `width` pixels."""
    if _font(15).getlength(text) <= width:
        return text
    while text and _font(15).getlength(text + "…") > width:
        text = text[:-1]
    return text + "…"


def _png(picture: Image.Image) -> bytes:
    file = io.BytesIO()
    # The smallest file would be an eighth smaller and take 14 times as long.
    picture.save(file, format="PNG", compress_level=3)
    return file.getvalue()
