"""What the checker must refuse: proofs that it accepts, made wrong."""

import ast
import dataclasses
import inspect

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from convexity.rows import NOT_CONVEX, data
from flint import fmpq, fmpq_mat

from jaxdl.convexity import Convex, certify, checker, witness
from jaxdl.convexity.checker import ProofError, check
from jaxdl.convexity.problems import PROBLEMS
from jaxdl.convexity.program import Program
from jaxdl.convexity.proof import Claim, Proof, Step
from jaxdl.convexity.prove import prove
from jaxdl.convexity.tracing import trace

KEY = jax.random.key(0)
A = np.array([[2.0, -1, 0], [-1, 2, -1], [0, -1, 2]])
LOSSES = {name: PROBLEMS[name](*data()) for name in PROBLEMS if name not in NOT_CONVEX}
LOSSES |= {
    "norm": (lambda x: jnp.linalg.norm(A @ x - 1) + jnp.abs(x).max(), np.ones(3)),
    "powers": (lambda x: (jax.nn.relu(A @ x) ** 3).sum() + (x**4).sum(), np.ones(3)),
    "quadratic": (lambda x: x @ A @ x + jax.nn.softplus(x).sum(), np.ones(3)),
    "log of sigmoid": (lambda x: -jnp.log(jax.nn.sigmoid(A @ x)).sum(), np.ones(3)),
}
"""Their steps claim no more than is tight, so that any stronger claim is false."""


def proven(name) -> tuple[Program, Proof]:
    loss, example = LOSSES[name]
    verdict = certify(loss, example, key=KEY)
    assert isinstance(verdict, Convex)
    return verdict.proof.program, verdict.proof


def replaced(proof: Proof, k: int, **changes) -> Proof:
    steps = list(proof.steps)
    steps[k] = dataclasses.replace(steps[k], **changes)
    return Proof(proof.program, tuple(steps))


def refused(program: Program, proof: Proof) -> bool:
    try:
        check(program, proof)
    except ProofError:
        return True
    return False


FALSE = {
    "constant": (),
    "affine": ("constant",),
    "convex": ("concave", "affine", "constant"),
    "concave": ("convex", "affine", "constant"),
    "nonnegative": ("nonpositive",),
    "nonpositive": ("nonnegative",),
}
"""What a tight claim is not."""


@pytest.mark.parametrize("name", LOSSES)
def test_a_claim_made_stronger_is_refused(name):
    program, proof = proven(name)
    for k, step in enumerate(proof.steps):
        if step.claim.shift:  # less what it is a copy of, it is even constant
            continue
        for kind in FALSE[step.claim.kind]:
            stronger = dataclasses.replace(step.claim, kind=kind)
            assert refused(program, replaced(proof, k, claim=stronger)), (step, kind)


@pytest.mark.parametrize("name", LOSSES)
def test_a_claim_about_something_else_is_refused(name):
    program, proof = proven(name)
    last = len(proof.steps) - 1
    others = [*program.inputs, *(e.output for e in program.equations)]
    for k, step in enumerate(proof.steps):
        c = step.claim
        wrong = [dataclasses.replace(c, form=f) for f in {"log", "root"} - {c.form}]
        if c.kind == "constant":  # it may well be true of a constant
            wrong = [w for w in wrong if w.variable not in program.data]
        wrong += [
            dataclasses.replace(c, shift=s, base=others[0])
            for s in (1, -1)
            if (s, others[0]) != (c.shift, c.base)
        ]
        for claim in wrong:
            mutant = replaced(proof, k, claim=claim)
            assert refused(program, mutant), (step, claim)
        if k == last:
            for v in set(others) - {c.variable}:
                claim = dataclasses.replace(c, variable=v)
                assert refused(program, replaced(proof, k, claim=claim))


@pytest.mark.parametrize("name", LOSSES)
def test_a_step_without_its_premises_is_refused(name):
    program, proof = proven(name)
    for k, step in enumerate(proof.steps):
        if not step.premises:
            continue
        wrong = [(), step.premises[1:], (k,) * len(step.premises)]
        wrong += [tuple(p + len(proof.steps) for p in step.premises)]
        wrong += [tuple(p - k for p in step.premises)]  # counted from the end
        about = proof.steps[step.premises[0]].claim.variable
        other = [i for i in range(k) if proof.steps[i].claim.variable != about]
        wrong += [(i, *step.premises[1:]) for i in other[:3]]
        for premises in wrong:
            assert refused(program, replaced(proof, k, premises=premises)), step


@pytest.mark.parametrize("name", LOSSES)
def test_a_step_by_a_rule_that_does_not_give_it_is_refused(name):
    program, proof = proven(name)
    for k, step in enumerate(proof.steps):
        # Two rules say the same of sums, and weakening repeats what a premise says
        alike = {"every", "linear"} if step.rule in ("every", "linear") else {step.rule}
        for rule in {*checker.RULES, "no such rule"} - alike:
            assert refused(program, replaced(proof, k, rule=rule)), (step, rule)


