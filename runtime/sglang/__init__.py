"""Parallel traces on stock SGLang: a plugin for its processes, and a client of its server.

`protocol` is what travels between the two. The plugin is found by SGLang itself, through the entry
point group `sglang.srt.plugins`.
"""
