"""Makes a language model so small that llama.cpp answers at once: random weights, tokens that are single bytes.

    make_model.py FILE.gguf       needs PyPI's gguf

The shape is that of Llama, the tokenizer SentencePiece's with nothing but bytes and printable characters, so that any
text has about as many tokens as bytes.
"""

import string
import sys

import gguf
import numpy

CONTEXT_TOKENS = 16384
WIDTH = 256
FEED_FORWARD = 768
LAYERS = 4
HEADS = 4
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
writer.add_name("tiny")
writer.add_context_length(CONTEXT_TOKENS)
writer.add_embedding_length(WIDTH)
writer.add_block_count(LAYERS)
writer.add_feed_forward_length(FEED_FORWARD)
writer.add_head_count(HEADS)
writer.add_head_count_kv(HEADS)
writer.add_rope_dimension_count(WIDTH // HEADS)
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

writer.add_tensor("token_embd.weight", tensor(len(tokens), WIDTH))
writer.add_tensor("output_norm.weight", numpy.ones(WIDTH, "float32"))
writer.add_tensor("output.weight", tensor(len(tokens), WIDTH))
for layer in range(LAYERS):
    block = f"blk.{layer}."
    writer.add_tensor(block + "attn_norm.weight", numpy.ones(WIDTH, "float32"))
    writer.add_tensor(block + "ffn_norm.weight", numpy.ones(WIDTH, "float32"))
    for name in ["attn_q", "attn_k", "attn_v", "attn_output"]:
        writer.add_tensor(f"{block}{name}.weight", tensor(WIDTH, WIDTH))
    writer.add_tensor(block + "ffn_gate.weight", tensor(FEED_FORWARD, WIDTH))
    writer.add_tensor(block + "ffn_up.weight", tensor(FEED_FORWARD, WIDTH))
    writer.add_tensor(block + "ffn_down.weight", tensor(WIDTH, FEED_FORWARD))
writer.write_header_to_file()
writer.write_kv_data_to_file()
writer.write_tensors_to_file()
writer.close()