@pytest.mark.parametrize("name", LOSSES)
def test_a_proof_that_ends_elsewhere_is_refused(name):
    program, proof = proven(name)
    assert refused(program, Proof(program, ()))
    assert refused(program, Proof(program, proof.steps[:-1]))
    assert refused(program, Proof(program, proof.steps[1:]))
    assert refused(program, Proof(program, proof.steps[::-1]))


OTHER_PRIMITIVE = {
    "add": "sub",
    "sub": "add",
    "max": "min",
    "min": "max",
    "reduce_max": "reduce_min",
    "neg": "exp",
    "abs": "neg",
    "exp": "neg",
    "log": "exp",
    "log1p": "expm1",
    "sqrt": "exp",
    "mul": "div",
    "logistic": "exp",
}


def mutants(program: Program):
    """Programs that differ in one equation or one array of data."""
    for k, e in enumerate(program.equations):
        changed = []
        if e.primitive in OTHER_PRIMITIVE:
            changed.append(
                dataclasses.replace(e, primitive=OTHER_PRIMITIVE[e.primitive])
            )
        if e.primitive == "integer_pow":
            changed.append(dataclasses.replace(e, params={"y": e.params["y"] + 1}))
            changed.append(dataclasses.replace(e, params={"y": -e.params["y"]}))
        if e.primitive in ("sub", "div", "max"):
            changed.append(dataclasses.replace(e, inputs=e.inputs[::-1]))
        if e.primitive == "move" and e.params["at"].size > 1:
            at = np.roll(e.params["at"].reshape(-1), 1).reshape(e.params["at"].shape)
            changed.append(dataclasses.replace(e, params={"at": at}))
        for new in changed:
            equations = (*program.equations[:k], new, *program.equations[k + 1 :])
            yield dataclasses.replace(program, equations=equations)
    for v, array in program.data.items():
        yield dataclasses.replace(program, data={**program.data, v: -array})


@pytest.mark.parametrize("name", LOSSES)
def test_a_proof_about_another_loss_is_refused_unless_that_is_convex_too(name):
    """Nothing that the checker accepts for a mutated loss has a witness against it."""
    program, proof = proven(name)
    rng = np.random.default_rng(0)
    mutated = list(mutants(program))
    accepted = [m for m in mutated if not refused(m, Proof(m, proof.steps))]
    assert len(accepted) < len(mutated)
    for mutant in accepted:
        for scale in (0.1, 1.0, 10.0) * 5:
            a, b = scale * rng.standard_normal((2, program.size))
            assert not witness.verify(mutant, mutant.point(a), mutant.point(b)), mutant


def quadratic_proof() -> tuple[Program, Proof, fmpq_mat]:
    program = trace(lambda x: x @ A @ x, np.ones(3))
    (step,) = certify(lambda x: x @ A @ x, np.ones(3), key=KEY).proof.steps
    return program, Proof(program, (step,)), step.factors


def test_factors_that_are_not_of_the_hessian_are_refused():
    program, proof, factors = quadratic_proof()
    check(program, proof)
    for i in range(4):
        for j in range(3):
            for change in (fmpq(1, 10**30), fmpq(-3)):
                rows = factors.tolist()
                rows[i][j] += change
                mutant = replaced(proof, 0, factors=fmpq_mat(rows))
                assert refused(program, mutant), (i, j, change)
    assert refused(program, replaced(proof, 0, factors=None))
    assert refused(program, replaced(proof, 0, factors=fmpq_mat(2, 2)))


def test_factors_of_an_indefinite_hessian_are_refused():
    indefinite = trace(lambda x: x[0] ** 2 - x[1] ** 2, np.ones(2))
    factors = fmpq_mat([[1, 0], [0, 1], [2, -2]])
    step = Step(Claim(indefinite.output, "convex"), "algebra", (), factors)
    assert refused(indefinite, Proof(indefinite, (step,)))


@pytest.mark.parametrize(
    ("delta", "slope", "convex"),
    [
        *((1.0, 1.0, True), (1.0, 1.5, True), (1.0, 0.999, False)),
        *((-1.0, 1.0, False), (1.0, np.inf, False)),
    ],
)
def test_a_huber_loss_needs_its_slopes_to_match(delta, slope, convex):
    def loss(x):
        u = jnp.abs(x)
        q = jnp.minimum(u, delta)
        return (0.5 * q**2 + slope * (u - q)).sum()

    # slope 1.5 bends upwards at delta
    proof = prove(trace(loss, np.ones(2)))
    assert proof is not None
    assert refused(proof.program, proof) != convex


def test_the_checker_is_small_and_shares_nothing_with_the_search():
    source = inspect.getsource(checker)
    tree = ast.parse(source)
    imported = {
        f"{node.module}.{name.name}"
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom)
        for name in node.names
    }
    assert not any("prove" in name.split(".")[2:] for name in imported)
    documented = [
        node
        for node in ast.walk(tree)
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef)
        and ast.get_docstring(node)
    ]
    prose = sum(n.body[0].end_lineno - n.body[0].lineno + 1 for n in documented)
    lines = [line for line in source.splitlines() if line.strip()]
    assert len(lines) - prose < 160
