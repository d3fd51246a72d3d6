"""From traces to one optimizer step: packed rows, their log-probabilities, the update."""
