"""JSON Schemas of every document that the commands print or write: what a program may count on."""

from __future__ import annotations

from collections.abc import Mapping

from identity_props.gate.baseline import SHAPE
from identity_props.report import advice, atlas, audit, comparison, documents
from identity_props.report.explain import SCHEMA as EXPLANATION
from identity_props.report.shapes import Schema
from identity_props.report.shapes import closed as _object
from identity_props.report.shapes import count as _count
from identity_props.report.shapes import figure as _figure
from identity_props.report.shapes import listed as _list
from identity_props.report.shapes import number as _number
from identity_props.report.shapes import one_of as _word
from identity_props.report.shapes import text as _text
from identity_props.report.shapes import three as _three
from identity_props.report.shapes import typed as _of
from identity_props.stack.stack import PARTS

DIALECT = "https://json-schema.org/draft/2020-12/schema"

# What documents have in common ----------------------------------------------------------------------

_VERSIONS = _object(
    {
        name: _of(["string", "null"], "version, or null")
        for name in ("identity_props", "python", *documents.PACKAGES)
    },
    "installed versions",
)
_MACHINE = _object(
    {
        "system": _text("operating system"),
        "processor": _text("kind of processor"),
        "cores": _count("cores that the process may use"),
        "gpu": _text("name of the GPU, where it trained on one"),
    },
    "where it ran",
    optional=("gpu",),
)
_PARTS = (*PARTS, "device", "dtype", "mode")
_STACK = _object(
    {name: _text(f"its {name}") for name in _PARTS} | {"ranks": _count("processes that train data-parallel")},
    "the parts that trained",
)
_TRAINER = _object(
    {
        "trainer": _text("its name or command"),
        "version": _of(["string", "null"], "that of its framework, where it is one of ours"),
        "ranks": _count("processes that train data-parallel"),
    },
    "the trainer",
)
_LAYER = _object(
    {
        "layer": _text("its factory and arguments"),
        "input": _text("kind and shape of one example of each input"),
        "like": _text("the layer that it is declared to be like, or none"),
        "device": _text("where it runs"),
        "mode": _text("eager or compiled"),
        "ranks": _count("processes, one"),
    },
    "the layer",
)
_TRAINING = _object(
    {
        "examples": _count("orthonormal examples"),
        "batch_size": _count("examples of a micro-batch on a rank, or sequences"),
        "accumulate": _count("micro-batches of a step"),
        "epochs": _count("asked for"),
        "ranks": _count("processes that train data-parallel"),
        "resume_at": _of(["integer", "null"], "micro-batch after which it is stopped and resumed, or null"),
        "evaluate": _of("boolean", "whether it evaluates after each epoch"),
        "shuffle": _of("boolean", "whether it shuffles"),
        "drop_last": _of("boolean", "whether it drops an incomplete last batch"),
        "tokens": _of("boolean", "whether it trains a language model"),
        "seed": _count("of the examples, and of the order"),
    },
    "what it is asked",
)
_DATA = _object(
    {
        "name": _text("digits, mnist or that of a file"),
        "shape": _of(["array", "null"], "height and width of an image, or null", items=_count("pixels")),
        "train": _count("training images"),
        "test": _count("test images"),
        "fingerprint": _text("hash of the pixels"),
    },
    "what it trained on",
)
_SEED = _count("seed of the first replica")
_CONTEXT = {
    "versions": _VERSIONS,
    "machine": _MACHINE,
    "jobs": _count("processes that train"),
    "threads": _count("threads of each"),
    "seed": _SEED,
    "data": _DATA,
    "stack": _STACK,
}

# The documents --------------------------------------------------------------------------------------

