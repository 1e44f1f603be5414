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


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("width", 10**9, "width must be between"),
        ("width", 6, "multiple of 4"),
        ("width", 64.0, "whole number"),
        ("depth", True, "must be a number"),
        ("norm", "batch", "norm must be one of"),
        ("attention", ["none"], "attention must be one of"),
        ("attention_scale", float("nan"), "attention_scale must be between"),
        ("residual", 1, "residual must be true or false"),
    ],
)
def test_wrong_values_are_named(field, value, message):
    with pytest.raises(ValueError, match=message):
        replace(SCSNetConfig(), **{field: value})


def test_unknown_and_missing_fields_are_named():
    values = SCSNetConfig().to_dict()
    assert SCSNetConfig.from_dict(values) == SCSNetConfig()
    with pytest.raises(ValueError, match=r"unknown fields \['wdith'\]"):
        SCSNetConfig.from_dict(values | {"wdith": 64})
    del values["depth"]
    with pytest.raises(ValueError, match=r"lacks the fields \['depth'\]"):
        SCSNetConfig.from_dict(values)
    with pytest.raises(ValueError, match="mapping"):
        SCSNetConfig.from_dict([1, 2])
