"""The laws of trainers, on the package's own loop or on the trainer that --identity-trainer names."""

import pytest

from identity_props.conformance.rows import DESIGN, FAIL, NOT_APPLICABLE
from identity_props.trainers import TRAINER_LAWS

pytestmark = pytest.mark.identity


@pytest.mark.parametrize("law", TRAINER_LAWS)
def test_trainer_keeps_the_law(law, identity_trainer):
    row = identity_trainer(law)
    if row.verdict == NOT_APPLICABLE:
        pytest.skip(f"{row.kind or 'does not apply'}: {row.note}")
    if row.verdict == DESIGN:
        pytest.skip(f"by design, accept it with --identity-accept {row.kind}: {row.note}")
    assert row.verdict != FAIL, str(row)
