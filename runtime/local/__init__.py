"""The embedded engine: torch and any Hugging Face causal LM that takes 4-D masks and positions."""

from nprdsl.runtime.local.engine import LocalEngine

__all__ = ["LocalEngine"]
