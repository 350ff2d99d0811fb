"""Proofs of convexity: annotations of a program's variables, each with its rule."""

import dataclasses


@dataclasses.dataclass(frozen=True)
class Proof:
    """A list of steps; the last one says that the loss is convex."""

    steps: tuple[str, ...] = ()

    def summary(self) -> str:
        """The rules in the order of their use, in one line."""
        return ", ".join(self.steps)
