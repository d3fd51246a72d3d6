"""Writes `custom_generate/generate.py` into the folder of a trained model.

With it stock transformers decodes in parallel: `model.generate(custom_generate=FOLDER,
trust_remote_code=True)` runs that file, which holds the schema, types included, and calls
`nprdsl.runtime.local.custom_generate`. It needs nprdsl where it runs, and says so.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

from nprdsl.runtime.http.wire_forms import SchemaForm
from nprdsl.schema import Schema
from nprdsl.trace.journal import write_whole

_TEMPLATE: Final = '''"""Decodes in parallel, by a schema of nprdsl:

    model.generate(**inputs, custom_generate=FOLDER, trust_remote_code=True, max_new_tokens=500)

A training run wrote this file. `limits=` and `parallel=` are those of nprdsl's LocalEngine.
"""

from functools import cache

SCHEMA = {schema}


@cache
def _schema(form):
    return form.model_validate_json(SCHEMA).read()


def generate(model, **arguments):
    try:
        from nprdsl.runtime.http.wire_forms import SchemaForm
        from nprdsl.runtime.local.custom_generate import generate_in_parallel
    except ModuleNotFoundError as error:
        raise ImportError(
            "this model decodes in parallel with nprdsl, which is not installed here: "
            "pip install 'nprdsl[local]', or leave out `custom_generate` and `trust_remote_code`"
        ) from error
    return generate_in_parallel(model, _schema(SchemaForm), **arguments)
'''


def write_custom_generate(folder: Path, schema: Schema) -> Path:
    """Makes `model.generate(custom_generate=folder)` decode in parallel; gives the file."""
    file = folder / "custom_generate" / "generate.py"
    file.parent.mkdir(exist_ok=True)
    form = SchemaForm.of(schema).model_dump_json()
    write_whole(file, _TEMPLATE.format(schema=repr(form)))
    return file
