"""VCAttn, PVCAttn and BCAttn against the written-out matrices."""

import oracle
import pytest
import torch

from scsnet import SCSNet, SCSNetConfig
from scsnet.attention import AddedReference, BCAttn, PVCAttn, attend, pool

CHANNELS = 32


def features(*shape):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(sum(shape)))


def build(kind, config):
    torch.manual_seed(0)
    return kind(CHANNELS, config.attention_scale, config.cosine_attention).requires_grad_(False)


@pytest.mark.parametrize("config", [SCSNetConfig(), SCSNetConfig.paper()], ids=["ours", "paper"])
@pytest.mark.parametrize("kind", [PVCAttn, BCAttn])
@pytest.mark.parametrize("size", [(8, 8), (5, 7), (1, 1), (2, 13)])
def test_modules_equal_the_formulas(kind, config, size):
    module = build(kind, config)
    source = features(2, CHANNELS, *size)
    references = [features(2, CHANNELS, 6, 9), features(1, CHANNELS, 3, 4)]
    got = module(source, module.compute_keys_values(references))
    wide = [r.double().expand(2, -1, -1, -1) for r in references]
    expected = oracle.pvcattn(module.double(), source.double(), wide, config)
    assert oracle.error(got, expected) < 1e-5


def test_attend_never_writes_the_matrix_out():
    """16,384 queries and keys would need 1 GiB as a float32 matrix."""
    module = build(BCAttn, SCSNetConfig()).levels[0]
    memory = module.compute_keys_values([features(1, CHANNELS, 8, 2048)])
    queries = module.compute_queries(features(1, CHANNELS, 8, 2048))
    with torch.profiler.profile(profile_memory=True) as profile:
        attend(queries, memory, 30.0)
    # Kineto's key names differ between versions; the largest single allocation is what counts.
    assert max(e.cpu_memory_usage for e in profile.key_averages()) < 200 * 2**20


@pytest.mark.parametrize("level", [0, 1, 2])
def test_rows_are_those_of_the_matrix(tiny_net, level):
    reference = tiny_net.encode_reference([torch.rand(1, 3, 40, 24), torch.rand(1, 3, 16, 16)])
    encoded = tiny_net.encode(torch.rand(1, 1, 32, 32), reference)
    rows = tiny_net.attention(encoded, [(0.0, 0.0), (0.99, 0.5), (1.0, 1.0)], level)
    assert [r.shape[:2] for r in rows] == [(1, 3), (1, 3)]
    attn = tiny_net.color_branch.level(level)
    pooled = pool(encoded.source, 2**level)
    queries = attn.compute_queries(pooled)
    matrix = torch.softmax(attn.scale * queries @ reference.keys_values[level].key.mT, -1)[0]
    side = pooled.shape[2]
    flat = torch.cat([r.flatten(2) for r in rows], -1)[0]
    assert torch.allclose(flat, matrix[[0, side // 2 * side + side - 1, -1]], atol=1e-5)


@pytest.mark.parametrize("config", [SCSNetConfig(), SCSNetConfig.paper()], ids=["ours", "paper"])
@pytest.mark.parametrize("count", [2, 9])
def test_comparison_equals_the_written_out_matrix(config, count):
    """With a mask and with more references than a query (8 channels) is wide."""
    attn = build(PVCAttn, config).levels[1]
    source = features(2, CHANNELS, 5, 3)
    references = [features(1, CHANNELS, 4, 2 + r) for r in range(count)]
    mask = (features(1, 1, 4, 2) > 0).float()
    kv = attn.compute_keys_values(references, [mask] + [None] * (count - 1))
    similarity, shares = attn.compare(source, kv)
    q = attn.compute_queries(source)
    scores = (attn.scale * q @ kv.key.mT).masked_fill(~kv.mask[:, None], -torch.inf)
    matrix = torch.softmax(scores, -1)
    cosine = torch.cosine_similarity(q[:, :, None], kv.key[:, None], dim=-1)
    assert oracle.error(similarity.flatten(1), (matrix * cosine).sum(-1).double()) < 1e-5
    parts = torch.split(matrix, [h * w for h, w in kv.grids], dim=-1)
    expected = torch.stack([part.sum(-1) for part in parts], 1)
    assert oracle.error(shares.flatten(2), expected.double()) < 1e-5


def test_without_attention_references_are_averaged():
    net = SCSNet(SCSNetConfig(width=8, depth=1, attention="none")).requires_grad_(False)
    module = net.color_branch.cross_attention
    assert isinstance(module, AddedReference)
    source, a, b = (features(count, 32, side, side) for count, side in ((2, 4), (1, 4), (1, 8)))
    joined = module(source, module.compute_keys_values([a, b]))
    small = torch.nn.functional.interpolate(b, (4, 4), mode="bilinear")
    assert torch.allclose(joined, source + (a + small) / 2, atol=1e-6)
    encoded = net.encode(torch.rand(1, 1, 8, 8), net.encode_reference([torch.rand(1, 3, 8, 8)]))
    with pytest.raises(ValueError, match="no attention maps"):
        net.coverage(encoded)
