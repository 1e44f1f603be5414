"""The command line's words: options, their checks, and the help texts. No torch here."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import NoReturn

from .. import __version__
from ..films.formats import CODECS, CONTAINERS, is_film
from ..pictures.formats import FORMATS
from .validators import area, crf, hint, moment, point, scale, side, size, strength, working_size

_WEIGHTS = "bundled"
_DESCRIPTION = "Turns gray photos into colour photos of any size (SCSNet, AAAI 2022)."
_COLORIZE_EXAMPLES = """\
examples:
  scsnet colorize grandma.jpg                           -> grandma-scsnet.jpg, 4 times as large
  scsnet colorize grandma.jpg -o colour.png --scale 1   only colours, the size stays
  scsnet colorize grandma.jpg -o wall.tif --long-side 9000
  scsnet colorize scans/ -o colour/ --recursive         a whole folder, same names in colour/
  scsnet colorize "scans/*.tif" -o colour/ --force      existing files are overwritten
  scsnet colorize house.jpg -o house.png --reference same-house-today.jpg
  scsnet colorize coat.jpg -o coat.png --hint 310,120=#6b4a2b --hint 80,400=#2f5d3a,12
  scsnet colorize coat.jpg -o coat.png --reference coat-painted.png --reference-mask strokes.png
  scsnet colorize group.jpg -o face.png --zoom 840,310,200,200 --size 1600x1600
  scsnet colorize film.mp4 -o colour.mp4 --from 0:30 --to 1:10        a film, with its sound

What is read: any picture Pillow reads, 16-bit gray too; of a colour picture only the luminance is used. With PyAV
(pip install 'scsnet[video]') any film it reads, by its ending, or if OUT ends in .mp4, .m4v, .mov or .mkv.
What is written: PNG, JPEG, WebP or TIFF, by the ending, in sRGB. Transparency, resolution, EXIF, IPTC, XMP,
comments and PNG texts are kept; what the format cannot hold is named.
Exit code: 0 all went well, 1 some pictures of several failed, 2 nothing could be done, 130 interrupted.
"""
_ATTENTION_EXAMPLES = """\
examples:
  scsnet attention gray.jpg reference.jpg --point 120,80 --point 300,210 -o attention.png
  scsnet attention gray.jpg one.jpg two.jpg --point 120,80 --level 1 --what attention
  scsnet attention gray.jpg reference.jpg --what valves --coverage missing.png

