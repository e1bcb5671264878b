"""transformers' generate, in static batches. usage: transformers_engine.py MODEL_DIR OPTIONS

OPTIONS, as JSON: device ("cpu"), threads (torch's own number), batchSize (all prompts of a job in one batch).
"""
import json
import sys
import time

import torch
import transformers

transformers.logging.set_verbosity_error()


def say(message: dict) -> None:
    print(json.dumps(message), flush=True)


@torch.inference_mode()
def generate(model, prompts: list[list[int]], lengths: list[int]) -> list[list[int]]:
    """Greedy tokens of each prompt, exactly `lengths` of them (no end token): the batch runs until its longest answer is there."""
    longest = max(map(len, prompts))
    ids = torch.tensor([[0] * (longest - len(prompt)) + prompt for prompt in prompts], device=model.device)
    mask = torch.tensor([[0] * (longest - len(prompt)) + [1] * len(prompt) for prompt in prompts], device=model.device)
    most = max(lengths)
    out = model.generate(ids, attention_mask=mask, do_sample=False, min_new_tokens=most, max_new_tokens=most)
    return [row[longest : longest + length] for row, length in zip(out.tolist(), lengths)]


def main() -> None:
    options = dict(device="cpu", threads=None, batchSize=None) | json.loads(sys.argv[2])
    if options["threads"] is not None:
        torch.set_num_threads(options["threads"])
    start = time.perf_counter()
    model = transformers.AutoModelForCausalLM.from_pretrained(sys.argv[1], dtype=torch.bfloat16)
    model = model.to(options["device"]).eval()
    model.generation_config.eos_token_id = None
    model.generation_config.pad_token_id = 0
    say(dict(ready=True, version=f"transformers {transformers.__version__}", loadSeconds=time.perf_counter() - start))
    for line in sys.stdin:
        job = json.loads(line)
        prompts, lengths = job["prompts"], job["maxTokens"]
        lengths = lengths if isinstance(lengths, list) else [lengths] * len(prompts)
        size = options["batchSize"] or len(prompts)
        began = time.perf_counter()
        outputs = []
        for i in range(0, len(prompts), size):
            outputs += generate(model, prompts[i : i + size], lengths[i : i + size])
        say(dict(seconds=time.perf_counter() - began, outputs=outputs))


if __name__ == "__main__":
    main()
