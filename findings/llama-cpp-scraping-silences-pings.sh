#!/bin/sh
# llama.cpp's server: while anybody gets anything of it at least once a second, be it the page of metrics or tokens of other
# requests, a stream that waits has no comments, and a client that has left is not seen to have left.
#
# Whether to send a comment (--sse-ping-interval), and whether the client is still there, is looked at after a second in which
# the server had no result for anybody (server_response::recv_with_timeout in tools/server/server-queue.cpp). So a gateway
# that reads /metrics more often takes the comments from streams whose prompt is being computed, and a request that waits for
# a slot is computed although nobody waits for it any more.
#
# LLAMA_SERVER=/path/to/llama-server tries one that is built; without it, this builds one: cmake and a C++ compiler, twelve
# minutes of processor time. Ends with 0 as long as it is so, with 1 if it has changed, with 2 if it could not be tried.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
export TMPDIR="$folder" PYTHONDONTWRITEBYTECODE=1
pip() { python3 -m pip "$@" --quiet --disable-pip-version-check || exit 2; }
pip install --target "$folder/packages" gguf==0.19.0
if [ -z "${LLAMA_SERVER:-}" ]; then
    export PYTHONPATH="$folder/tools" PATH="$folder/tools/bin:$PATH"
    pip install --target "$folder/tools" cmake==4.4.5 ninja==1.13.2 scikit-build-core==1.1.2
    pip download --no-deps --no-build-isolation --no-binary :all: --dest "$folder" llama-cpp-python==0.3.36
    tar -xzf "$folder/llama_cpp_python-0.3.36.tar.gz" -C "$folder"
    {
        cmake -G Ninja -S "$folder/llama_cpp_python-0.3.36/vendor/llama.cpp" -B "$folder/build" -DCMAKE_BUILD_TYPE=Release \
            -DCMAKE_CXX_FLAGS_RELEASE=-O1 -DBUILD_SHARED_LIBS=OFF -DLLAMA_CURL=OFF -DLLAMA_OPENSSL=OFF \
            -DGGML_OPENMP=OFF -DLLAMA_BUILD_TESTS=OFF -DLLAMA_BUILD_EXAMPLES=OFF &&
            ninja -C "$folder/build" llama-server
    } >"$folder/build.log" 2>&1 || { tail -n 20 "$folder/build.log"; exit 2; }
    LLAMA_SERVER=$folder/build/bin/llama-server
fi
export LLAMA_SERVER PYTHONPATH="$folder/packages"
cd "$(dirname "$0")"
echo "llama.cpp of llama-cpp-python==0.3.36, gguf==0.19.0"
python3 - <<'PYTHON'
import os
import string
import gguf
import numpy
from support import *

WIDTH, FEED_FORWARD, LAYERS, CONTEXT = 256, 768, 4, 8192


def make_model(path):
    """Random weights, in the shape of Llama; a text has about as many tokens as letters."""
    numbers = numpy.random.default_rng(1)
    tensor = lambda *shape: numbers.normal(0, 0.05, shape).astype("float32")
    kinds = gguf.TokenType
    tokens = [("<unk>", kinds.UNKNOWN), ("<s>", kinds.CONTROL), ("</s>", kinds.CONTROL)]
    tokens += [(f"<0x{byte:02X}>", kinds.BYTE) for byte in range(256)]
    tokens += [(letter, kinds.NORMAL) for letter in string.ascii_letters + string.digits + "\u2581"]
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_context_length(CONTEXT)
    writer.add_embedding_length(WIDTH)
    writer.add_block_count(LAYERS)
    writer.add_feed_forward_length(FEED_FORWARD)
    writer.add_head_count(4)
    writer.add_head_count_kv(4)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_vocab_size(len(tokens))
    writer.add_tokenizer_model("llama")
    writer.add_token_list([text for text, _ in tokens])
    writer.add_token_types([kind for _, kind in tokens])
    writer.add_token_scores([0.0 if kind == kinds.NORMAL else -1000.0 for _, kind in tokens])
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    writer.add_unk_token_id(0)
    writer.add_tensor("token_embd.weight", tensor(len(tokens), WIDTH))
    writer.add_tensor("output_norm.weight", numpy.ones(WIDTH, "float32"))
    writer.add_tensor("output.weight", tensor(len(tokens), WIDTH))
    for layer in range(LAYERS):
        for name in ["attn_norm", "ffn_norm"]:
            writer.add_tensor(f"blk.{layer}.{name}.weight", numpy.ones(WIDTH, "float32"))
        for name in ["attn_q", "attn_k", "attn_v", "attn_output"]:
            writer.add_tensor(f"blk.{layer}.{name}.weight", tensor(WIDTH, WIDTH))
        for name in ["ffn_gate", "ffn_up"]:
            writer.add_tensor(f"blk.{layer}.{name}.weight", tensor(FEED_FORWARD, WIDTH))
        writer.add_tensor(f"blk.{layer}.ffn_down.weight", tensor(WIDTH, FEED_FORWARD))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


model = os.path.join(os.environ["TMPDIR"], "tiny.gguf")
make_model(model)
port = free_port()
server = subprocess.Popen(
    [os.environ["LLAMA_SERVER"], "--model", model, "--host", "127.0.0.1", "--port", str(port), "--metrics", "--no-webui",
     "--offline", "--threads", "1", "--parallel", "1", "--ctx-size", str(CONTEXT), "--cache-ram", "0",
     "--sse-ping-interval", "1"], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def connection():
    return http.client.HTTPConnection("127.0.0.1", port, timeout=120)


def get(path):
    asked = connection()
    asked.request("GET", path)
    answer = asked.getresponse()
    return answer.status, answer.read().decode()


def is_up():
    try:
        return get("/health")[0] == 200
    except OSError:
        return False


def ask(prompt, tokens, stream):
    asked = connection()
    body = {"prompt": prompt, "max_tokens": tokens, "ignore_eos": True, "stream": stream}
    asked.request("POST", "/v1/completions", json.dumps(body), {"content-type": "application/json"})
    return asked


def deferred():
    return next(int(line.split()[1]) for line in get("/metrics")[1].splitlines() if line.startswith("llamacpp:requests_deferred "))


def comments(word):
    """Comments in a stream whose prompt takes some seconds."""
    return ask(word * 1500, 1, True).getresponse().read().decode().count(":\n\n")


def read_page(ends):
    while not ends.wait(0.2):
        get("/metrics")


def comments_while_read(word):
    ends = threading.Event()
    reader = threading.Thread(target=read_page, args=[ends])
    reader.start()
    seen = comments(word)
    ends.set()
    reader.join()
    return seen


def waiting_without_client():
    """How many requests wait, five seconds after the client of the only one has left, while another has tokens."""
    busy = ask("a", 6000, True)
    stream = busy.getresponse()
    stream.read(1)
    left = ask("b", 1, False)
    wait_until("it waits", lambda: deferred() == 1)
    left.close()
    time.sleep(5)
    seen = deferred()
    stream.close()
    busy.close()
    return seen


try:
    wait_until("llama-server answers", is_up)
    check("comments in a stream, nobody reads /metrics", comments("word "), lambda count: count > 1)
    check("comments in a stream, /metrics is read every 200 ms", comments_while_read("wort "), 0)
    check("requests that wait, 5 s after their client has left", waiting_without_client(), 1)
finally:
    server.kill()
    server.wait()
PYTHON
