"""transformers' generate on the CPU, one static batch. usage: transformers_engine.py MODEL_DIR THREADS"""
import json
import sys
import time

import torch
import transformers

transformers.logging.set_verbosity_error()


def say(message: dict) -> None:
    print(json.dumps(message), flush=True)


@torch.inference_mode()
def generate(model, prompts: list[list[int]], max_tokens: int) -> list[list[int]]:
    """Greedy tokens of prompts of equal length, exactly max_tokens each (no end token)."""
    ids = torch.tensor(prompts)
    out = model.generate(
        ids, attention_mask=torch.ones_like(ids), do_sample=False, min_new_tokens=max_tokens, max_new_tokens=max_tokens
    )
    return out[:, ids.shape[1] :].tolist()


def main() -> None:
    torch.set_num_threads(int(sys.argv[2]))
    start = time.perf_counter()
    model = transformers.AutoModelForCausalLM.from_pretrained(sys.argv[1], dtype=torch.bfloat16).eval()
    model.generation_config.eos_token_id = None
    model.generation_config.pad_token_id = 0
    say(dict(ready=True, version=f"transformers {transformers.__version__}", loadSeconds=time.perf_counter() - start))
    for line in sys.stdin:
        job = json.loads(line)
        began = time.perf_counter()
        outputs = generate(model, job["prompts"], job["maxTokens"])
        say(dict(seconds=time.perf_counter() - began, outputs=outputs))


if __name__ == "__main__":
    main()
