"""Faults of layers: the law that each is said to break sees it, and no law accuses a clean twin."""

import re

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from identity_props.conformance.layered import row_of
from identity_props.conformance.rows import FAIL
from identity_props.faults.audit import CLEAN, SEEN, audit
from identity_props.faults.findings import findings
from identity_props.faults.layer_audit import bench_of, failing
from identity_props.faults.layers import LAYER_FAULTS, LAYER_TWINS
from identity_props.layers import LAYER_LAWS
from identity_props.layers.slopes import slope

pytestmark = pytest.mark.thorough


def test_there_are_25_faults_or_more_each_with_a_report():
    assert len(LAYER_FAULTS) >= 25
    assert all(re.search(r"[\w.-]+#\d+", fault.source) for fault in LAYER_FAULTS.values())
    assert all(fault.what.endswith(".") for fault in LAYER_FAULTS.values())


@pytest.mark.parametrize("name", LAYER_FAULTS)
def test_the_law_that_a_fault_breaks_sees_it(name):
    fault = LAYER_FAULTS[name]
    assert row_of(LAYER_LAWS[fault.law], bench_of(fault)).verdict == FAIL


@pytest.mark.parametrize("name", LAYER_FAULTS)
def test_a_fault_is_its_twin_with_a_method_written_otherwise(name):
    fault = LAYER_FAULTS[name]
    ours, theirs = (bench_of(one).made() for one in (fault, fault.twin))
    shapes = [{key: p.shape for key, p in one.named_parameters()} for one in (ours, theirs)]
    assert shapes[0] == shapes[1]
    assert fault.layer is not fault.twin.layer


@pytest.mark.parametrize("name", LAYER_TWINS)
def test_no_law_accuses_a_clean_layer(name):
    assert failing(LAYER_TWINS[name]) == ()


def test_the_audit_sees_what_was_recorded():
    found = {one.name: one for one in audit([LAYER_FAULTS["groups-swapped"]], jobs=1)}
    assert found["kernel-convolution"].verdict == CLEAN
    assert found["groups-swapped"].verdict == SEEN
    assert [*found["groups-swapped"].laws] == findings()["groups-swapped"]["laws"]


@pytest.mark.audit
@pytest.mark.parametrize("name", LAYER_TWINS)
def test_no_law_accuses_a_clean_layer_of_50_seeds(name):
    assert [seed for seed in range(50) if failing(LAYER_TWINS[name], seed)] == []


@given(
    at=st.floats(1e-3, 1.0),
    kink=st.floats(0.0, 10.0),
    curve=st.floats(0.1, 10.0),
    side=st.sampled_from((-1, 1)),
)
def test_a_kink_that_hides_in_a_curve_is_left_out_or_within_the_error(at, kink, curve, side):
    step = 2.0**-10

    def outputs(multiple):
        bend = max(side * multiple - at * step, 0.0)
        return torch.tensor([curve * multiple**2 + kink * bend, 1.0], dtype=torch.float64)

    found = slope(outputs, 2.0**-52)
    assert found is None or not bool(found.smooth[0]) or abs(float(found.value[0])) <= float(found.error[0])
