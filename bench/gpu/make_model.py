"""A checkpoint with the shape of a real model and random weights, the same files for every engine.

usage: make_model.py llama-8b|qwen3-0.6b FOLDER [--tiny] [--device cuda]        (--tiny: 2 narrow layers, for machines without a GPU)

Speed does not depend on the weights' values; what answers can tell does. Careless scales give a model that forgets its context, or one that
amplifies rounding until two right engines answer differently, or one that says the same few tokens for ever. These give, at 28 and 32
layers and 640 tokens, in standard deviations of a position's logits: 0.02 from computing in bf16 instead of f32, 0.5 to 0.6 from other
tokens in the first quarter; the second token is 0.26 behind the first on average, so bf16 chooses f32's token at 19 of 20 places.

- The residual stream begins as large as it may get (embeddings of root mean square 1); layers add to it, attention by 0.3 and gated MLPs
  by 0.1 of their usual scale. (Attention by 1: 28 different tokens at 320 places, instead of 300.)
- Attention scores have a standard deviation of 2.5, so that some positions matter and do not vanish in an average over 8 k of them.
  (Of 1: 0.15 from other tokens in the first quarter.)
- Signs of the final norm are random: where embedding and LM head are one matrix, a token would else predict itself.
"""

import argparse
import json
import math
import os
import struct
from concurrent.futures import ThreadPoolExecutor

import torch

LLAMA_8B = {
    "architectures": ["LlamaForCausalLM"], "model_type": "llama", "dtype": "bfloat16",
    "hidden_size": 4096, "intermediate_size": 14336, "num_hidden_layers": 32,
    "num_attention_heads": 32, "num_key_value_heads": 8, "head_dim": 128, "hidden_act": "silu",
    "vocab_size": 128256, "max_position_embeddings": 131072, "rms_norm_eps": 1e-5,
    "rope_theta": 500000.0, "tie_word_embeddings": False, "attention_bias": False, "mlp_bias": False,
    "rope_scaling": {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0,
                     "high_freq_factor": 4.0, "original_max_position_embeddings": 8192},
    "bos_token_id": 128000, "eos_token_id": 128001,
}  # fmt: skip
QWEN3_06B = {
    "architectures": ["Qwen3ForCausalLM"], "model_type": "qwen3", "dtype": "bfloat16",
    "hidden_size": 1024, "intermediate_size": 3072, "num_hidden_layers": 28,
    "num_attention_heads": 16, "num_key_value_heads": 8, "head_dim": 128, "hidden_act": "silu",
    "vocab_size": 151936, "max_position_embeddings": 40960, "rms_norm_eps": 1e-6,
    "rope_theta": 1000000.0, "tie_word_embeddings": True, "attention_bias": False,
    "bos_token_id": 151643, "eos_token_id": 151645,
}  # fmt: skip
SHAPES = {"llama-8b": LLAMA_8B, "qwen3-0.6b": QWEN3_06B}
TINY = {
    "hidden_size": 256, "intermediate_size": 512, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 2, "head_dim": 64, "vocab_size": 4096, "bos_token_id": 0, "eos_token_id": 1,
}  # fmt: skip

SCORE_STD = 2.5
ATTENTION_SCALE, MLP_SCALE = 0.3, 0.1
LOGIT_STD = 3.0


