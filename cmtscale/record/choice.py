"""What `choice.json` calls an answer."""

from typing import Literal

Verdict = Literal["clear", "tie", "undecided", "nothing learned yet"]
DECIDED: tuple[Verdict, ...] = ("clear", "tie")
