"""What is said about a file while it is read: notes, damage, and why it can't be read."""

from __future__ import annotations

from fractions import Fraction
from typing import NoReturn

_MOST = 10  # notes; a file can be damaged in thousands of places


class Findings:
    """Collects what was found.

    Attributes:
        notes: in words, the first of them.
        time: seconds of the file's clock up to which was read.
        start: at which the first frame is shown, from which times are counted in notes.
    """

    def __init__(self, name: str, keep_going: bool) -> None:
        """Begin.

        Args:
            name: of the file.
            keep_going: damage is a note, not an error.
        """
        self._name, self.keep_going = name, keep_going
        self.notes: list[str] = []
        self.time = self.start = Fraction(0)

    def note(self, text: str) -> None:
        """Note what happened."""
        if len(self.notes) < _MOST and text not in self.notes:
            self.notes.append(text)

    def damaged(self, text: str) -> None:
        """Note damage at this time, or raise ValueError."""
        where = f"at {self.seconds(self.time)}: "
        if not self.keep_going:
            self.fail(f"{where}{text}; get the file again, or keep going to take what is left")
        self.note(where + text)

    def fail(self, text: str) -> NoReturn:
        """Raise ValueError, which names the file."""
        raise ValueError(f"{self._name}: {text}")

    def seconds(self, time: Fraction) -> str:
        """A time of the file's clock as seconds from the first frame."""
        return f"{float(time - self.start):.2f} s"