class Weights:
    """Named tensors of a config, made on `device`."""

    def __init__(self, config: dict, device: str):
        self.config = config
        self.device = device
        torch.manual_seed(0)

    def linear(self, rows: int, columns: int, gain: float = 1.0) -> torch.Tensor:
        """[rows, columns]: outputs are `gain` as large as inputs."""
        std = gain / math.sqrt(columns)
        return self._normal(rows, columns).mul_(std)

    def ones(self, size: int, value: float = 1.0) -> torch.Tensor:
        return torch.full((size,), value, dtype=torch.bfloat16)

    def shared(self) -> dict[str, torch.Tensor]:
        """What no layer owns. Logits have a standard deviation of LOGIT_STD."""
        vocab, hidden = self.config["vocab_size"], self.config["hidden_size"]
        signs = torch.randint(0, 2, (hidden,)) * 2 - 1
        tensors = {
            "model.embed_tokens.weight": self._normal(vocab, hidden),
            "model.norm.weight": (signs * LOGIT_STD / math.sqrt(hidden)).bfloat16(),
        }
        if not self.config["tie_word_embeddings"]:
            tensors["lm_head.weight"] = self._normal(vocab, hidden)
        return tensors

    def layer(self, index: int) -> dict[str, torch.Tensor]:
        config = self.config
        hidden, inner, head_dim = config["hidden_size"], config["intermediate_size"], config["head_dim"]
        queries, keys = config["num_attention_heads"] * head_dim, config["num_key_value_heads"] * head_dim
        norms_heads = config["model_type"] == "qwen3"  # which then set the scale of scores
        sharpness = math.sqrt(SCORE_STD)
        gain = 1.0 if norms_heads else sharpness
        tensors = {
            "input_layernorm": self.ones(hidden),
            "self_attn.q_proj": self.linear(queries, hidden, gain),
            "self_attn.k_proj": self.linear(keys, hidden, gain),
            "self_attn.v_proj": self.linear(keys, hidden),
            "self_attn.o_proj": self.linear(hidden, queries, ATTENTION_SCALE),
            "post_attention_layernorm": self.ones(hidden),
            "mlp.gate_proj": self.linear(inner, hidden),
            "mlp.up_proj": self.linear(inner, hidden),
            "mlp.down_proj": self.linear(hidden, inner, 2 * MLP_SCALE),  # a gated activation halves
        }
        if norms_heads:
            tensors |= {f"self_attn.{name}_norm": self.ones(head_dim, sharpness) for name in ("q", "k")}
        return {f"model.layers.{index}.{name}.weight": tensor for name, tensor in tensors.items()}

    def _normal(self, rows: int, columns: int) -> torch.Tensor:
        return torch.randn(rows, columns, device=self.device, dtype=torch.bfloat16)


def write_safetensors(path: str, tensors: dict[str, torch.Tensor]) -> int:
    """Returns the bytes of the tensors."""
    header, end = {}, 0
    for name, tensor in tensors.items():
        size = tensor.numel() * tensor.element_size()
        header[name] = {"dtype": "BF16", "shape": list(tensor.shape), "data_offsets": [end, end + size]}
        end += size
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with open(path, "wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        for tensor in tensors.values():
            file.write(memoryview(tensor.view(torch.uint8).flatten().numpy()))
    return end


def write_checkpoint(config: dict, folder: str, device: str) -> None:
    """A file per layer, and one for the rest; the config comes last, and says that all is there."""
    os.makedirs(folder, exist_ok=True)
    weights = Weights(config, device)
    count = config["num_hidden_layers"] + 1
    index, sizes = {}, []
    with ThreadPoolExecutor(8) as pool:
        for i in range(count):
            tensors = weights.shared() if i == 0 else weights.layer(i - 1)
            tensors = {name: tensor.cpu() for name, tensor in tensors.items()}
            file = f"model-{i + 1:05d}-of-{count:05d}.safetensors"
            index |= dict.fromkeys(tensors, file)
            sizes.append(pool.submit(write_safetensors, os.path.join(folder, file), tensors))
    total = {"total_size": sum(size.result() for size in sizes)}
    with open(os.path.join(folder, "model.safetensors.index.json"), "w") as file:
        json.dump({"metadata": total, "weight_map": index}, file)
    with open(os.path.join(folder, "config.json"), "w") as file:
        json.dump(config, file, indent=1)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("shape", choices=SHAPES)
    parser.add_argument("folder")
    parser.add_argument("--tiny", action="store_true")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    options = parser.parse_args()
    config = SHAPES[options.shape] | (TINY if options.tiny else {})
    write_checkpoint(config, options.folder, options.device)


if __name__ == "__main__":
    main()
