"""Certificates of `experiments.convexity` in files, and their verification from there.

A proof is stored as its steps, a witness as its two points, each number exactly.
Neither the loss nor the data are stored: both are built anew, and the certificates are
checked against them.

Import it late: it brings JAX.
"""

import dataclasses
import hashlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
from flint import fmpq, fmpq_mat

from experiments import convexity_table as table
from jaxdl import runs
from jaxdl.convexity import Convex, NotConvex, checker, witness
from jaxdl.convexity.program import Program
from jaxdl.convexity.proof import Claim, Proof, Step
from jaxdl.convexity.tracing import trace
from jaxdl.errors import InputError

FILE = "certificates.json"
DAMAGED = (ArithmeticError, AttributeError, LookupError, TypeError, ValueError)
"""What reading a certificate may end in that was not written as here."""


def to_json(rows: Sequence[table.Row]) -> dict[str, Any]:
    """All certificates as plain JSON values."""
    return {
        "data": table.DATA,
        "digest": digest(),
        "versions": runs.versions(),
        "losses": {row.name: _certificate(row) for row in rows},
    }


def to_text(rows: Sequence[table.Row]) -> str:
    """All certificates for readers."""
    parts = [f"Certificates of experiments.convexity, on {table.DATA}"]
    for row in rows:
        parts += ["", f"== {row.name}: {row.verdict}", ""]
        if isinstance(row.verdict, Convex):
            parts.append(str(row.verdict.proof))
        elif isinstance(row.verdict, NotConvex):
            found = row.verdict.witness
            for name in ("a", "b"):
                point = jax.tree.map(np.ndarray.tolist, getattr(found, name))
                parts.append(f"{name} = {point}")
                low, high = getattr(found, f"at_{name}")
                parts.append(f"f({name}) lies in [{low!r}, {high!r}]")
            low, high = found.at_midpoint
            parts.append(f"f((a + b) / 2) lies in [{low!r}, {high!r}]")
    return "\n".join(parts) + "\n"


def check(folder: Path) -> Iterator[tuple[str, str]]:
    """Verifies the certificates of a study, one after the other.

    Yields:
      The name of a loss, and a line that says what holds or begins with "FAILED".

    Raises:
      InputError: there are none in the folder, or they are about other data or losses.
    """
    path = folder / FILE
    stored = runs.read_json(path)
    if stored.get("digest") != digest():
        raise InputError(
            f"{path} is not about {table.DATA} as it is here; run the study anew"
        )
    losses = stored.get("losses")
    if not isinstance(losses, dict):
        raise InputError(f"{path} has no object 'losses'; run the study anew")
    if unknown := [name for name in losses if name not in table.PROBLEMS]:
        raise InputError(
            f"{path} names an unknown loss {unknown[0]!r}; known are "
            f"{', '.join(table.PROBLEMS)}"
        )
    for name in table.PROBLEMS:
        if name not in losses:
            yield name, "FAILED: the file has no certificate of it"
            continue
        try:
            yield name, _verified(name, losses[name])
        except DAMAGED as error:
            yield name, f"FAILED: the certificate cannot be read ({error!r})"


def digest() -> str:
    """SHA-256 of the data that the losses are about."""
    features, labels = table.data()
    return hashlib.sha256(features.tobytes() + labels.tobytes()).hexdigest()


def _certificate(row: table.Row) -> dict[str, Any]:
    verdict = row.verdict
    if isinstance(verdict, Convex):
        return {
            "verdict": "convex",
            "program": _traced(verdict.proof.program),
            "steps": [_step(s) for s in verdict.proof.steps],
        }
    if isinstance(verdict, NotConvex):
        ends = {name: getattr(verdict.witness, name) for name in ("a", "b")}
        return {"verdict": "not convex", **{k: _point(v) for k, v in ends.items()}}
    return {"verdict": "undecided", "tried": verdict.tried}


def _verified(name: str, certificate: dict[str, Any]) -> str:
    """What a stored certificate comes to."""
    loss, start = table.problem(name)
    program = trace(loss, start)
    verdict = certificate["verdict"]
    if verdict == "convex":
        if certificate["program"] != _traced(program):
            return (
                "FAILED: the proof is about a loss that is computed in other steps, as "
                "by another version of jax or jaxdl; run the study anew"
            )
        proof = Proof(program, tuple(map(_read_step, certificate["steps"])))
        try:
            checker.check(program, proof)
        except checker.ProofError as error:
            return f"FAILED: {error}"
        return f"convex, by a proof of {len(proof.steps)} steps"
    if verdict == "not convex":
        a, b = (_read_point(certificate[end], start) for end in ("a", "b"))
        found = witness.verify(program, a, b)
        return f"not convex: {found}" if found else "FAILED: not above the chord"
    if verdict == "undecided":
        return "undecided, nothing to check"
    return f"FAILED: {verdict!r} is no verdict"


def _traced(program: Program) -> str:
    """SHA-256 of the steps that a loss takes: a proof names its variables by them."""
    steps = [(e.primitive, e.inputs, e.output) for e in program.equations]
    return hashlib.sha256(repr(steps).encode()).hexdigest()


def _point(tree: Any) -> list[list[str]]:
    """The numbers of each leaf, exactly."""
    return [
        [float(x).hex() for x in np.asarray(leaf).ravel()]
        for leaf in jax.tree.leaves(tree)
    ]


def _read_point(stored: list[list[str]], like: Any) -> Any:
    leaves, structure = jax.tree.flatten(like)
    found = [
        np.array([float.fromhex(x) for x in numbers]).reshape(leaf.shape)
        for numbers, leaf in zip(stored, leaves, strict=True)
    ]
    return jax.tree.unflatten(structure, found)


def _step(step: Step) -> dict[str, Any]:
    stored = dataclasses.asdict(dataclasses.replace(step, factors=None))
    if step.factors is not None:
        stored["factors"] = [[str(x) for x in row] for row in step.factors.tolist()]
    return stored


def _read_step(stored: dict[str, Any]) -> Step:
    fields = dict(stored, claim=Claim(**stored["claim"]))
    fields["premises"] = tuple(fields["premises"])
    if fields["factors"] is not None:
        fields["factors"] = fmpq_mat(
            [[fmpq(*map(int, x.split("/"))) for x in row] for row in fields["factors"]]
        )
    return Step(**fields)
