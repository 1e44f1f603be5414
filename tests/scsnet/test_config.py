"""SCSNetConfig: the paper's values, the round trip, and what it refuses."""

from dataclasses import replace

import pytest

from scsnet import SCSNetConfig


def test_paper_is_table_8_to_the_letter():
    paper = SCSNetConfig.paper()
    assert (paper.norm, paper.residual, paper.cosine_attention) == ("instance", False, False)
    assert (paper.attention_scale, paper.luminance_skip, paper.cpm_align) == (1.0, False, "paper")
    assert (paper.width, paper.depth, paper.head) == (64, 16, "cpm")
    assert paper.attention == "pyramid_valve"


@pytest.mark.parametrize("config", [SCSNetConfig(), SCSNetConfig.paper(), SCSNetConfig(width=8)])
def test_round_trip(config):
    assert SCSNetConfig.from_dict(config.to_dict()) == config


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"width": -64}, "width must be between"),
        ({"width": 10**9}, "width must be between"),
        ({"width": 0}, "width must be between"),
        ({"width": 6}, "multiple of 4"),
        ({"width": 64.5}, "whole number"),
        ({"width": "64"}, "must be a number"),
        ({"width": [64]}, "must be a number"),
        ({"depth": None}, "must be a number"),
        ({"width": 64.0}, "whole number"),
        ({"depth": True}, "must be a number"),
        ({"depth": 10**6}, "depth must be between"),
        ({"norm": "batch"}, "norm must be one of"),
        ({"attention": None}, "attention must be one of"),
        ({"attention": ["none"]}, "attention must be one of"),
        ({"attention": "total"}, "attention must be one of"),
        ({"lightness_scale": 0}, "lightness_scale must be between"),
        ({"attention_scale": float("nan")}, "attention_scale must be between"),
        ({"residual": 1}, "residual must be true or false"),
        ({"working_size": 0}, "working_size must be between"),
        ({"chroma_scale": "110"}, "must be a number"),
    ],
)
def test_absurd_values_are_refused(change, message):
    with pytest.raises(ValueError, match=message):
        SCSNetConfig.from_dict(SCSNetConfig().to_dict() | change)


def test_unknown_and_missing_fields_are_named():
    values = SCSNetConfig().to_dict()
    with pytest.raises(ValueError, match=r"unknown fields \['wdith'\]"):
        SCSNetConfig.from_dict(values | {"wdith": 64})
    del values["depth"]
    with pytest.raises(ValueError, match=r"lacks the fields \['depth'\]"):
        SCSNetConfig.from_dict(values)
    with pytest.raises(ValueError, match="mapping"):
        SCSNetConfig.from_dict([1, 2])


def test_frozen():
    with pytest.raises(AttributeError):
        SCSNetConfig().width = 32
    assert replace(SCSNetConfig(), width=32).width == 32
