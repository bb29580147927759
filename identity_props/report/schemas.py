"""JSON Schemas of every document that the commands print or write: what a program may count on."""

from __future__ import annotations

from collections.abc import Mapping

from identity_props.gate.baseline import SHAPE
from identity_props.report import advice, atlas, audit, comparison, documents
from identity_props.report.dialect import (
    DIALECT,
    Schema,
    an_object,
    count,
    figure,
    list_of,
    number,
    of_type,
    one_of,
    text,
    three,
)
from identity_props.report.explain import SCHEMA as EXPLANATION
from identity_props.stack.stack import PARTS

# What documents have in common ----------------------------------------------------------------------

_VERSIONS = an_object(
    {
        name: of_type(["string", "null"], "version, or null")
        for name in ("identity_props", "python", *documents.PACKAGES)
    },
    "installed versions",
)
_MACHINE = an_object(
    {
        "system": text("operating system"),
        "processor": text("kind of processor"),
        "cores": count("cores that the process may use"),
        "gpu": text("name of the GPU, where it trained on one"),
    },
    "where it ran",
    optional=("gpu",),
)
_PARTS = (*PARTS, "device", "dtype", "mode")
_STACK = an_object(
    {name: text(f"its {name}") for name in _PARTS} | {"ranks": count("processes that train data-parallel")},
    "the parts that trained",
)
_TRAINER = an_object(
    {
        "trainer": text("its name or command"),
        "version": of_type(["string", "null"], "that of its framework, where it is one of ours"),
        "ranks": count("processes that train data-parallel"),
    },
    "the trainer",
)
_LAYER = an_object(
    {
        "layer": text("its factory and arguments"),
        "input": text("kind and shape of one example of each input"),
        "like": text("the layer that it is declared to be like, or none"),
        "device": text("where it runs"),
        "mode": text("eager or compiled"),
        "ranks": count("processes, one"),
    },
    "the layer",
)
_TRAINING = an_object(
    {
        "examples": count("orthonormal examples"),
        "batch_size": count("examples of a micro-batch on a rank, or sequences"),
        "accumulate": count("micro-batches of a step"),
        "epochs": count("asked for"),
        "ranks": count("processes that train data-parallel"),
        "resume_at": of_type(
            ["integer", "null"], "micro-batch after which it is stopped and resumed, or null"
        ),
        "evaluate": of_type("boolean", "whether it evaluates after each epoch"),
        "shuffle": of_type("boolean", "whether it shuffles"),
        "drop_last": of_type("boolean", "whether it drops an incomplete last batch"),
        "tokens": of_type("boolean", "whether it trains a language model"),
        "seed": count("of the examples, and of the order"),
    },
    "what it is asked",
)
_DATA = an_object(
    {
        "name": text("digits, mnist or that of a file"),
        "shape": of_type(["array", "null"], "height and width of an image, or null", items=count("pixels")),
        "train": count("training images"),
        "test": count("test images"),
        "fingerprint": text("hash of the pixels"),
    },
    "what it trained on",
)
_SEED = count("seed of the first replica")
_CONTEXT = {
    "versions": _VERSIONS,
    "machine": _MACHINE,
    "jobs": count("processes that train"),
    "threads": count("threads of each"),
    "seed": _SEED,
    "data": _DATA,
    "stack": _STACK,
}

# The documents --------------------------------------------------------------------------------------

_CLAIM = an_object(
    {
        "name": text("of the claim"),
        "statement": text("what it says"),
        "verdict": one_of("by the binomial test", "holds", "fails", "undecided"),
        "expects": text("learns, fails, sooner, diverges, same, floor or nears"),
        "required_share": number("share of all seeds that has to do it"),
        "replicas": count("networks trained"),
        "successes": count("those that did what is claimed"),
        "fvu": three("FVU on test images in the space trained in"),
        "fvu_pixels": three("FVU in grey levels"),
        "steps_to_identity": three("first measured step with FVU 0.001 or less, null if it never came"),
        "budget_steps": count("optimizer steps allowed"),
        "seconds": number("time of training"),
    }
)
_ROW = an_object(
    {
        "name": text("of the law or comparison"),
        "verdict": one_of("of the row", "pass", "fail", "design", "not applicable", "not run"),
        "measured": figure("distance from what is expected"),
        "allowed": figure("distance that rounding may make"),
        "kind": text("how it fails, empty where it does not"),
        "note": text("of what the figures are, or why the row does not apply"),
        "lr": figure("rate that it learned at"),
        "steps": figure("median first step near-identity"),
    }
)
_CHANGE = an_object(
    {
        "name": text("claim/rate or claim/end, or what differs between the runs"),
        "verdict": one_of("of the row", "same", "changed", "broken"),
        "word": text("same, slower, faster, worse, better, or why it cannot be compared"),
        "factor": figure("median over that of the baseline"),
        "p": figure("of the rank test"),
        "found": figure("factor that would be seen with probability .99"),
        "note": text("what differs, or why it cannot be compared"),
        "method": one_of("what p is by, empty where there is none", "exact", "saddlepoint", ""),
    }
)
_FINDING = an_object(
    {
        "name": text("of the fault or clean twin"),
        "kind": one_of("what was planted", "fault", "twin"),
        "what": text("what it does wrong, or the parts of a twin"),
        "source": text("where it was seen"),
        "laws": list_of(text("law"), "laws that saw it"),
        "claims": list_of(text("claim"), "claims that saw it"),
        "gate": list_of(text("claim/figure, word and factor"), "gate rows that saw it"),
        "equivalent": text("why nothing can see it, else empty"),
        "verdict": one_of("of the row", "seen", "missed", "seen broadly", "clean", "false alarm", "unseen"),
    }
)
_ALARMS = an_object(
    {
        "name": text("what judged"),
        "alarms": count("times that it was wrong"),
        "tried": count("times that it judged"),
        "note": text("which, and at what seed"),
        "bound": number("rate below which the true one lies, at 95%"),
    }
)
_PART = an_object(
    {
        "name": text("of the part"),
        "fvu": number("share of the FVU"),
        "what": text("in words, with counts"),
        "measured": of_type("boolean", "whether it could be, as what the network trained with is known"),
    }
)
_ADVICE = an_object(
    {
        "name": text("the change"),
        "why": text("which part it answers"),
        "before": number("FVU in grey levels as it is"),
        "after": figure("FVU once changed; null if not tried or not finite"),
        "by_hand": of_type(
            "boolean", "whether it is a change of a model's own layers, which --try leaves alone"
        ),
    }
)


