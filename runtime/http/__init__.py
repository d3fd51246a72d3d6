"""What every server of ours does with HTTP requests, whichever engine it runs: the fields that it
takes, the schemas of strangers, OpenAI's formats, refusals.

`app` has the endpoints over an engine of this process; those of SGLang stand in
`nprdsl.runtime.sglang.http`.
"""
