"""A process of a run on the prepared squares, as tests start it: ``python -m tests.train.worker OPTIONS``.

Options are one JSON object: `data_dir`, `workdir`; where there are several processes `coordinator`, `num_processes`,
`process_id`; `devices` of this process; `pause`: seconds that each batch is held back, so that a signal meets a run
under way; `changes`: fields of the config by path. The order of the data is appended to
``WORKDIR/order_<process>.txt``, one line a step: the step of the stage, then the records of this process.
"""

import json
import logging
import pathlib
import sys
import time

import jax

from facejax.overrides import override
from facejax.train import distributed, loop, preemption
from facejax.train.setup import set_up

from . import prepared


def note_order(workdir: pathlib.Path, pause: float) -> None:
    """Makes the loop's loader record its batches, and slows it down."""
    make = loop.train_loader
    path = workdir / f"order_{jax.process_index()}.txt"

    def loader(*args, start_step, **kwargs):
        with path.open("a") as file:
            for step, batch in enumerate(make(*args, start_step=start_step, **kwargs), start_step):
                file.write(f"{step} {' '.join(map(str, batch['index']))}\n")
                file.flush()
                time.sleep(pause)
                yield batch

    loop.train_loader = loader


def main(options: dict) -> None:
    """Trains; exits with the exit code of a preempted run if it was preempted."""
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    jax.config.update("jax_num_cpu_devices", options["devices"])
    if "num_processes" in options:
        distributed.join(options["coordinator"], options["num_processes"], options["process_id"])
    workdir = pathlib.Path(options["workdir"])
    jax.config.update("jax_compilation_cache_dir", str(workdir.parent / ".jax_cache"))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
    config = prepared.toy_config()
    for path, text in options["changes"].items():
        config = override(config, path, text)
    with prepared.registered_toy_net():
        note_order(workdir, options.get("pause", 0.0))
        setup = set_up(config, pathlib.Path(options["data_dir"]), workdir)
        try:
            loop.train(setup)
        except preemption.PreemptedError as error:
            print(error, flush=True)
            sys.exit(preemption.EXIT_CODE)


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
