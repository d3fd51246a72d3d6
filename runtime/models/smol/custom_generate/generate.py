"""Decodes in parallel, by a schema of nprdsl:

    model.generate(**inputs, custom_generate=FOLDER, trust_remote_code=True, max_new_tokens=500)

A training run wrote this file. `limits=` and `parallel=` are those of nprdsl's LocalEngine.
"""

from functools import cache

SCHEMA = '{"name":"npr","source":"","imports":{},"terminals":{}}'


@cache
def _schema(form):
    return form.model_validate_json(SCHEMA).read()


def generate(model, **arguments):
    try:
        from nprdsl.runtime.local.custom_generate import generate_in_parallel
        from nprdsl.runtime.sglang.protocol import SchemaForm
    except ModuleNotFoundError as error:
        raise ImportError(
            "this model decodes in parallel with nprdsl, which is not installed here: "
            "pip install 'nprdsl[local]', or leave out `custom_generate` and `trust_remote_code`"
        ) from error
    return generate_in_parallel(model, _schema(SchemaForm), **arguments)
