"""Python's `openai` client against a server that serves the model `m`. usage: openai_client.py URL JOB     (JOB: see serve-check.mjs)"""

import json
import sys

import openai

job = json.loads(sys.argv[2])
client = openai.OpenAI(base_url=sys.argv[1], api_key="none")
assert [model.id for model in client.models.list()] == ["m"]

options = dict(model="m", prompt=job["prompt"], max_tokens=job["numTokens"], temperature=0)
extra = dict(ignore_eos=True, return_token_ids=True)
whole = client.completions.create(**options, extra_body=extra)
assert whole.choices[0].token_ids == job["tokens"], whole
assert whole.usage.completion_tokens == job["numTokens"], whole.usage
parts = [part.choices[0] for part in client.completions.create(**options, stream=True, extra_body=extra) if part.choices]
assert "".join(part.text for part in parts) == whole.choices[0].text
print(f"openai {openai.__version__}, completion and stream of {job['numTokens']} tokens", end="")

if job["chats"]:
    messages = [dict(role="user", content="Tell me a story about a fox.")]
    options = dict(model="m", messages=messages, max_tokens=32, temperature=0)
    whole = client.chat.completions.create(**options).choices[0].message.content
    parts = client.chat.completions.create(**options, stream=True)
    streamed = "".join(part.choices[0].delta.content or "" for part in parts if part.choices)
    assert whole == streamed and len(whole.strip()) > 20, (whole, streamed)
    print(f", chat: {' '.join(whole.split())}", end="")
print()
