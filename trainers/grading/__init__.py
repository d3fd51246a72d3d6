"""Whether an answer is right: the answer of a text, compared with the one that is known."""

from nprdsl.trainers.grading.grading import is_right

__all__ = ["is_right"]
