"""Is a loss convex in its parameters? A proof, or a witness, but never a guess.

`certify` decides for the loss as it is written in JAX, over the whole parameter space.
What it stands on:

- disciplined convex programming (Grant, Boyd and Ye 2006; CVXPY): rules that are
  sufficient, not necessary, and for expressions that are written for them. Here they
  apply to what JAX traces, a subtracted maximum or a stable softplus included;
- certificates from the Hessian (Klaus, Merk, Wiedom, Laue and Giesen, "Convexity
  certificates from Hessians", NeurIPS 2022), which prove more than composition does.
  Here the Hessian serves where it is exact: at degree 2, and in one variable;
- proofs that a machine checks: CvxLean (Bentkamp, Fernández Mir and Avigad 2023) in
  Lean, exact rational sums of squares (Peyrl and Parrilo 2008). Here a small checker
  derives every step anew, in rationals or with rigorous balls;
- ball arithmetic (Johansson 2017), so that "not convex" is a theorem too.
"""

from jaxdl.convexity.certify import certify
from jaxdl.convexity.proof import Proof
from jaxdl.convexity.verdict import Convex, NotConvex, Undecided, Verdict, Witness

__all__ = ["Convex", "NotConvex", "Proof", "Undecided", "Verdict", "Witness", "certify"]