def _document(schema: str, title: str, properties: Mapping[str, Schema]) -> Schema:
    named = {"schema": {"const": schema, "description": "name and version of this schema"}, **properties}
    return {"$schema": DIALECT, "title": title} | an_object(named)


SCHEMAS: dict[str, Schema] = {
    "results": _document(
        documents.SCHEMA,
        "What run prints with --json and writes to results.json",
        _CONTEXT
        | {
            "interrupted": of_type(
                "boolean", "whether it was cut short, and holds the finished claims alone"
            ),
            "claims": list_of(_CLAIM, "one a claim"),
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
            "rows": list_of(_ROW, "one a law or comparison"),
        },
    ),
    "ledger": _document(
        documents.LEDGER_SCHEMA,
        "What ledger prints with --json and writes to ledger.json",
        {
            "versions": _VERSIONS,
            "machine": _MACHINE,
            "stack": an_object(_TRAINER["properties"], "the trainer"),
            "training": _TRAINING,
            "dtype": text("that it computes in"),
            "by": one_of("what a row of weights is of", "steps", "epochs", "tokens"),
            "weights": list_of(
                list_of(figure("weight; null where it is unclear"), "one an example, or token"),
                "one a step, or one an epoch, in units of 1 / the examples that a step is meant to hold: 1 is right",
            ),
            "ends": list_of(count("rows of weights"), "their number by the end of each epoch"),
            "leaks": list_of(number("0 is right"), "what became of each example off its own direction"),
            "moved": list_of(number("0 is right"), "how far directions moved that are held out of training"),
            "near": number("what rounding may make of a 0"),
            "mixed": list_of(count("place"), "examples whose leak is more"),
            "unclear": list_of(count("place"), "examples whose account fits no weights and steps"),
            "differing": count("weights that are not the same bit for bit on all ranks"),
            "steps": of_type(["integer", "null"], "optimizer steps that it reports, or null"),
            "lengths": list_of(count("tokens"), "of each sequence; empty where examples are accounted for"),
            "masked": list_of(count("place"), "tokens whose label is masked"),
            "says": list_of(text("a sentence"), "what all this shows, in words"),
        },
    ),
    "gate": _document(
        documents.GATE_SCHEMA,
        "What gate prints with --json",
        {
            "passed": of_type("boolean", "whether the gate passes"),
            "left_out": list_of(text("claim"), "claims of the baseline that --claims does not name"),
            "rows": list_of(_CHANGE, "one a claim and figure, and one a difference between the runs"),
        },
    ),
    "audit": _document(
        audit.SCHEMA,
        "What audit prints with --json",
        {
            "passed": of_type("boolean", "whether every fault is seen by a law and every twin clean"),
            "findings": list_of(_FINDING, "one a fault or clean twin"),
            "alarms": list_of(_ALARMS, "one a judgement of torch's own parts, with --seeds"),
        },
    ),
    "explanation": _document(
        EXPLANATION,
        "What explain prints with --json and writes to explanation.json",
        _CONTEXT
        | {
            "name": text("of the network"),
            "fvu": number("FVU on test images in the space the network works in"),
            "fvu_pixels": number("FVU in grey levels"),
            "mse": number("mean squared error in grey levels"),
            "near_identity": of_type("boolean", "whether FVU is 0.001 or less"),
            "parts": list_of(_PART, "of the error, in the order taken; they sum to fvu"),
            "readouts": list_of(number("FVU"), "of the best affine readout of each hidden layer"),
            "narrowest": of_type(
                ["integer", "null"], "features of the narrowest layer, null if none is narrower than data"
            ),
            "by_rank": list_of(number("FVU"), "of the best affine map of rank 0, 1, ... on test"),
            "by_pixel": list_of(number("squared error"), "of each output in grey levels; the mean is mse"),
            "by_frequency": list_of(
                list_of(
                    number("power"), "of the error, then of the target less its mean, in grey levels squared"
                ),
                "at 0, 1, ... cycles a picture; empty where there is none",
            ),
            "dead_outputs": list_of(count("output pixel"), "output units that are 0 on all data"),
            "advice": list_of(_ADVICE, "changes worth trying"),
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
