"""What a run leaves behind when it is over: result.json and the figures."""

from pathlib import Path
from typing import Any

from scipy.special import softmax

from experiments.job import Job, described, flops, parameters, trained_parameters
from jaxdl import plots, runs
from jaxdl.data.sources import Dataset
from jaxdl.training import loop
from jaxdl.training.epoch import Scores


def write(job: Job, path: Path, finished: loop.Finished, scores: Scores) -> None:
    """Records and draws how a run has ended and what it scored on the test set."""
    record, run = finished.record, job.config.run
    steps = int(finished.state.step)
    runs.write_json(
        path / "result.json",
        {
            "experiment": job.experiment,
            "arch": job.config.model.arch,
            "dataset": described(job.dataset),
            "seed": run.seed,
            "epochs": steps / job.steps_per_epoch,
            "steps": steps,
            "ended": finished.reason,
            "test": summary(scores),
            "validation": {
                "accuracy": record.best_accuracy,
                "epoch": record.best_epoch,
                "count": len(job.dataset.validation.labels),
            },
            "parameters": parameters(job),
            "trained_parameters": trained_parameters(job, finished.state),
            "pretrained": job.weights and job.weights._asdict(),
            "flops": flops(job),
            "wall_seconds": round(record.seconds, 3),
            "images_per_second": round(_pace(record, steps) * run.batch_size, 1),
            "device": runs.device_name(job.devices.size),
            "versions": runs.versions(),
        },
    )
    draw(path, job.dataset, scores, runs.read_metrics(path), job.config.model.arch)


def _pace(record: loop.Record, steps: int) -> float:
    """Steps per second of training; of a run too short to tell, compiling included."""
    if record.timed_steps:
        return record.timed_steps / record.timed_seconds
    return steps / record.seconds


def draw(
    path: Path,
    dataset: Dataset,
    scores: Scores,
    metrics: list[dict[str, Any]],
    arch: str,
) -> None:
    """Writes the figures of a run; their titles say which data it really used."""
    title = f"{arch}, {dataset.name} test ({len(scores.labels):,} images)"
    trained = f"{arch}, {dataset.name} ({len(dataset.train.labels):,} images)"
    probabilities = softmax(scores.logits, axis=-1)
    matrix = scores.confusion
    figures = {
        "curves": plots.curves(metrics, trained),
        "confusion": plots.confusion(matrix, dataset.classes, title),
        "per_class": plots.per_class(matrix, dataset.classes, title),
        "mistakes": plots.mistakes(
            dataset.test.images,
            scores.labels,
            scores.predictions,
            probabilities,
            dataset.classes,
            title,
        ),
    }
    (path / "figures").mkdir(exist_ok=True)
    for name, figure in figures.items():
        plots.save(figure, path / "figures" / f"{name}.png")


def summary(scores: Scores) -> dict[str, Any]:
    """Accuracy and loss over a split, for files."""
    return {
        "accuracy": scores.accuracy,
        "loss": scores.loss,
        "count": len(scores.labels),
    }
