"""What an engine writes while a model trains: rollouts, graded into episodes."""
