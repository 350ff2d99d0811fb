"""Makes `glyphs.npz`: the digits of 72 free typefaces as small distance fields.

The library needs only the result, which lies beside this file; run this again to add a
typeface. It needs fontTools (for the copyright lines) besides what jaxdl needs, and
the typefaces themselves: Debian packages (`apt-get download fonts-lato`, `dpkg -x`)
and npm packages (`npm install @fontsource/oswald`), named in `CATALOGUE`. Then

    python -m jaxdl.data.make_glyphs FOLDER...

searches the folders for the files of the catalogue and writes `glyphs.npz` and its
attribution, `GLYPHS.md`, beside itself. The same fonts and the same FreeType give the
same file, byte for byte.

Each digit becomes a 40x40 field: the distance from its outline, positive inside, in
texels, stored as round(16 d) + 128. The digit's box is centred and the face's tallest
digit is 32 texels high. Distance fields after Green, "Improved Alpha-Tested
Magnification for Vector Textures and Special Effects", SIGGRAPH 2007 courses.
"""

import argparse
import io
import sys
import zipfile
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageDraw, ImageFont
from scipy import ndimage

from jaxdl.errors import InputError

CELL = 40  # texels, either side of a field
HEIGHT = 32  # texels, of a face's tallest digit
DETAIL = 8  # rasterised pixels per texel
WIDEST = 35  # texels; a wider digit is narrowed, so that a margin stays


class Typeface(NamedTuple):
    """One family: where it comes from, who may use it how, and its digit styles."""

    name: str
    split: str  # the split whose images it draws, "train" or "test"
    licence: str
    package: str
    files: tuple[str, ...]


def _debian(
    split: str, name: str, package: str, *files: str, licence: str = "OFL-1.1"
) -> Typeface:
    return Typeface(name, split, licence, f"Debian fonts-{package}", files)


def _npm(split: str, name: str, *weights: int, licence: str = "OFL-1.1") -> Typeface:
    slug = name.lower().replace(" ", "-")
    files = tuple(f"{slug}-latin-{weight}-normal.woff" for weight in weights or (400,))
    return Typeface(name, split, licence, f"npm @fontsource/{slug}", files)


