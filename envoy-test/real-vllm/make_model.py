"""Makes a language model so small that vLLM answers in milliseconds on a CPU, two LoRA adapters for it, and a larger one.

    make_model.py FOLDER      writes FOLDER/tiny, FOLDER/lora-a and FOLDER/lora-b, and FOLDER/small

Of the larger one, the small one, what is computed costs more than the program around it, so that the times of prompts and
of answers are to each other as on real hardware.

The shape is that of Qwen2, which vLLM serves with adapters. There are no weights: vLLM makes up its own
(--load-format dummy), so answers are gibberish. Its tokens are the printable ASCII characters, so that any
output is text; a prompt's other characters are left out.
"""

import json
import string
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy
from safetensors.numpy import save_file
from tokenizers import Tokenizer, decoders, models, pre_tokenizers

CONTEXT_TOKENS = 8192


@dataclass
class Shape:
    hidden_size: int
    intermediate_size: int
    layers: int
    heads: int
    key_value_heads: int


TINY = Shape(hidden_size=64, intermediate_size=128, layers=2, heads=2, key_value_heads=2)
SMALL = Shape(hidden_size=512, intermediate_size=1536, layers=10, heads=8, key_value_heads=4)
ADAPTER_RANK = 8
ADAPTED = ["q_proj", "v_proj"]
END_OF_TEXT, TURN_START, TURN_END = "<|endoftext|>", "<|im_start|>", "<|im_end|>"
# What these two are called in a vocabulary of bytes, the kind that Qwen2 has.
SPACE, LINE_END = "\u0120", "\u010a"
CHAT_TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{{ message['content'] }}<|im_end|>\n"
    "{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def write_json(path, value):
    path.write_text(json.dumps(value, indent=2) + "\n")


def make_tokenizer(folder):
    special = [END_OF_TEXT, TURN_START, TURN_END]
    characters = string.ascii_letters + string.digits + string.punctuation + SPACE + LINE_END
    vocabulary = {token: index for index, token in enumerate([*special, *characters])}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    tokenizer.add_special_tokens(special)
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.save(str(folder / "tokenizer.json"))
    settings = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": None,
        "eos_token": TURN_END,
        "pad_token": END_OF_TEXT,
        "model_max_length": CONTEXT_TOKENS,
        "clean_up_tokenization_spaces": False,
        "chat_template": CHAT_TEMPLATE,
    }
    write_json(folder / "tokenizer_config.json", settings)
    return vocabulary


def make_model(folder, shape):
    folder.mkdir(parents=True, exist_ok=True)
    vocabulary = make_tokenizer(folder)
    config = {
        "architectures": ["Qwen2ForCausalLM"],
        "model_type": "qwen2",
        "vocab_size": len(vocabulary),
        "hidden_size": shape.hidden_size,
        "intermediate_size": shape.intermediate_size,
        "num_hidden_layers": shape.layers,
        "num_attention_heads": shape.heads,
        "num_key_value_heads": shape.key_value_heads,
        "max_position_embeddings": CONTEXT_TOKENS,
        "tie_word_embeddings": True,
        "torch_dtype": "bfloat16",
        "eos_token_id": vocabulary[TURN_END],
    }
    write_json(folder / "config.json", config)


def make_adapter(folder, seed):
    folder.mkdir(parents=True, exist_ok=True)
    numbers = numpy.random.default_rng(seed)
    weights = {}
    for layer in range(TINY.layers):
        for projection in ADAPTED:
            name = f"base_model.model.model.layers.{layer}.self_attn.{projection}"
            for part, shape in [("A", (ADAPTER_RANK, TINY.hidden_size)), ("B", (TINY.hidden_size, ADAPTER_RANK))]:
                values = numbers.normal(0, 0.02, shape).astype("float32")
                weights[f"{name}.lora_{part}.weight"] = values
    save_file(weights, folder / "adapter_model.safetensors")
    settings = {"peft_type": "LORA", "r": ADAPTER_RANK, "lora_alpha": 16, "target_modules": ADAPTED}
    write_json(folder / "adapter_config.json", settings)


folder = Path(sys.argv[1])
make_model(folder / "tiny", TINY)
make_model(folder / "small", SMALL)
make_adapter(folder / "lora-a", seed=1)
make_adapter(folder / "lora-b", seed=2)