Each point gets a row: the picture with the point marked, then one heat map over the references per level of
the pyramid (1, 2 and 4: how much its features were reduced). Valves show how much of the picture's own
features (V1) and of the references' (V2) passes at each place. How much of the colours comes from each reference
is printed: about 55 % from one that shows the same things, about 15 % from one that shows others.
"""


class Parser(argparse.ArgumentParser):
    """Argument parser whose errors are one line."""

    def error(self, message: str) -> NoReturn:
        """Print one line on stderr and exit with code 2."""
        self.exit(2, f"{self.prog}: error: {message} (see {self.prog} --help)\n")


def parser() -> Parser:
    """Build the parser of the whole command line."""
    root = Parser(prog="scsnet", description=_DESCRIPTION, allow_abbrev=False)
    root.add_argument("--version", action="version", version=f"scsnet {__version__}")
    commands = root.add_subparsers(dest="command", required=True, metavar="COMMAND")
    _colorize(commands)
    _attention(commands)
    _info(commands)
    return root


Commands = argparse._SubParsersAction  # argparse has no public name for it


def _command(commands: Commands[Parser], name: str, summary: str, epilog: str | None) -> Parser:
    return commands.add_parser(
        name,
        help=summary,
        description=summary[0].upper() + summary[1:] + ".",
        epilog=epilog,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )


def _colorize(commands: Commands[Parser]) -> None:
    command = _command(commands, "colorize", "colour and enlarge pictures", _COLORIZE_EXAMPLES)
    command.add_argument(
        "inputs",
        nargs="+",
        metavar="INPUT",
        help="picture, folder of pictures, or pattern such as 'scans/*.tif'",
    )
    command.add_argument(
        "-o",
        "--output",
        metavar="OUT",
        help="file for one input, folder for several; default: NAME-scsnet beside each input",
    )
    command.add_argument(
        "--recursive", action="store_true", help="folders with all that is below them"
    )
    how_large = command.add_argument_group("how large").add_mutually_exclusive_group()
    how_large.add_argument(
        "--scale",
        type=scale,
        metavar="S",
        help="magnification, any number above 0 (default 4, for films 1)",
    )
    how_large.add_argument("--size", type=size, metavar="WxH", help="exactly so many pixels")
    how_large.add_argument(
        "--long-side", type=side, metavar="N", help="so many pixels on the longer side"
    )
    look = command.add_argument_group("how it looks")
    look.add_argument(
        "--reference", action="append", default=[], type=Path, metavar="FILE",
        help="take the colours from this photo; may be given several times",
    )  # fmt: skip
    look.add_argument(
        "--reference-mask", dest="masks", action="append", default=[], type=Path, metavar="FILE",
        help="picture of the reference's size: only colours where it is white are taken; the first mask belongs to the "
        "first reference, and so on",
    )  # fmt: skip
    look.add_argument(
        "--hint", dest="hints", action="append", default=[], type=hint, metavar="X,Y=#RRGGBB[,R]",
        help="this colour belongs here, in pixels of the input, on a disc of radius R; may be given several times",
    )  # fmt: skip
    look.add_argument(
        "--color-margins",
        action="store_true",
        help="colour the even margins of a scan too, which otherwise are found and stay gray",
    )
    look.add_argument(
        "--zoom",
        type=area,
        metavar="x,y,w,h",
        help="only this part of the input, in its pixels; the size is the part's",
    )
    look.add_argument(
        "--strength",
        type=strength,
        default=1.0,
        metavar="S",
        help="factor on the chroma: 0 gray, 1 as predicted (default)",
    )
    look.add_argument(
        "--keep-luminance",
        action="store_true",
        help="colours from the network, light and dark from the input, resampled",
    )
    _films(command)
    _network(command)
    _writing(command).add_argument(
        "--bits", type=int, choices=(8, 16), metavar="{8,16}",
        help="per channel of the result, 16 in PNG and TIFF only (default: 16 for gray of more than 8 bits with "
        "--keep-luminance, where the format can; else 8)",
    )  # fmt: skip


def _films(command: Parser) -> None:
    group = command.add_argument_group("films")
    group.add_argument(
        "--codec", choices=tuple(CODECS), help="default: h264; ffv1 is lossless, in .mkv only"
    )
    group.add_argument(
        "--crf", type=crf, metavar="N",
        help="quality of h264 (default 18) and h265 (default 20), 0 to 51; lower is better and larger",
    )  # fmt: skip
    group.add_argument(
        "--from", dest="start", type=moment, metavar="T", help="begin here; seconds or h:mm:ss"
    )
    group.add_argument("--to", dest="stop", type=moment, metavar="T", help="end here")
    group.add_argument(
        "--independent-frames",
        action="store_true",
        help="colour each frame by itself; default: colours stay within a shot",
    )


def names_film(options: argparse.Namespace) -> bool:
    """Return whether colorize is asked for films: an input has a film's ending, or the output one that is written."""
    output = options.output is not None and Path(options.output).suffix.lower() in CONTAINERS
    return output or any(is_film(text) for text in options.inputs)


