"""The schemas that ship with the package, and `parallel.lark`, which holds the five templates."""
