"""Makes a language model of random weights, whose tokens are single bytes.

    make_model.py FILE.gguf           so small that llama.cpp answers at once; needs PyPI's gguf
    make_model.py FILE.gguf small     so large that computing it costs more than the program around it

The shape is that of Llama, the tokenizer SentencePiece's with nothing but bytes and printable characters, so that any
text has about as many tokens as bytes.
"""

import string
import sys
from dataclasses import dataclass

import gguf
import numpy

CONTEXT_TOKENS = 16384


@dataclass
class Shape:
    width: int
    feed_forward: int
    layers: int
    heads: int
    key_value_heads: int


SHAPES = {
    "tiny": Shape(width=256, feed_forward=768, layers=4, heads=4, key_value_heads=4),
    "small": Shape(width=512, feed_forward=1536, layers=4, heads=8, key_value_heads=4),
}
name = sys.argv[2] if len(sys.argv) > 2 else "tiny"
shape = SHAPES[name]
key_value_width = shape.width // shape.heads * shape.key_value_heads
CHAT_TEMPLATE = (
    "{% for message in messages %}<|{{ message['role'] }}|>\n{{ message['content'] }}\n{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>\n{% endif %}"
)

numbers = numpy.random.default_rng(1)
kinds = gguf.TokenType
tokens = [("<unk>", kinds.UNKNOWN), ("<s>", kinds.CONTROL), ("</s>", kinds.CONTROL)]
tokens += [(f"<0x{byte:02X}>", kinds.BYTE) for byte in range(256)]
FILL_IN = ["pre", "suf", "mid"]
tokens += [(f"<{part}>", kinds.CONTROL) for part in FILL_IN]
tokens += [(letter, kinds.NORMAL) for letter in string.ascii_letters + string.digits + string.punctuation + "\u2581"]


def tensor(*shape):
    return numbers.normal(0, 0.05, shape).astype("float32")


writer = gguf.GGUFWriter(sys.argv[1], "llama")
writer.add_name(name)
writer.add_context_length(CONTEXT_TOKENS)
writer.add_embedding_length(shape.width)
writer.add_block_count(shape.layers)
writer.add_feed_forward_length(shape.feed_forward)
writer.add_head_count(shape.heads)
writer.add_head_count_kv(shape.key_value_heads)
writer.add_rope_dimension_count(shape.width // shape.heads)
writer.add_layer_norm_rms_eps(1e-5)
writer.add_vocab_size(len(tokens))
writer.add_tokenizer_model("llama")
writer.add_token_list([text for text, _ in tokens])
writer.add_token_types([kind for _, kind in tokens])
writer.add_token_scores([0.0 if kind == kinds.NORMAL else -1000.0 for _, kind in tokens])
writer.add_bos_token_id(1)
writer.add_eos_token_id(2)
writer.add_unk_token_id(0)
writer.add_add_bos_token(True)
for part in FILL_IN:
    writer.add_uint32(f"tokenizer.ggml.fim_{part}_token_id", [text for text, _ in tokens].index(f"<{part}>"))
writer.add_chat_template(CHAT_TEMPLATE)

writer.add_tensor("token_embd.weight", tensor(len(tokens), shape.width))
writer.add_tensor("output_norm.weight", numpy.ones(shape.width, "float32"))
writer.add_tensor("output.weight", tensor(len(tokens), shape.width))
for layer in range(shape.layers):
    block = f"blk.{layer}."
    writer.add_tensor(block + "attn_norm.weight", numpy.ones(shape.width, "float32"))
    writer.add_tensor(block + "ffn_norm.weight", numpy.ones(shape.width, "float32"))
    for part in ["attn_q", "attn_output"]:
        writer.add_tensor(f"{block}{part}.weight", tensor(shape.width, shape.width))
    for part in ["attn_k", "attn_v"]:
        writer.add_tensor(f"{block}{part}.weight", tensor(key_value_width, shape.width))
    writer.add_tensor(block + "ffn_gate.weight", tensor(shape.feed_forward, shape.width))
    writer.add_tensor(block + "ffn_up.weight", tensor(shape.feed_forward, shape.width))
    writer.add_tensor(block + "ffn_down.weight", tensor(shape.width, shape.feed_forward))
writer.write_header_to_file()
writer.write_kv_data_to_file()
writer.write_tensors_to_file()
writer.close()
