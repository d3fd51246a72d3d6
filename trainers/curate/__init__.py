"""Sequential chains of thought become parallel traces of any schema (arXiv 2506.09991)."""