CATALOGUE = (
    _debian("train", "Allerta Stencil", "allerta", "allerta_stencil.otf"),
    _npm("train", "Alfa Slab One"),
    _npm("train", "Anton"),
    _npm("train", "Archivo Narrow", 400, 700),
    _debian("train", "Averia Sans", "averia-sans-gwf", "AveriaSansGWF-Bold.ttf"),
    _npm("train", "Barlow Condensed", 400, 700, 900),
    _debian(
        "train",
        "Bebas Neue",
        "bebas-neue",
        "BebasNeue-Regular.otf",
        "BebasNeue-Bold.otf",
    ),
    _npm("train", "Bevan"),
    _npm("train", "Bitter", 400, 700),
    _npm("train", "Black Han Sans"),
    _npm("train", "Black Ops One"),
    _debian("train", "Cabin", "cabin", "Cabin-Regular.otf", "Cabin-Bold.otf"),
    _debian(
        "train",
        "Clear Sans",
        "clear-sans",
        "ClearSans-Regular.ttf",
        "ClearSans-Bold.ttf",
        licence="Apache-2.0",
    ),
    _debian("train", "Comfortaa", "comfortaa", "Comfortaa-Bold.ttf"),
    _debian("train", "Comic Neue", "comic-neue", "ComicNeue-Bold.otf"),
    _debian("train", "Courier Prime", "courier-prime", "Courier Prime Bold.otf"),
    _debian("train", "Dancing Script", "dancingscript", "DancingScript-Bold.otf"),
    _debian("train", "Dosis", "dosis", "Dosis-Bold.otf"),
    _debian(
        "train",
        "Inter",
        "inter",
        "Inter-Regular.otf",
        "Inter-Bold.otf",
        "Inter-Black.otf",
    ),
    _debian("train", "Jura", "jura", "Jura-Bold.otf"),
    _debian("train", "Karla", "karla", "Karla-Regular.otf", "Karla-Bold.otf"),
    _npm("train", "League Gothic"),
    _debian(
        "train",
        "League Spartan",
        "league-spartan",
        "LeagueSpartan-Regular.otf",
        "LeagueSpartan-Bold.otf",
    ),
    _debian("train", "Le Murmure", "le-murmure", "le-murmure.otf"),
    _debian(
        "train",
        "Liberation Sans",
        "liberation2",
        "LiberationSans-Regular.ttf",
        "LiberationSans-Bold.ttf",
    ),
    _debian(
        "train",
        "Liberation Serif",
        "liberation2",
        "LiberationSerif-Regular.ttf",
        "LiberationSerif-Bold.ttf",
    ),
    _npm("train", "Limelight"),
    _debian("train", "Lobster", "lobster", "lobster.otf"),
    _debian("train", "Lobster Two", "lobstertwo", "LobsterTwo-Bold.otf"),
    _debian("train", "Okolaks", "okolaks", "okolaksBold.ttf"),
    _debian("train", "OSP-DIN", "opendin", "OSP-DIN.ttf"),
    _debian("train", "Oxygen", "oxygen", "Oxygen-Sans.ttf", "Oxygen-Sans-Bold.ttf"),
    _npm("train", "Pacifico"),
    _npm("train", "Pathway Gothic One"),
    _npm("train", "Patua One"),
    _npm("train", "Permanent Marker", licence="Apache-2.0"),
    _debian("train", "Quattrocento", "quattrocento", "Quattrocento-Regular.otf"),
    _debian(
        "train",
        "Roadgeek 2014",
        "roadgeek",
        "RG2014B.ttf",
        "RG2014D.ttf",
        "RG2014F.ttf",
        licence="MIT",
    ),
    _debian(
        "train",
        "Roboto",
        "roboto-unhinted",
        "Roboto-Regular.ttf",
        "Roboto-Black.ttf",
        "RobotoCondensed-Regular.ttf",
        "RobotoCondensed-Bold.ttf",
        licence="Apache-2.0",
    ),
    _debian(
        "train",
        "Roboto Slab",
        "roboto-slab",
        "RobotoSlab-Regular.otf",
        "RobotoSlab-Bold.otf",
        licence="Apache-2.0",
    ),
    _debian(
        "train",
        "Routed Gothic",
        "routed-gothic",
        "routed-gothic.ttf",
        "routed-gothic-wide.ttf",
    ),
    _npm("train", "Russo One"),
    _npm("train", "Rye"),
    _npm("train", "Saira Stencil One"),
    _npm("train", "Sansita", 700),
    _debian("train", "Sora", "sora", "Sora-Regular.otf", "Sora-Bold.otf"),
    _npm("train", "Special Elite", licence="Apache-2.0"),
    _npm("train", "Ultra", licence="Apache-2.0"),
    _debian(
        "train", "Yanone Kaffeesatz", "yanone-kaffeesatz", "YanoneKaffeesatz-Bold.otf"
    ),
    _npm("test", "Abril Fatface"),
    _npm("test", "Arvo", 400, 700),
    _debian(
        "test",
        "Caladea",
        "crosextra-caladea",
        "Caladea-Regular.ttf",
        "Caladea-Bold.ttf",
    ),
    _debian("test", "Cantarell", "cantarell", "Cantarell-Bold.otf"),
    _npm("test", "Caveat Brush"),
    _npm("test", "Fjalla One"),
    _debian("test", "Kaushan Script", "kaushanscript", "KaushanScript-Regular.otf"),
    _debian(
        "test", "Lato", "lato", "Lato-Regular.ttf", "Lato-Bold.ttf", "Lato-Black.ttf"
    ),
    _debian("test", "Leckerli One", "leckerli-one", "LeckerliOne-Regular.ttf"),
    _debian("test", "Manrope", "manrope", "Manrope-Regular.ttf", "Manrope-Bold.ttf"),
    _debian(
        "test",
        "National Park",
        "national-park",
        "NationalPark-Regular.otf",
        "NationalPark-Heavy.otf",
    ),
    _debian(
        "test",
        "Open Sans",
        "open-sans",
        "OpenSans-Regular.ttf",
        "OpenSans-Bold.ttf",
        "OpenSans-CondBold.ttf",
        licence="Apache-2.0",
    ),
    _npm("test", "Oswald", 400, 700),
    _npm("test", "Passion One", 400),
    _debian("test", "Play", "play", "Play-Regular.ttf", "Play-Bold.ttf"),
    _npm("test", "Playfair Display", 400, 700),
    _debian("test", "Quicksand", "quicksand", "Quicksand-Bold.ttf"),
    _npm("test", "Righteous"),
    _npm("test", "Rokkitt", 400, 700),
    _npm("test", "Staatliches"),
    _npm("test", "Stardos Stencil", 700),
    _npm("test", "Teko", 400, 700),
    _npm("test", "Zilla Slab", 400, 700),
)


OWNERS = {
    # From the package's own statement, where the font file does not name its owner.
    "Allerta Stencil": "Copyright 2010 Matt McInerney",
    "League Spartan": "Copyright 2011-2020 Micah Rich",
    "National Park": "Copyright 2018 Jeremy Shellhorn",
    "Okolaks": "Copyright (c) 2008 gluk, with Reserved Font Name okolaks",
    "Roadgeek 2014": "Copyright 2014-2015 Sammi De Guzman",
}


