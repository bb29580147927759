"""What each deviation is: (what it is, known as, what to do), for all trainers alike, or one of them.

ALIKE goes by law and rule, OWN by trainer and law, and comes first.
"""

KERAS = ("keras-torch", "keras-jax", "keras-tensorflow")
SGD = "[documented](https://keras.io/api/optimizers/sgd/)"
BACKUP = "[documented](https://keras.io/api/callbacks/backup_and_restore/)"
GENERATOR = "[documented](https://docs.pytorch.org/docs/stable/notes/randomness.html#dataloader)"
SAMPLER = "[documented](https://docs.pytorch.org/docs/stable/data.html#torch.utils.data.distributed.DistributedSampler)"
NONE = "not found"

ALIKE = {
    ("unequal", "means"): (
        "*design*: losses are means, and are averaged over micro-batches",
        "transformers#34191",
        "drop the last batch, or weigh losses by examples",
    ),
    ("window", "carried"): (
        "*design*: gradients wait until the number is full; those of the last window are never used",
        NONE,
        "make the micro-batches of an epoch a multiple of the number",
    ),
    ("window", "fixed"): (
        "*design*: it steps at an epoch's end, and divides by the number asked for",
        NONE,
        "make the micro-batches of an epoch a multiple of the number",
    ),
    ("average", "first"): (
        "*design*: the average begins as a copy of the weights after the first step",
        NONE,
        "nothing: after a few hundred steps the two are one",
    ),
    ("evaluation", "stream"): (
        f"*design* of torch: iterating any DataLoader draws from the stream that shuffles, {GENERATOR}",
        "pytorch#11062, pytorch#80119",
        "give each DataLoader a `generator` of its own",
    ),
    ("ranks-uneven", "padded"): (
        f"*design*: its sampler repeats examples until ranks hold as many, {SAMPLER}",
        "pytorch#25162, pytorch#49180",
        "`drop_last=True`, or a number of examples that ranks share evenly",
    ),
    ("ranks-uneven", "wrapped"): (
        "*design*: `even_batches` fills the last batches from the start of the data",
        NONE,
        "`even_batches=False`, or a number of examples that ranks share evenly",
    ),
}
OWN = {}


def _of(names, *laws, what, known=NONE, do):
    OWN.update({(name, law): (what, known, do) for name in names for law in laws})


