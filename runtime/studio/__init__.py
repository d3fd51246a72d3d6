"""The studio: a page on this machine to write a schema, look at it, and watch a model run it.

What is drawn comes from `nprdsl.studio`, as in pages that are files; here is what serves it, in
`app`.
"""
