"""Are these the tokens that the model would choose? transformers in f32 reads every answer (teacher forcing).

usage: judge.py MODEL_DIR OPTIONS     (OPTIONS, as JSON: device)

Speaks as engines do (bench/engines/protocol.md), for one job: {"answers": [{"prompt": [ids], "tokens": [ids]}]}, whose answer gives for each
of them `behind`: how far each token's logit is behind the largest, in standard deviations of that position's logits (0: it is the largest);
`bf16Behind`: the same of the token that transformers in bf16 chooses there, which is what rounding alone can do; and `controlBehind`: of
the token it chooses with one block of the prompt replaced, which is what an engine would do that reads a wrong block.
"""

import json
import operator
import os
import sys
import time

import torch
import transformers

transformers.logging.set_verbosity_error()
transformers.utils.logging.disable_progress_bar()
torch.backends.cuda.matmul.allow_tf32 = False

answers = os.fdopen(os.dup(1), "w")
os.dup2(2, 1)


def say(message: dict) -> None:
    print(json.dumps(message), file=answers, flush=True)


BLOCK = 16


def with_wrong_block(prompt: list[int]) -> list[int]:
    """In the middle, from its next token ids."""
    start = max(0, len(prompt) // 2 - BLOCK // 2)
    return prompt[:start] + [token + 1 for token in prompt[start : start + BLOCK]] + prompt[start + BLOCK :]


def logits_of(model, prompt: list[int], tokens: list[int]) -> torch.Tensor:
    """[len(tokens), vocab]: what the model says at each token's place, from the tokens before it."""
    ids = torch.tensor([prompt + tokens[:-1]], device=model.device)
    return model(ids, logits_to_keep=len(tokens), use_cache=False).logits[0]


def behind(logits: torch.Tensor, tokens: torch.Tensor) -> list[float]:
    """logits: [count, vocab]; tokens: [count]"""
    chosen = logits.gather(1, tokens[:, None])[:, 0]
    return ((logits.max(-1).values - chosen) / logits.std(-1)).tolist()


@torch.inference_mode()
def judge(model, answers: list[dict]) -> list[dict]:
    """bf16 first: its weights become f32 without loss. So a process judges once."""
    choices = [
        (
            torch.tensor(tokens, device=model.device),
            logits_of(model, prompt, tokens).argmax(-1),
            logits_of(model, with_wrong_block(prompt), tokens).argmax(-1),
        )
        for prompt, tokens in map(operator.itemgetter("prompt", "tokens"), answers)
    ]
    model.float()
    verdicts = []
    for answer, of_answer in zip(answers, choices):
        logits = logits_of(model, **answer)
        own, bf16, control = (behind(logits, tokens) for tokens in of_answer)
        verdicts.append(dict(behind=own, bf16Behind=bf16, controlBehind=control))
    return verdicts


def main() -> None:
    start = time.perf_counter()
    model = transformers.AutoModelForCausalLM.from_pretrained(sys.argv[1], dtype=torch.bfloat16)
    model = model.to(json.loads(sys.argv[2])["device"]).eval()
    if model.model.rotary_emb.inv_freq.dtype != torch.float32:
        sys.exit("rotary frequencies were rounded to bf16: the judge would be the worst of all")
    say(dict(ready=True, version=f"transformers {transformers.__version__}", loadSeconds=time.perf_counter() - start))
    say(dict(answers=judge(model, json.loads(sys.stdin.readline())["answers"])))


if __name__ == "__main__":
    main()
