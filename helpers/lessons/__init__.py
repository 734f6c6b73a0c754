"""What a page asks of its reader: guesses before the evidence, verdicts on answers, and progress on this machine."""

from helpers.lessons.exercises import Exercise, check, exercise, register
from helpers.lessons.prediction import Guess, predict
from helpers.lessons.reconciliation import calibration, reconcile
from helpers.lessons.verdict import NOT_YET, Unanswered, answer

__all__ = [
    "NOT_YET",
    "Exercise",
    "Guess",
    "Unanswered",
    "answer",
    "calibration",
    "check",
    "exercise",
    "predict",
    "reconcile",
    "register",
]
