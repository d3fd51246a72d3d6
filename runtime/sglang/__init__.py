"""Parallel traces on stock SGLang: a plugin for the server's processes, and a client of the server.

    client/       `SGLangEngine`, in the user's process: speaks HTTP, needs no SGLang
    protocol      what travels between the two, as JSON
    schema_…      whose schemas a server takes; the processes that read them
    preparation   checks a request and binds its schema, in the server's processes
    http/         the server's HTTP process: what every request passes, `/server_info`, the
                  tokenizer's files, chat completions
    plugin/       the server's scheduler process: forks and joins branches in SGLang's KV cache
    launch        starts a server with the plugin (`nprdsl serve`)
    cpu/          stand-ins that let SGLang run without CUDA

Neither side imports the other; `launch` alone uses both. SGLang finds the plugin through the entry
point group `sglang.srt.plugins`.
"""
