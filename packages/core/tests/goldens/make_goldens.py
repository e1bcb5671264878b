"""Makes the golden checkpoints named below: tiny random-weight Llama, Mistral, Qwen2 and Qwen3 models with unusual sizes and
options, and the answers that Hugging Face transformers computes in float32 from their (16-bit) weights, eager attention.

usage: python make_goldens.py OUT_DIR [GOLDEN_DIR...]        (needs torch and transformers 5.17)

For each GOLDEN_DIR it also writes exact.json, see README.md.
"""
import json
import sys
from pathlib import Path

import torch
from transformers import (AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM, MistralConfig, MistralForCausalLM, Qwen2Config, Qwen2ForCausalLM,
                          Qwen3Config, Qwen3ForCausalLM)

SMALL = dict(vocab_size=331, hidden_size=48, intermediate_size=104, num_hidden_layers=2, max_position_embeddings=256,
             bos_token_id=1, eos_token_id=2, pad_token_id=0)


def rope(kind, **more):
    return dict(rope_parameters=dict(rope_type=kind, rope_theta=10000.0, **more))


MODELS = {
    # odd head counts, a head size unlike hidden / heads, biases everywhere, tied
    "llama-biases": (LlamaForCausalLM, LlamaConfig(**SMALL, num_attention_heads=6, num_key_value_heads=2, head_dim=24,
                     attention_bias=True, mlp_bias=True, tie_word_embeddings=True), "bfloat16"),
    "llama-linear": (LlamaForCausalLM, LlamaConfig(**SMALL, num_attention_heads=3, num_key_value_heads=1,
                     **rope("linear", factor=4.0)), "float16"),
    "llama-yarn": (LlamaForCausalLM, LlamaConfig(**{**SMALL, "max_position_embeddings": 256}, num_attention_heads=4, num_key_value_heads=4,
                   head_dim=32, **rope("yarn", factor=4.0, original_max_position_embeddings=64)), "bfloat16"),
    # the prompt crosses the original length, so the base changes while it is generated
    "llama-dynamic": (LlamaForCausalLM, LlamaConfig(**{**SMALL, "max_position_embeddings": 64}, num_attention_heads=4,
                      num_key_value_heads=2, head_dim=16, **rope("dynamic", factor=4.0)), "bfloat16"),
    "mistral-tied": (MistralForCausalLM, MistralConfig(**SMALL, num_attention_heads=8, num_key_value_heads=2, head_dim=16,
                     sliding_window=None, tie_word_embeddings=True), "bfloat16"),
    "qwen2-windows": (Qwen2ForCausalLM, Qwen2Config(**{**SMALL, "num_hidden_layers": 4}, num_attention_heads=4, num_key_value_heads=2,
                      use_sliding_window=True, sliding_window=12, max_window_layers=2, tie_word_embeddings=True), "bfloat16"),
    "qwen3-large-heads": (Qwen3ForCausalLM, Qwen3Config(**SMALL, num_attention_heads=2, num_key_value_heads=1, head_dim=128,
                          tie_word_embeddings=True), "float32"),
}
LENGTHS = (1, 17, 60, 100)
NEW_TOKENS = 24


def randomize(model, seed):
    """Weights large enough that greedy tokens differ from each other, then rounded to the checkpoint's type."""
    generator = torch.Generator().manual_seed(seed)
    for name, parameter in model.named_parameters():
        noise = torch.randn(parameter.shape, generator=generator)
        scale = 0.3 if parameter.dim() == 1 else 1.4 / parameter.shape[-1] ** 0.5
        parameter.data = (1 + noise * scale if name.endswith("norm.weight") else noise * scale)


@torch.no_grad()
def case(model, prompt):
    ids = torch.tensor([prompt])
    logits = model(ids).logits[0].float()
    logprobs = torch.log_softmax(logits, -1)
    picked = [round(logprobs[i, prompt[i + 1]].item(), 5) for i in range(len(prompt) - 1)]
    greedy, margins, cache, step = [], [], None, ids
    for _ in range(NEW_TOKENS):
        out = model(step, past_key_values=cache, use_cache=True)
        cache = out.past_key_values
        best = torch.topk(out.logits[0, -1].float(), 2)
        greedy.append(best.indices[0].item())
        margins.append(round((best.values[0] - best.values[1]).item(), 5))
        step = best.indices[:1].view(1, 1)
    return dict(prompt=prompt, last_logits=[round(x, 5) for x in logits[-1].tolist()], prompt_logprobs=picked,
                greedy=greedy, margins=margins)


def answer_again(folder):
    """exact.json: the answers for an existing golden's prompts, from the checkpoint loaded in float32."""
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager").eval()
    old = json.loads((folder / "golden.json").read_text())
    answers = {**old, "cases": [case(model, one["prompt"]) for one in old["cases"]]}
    (folder / "exact.json").write_text(json.dumps(answers))


def main(out, *again):
    for folder in again:
        answer_again(Path(folder))
    for seed, (name, (kind, config, dtype)) in enumerate(MODELS.items(), 11):
        config._attn_implementation = "eager"
        model = kind(config).eval()
        randomize(model, seed)
        half = model.to(getattr(torch, dtype))
        half.config.dtype = dtype
        folder = Path(out) / name
        shard = {"max_shard_size": "60KB"} if name == "llama-biases" else {}
        half.save_pretrained(folder, **shard)
        (folder / "generation_config.json").unlink(missing_ok=True)
        # loaded anew: casting the model in place would round the rotary frequencies as well
        model = kind.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager").eval()
        generator = torch.Generator().manual_seed(seed)
        prompts = [torch.randint(3, config.vocab_size, (n,), generator=generator).tolist() for n in LENGTHS]
        golden = dict(architecture=config.architectures, transformers="5.17.0", dtype="float32",
                      cases=[case(model, prompt) for prompt in prompts])
        (folder / "golden.json").write_text(json.dumps(golden))
        print(name, sum(f.stat().st_size for f in folder.iterdir()) // 1024, "KiB")


if __name__ == "__main__":
    main(*sys.argv[1:])
