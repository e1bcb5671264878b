#!/usr/bin/env python3
"""Lists models, chats and streams against a running server with OpenAI's Python client.

    pip install openai
    python scripts/openai-python-check.py [http://127.0.0.1:8000/v1] [api key]

Ends with status 0 and one line per check, or with the first check that failed.
"""
import sys

from openai import BadRequestError, NotFoundError, OpenAI

url = sys.argv[1] if len(sys.argv) > 1 else "http://127.0.0.1:8000/v1"
key = sys.argv[2] if len(sys.argv) > 2 else "none"
client = OpenAI(base_url=url, api_key=key, max_retries=0)
messages = [{"role": "user", "content": "Tell me a story about a fox."}]


def check(name, holds, shown):
    print(f"{'ok  ' if holds else 'FAIL'} {name}: {shown}")
    if not holds:
        sys.exit(1)


models = [model.id for model in client.models.list()]
check("models", len(models) > 0, models)
model = models[0]
check("model card", client.models.retrieve(model).id == model, model)

chat = client.chat.completions.create(model=model, messages=messages, max_tokens=24, temperature=0)
text = chat.choices[0].message.content
check("chat", bool(text) and chat.usage.completion_tokens > 0, repr(text))

streamed, usage = "", None
for chunk in client.chat.completions.create(
    model=model, messages=messages, max_tokens=24, temperature=0, stream=True, stream_options={"include_usage": True}
):
    if chunk.choices:
        streamed += chunk.choices[0].delta.content or ""
    usage = chunk.usage or usage
check("stream", streamed == text, "the same text" if streamed == text else repr(streamed))
check("stream usage", usage is not None and usage.total_tokens == chat.usage.total_tokens, usage and usage.total_tokens)

completion = client.completions.create(model=model, prompt="Once upon a time", max_tokens=16, logprobs=2)
check("completion", bool(completion.choices[0].text), repr(completion.choices[0].text))
check("logprobs", len(completion.choices[0].logprobs.tokens) == completion.usage.completion_tokens, "one per token")

extra = client.chat.completions.create(model=model, messages=messages, max_tokens=4, extra_body={"return_token_ids": True})
check("vLLM's extras", len(extra.choices[0].token_ids) == extra.usage.completion_tokens, extra.choices[0].token_ids)

try:
    client.chat.completions.create(model="no-such-model", messages=messages)
    check("unknown model", False, "no error")
except NotFoundError as error:
    check("unknown model", "no-such-model" in str(error), error.status_code)
try:
    client.chat.completions.create(model=model, messages=messages, tools=[{"type": "function", "function": {"name": "f"}}])
    check("unsupported field", False, "no error")
except BadRequestError as error:
    check("unsupported field", error.param == "tools", error.param)