def _check_films(root: Parser, options: argparse.Namespace) -> None:
    """Exit with one line for options that films, or pictures, don't have."""
    film = {
        "--codec": options.codec, "--crf": options.crf, "--from": options.start, "--to": options.stop,
        "--independent-frames": options.independent_frames or None,
    }  # fmt: skip
    picture = {
        "--zoom": options.zoom, "--hint": options.hints or None, "--bits": options.bits,
    }  # fmt: skip
    films = names_film(options)
    for name, value in (picture if films else film).items():
        if value is not None:
            root.error(f"{name} has no meaning for {'films' if films else 'pictures'}")
    if None not in (options.start, options.stop) and options.start >= options.stop:
        root.error("--to must be later than --from")


def _attention(commands: Commands[Parser]) -> None:
    command = _command(
        commands, "attention", "show where the network looks in the references", _ATTENTION_EXAMPLES
    )
    command.add_argument("input", type=Path, metavar="INPUT", help="the gray picture")
    command.add_argument(
        "references", nargs="+", type=Path, metavar="REFERENCE", help="reference photos"
    )
    command.add_argument(
        "--point", dest="points", action="append", type=point, metavar="x,y",
        help="place in the input, in pixels; may be given several times (default for valves: none)",
    )  # fmt: skip
    command.add_argument(
        "-o", "--output", type=Path, metavar="OUT", help="default: INPUT's name with -attention.png"
    )
    command.add_argument(
        "--coverage", type=Path, metavar="FILE",
        help="write a mask of INPUT's size, white where the colours did not come from a reference",
    )  # fmt: skip
    command.add_argument(
        "--level",
        dest="levels",
        action="append",
        type=int,
        choices=(1, 2, 4),
        help="only this level of the pyramid; may be repeated",
    )
    command.add_argument(
        "--what", choices=("attention", "valves", "both"), default="both", help="default: both"
    )
    _network(command)
    _writing(command)


def _info(commands: Commands[Parser]) -> None:
    command = _command(commands, "info", "say what is in a weights file", None)
    command.add_argument(
        "weights",
        nargs="?",
        default=_WEIGHTS,
        metavar="WEIGHTS",
        help="file, hf:owner/repo, or bundled (default)",
    )
    command.add_argument("--json", action="store_true", help="for programs")


def _network(command: Parser) -> None:
    group = command.add_argument_group("the network")
    group.add_argument(
        "--weights",
        default=_WEIGHTS,
        metavar="W",
        help="file, hf:owner/repo[/file][@revision], or bundled (default)",
    )
    group.add_argument(
        "--working-size", type=working_size, metavar="N",
        help="the colour branch sees at most N x N pixels (default: what the weights were trained at)",
    )  # fmt: skip
    group.add_argument(
        "--device", choices=("auto", "cpu", "cuda", "mps"), default="auto", help="default: auto"
    )
    group.add_argument(
        "--dtype",
        choices=("auto", "float32", "bfloat16", "float16"),
        default="auto",
        help="default: auto",
    )


def _writing(command: Parser) -> argparse._ArgumentGroup:
    group = command.add_argument_group("writing")
    group.add_argument("--force", action="store_true", help="overwrite existing files")
    group.add_argument("--quiet", action="store_true", help="print errors only")
    return group


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    """Parse and check the options; exit with code 2 and one line on stderr if they are invalid."""
    root = parser()
    options = root.parse_args(sys.argv[1:] if arguments is None else arguments)
    if options.command == "attention":
        if options.what != "valves" and not options.points:
            root.error("attention needs at least one --point x,y (or --what valves)")
        if options.what == "valves" and options.points:
            root.error("--point has no meaning with --what valves, which shows the whole picture")
    if options.command == "colorize" and len(options.masks) > len(options.reference):
        root.error("--reference-mask needs a --reference that it belongs to")
    if options.command == "colorize" and options.output is not None and not options.output:
        root.error("-o must not be empty")
    if options.command == "colorize":
        _check_films(root, options)
    if options.command == "attention" and options.output is not None:
        suffix = options.output.suffix.lower()
        if suffix not in FORMATS:
            root.error(f"{options.output}: the ending must be one of {', '.join(FORMATS)}")
    return options
