"""The question's script as it stands, in Keras on whichever backend is there, beside the claims seed-network-*.

python benchmarks/asker.py DEPTH FOLDER [EPOCHS]    one line of JSON; --record adds it to asker.json beside this file

784 dense ReLU units a layer, RMSprop 1e-3, raw MNIST in batches of 128, 20 epochs. The backend is KERAS_BACKEND, or the
first of TensorFlow, JAX and torch that is installed. After each epoch a line on stderr says the loss so far.
"""

import json
import os
import sys
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path

from contenders import BATCH, WIDTH, images

EPOCHS = 20
RECORD = Path(__file__).with_suffix(".json")


def backend():
    """The one asked for, or the first that is there."""
    return os.environ.get("KERAS_BACKEND") or next(filter(find_spec, ("tensorflow", "jax", "torch")))


def script(depth, folder, epochs):
    """The script: what it prints is the test MSE, in squared grey levels."""
    os.environ["KERAS_BACKEND"] = backend()
    from keras import Input, Sequential, callbacks, layers, optimizers

    train, test = images(folder)
    network = Sequential([Input((WIDTH,)), *(layers.Dense(WIDTH, activation="relu") for _ in range(depth))])
    network.compile(optimizers.RMSprop(1e-3, rho=0.9, epsilon=1e-7), "mse")
    told = callbacks.LambdaCallback(
        on_epoch_end=lambda epoch, logs: print(epoch + 1, logs["loss"], file=sys.stderr, flush=True)
    )
    network.fit(train, train, batch_size=BATCH, epochs=epochs, verbose=0, callbacks=[told])
    return float(network.evaluate(test, test, verbose=0))


def measured(depth, folder, epochs=EPOCHS):
    """Its test MSE, and what it took."""
    mse = script(depth, folder, epochs)
    here, of = os.times(), backend()
    versions = {name: version(name) for name in ("keras", "tensorflow-cpu" if of == "tensorflow" else of)}
    made = {"depth": depth, "epochs": epochs, "backend": of, "versions": versions}
    return made | {"mse": mse, "processor seconds": round(here.user + here.system)}


def record(found):
    """Keep it, one for each depth, number of epochs and backend."""
    before = json.loads(RECORD.read_text()) if RECORD.exists() else []
    key = ("depth", "epochs", "backend")
    kept = [one for one in before if any(one[name] != found[name] for name in key)]
    lines = sorted(json.dumps(one) for one in [*kept, found])
    RECORD.write_text("[\n" + ",\n".join(lines) + "\n]\n")


if __name__ == "__main__":
    depth, folder, *rest = (one for one in sys.argv[1:] if one != "--record")
    made = measured(int(depth), folder, *map(int, rest))
    if "--record" in sys.argv:
        record(made)
    print(json.dumps(made))
