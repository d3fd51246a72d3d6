"""Whether an answer is right: the answer of a text, compared with the one that is known."""