def field(font: ImageFont.FreeTypeFont, digit: int, scale: float) -> np.ndarray:
    """Returns one digit's distance field, float [CELL, CELL], in texels.

    `scale` is texels per pixel of the font as rasterised at its size.
    """
    side = 4 * font.size
    canvas = Image.new("L", (int(side), int(side)))
    ImageDraw.Draw(canvas).text((side / 2, side / 2), str(digit), 255, font, "mm")
    box = canvas.getbbox()
    if box is None:
        raise InputError(f"{font.getname()}: no digit {digit}; leave this face out")
    width, height = (box[2] - box[0]) * scale, (box[3] - box[1]) * scale
    width = min(width, WIDEST)
    fine = canvas.crop(box).resize(
        (max(1, round(width * DETAIL)), max(1, round(height * DETAIL))),
        Image.Resampling.BOX,
    )
    ink = np.zeros((CELL * DETAIL, CELL * DETAIL), bool)
    top = (ink.shape[0] - fine.height) // 2
    left = (ink.shape[1] - fine.width) // 2
    ink[top : top + fine.height, left : left + fine.width] = np.asarray(fine) >= 128
    inside = ndimage.distance_transform_edt(ink)
    outside = ndimage.distance_transform_edt(~ink)
    signed = np.where(ink, inside - 0.5, 0.5 - outside) / DETAIL
    blocks = signed.reshape(CELL, DETAIL, CELL, DETAIL)
    return blocks.mean(axis=(1, 3))


def face(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Returns a face's fields, uint8 [10, CELL, CELL], and its digits' boxes.

    The boxes are uint8 [10, 2]: width and height in quarters of a texel.
    """
    # Twice the final resolution; the tallest digit then measures the scale.
    font = ImageFont.truetype(
        path, 2 * HEIGHT * DETAIL, layout_engine=ImageFont.Layout.BASIC
    )
    boxes = np.array([font.getbbox(str(digit), anchor="ls") for digit in range(10)])
    sizes = boxes[:, 2:] - boxes[:, :2]
    scale = HEIGHT / sizes[:, 1].max()
    fields = np.stack([field(font, digit, scale) for digit in range(10)])
    extents = np.minimum(sizes * scale, (WIDEST, HEIGHT))
    return (
        np.clip(np.rint(fields * 16) + 128, 0, 255).astype(np.uint8),
        np.rint(extents * 4).astype(np.uint8),
    )


def copyright_line(path: Path) -> str:
    """Returns what the font file says of its owner, on one line, or ""."""
    try:
        from fontTools.ttLib import TTFont
    except ImportError as error:
        raise InputError("fontTools is missing; pip install fonttools") from error
    line = TTFont(path)["name"].getDebugName(0) or ""
    return " ".join(line.replace("|", " ").split())


def save(path: Path, arrays: dict[str, np.ndarray]) -> None:
    """Writes an npz file whose bytes depend on the arrays alone (no time stamps)."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as archive:
        for name, array in arrays.items():
            buffer = io.BytesIO()
            np.lib.format.write_array(buffer, array, allow_pickle=False)
            archive.writestr(zipfile.ZipInfo(f"{name}.npy"), buffer.getvalue(), 8)


def make(folders: list[Path], out: Path) -> str:
    """Writes `glyphs.npz` and `GLYPHS.md` into `out`; returns a line about them.

    Raises InputError where a folder or a font of the catalogue is missing.
    """
    for folder in folders:
        if not folder.is_dir():
            raise InputError(f"{folder} is not a folder; give those with the fonts")
    found = {path.name: path for folder in folders for path in folder.rglob("*.*")}
    wanted = {name: entry for entry in CATALOGUE for name in entry.files}
    if missing := [name for name in wanted if name not in found]:
        package = wanted[missing[0]].package
        raise InputError(
            f"{len(missing)} fonts are in none of the folders, first {missing[0]}; "
            f"unpack {package} into one of them"
        )
    fields, boxes = zip(*(face(found[name]) for name in wanted), strict=True)
    families = [entry.name for entry in CATALOGUE]
    save(
        out / "glyphs.npz",
        {
            "fields": np.stack(fields),
            "boxes": np.stack(boxes),
            "family": np.array(
                [families.index(entry.name) for entry in wanted.values()], np.uint8
            ),
            "families": np.array(families),
            "test": np.array([entry.split == "test" for entry in CATALOGUE]),
        },
    )
    rows = "\n".join(
        f"| {entry.name} | {entry.split} | {entry.licence} | {entry.package} | "
        f"{OWNERS.get(entry.name) or copyright_line(found[entry.files[0]])} |"
        for entry in CATALOGUE
    )
    page = out / "GLYPHS.md"
    head = page.read_text().split("<!-- table -->")[0] if page.exists() else ""
    page.write_text(
        f"{head}<!-- table -->\n\n"
        "| typeface | draws | licence | package | copyright, as the font states it |\n"
        f"|---|---|---|---|---|\n{rows}\n"
    )
    return f"{len(families)} typefaces, {len(wanted)} faces"


def main() -> None:
    """Command line: the folders that hold the fonts."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("folders", nargs="+", type=Path, metavar="FOLDER")
    try:
        print(make(parser.parse_args().folders, Path(__file__).parent))
    except InputError as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main()
