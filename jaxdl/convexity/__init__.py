"""Is a loss convex in its parameters? Proofs, witnesses and curvature."""

from jaxdl.convexity.certify import certify
from jaxdl.convexity.verdict import Convex, NotConvex, Undecided, Verdict, Witness

__all__ = ["Convex", "NotConvex", "Undecided", "Verdict", "Witness", "certify"]
