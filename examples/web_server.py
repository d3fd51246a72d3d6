"""A web application: POST /generate gives a result, POST /stream its events as they happen (SSE).

    pip install 'nprdsl[local]' fastapi uvicorn
    uvicorn examples.web_server:app
    curl -N localhost:8000/stream -H 'Content-Type: application/json' -d '{"prompt": "37*42?"}'

All requests share the rounds of one model. A client that goes away aborts its request.
"""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import Any

from fastapi import FastAPI, HTTPException, Request
from fastapi.responses import JSONResponse, StreamingResponse
from pydantic import BaseModel

import nprdsl
from nprdsl.runtime import LocalEngine, Sampling

app, engine, schema = FastAPI(), LocalEngine.from_pretrained("arith"), nprdsl.load("arith")


class Question(BaseModel):
    prompt: str
    max_tokens: int = 600
    seed: int = 0

    def options(self) -> dict[str, Any]:
        limits = nprdsl.Limits(max_tokens=self.max_tokens)
        return {"chat": True, "limits": limits, "sampling": Sampling(seed=self.seed)}


@app.exception_handler(ValueError)  # a budget that no trace can meet, a prompt that is too long
async def refuse(_: Request, error: ValueError) -> JSONResponse:
    return JSONResponse({"error": str(error)}, status_code=400)


@app.post("/generate")
async def generate(question: Question, request: Request) -> dict[str, Any]:
    call = asyncio.create_task(engine.agenerate(schema, question.prompt, **question.options()))
    try:
        while not (await asyncio.wait([call], timeout=0.2))[0]:
            if await request.is_disconnected():
                raise HTTPException(499)  # nobody reads it
        return call.result().to_dict()
    finally:
        call.cancel()


@app.post("/stream")
async def stream(question: Question) -> StreamingResponse:
    events = engine.astream(schema, question.prompt, **question.options())
    first = await anext(events)  # what is refused, is refused here

    async def lines() -> AsyncIterator[str]:
        async with aclosing(events):
            yield f"data: {json.dumps(first.to_dict())}\n\n"
            async for event in events:
                yield f"data: {json.dumps(event.to_dict())}\n\n"

    return StreamingResponse(lines(), media_type="text/event-stream")
