"""scsnet attention: where the network looks in the references, as a picture, and how much comes from each."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ..pictures import Picture, read_picture, write_picture
from .paths import (
    CommandError,
    check_not_read,
    check_target,
    create_folder,
    explain_os_error,
    result_name,
)

if TYPE_CHECKING:
    from torch import Tensor

    from ..attention_figures import Heat
    from ..features import Features
    from ..model import SCSNet


def attention(options: argparse.Namespace) -> int:
    """Exit code 0; CommandError and PictureError for what is wrong."""
    target: Path = options.output or options.input.with_name(
        result_name(options.input, "-attention", ".png")
    )
    inputs = [options.input, *options.references]
    with explain_os_error():
        for path in (target, *filter(None, [options.coverage])):
            check_not_read(path, inputs)
            check_target(path, options.force)
        if options.coverage is not None and options.coverage.resolve() == target.resolve():
            raise CommandError(
                f"--coverage {target}: the figure is written there, give another name"
            )
    source = read_picture(options.input)
    for x, y in options.points or []:
        if not (0 <= x < source.width and 0 <= y < source.height):
            raise CommandError(
                f"{source.path}: --point {x:g},{y:g} lies outside of the picture of {source.width} x {source.height}"
            )
    references = [read_picture(path) for path in options.references]

    from ..attention_figures import stack_figures
    from .session import (
        Bar,
        encode,
        encode_all,
        explain_out_of_memory,
        load_network,
        print_note,
        print_result,
    )

    for picture in [source, *references]:
        for note in picture.notes:
            print_note(f"{picture.path}: {note}", options.quiet)
    net = load_network(options)
    levels = _levels(net, options)
    with explain_out_of_memory(str(source.path)):
        reference = encode_all(net, references, [], options.working_size)
        with Bar(source.path.name, options.quiet) as bar:
            features = encode(
                net,
                source,
                reference,
                options.working_size,
                progress=bar.phase(),
                color_margins=True,  # the figures cover all of the picture
            )
        figures = []
        if options.what != "valves":
            figures.append(_attention(net, features, source, references, levels, options))
        if options.what != "attention":
            figures.append(_valves(net, features, source, levels, options))
        uncovered, parts = net.coverage(features)
    write_picture(create_folder(target), stack_figures(figures), overwrite=options.force)
    print_result(str(target), options.quiet)
    if options.coverage is not None:
        mask = (uncovered[0, 0] * 255).round().byte().cpu().numpy()
        planes = np.repeat(mask[..., None], 3, axis=2)
        write_picture(create_folder(options.coverage), planes, overwrite=options.force)
        print_result(str(options.coverage), options.quiet)
    for path, part in zip(options.references, parts[0].tolist(), strict=True):
        print_result(f"{path}: {part:.0%} of the colours", options.quiet)
    return 0


def _levels(net: SCSNet, options: argparse.Namespace) -> list[int]:
    """Which of the pyramid's factors are shown; CommandError where this network has no such thing."""
    from ..attention import LEVELS

    kind = net.config.attention
    there = {"pyramid_valve": list(LEVELS), "basic": [1]}.get(kind)
    if there is None:
        raise CommandError(f"--weights {options.weights}: this network has no attention to show")
    if kind == "basic" and options.what != "attention":
        raise CommandError(
            f"--weights {options.weights}: this network has no valves; use --what attention"
        )
    asked = sorted(set(options.levels or there))
    if not set(asked) <= set(there):
        raise CommandError(f"--level {asked[-1]}: this network has level 1 only")
    return asked


def _attention(
    net: SCSNet,
    features: Features,
    source: Picture,
    references: list[Picture],
    levels: list[int],
    options: argparse.Namespace,
) -> np.ndarray:
    import torch

    from ..attention import LEVELS
    from ..attention_figures import draw_attention

    points = [((x + 0.5) / source.width, (y + 0.5) / source.height) for x, y in options.points]
    maps = []
    with torch.inference_mode():
        for level in levels:
            weights = net.attention(features, points, LEVELS.index(level))
            heats = [
                [
                    _heat(w[0, p], picture, level, net, options)
                    for w, picture in zip(weights, references, strict=True)
                ]
                for p in range(len(points))
            ]
            maps.append(heats)
    return draw_attention(source.rgb, [r.rgb for r in references], options.points, maps, levels)


def _valves(
    net: SCSNet, features: Features, source: Picture, levels: list[int], options: argparse.Namespace
) -> np.ndarray:
    import torch

    from ..attention import LEVELS
    from ..attention_figures import draw_valves

    pairs = []
    with torch.inference_mode():
        for level in levels:
            v1, v2 = net.valves(features, LEVELS.index(level))
            pairs.append(
                (
                    _heat(v1[0, 0], source, level, net, options),
                    _heat(v2[0, 0], source, level, net, options),
                )
            )
    return draw_valves(source.rgb, pairs, levels)


def _heat(
    values: Tensor, picture: Picture, level: int, net: SCSNet, options: argparse.Namespace
) -> Heat:
    """A map (h, w) over the features of a picture, which the network saw reduced and padded."""
    from ..attention_figures import Heat
    from ..resample import STRIDE, compute_working_shape

    bound = options.working_size or net.config.working_size
    height, width = compute_working_shape(picture.height, picture.width, bound)
    cell = STRIDE * level  # pixels of the working size that one position stands for
    covered = height / (values.shape[0] * cell), width / (values.shape[1] * cell)
    return Heat(values.float().cpu().numpy(), covered)
