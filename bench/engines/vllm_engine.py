"""vLLM's offline LLM class. usage: vllm_engine.py MODEL_DIR OPTIONS     (OPTIONS: of vllm.LLM, as JSON)"""
import json
import os
import sys
import time

os.environ.setdefault("VLLM_LOGGING_LEVEL", "ERROR")

answers = os.fdopen(os.dup(1), "w")
os.dup2(2, 1)  # vLLM prints to standard output


def say(message: dict) -> None:
    print(json.dumps(message), file=answers, flush=True)


def settings_of(llm) -> dict:
    """What its defaults came to."""
    config = llm.llm_engine.vllm_config
    return dict(
        maxNumSeqs=config.scheduler_config.max_num_seqs,
        maxNumBatchedTokens=config.scheduler_config.max_num_batched_tokens,
        numBlocks=config.cache_config.num_gpu_blocks,
        blockSize=config.cache_config.block_size,
        enablePrefixCaching=config.cache_config.enable_prefix_caching,
        cudagraphMode=str(config.compilation_config.cudagraph_mode),
    )


def main() -> None:
    from vllm import LLM, SamplingParams, __version__

    start = time.perf_counter()
    llm = LLM(model=sys.argv[1], **json.loads(sys.argv[2]))
    loaded = time.perf_counter() - start
    say(dict(ready=True, version=f"vllm {__version__}", loadSeconds=loaded, settings=settings_of(llm)))
    for line in sys.stdin:
        job = json.loads(line)
        prompts = [dict(prompt_token_ids=prompt) for prompt in job["prompts"]]
        lengths = job["maxTokens"] if isinstance(job["maxTokens"], list) else [job["maxTokens"]] * len(prompts)
        params = [SamplingParams(temperature=0, max_tokens=n, ignore_eos=True, detokenize=False) for n in lengths]
        began = time.perf_counter()
        outputs = llm.generate(prompts, params, use_tqdm=False)
        seconds = time.perf_counter() - began
        say(dict(seconds=seconds, outputs=[list(output.outputs[0].token_ids) for output in outputs]))


if __name__ == "__main__":
    main()