_CLAIM = _object(
    {
        "name": _text("of the claim"),
        "statement": _text("what it says"),
        "verdict": _word("by the binomial test", "holds", "fails", "undecided"),
        "expects": _text("learns, fails, sooner, diverges, same, floor or nears"),
        "required_share": _number("share of all seeds that has to do it"),
        "replicas": _count("networks trained"),
        "successes": _count("those that did what is claimed"),
        "fvu": _three("FVU on test images in the space trained in"),
        "fvu_pixels": _three("FVU in grey levels"),
        "steps_to_identity": _three("first measured step with FVU 0.001 or less, null if it never came"),
        "budget_steps": _count("optimizer steps allowed"),
        "seconds": _number("time of training"),
    }
)
_ROW = _object(
    {
        "name": _text("of the law or comparison"),
        "verdict": _word("of the row", "pass", "fail", "design", "not applicable", "not run"),
        "measured": _figure("distance from what is expected"),
        "allowed": _figure("distance that rounding may make"),
        "kind": _text("how it fails, empty where it does not"),
        "note": _text("of what the figures are, or why the row does not apply"),
        "lr": _figure("rate that it learned at"),
        "steps": _figure("median first step near-identity"),
    }
)
_CHANGE = _object(
    {
        "name": _text("claim/rate or claim/end, or what differs between the runs"),
        "verdict": _word("of the row", "same", "changed", "broken"),
        "word": _text("same, slower, faster, worse, better, or why it cannot be compared"),
        "factor": _figure("median over that of the baseline"),
        "p": _figure("of the rank test"),
        "found": _figure("factor that would be seen with probability .99"),
        "note": _text("what differs, or why it cannot be compared"),
        "method": _word("what p is by, empty where there is none", "exact", "saddlepoint", ""),
    }
)
_FINDING = _object(
    {
        "name": _text("of the fault or clean twin"),
        "kind": _word("what was planted", "fault", "twin"),
        "what": _text("what it does wrong, or the parts of a twin"),
        "source": _text("where it was seen"),
        "laws": _list(_text("law"), "laws that saw it"),
        "claims": _list(_text("claim"), "claims that saw it"),
        "gate": _list(_text("claim/figure, word and factor"), "gate rows that saw it"),
        "equivalent": _text("why nothing can see it, else empty"),
        "verdict": _word("of the row", "seen", "missed", "seen broadly", "clean", "false alarm", "unseen"),
    }
)
_ALARMS = _object(
    {
        "name": _text("what judged"),
        "alarms": _count("times that it was wrong"),
        "tried": _count("times that it judged"),
        "note": _text("which, and at what seed"),
        "bound": _number("rate below which the true one lies, at 95%"),
    }
)
_PART = _object(
    {
        "name": _text("of the part"),
        "fvu": _number("share of the FVU"),
        "what": _text("in words, with counts"),
        "measured": _of("boolean", "whether it could be, as what the network trained with is known"),
    }
)
_ADVICE = _object(
    {
        "name": _text("the change"),
        "why": _text("which part it answers"),
        "before": _number("FVU in grey levels as it is"),
        "after": _figure("FVU once changed; null if not tried or not finite"),
        "by_hand": _of("boolean", "whether it is a change of a model's own layers, which --try leaves alone"),
    }
)


def _document(schema: str, title: str, properties: Mapping[str, Schema]) -> Schema:
    named = {"schema": {"const": schema, "description": "name and version of this schema"}, **properties}
    return {"$schema": DIALECT, "title": title} | _object(named)


