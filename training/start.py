"""Weights to start from: `python training/start.py --data PHOTOS --features VGG --output start.safetensors`.

phi_E^s becomes what VGG, trained on ImageNet, sees in gray photos. The first eight layers of VGG, conv1_1 to conv3_2 with
two poolings, are as wide as the eight blocks of phi_E^s. Each block is fitted by least squares: given what the blocks
before it make of the photos, it should make what VGG makes. phi_E^r and PVCAttn are fitted too: they bring a reference's
colours to where the picture looks alike (`training.carrying`). The extractor starts untrained, and the rest is that of
`--init`. Then: `train.py --init start.safetensors`.

After steps that were automatic only, phi_E^s sees other things: a stage with `references_anew` fits the rest to it again.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

sys.path.append(str(Path(__file__).resolve().parent.parent))  # a clone, not installed

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from tqdm import tqdm

from scsnet import SCSNet, SCSNetConfig, checkpoint
from scsnet.color import normalize_lab, rgb_to_gray, rgb_to_lab
from scsnet.layers import ConvBlock, activate
from scsnet.tiling import STRIDE
from training.carrying import brought, start_references
from training.config.cli import Parser, parse_options
from training.config.stage import check_at_least
from training.data.dataset import BICUBIC, crop_random_square, stack_photos
from training.data.photos import BadPhotoError, find_photos, read_photo, select_evenly
from training.data.references import distort_elastically
from training.least_squares import PARTS, fit, in_parts
from training.models.auxiliary_heads import keys_like_queries, pooled
from training.models.backbones import VGG
from training.paths import check_weights_name


@dataclass(frozen=True, kw_only=True)
class Options:
    """What phi_E^s starts as, and what it is fitted on."""

    data: tuple[str, ...] = ()
    """Photos: folders, lists (.txt), shards (.tar)."""
    features: str = ""
    """VGG features: .safetensors (torchvision names) or .npz (blockB_convI)."""
    output: str = ""
    """A .safetensors file."""
    init: str = ""
    """Weights whose psi_E, phi_D and CPM are kept: a file, "bundled", or "hf:owner/repo". Empty: untrained ones."""
    photos: int = 300
    """How many photos; all of them are in memory, as wide as a layer."""
    size: int = 96
    """Side that they are looked at, pixels."""
    seed: int = 0
    """Of everything random."""

    def __post_init__(self) -> None:
        check_at_least(self, "photos", 1)
        check_at_least(self, "size", 16)
        if self.size % STRIDE:
            raise ValueError(f"size must be a multiple of {STRIDE}, got {self.size}")
        if not self.data:
            raise ValueError("--data is missing: folders, lists or shards of photos")
        if not self.features:
            raise ValueError("--features is missing: the file with VGG's features")
        check_weights_name(self.output)


def looked_at(options: Options) -> Tensor:
    """Random squares of photos, spread over all of them, sRGB (N, 3, size, size) in 0..1."""
    rng = np.random.default_rng(options.seed)
    found = []
    for entry in tqdm(
        select_evenly(find_photos(options.data), options.photos), unit="photo", disable=None
    ):
        try:
            square = crop_random_square(read_photo(entry), rng, options.size)
        except BadPhotoError as error:
            tqdm.write(f"left out: {error}")
            continue
        found.append(np.asarray(square.resize((options.size, options.size), BICUBIC)))
    if not found:
        raise ValueError("there are no photos to fit on")
    return stack_photos(found)


def seen_by(vgg: VGG, rgb: Tensor) -> Iterator[Tensor]:
    """What VGG sees, layer by layer: before each activation and after each pooling."""
    x = vgg.prepared(rgb)
    for n, block in enumerate(vgg.blocks):
        assert isinstance(block, nn.ModuleList)
        if n:
            x = F.max_pool2d(x, 2)
            yield x
        for conv in block:
            x = conv(x)
            yield x
            x = F.relu(x)


@torch.no_grad()
def see_as(net: SCSNet, vgg: VGG, rgb: Tensor, seed: int = 0) -> float:
    """Fit phi_E^s to VGG on gray pictures (N, 3, H, W); the mean cosine distance that is left at its end."""
    norm = net.config.norm
    if norm != "none":
        raise ValueError(f'expected a network with norm="none", as VGG has it, got {norm!r}')
    generator = torch.Generator().manual_seed(seed)
    blocks = [b for b in net.color_branch.source_encoder.blocks if isinstance(b, ConvBlock)]
    luminance = normalize_lab(rgb_to_lab(rgb), net.config)[:, :1]
    seen = in_parts(lambda part: activate(net.initial(part), norm), luminance)
    wanted = torch.zeros(0)
    for number, block in enumerate(tqdm(blocks, desc="fitting", unit="layer", disable=None)):
        parts = [next(islice(seen_by(vgg, part), number, None), None) for part in rgb.split(PARTS)]
        found = [part for part in parts if part is not None]
        wanted = torch.cat(found) if found else torch.zeros(0)
        width, side = block.conv.out_channels, seen.shape[-1] // block.conv.stride[0]
        if wanted.shape[1:] != (width, side, side):
            raise ValueError(
                f"expected VGG16 or VGG19 and a network of width 64: layer {number + 1} of phi_E^s is "
                f"{(width, side, side)}, VGG's is {tuple(wanted.shape[1:]) or 'missing'}"
            )
        wanted = wanted / F.relu(wanted).std()  # VGG's are hundreds
        fit(block.conv, seen, wanted, generator)
        seen = in_parts(block, seen)
    return 1 - float(F.cosine_similarity(F.relu(seen), F.relu(wanted), dim=1).mean())


@torch.no_grad()
def anew(config: SCSNetConfig, init: SCSNet | None) -> SCSNet:
    """An untrained network, but for what it keeps of `init`: the first convolution, psi_E, phi_D and CPM."""
    net = SCSNet(config)
    if init is not None:
        for name, module in net.named_children():
            if name != "color_branch":
                module.load_state_dict(init.get_submodule(name).state_dict())
        net.color_branch.decoder.load_state_dict(init.color_branch.decoder.state_dict())
    extractor = net.color_branch.extractor
    for block in extractor.convs:  # sums in a row: what is added begins small
        assert isinstance(block, ConvBlock)
        block.conv.weight.mul_(0.5)
    extractor.attention.post.weight.mul_(0.3)
    return net


def started(options: Options) -> tuple[SCSNet, dict[str, Any]]:
    """The network, and what its card says of where it comes from. Errors: ValueError."""
    torch.manual_seed(options.seed)
    init = checkpoint.load(options.init, dtype=torch.float32) if options.init else None
    net = anew(init.config if init else SCSNetConfig(), init)
    rgb = looked_at(options)
    left = see_as(net, VGG(options.features, whole=True), rgb_to_gray(rgb), options.seed)
    keys_like_queries(net)
    lab = normalize_lab(rgb_to_lab(rgb), net.config)
    if not lab[:, 1:].abs().max() > 0.01:
        raise ValueError("expected photos in colour, got gray ones: references need colours")
    carried = start_references(net, lab, options.seed)
    some = lab[:100]
    copies = distort_elastically(some, torch.Generator().manual_seed(options.seed))
    made = brought(net, some, copies, carried)
    ab = pooled(some[:, 1:], made)
    error = float((made - ab).abs().mean() / ab.abs().mean())
    return net, {
        "features": Path(options.features).name,
        "cosine_distance": round(left, 4),
        "carried_error": round(error, 3),
    }


def main(arguments: Sequence[str] | None = None) -> None:
    """Options -> one file."""
    parser = Parser(prog="start.py", description=__doc__)
    try:
        options = parse_options(parser, Options, arguments)
        net, card = started(options)
        checkpoint.save(options.output, net, card={"start": card})
    except (ValueError, OSError) as error:
        parser.error(str(error))
    print(f"phi_E^s sees as VGG does, cosine distance {card['cosine_distance']:.3f}")
    print(f"error of ab that references bring: {card['carried_error']:.0%} of gray's")
    print(options.output)


if __name__ == "__main__":
    main()
