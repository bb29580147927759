"""The laws of layers, on a convolution of torch or on the layer that --identity-layer names."""

import pytest

from identity_props.conformance.rows import FAIL, NOT_APPLICABLE
from identity_props.layers import LAYER_LAWS

pytestmark = pytest.mark.identity


@pytest.mark.parametrize("law", LAYER_LAWS)
def test_layer_keeps_the_law(law, identity_layer):
    row = identity_layer(law)
    if row.verdict == NOT_APPLICABLE:
        pytest.skip(f"does not apply: {row.note}")
    assert row.verdict != FAIL, str(row)
