"""What a user's own test file costs: ten optimizers of torch, a test for each law that applies.

pytest -n auto benchmarks/ten_optimizers.py
"""

from torch import optim

from identity_props import Stack, parametrize_with_laws

NAMES = ("SGD", "Adam", "AdamW", "RMSprop", "Adagrad", "Adadelta", "Adamax", "NAdam", "RAdam", "Rprop")


# a state is loaded in another dtype than it was saved in, see docs/explanation/real-stacks.md
KNOWN = {"NAdam-resume": "mu_product is float32 until a state is loaded"}


@parametrize_with_laws(
    {name: Stack(optimizer=getattr(optim, name)) for name in NAMES}, expected_failures=KNOWN
)
def test_an_optimizer(stack, law):
    """Each is what it says it is."""
    law(stack)