SCHEMAS: dict[str, Schema] = {
    "results": _document(
        documents.SCHEMA,
        "What run prints with --json and writes to results.json",
        _CONTEXT
        | {
            "interrupted": _of("boolean", "whether it was cut short, and holds the finished claims alone"),
            "claims": _list(_CLAIM, "one a claim"),
        },
    ),
    "check": _document(
        documents.CHECK_SCHEMA,
        "What check prints with --json and writes to check.json",
        {
            "versions": _VERSIONS,
            "machine": _MACHINE,
            "seed": _SEED,
            "stack": {
                "anyOf": [_STACK, _TRAINER, _LAYER],
                "description": "the parts that trained, the trainer, or the layer",
            },
            "rows": _list(_ROW, "one a law or comparison"),
        },
    ),
    "ledger": _document(
        documents.LEDGER_SCHEMA,
        "What ledger prints with --json and writes to ledger.json",
        {
            "versions": _VERSIONS,
            "machine": _MACHINE,
            "stack": _object(_TRAINER["properties"], "the trainer"),
            "training": _TRAINING,
            "dtype": _text("that it computes in"),
            "by": _word("what a row of weights is of", "steps", "epochs", "tokens"),
            "weights": _list(
                _list(_figure("weight; null where it is unclear"), "one an example, or token"),
                "one a step, or one an epoch, in units of 1 / the examples that a step is meant to hold: 1 is right",
            ),
            "ends": _list(_count("rows of weights"), "their number by the end of each epoch"),
            "leaks": _list(_number("0 is right"), "what became of each example off its own direction"),
            "moved": _list(_number("0 is right"), "how far directions moved that are held out of training"),
            "near": _number("what rounding may make of a 0"),
            "mixed": _list(_count("place"), "examples whose leak is more"),
            "unclear": _list(_count("place"), "examples whose account fits no weights and steps"),
            "differing": _count("weights that are not the same bit for bit on all ranks"),
            "steps": _of(["integer", "null"], "optimizer steps that it reports, or null"),
            "lengths": _list(_count("tokens"), "of each sequence; empty where examples are accounted for"),
            "masked": _list(_count("place"), "tokens whose label is masked"),
            "says": _list(_text("a sentence"), "what all this shows, in words"),
        },
    ),
    "gate": _document(
        documents.GATE_SCHEMA,
        "What gate prints with --json",
        {
            "passed": _of("boolean", "whether the gate passes"),
            "left_out": _list(_text("claim"), "claims of the baseline that --claims does not name"),
            "rows": _list(_CHANGE, "one a claim and figure, and one a difference between the runs"),
        },
    ),
    "audit": _document(
        audit.SCHEMA,
        "What audit prints with --json",
        {
            "passed": _of("boolean", "whether every fault is seen by a law and every twin clean"),
            "findings": _list(_FINDING, "one a fault or clean twin"),
            "alarms": _list(_ALARMS, "one a judgement of torch's own parts, with --seeds"),
        },
    ),
    "explanation": _document(
        EXPLANATION,
        "What explain prints with --json and writes to explanation.json",
        _CONTEXT
        | {
            "name": _text("of the network"),
            "fvu": _number("FVU on test images in the space the network works in"),
            "fvu_pixels": _number("FVU in grey levels"),
            "mse": _number("mean squared error in grey levels"),
            "near_identity": _of("boolean", "whether FVU is 0.001 or less"),
            "parts": _list(_PART, "of the error, in the order taken; they sum to fvu"),
            "readouts": _list(_number("FVU"), "of the best affine readout of each hidden layer"),
            "narrowest": _of(
                ["integer", "null"], "features of the narrowest layer, null if none is narrower than data"
            ),
            "by_rank": _list(_number("FVU"), "of the best affine map of rank 0, 1, ... on test"),
            "by_pixel": _list(_number("squared error"), "of each output in grey levels; the mean is mse"),
            "by_frequency": _list(
                _list(
                    _number("power"), "of the error, then of the target less its mean, in grey levels squared"
                ),
                "at 0, 1, ... cycles a picture; empty where there is none",
            ),
            "dead_outputs": _list(_count("output pixel"), "output units that are 0 on all data"),
            "advice": _list(_ADVICE, "changes worth trying"),
        },
    ),
    "comparison": _document(
        comparison.SCHEMA,
        "What explain prints with --compare and --json, and writes to comparison.json",
        comparison.shape(_CONTEXT["data"]),
    ),
    "atlas": _document(atlas.SCHEMA, "What atlas prints with --json", _CONTEXT | atlas.SHAPE),
    "advice": _document(advice.SCHEMA, "What advise prints with --json", advice.SHAPE),
}


def schemas() -> dict[str, Schema]:
    """All by name, the baseline's too, which the gate reads files by."""
    baseline = {"$schema": DIALECT, "title": "What gate --update writes", **SHAPE}
    return SCHEMAS | {"baseline": baseline}
