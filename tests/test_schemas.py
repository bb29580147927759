"""The documents and their schemas say the same: every document is valid, and nothing can go or be added."""

import json
import math
from copy import deepcopy
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from jsonschema import Draft202012Validator

from identity_props.atlas.advising import advised
from identity_props.cli import main
from identity_props.conformance.asked import Named
from identity_props.conformance.rows import Row
from identity_props.engine.trial import Recipe, Trial
from identity_props.explanation.explain import Advice, explain
from identity_props.explanation.networks import trained
from identity_props.faults.audit import Alarms
from identity_props.gate import compare, text
from identity_props.report import advice, atlas, audit, documents
from identity_props.report import compare as comparing
from identity_props.report import explain as explanation
from identity_props.report.schemas import SCHEMAS, schemas
from identity_props.stack.stack import Stack
from identity_props.task.models import Variant
from identity_props.trainers.accounting import STEPS, Book, Training
from tests.drawing import drawn
from tests.test_audit import finding
from tests.test_gate import baseline, outcome
from tests.test_page import cells


def of_results(pixels):
    outcomes = [outcome(), outcome(worse=math.inf, verdict="fails")]
    return documents.results(outcomes, pixels, Stack(), 0, 1, interrupted=False)


def of_check(pixels):
    rows = [Row("moves", "pass", note="it moves"), Row("layout", "fail", math.nan, 1e-9, "flat", lr=1.0)]
    return documents.check_results(rows, Stack(), 0)


def of_ledger(pixels):
    weights = torch.tensor([[1.0, math.nan], [0.0, math.nan]])
    leaks, moved = torch.tensor([0.5, 0.0]), torch.zeros(1)
    book = Book(Training(2, 1, epochs=1), STEPS, weights, [2], leaks, moved, [1], torch.float32, 1e-3)
    named = Named(
        "trainer plain", {"trainer": "trainer plain", "version": "2.14", "ranks": 1}, "cpu", ("ledger",)
    )
    return documents.ledger_results(book, named)


def of_gate(pixels):
    changes = compare(baseline(outcome()), baseline(outcome(slower=2.0), seed=5))
    return documents.gate_results(changes, passed=False)


def of_audit(pixels):
    return audit.document([finding(laws=("layout",)), finding("twin")], [Alarms("layout", 1, 8)])


def of_explanation(pixels):
    trial = Trial(Variant("plain-relu", 2), Recipe("torch.optim:RMSprop", 1e-3), 5)
    found = explain(trained(trial, pixels), pixels.scaled("unit"), trial.recipe)
    advice = (Advice("a", "b", 0.5, math.inf), Advice("a", "b", 0.5))
    return explanation.document(replace(found, advice=advice), documents.context(pixels, Stack(), 0, 1))


def of_comparison(pixels):
    one = json.loads(json.dumps(of_explanation(pixels)))
    return comparing.document(comparing.Compared((Path("a.json"), Path("b.json")), (one, one)))


def of_atlas(pixels):
    return atlas.document(cells(), documents.context(pixels, Stack(), 0, 1))


def of_advice(pixels):
    asked = {"depth": 1, "optimizer": "SGD", "lr": 0.1}
    return advice.document(advised(cells(), asked))


MADE = {
    "results": of_results,
    "check": of_check,
    "ledger": of_ledger,
    "gate": of_gate,
    "audit": of_audit,
    "explanation": of_explanation,
    "comparison": of_comparison,
    "atlas": of_atlas,
    "advice": of_advice,
    "baseline": lambda pixels: json.loads(text(baseline(outcome()))),
}


@pytest.fixture(scope="module", params=MADE)
def document(request):
    """(name, document), as a program reads it."""
    return request.param, json.loads(json.dumps(MADE[request.param](drawn()), allow_nan=False))


def errors(name, value):
    return [error.message for error in Draft202012Validator(schemas()[name]).iter_errors(value)]


def test_every_document_has_a_schema_that_is_one():
    assert schemas().keys() == MADE.keys()
    for schema in schemas().values():
        Draft202012Validator.check_schema(schema)


def test_a_document_is_what_its_schema_says(document):
    name, value = document
    assert errors(name, value) == []


def test_a_document_that_lacks_or_adds_something_is_refused(document):
    name, value = document
    for key in value:
        assert errors(name, {k: v for k, v in value.items() if k != key}), key
    if name in SCHEMAS:  # what a baseline may have besides is the gate's to say
        assert errors(name, value | {"another": 1})


def objects(value):
    """All objects within a document, that itself left out."""
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    for one in inner:
        if isinstance(one, dict):
            yield one
        yield from objects(one)


@pytest.mark.parametrize("name", SCHEMAS)
def test_so_is_every_object_in_it(name):
    value = json.loads(json.dumps(MADE[name](drawn())))
    for number, _ in enumerate(objects(value)):
        broken = deepcopy(value)
        [*objects(broken)][number]["another"] = 1
        assert errors(name, broken)


def test_what_a_command_prints_is_what_its_schema_says(few_digits, capsys):
    assert main(["run", "--claims", "scaled-whiten", "--jobs", "1", "--json"]) == 0
    assert errors("results", json.loads(capsys.readouterr().out)) == []


def test_every_field_says_what_it_is():
    def fields(schema):
        for name, one in schema.get("properties", {}).items():
            yield name, one
            yield from fields(one.get("items", one))

    assert [
        name for schema in SCHEMAS.values() for name, one in fields(schema) if not one["description"]
    ] == []
