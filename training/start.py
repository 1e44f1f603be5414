"""Weights to start from: `python training/start.py --data PHOTOS --features VGG --output start.safetensors`.

phi_E^s becomes what VGG, trained on ImageNet, sees in gray photos. The first eight layers of VGG, conv1_1 to conv3_2 with
two poolings, are as wide as the eight blocks of phi_E^s. Each block is fitted by least squares: given what the blocks
before it make of the photos, it should make what VGG makes. phi_E^r starts as a copy, PVCAttn and the extractor start
untrained, and the rest is that of `--init`. Then: `train.py --init start.safetensors`.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

sys.path.append(str(Path(__file__).resolve().parent.parent))  # a clone, not installed

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from tqdm import tqdm

from scsnet import SCSNet, SCSNetConfig, checkpoint
from scsnet.color import gray, normalize_lab, rgb_to_lab
from scsnet.layers import ConvBlock, activate
from scsnet.sizes import STRIDE
from training.backbones import VGG
from training.data import BICUBIC, planes, random_square
from training.files import names_weights
from training.options import Parser, filled
from training.photos import BadPhotoError, find, read, spread
from training.stage import at_least
from training.supervision import siamese_start

SAMPLES = 600  # positions of a photo that a block is fitted on
RIDGE = 1e-5  # against columns that say the same, relative to the mean square


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
        at_least(self, "photos", 1)
        at_least(self, "size", 16)
        if self.size % STRIDE:
            raise ValueError(f"size must be a multiple of {STRIDE}, got {self.size}")
        if not self.data:
            raise ValueError("--data is missing: folders, lists or shards of photos")
        if not self.features:
            raise ValueError("--features is missing: the file with VGG's features")
        names_weights(self.output)


def grays(options: Options) -> Tensor:
    """Random squares of photos, spread over all of them, gray (N, 3, size, size) in 0..1."""
    rng = np.random.default_rng(options.seed)
    found = []
    for entry in tqdm(spread(find(options.data), options.photos), unit="photo", disable=None):
        try:
            square = random_square(read(entry), rng, options.size)
        except BadPhotoError as error:
            tqdm.write(f"left out: {error}")
            continue
        found.append(np.asarray(square.resize((options.size, options.size), BICUBIC)))
    if not found:
        raise ValueError("there are no photos to fit on")
    return gray(planes(found))


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


def fit(conv: nn.Conv2d, seen: Tensor, wanted: Tensor, generator: torch.Generator) -> None:
    """Least squares: `conv` of `seen` (N, C, H, W) becomes `wanted` (N, D, H / stride, W / stride)."""
    columns = conv.weight[0].numel() + 1
    products = torch.zeros(columns, columns + conv.out_channels, dtype=torch.float64)
    for x, y in zip(seen.split(8), wanted.split(8), strict=True):
        patches = F.unfold(x, 3, padding=1, stride=conv.stride)
        rows = patches.mT.flatten(0, 1)  # (N, C k k, H W) -> (N H W, C k k)
        targets = y.flatten(2).mT.flatten(0, 1)  # (N, D, H, W) -> (N H W, D)
        picked = torch.randperm(len(rows), generator=generator)[: SAMPLES * len(x)]
        ones = rows.new_ones(len(picked), 1)
        rows, targets = torch.cat([rows[picked], ones], 1), targets[picked]
        products += (rows.T @ torch.cat([rows, targets], 1)).double()
    squares, mixed = products[:, :columns], products[:, columns:]
    ridge = RIDGE * squares.diagonal().mean() * torch.eye(columns, dtype=torch.float64)
    solved = torch.linalg.solve(squares + ridge, mixed).float()
    assert conv.bias is not None
    conv.weight.copy_(solved[:-1].T.reshape(conv.weight.shape))
    conv.bias.copy_(solved[-1])


@torch.no_grad()
def see_as(net: SCSNet, vgg: VGG, rgb: Tensor, seed: int = 0) -> float:
    """Fit phi_E^s to VGG on gray pictures (N, 3, H, W); the mean cosine distance that is left at its end."""
    norm = net.config.norm
    if norm != "none":
        raise ValueError(f'expected a network with norm="none", as VGG has it, got {norm!r}')
    generator = torch.Generator().manual_seed(seed)
    blocks = [b for b in net.color_branch.source_encoder.blocks if isinstance(b, ConvBlock)]
    luminance = normalize_lab(rgb_to_lab(rgb), net.config)[:, :1]
    seen = torch.cat([activate(net.initial(part), norm) for part in luminance.split(8)])
    wanted = torch.zeros(0)
    for number, block in enumerate(tqdm(blocks, desc="fitting", unit="layer", disable=None)):
        parts = [next(islice(seen_by(vgg, part), number, None), None) for part in rgb.split(8)]
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
        seen = torch.cat([block(part) for part in seen.split(8)])
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


def main(arguments: Sequence[str] | None = None) -> None:
    """Options -> one file."""
    parser = Parser(prog="start.py", description=__doc__)
    try:
        options = filled(parser, Options, arguments)
        torch.manual_seed(options.seed)
        init = checkpoint.load(options.init, dtype=torch.float32) if options.init else None
        net = anew(init.config if init else SCSNetConfig(), init)
        vgg = VGG(options.features, whole=True)
        left = see_as(net, vgg, grays(options), options.seed)
        siamese_start(net)
        card = {
            "start": {"features": Path(options.features).name, "cosine_distance": round(left, 4)}
        }
        checkpoint.save(options.output, net, card=card)
    except (ValueError, OSError) as error:
        parser.error(str(error))
    print(f"{options.output}: phi_E^s sees as VGG does, cosine distance {left:.3f}")


if __name__ == "__main__":
    main()