_of(
    KERAS,
    "schedule",
    what="*fault*: under accumulation a schedule is asked for the rate of each micro-batch, while `optimizer.iterations`"
    " counts steps, and a step has that of its last: it falls as many times as fast, and stays at its end (keras_schedule.py)",
    do="multiply `decay_steps` by `gradient_accumulation_steps`; a step then has its last micro-batch's rate",
)
_of(
    KERAS,
    "average",
    what="*fault*: optimizer variables are [said](https://keras.io/api/optimizers/sgd/) to change once a window, yet the"
    " average moves at each micro-batch, towards weights that stand still (keras_average.py)",
    do="take the root of `ema_momentum` that has the number of micro-batches as its degree; it then lags by less than a step",
)
_of(
    ["keras-tensorflow"],
    "order",
    what="*fault*: once `set_random_seed` is called each epoch has the same order, while `fit` is said to shuffle before"
    " each, as it does on the other backends (keras_order.py)",
    known="not found in Keras; of tf.data alike tensorflow#29558",
    do="feed `fit` from `tf.data` with `shuffle`, or from a `PyDataset` that shuffles: both were tried",
)
_of(
    KERAS,
    "unequal",
    what=f"*design*: gradients are averaged over micro-batches, {SGD}",
    known="keras#20241",
    do="batches of equal size",
)
_of(
    KERAS,
    "momentum-rate",
    what=f"*design*: the rate is inside the velocity, {SGD}",
    do="lower the rate more slowly than in torch",
)
_of(
    KERAS,
    "decay",
    what=f"*design*: decoupled, times the rate, {SGD}",
    do="`kernel_regularizer=L2(decay / 2)` is the coupled one",
)
_of(
    ["keras-torch", "keras-jax"],
    "resume-epoch",
    what=f"*design*: BackupAndRestore restores weights and the number of the epoch, {BACKUP}; the order begins anew",
    do="`set_random_seed(seed + epoch)` before each start",
)
_of(
    KERAS,
    "resume-inside",
    "resume-window",
    "resume-scale",
    what=f"*design*: an epoch that was broken off is read from its start, with the weights of its middle, {BACKUP};"
    " the batch is saved beside the epoch, and nothing reads it",
    known="keras#22010",
    do="save at epochs' ends alone: `save_freq='epoch'`",
)
_of(
    ["lightning"],
    "resume-epoch",
    what="*design*: states of random streams are not among the"
    " [contents of a checkpoint](https://lightning.ai/docs/pytorch/stable/common/checkpointing_basic.html); the order begins"
    " anew",
    do="shuffle by a sampler with `set_epoch`, which draws from seed + epoch",
)
_of(
    ["lightning"],
    "resume-inside",
    "resume-window",
    what="*design*: it goes on at the right batch only if the loader has a `state_dict`, and warns",
    known="pytorch-lightning#19764, pytorch-lightning#18780",
    do="torchdata's `StatefulDataLoader`, or checkpoints at epochs' ends",
)
_of(
    ["accelerate"],
    "resume-inside",
    what="*fault*: `skip_first_batches` skips those of another order than was begun (accelerate_resume.py)",
    known="accelerate#2823, accelerate#2016; a repair in accelerate#4233, not merged",
    do="`DataLoaderConfiguration(use_seedable_sampler=True)`: tried in the first epoch; of later ones see accelerate#4233",
)
_of(
    ["accelerate"],
    "resume-window",
    what="*design*: `save_state` saves model, optimizer, streams and what is registered, not gradients that wait",
    do="save where `accelerator.sync_gradients` is true",
)
_of(
    ["deepspeed"],
    "resume-window",
    what="*design*: [checkpoints](https://deepspeed.readthedocs.io/en/latest/model-checkpointing.html) hold weights and the"
    " states of optimizer and scheduler, not gradients that wait; the next window begins with the next micro-batch",
    do="save where `is_gradient_accumulation_boundary()` is true, after the step",
)
_of(
    ["transformers"],
    "training-loss",
    what="*fault*, small: the logged loss is a mean of batch means, `eval_loss` a mean over examples"
    " (transformers_loss.py)",
    known="not found; of evaluation alike transformers#41898",
    do="compare `eval_loss`, evaluated on the training data",
)
_of(
    ["optax"],
    "unequal",
    what="*design*: [MultiSteps](https://optax.readthedocs.io/en/latest/api/optimizer_wrappers.html#optax.MultiSteps)"
    " averages gradients",
    do="batches of equal size",
)
_of(
    ["skorch"],
    "accumulated-loss",
    what="*fault*: the net of the FAQ divides the loss that is recorded, too (skorch_accumulated_loss.py)",
    do="multiply `train_loss` and `valid_loss` by the number of micro-batches",
)
_of(
    ["skorch"],
    "clip",
    what="*fault*: the net of the FAQ sends no `on_grad_computed`, so that GradientNormClipping does nothing"
    " (skorch_clip.py)",
    do="call `clip_grad_norm_` in `train_step`, before the optimizer's step",
)
_of(
    ["skorch"],
    "resume-epoch",
    what="*fault*: LRScheduler goes on from the number of epochs, also where it steps every batch (skorch_schedule.py); that"
    " the order begins anew is *design*: parameters, optimizer and history are"
    " [saved](https://skorch.readthedocs.io/en/stable/user/save_load.html)",
    do="give `LRScheduler` the `last_epoch` to go on from, in batches",
)
_of(
    ["skorch"],
    "resume-inside",
    "resume-window",
    what="*design*: an epoch that was broken off begins anew, and so does the order: parameters, optimizer and history are"
    " [saved](https://skorch.readthedocs.io/en/stable/user/save_load.html)",
    do="stop at epochs' ends",
)
_of(
    ["ignite"],
    "training-loss",
    "accumulated-loss",
    "ranks-loss",
    what="*design*: the loss of its first steps' evaluator, which runs over the training data after each epoch",
    do="`RunningAverage` over the trainer's output is the other",
)
_of(
    ["ignite"],
    "resume-epoch",
    what="*design*: the plain engine does not restore the stream of data,"
    " [documented](https://docs.pytorch.org/ignite/engine.html#deterministic-training)",
    known="ignite#2197 of loading such checkpoints",
    do="`create_supervised_trainer(deterministic=True)`, and `torch.load(weights_only=False)` for what it saves: tried",
)
_of(
    ["ignite"],
    "resume-inside",
    "resume-window",
    what="*design*: the plain engine reads the epoch from its start,"
    " [documented](https://docs.pytorch.org/ignite/engine.html#deterministic-training); gradients that wait are not saved",
    do="stop at epochs' ends: within one, `deterministic=True` loses the order too",
)
_of(
    ["ignite"],
    "ranks-order",
    what="*fault*: on ranks `auto_dataloader(shuffle=True)` makes a sampler that nothing tells the epoch, so that each has the"
    " same order; on one rank each has a new one (ignite_order.py)",
    known="not found in Ignite; mended in its templates: code-generator#130",
    do="`setup_common_training_handlers(trainer, train_sampler=loader.sampler)`, which tells it: tried",
)
_of(
    ["fastai"],
    "unequal",
    what="*design*: `n_acc` is a [number of examples](https://docs.fast.ai/callback.training.html#gradientaccumulation): it"
    " waits until it has seen as many",
    do="a number of examples that is a multiple of `n_acc`",
)
_of(
    ["fastai"],
    "training-loss",
    "accumulated-loss",
    what="*design*: an exponentially smoothed loss,"
    " [AvgSmoothLoss](https://docs.fast.ai/learner.html#avgsmoothloss)",
    do="`learn.validate(dl=learn.dls.train)`",
)
_of(
    ["fastai"],
    "schedule",
    what="*design*: schedules go by the part of the training that is read,"
    " [documented](https://docs.fast.ai/callback.schedule.html#paramscheduler): a window's step has its last micro-batch's"
    " rate",
    do="nothing: the difference is within one step",
)
_of(
    ["fastai"],
    "decay",
    what="*design*: `decouple_wd=True`, [documented](https://docs.fast.ai/optimizer.html#sgd)",
    do="`SGD(decouple_wd=False)`",
)
_of(
    ["fastai"],
    "resume-epoch",
    "resume-inside",
    what="*design*: model and optimizer are [saved](https://docs.fast.ai/learner.html#learner.save), streams are not; the"
    " order begins anew",
    do="`set_seed(seed + epoch)` before each start",
)
