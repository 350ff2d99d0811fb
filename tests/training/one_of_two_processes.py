"""One process of a run over several: trains, stops, resumes, evaluates.

    JAX_COORDINATOR_ADDRESS=... JAX_NUM_PROCESSES=2 JAX_PROCESS_ID=0 \
        python one_of_two_processes.py {jit|pmap} {resident|streamed} FOLDER

Leaves what it found in FOLDER/<process>.npz; `test_processes` starts it.
"""

import sys
from pathlib import Path

from jaxdl import runtime


def main(kind: str, placed: str, folder: Path) -> None:
    runtime.start(folder / "cache")
    # Only now: importing these starts no backend, but using them does.
    import jax
    import numpy as np
    import tiny_run

    from jaxdl.training import checkpoints, loop
    from jaxdl.training.loop import Finished, Progressed, Record

    assert jax.process_count() == 2
    assert (jax.local_device_count(), jax.device_count()) == (2, 4)
    loop.SLICE_SECONDS = 0.0
    loop.CHUNK_BYTES = 1
    tiny = tiny_run.make(
        tiny_run.with_(parallel=kind, **tiny_run.EVERYTHING),
        resident=placed == "resident",
    )
    schedule = loop.Schedule(2, tiny_run.STEPS, 4, 1e9, None)

    def session(stop_after: int | None) -> Finished:
        """As an experiment does: open, restore if there is something, train."""
        done = 0

        def stop() -> bool:  # a signal reaches one of the processes only
            return done == stop_after and jax.process_index() == 1

        with (
            checkpoints.open_manager(folder / "latest", 2) as latest,
            checkpoints.open_manager(folder / "best", 1) as best,
        ):
            found = checkpoints.restore(latest, tiny.state)
            state, record = (tiny.state, {}) if found is None else found
            for event in loop.fit(
                tiny.start(state),
                Record(**record),
                tiny.data,
                tiny_run.VALIDATION,
                tiny.programs,
                schedule,
                latest,
                best,
                stop,
            ):
                if isinstance(event, Progressed):
                    done = event.step
            assert isinstance(event, Finished)
            return event

    stopped = session(stop_after=3)
    assert stopped.reason == "stopped" and int(stopped.state.step) == 3
    end = session(stop_after=None)
    assert end.reason == "done"
    scores = tiny.programs.evaluate(end.state.ema, tiny_run.VALIDATION)
    state = end.state._replace(key=jax.random.key_data(end.state.key))
    leaves = [np.asarray(leaf) for leaf in jax.tree.leaves(state)]
    with checkpoints.open_manager(folder / "best", 1) as best:
        found, _ = checkpoints.restore(best, tiny.state)
    np.savez(
        folder / f"{jax.process_index()}.npz",
        logits=scores.logits,
        losses=scores.losses,
        best_epoch=end.record.best_epoch,
        best_step=found.step,
        **{f"leaf_{i}": leaf for i, leaf in enumerate(leaves)},
    )


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], Path(sys.argv[3]))
