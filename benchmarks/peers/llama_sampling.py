"""llama.cpp's half of benchmarks/sampling.py, through llama-cpp-python's low-level interface: many sequences in one context, a token of each at a time.

    PYTHON benchmarks/peers/llama_sampling.py --gguf FILE --batches 1 16 64

Each sequence has a prompt of its own; its tokens are drawn at temperature 0.7 by llama.cpp's own sampler. The last line of stdout is a JSON object.
"""

import argparse
import json
import random
import statistics
import time
from typing import Any

import llama_cpp

QUIET = llama_cpp.llama_log_callback(lambda level, text, data: None)  # it tells thousands of lines of itself


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--gguf", required=True)
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 16, 64])
    parser.add_argument("--prompt", type=int, default=64)
    parser.add_argument("--new", type=int, default=64)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    arguments = parser.parse_args()
    llama_cpp.llama_log_set(QUIET, None)
    llama_cpp.llama_backend_init()
    model = llama_cpp.llama_model_load_from_file(arguments.gguf.encode(), llama_cpp.llama_model_default_params())
    vocabulary = llama_cpp.llama_vocab_n_tokens(llama_cpp.llama_model_get_vocab(model))
    found: dict[str, Any] = {"tokens_per_second": {}, "step_ms": {}}
    for batch in arguments.batches:
        draw = random.Random(batch)
        prompts = [[draw.randrange(5, vocabulary - 100) for _ in range(arguments.prompt)] for _ in range(batch)]
        whole, first = (statistics.median(seconds(model, prompts, new, arguments)) for new in (arguments.new, 1))
        found["tokens_per_second"][str(batch)] = round(batch * arguments.new / whole, 2)
        found["step_ms"][str(batch)] = round(1000 * (whole - first) / (arguments.new - 1), 2)
    print(json.dumps(found | {"file": arguments.gguf.rpartition("/")[2], "version": llama_cpp.__version__}))


def seconds(model: Any, prompts: list[list[int]], new: int, arguments: argparse.Namespace) -> list[float]:
    """Of drawing `new` tokens after each prompt, without the first time; opening a context isn't counted."""
    found = []
    for _ in range(arguments.repeats + 1):
        context = opened(model, len(prompts), arguments)
        began = time.perf_counter()
        sample(context, prompts, new)
        found.append(time.perf_counter() - began)
        llama_cpp.llama_free(context)
    return found[1:]


def opened(model: Any, batch: int, arguments: argparse.Namespace) -> Any:
    """A context with room for all sequences."""
    settings = llama_cpp.llama_context_default_params()
    settings.n_ctx = batch * (arguments.prompt + arguments.new + 8)
    settings.n_batch = settings.n_ubatch = max(512, batch * arguments.prompt)
    settings.n_seq_max = batch
    settings.n_threads = settings.n_threads_batch = arguments.threads
    return llama_cpp.llama_init_from_model(model, settings)


def sample(context: Any, prompts: list[list[int]], new: int) -> None:
    """Draw `new` tokens after each prompt."""
    sampler = llama_cpp.llama_sampler_chain_init(llama_cpp.llama_sampler_chain_default_params())
    llama_cpp.llama_sampler_chain_add(sampler, llama_cpp.llama_sampler_init_temp(0.7))
    llama_cpp.llama_sampler_chain_add(sampler, llama_cpp.llama_sampler_init_dist(0))
    rows = llama_cpp.llama_batch_init(sum(map(len, prompts)), 0, 1)
    last = []
    for sequence, prompt in enumerate(prompts):
        for place, token in enumerate(prompt):
            put(rows, token, place, sequence, place == len(prompt) - 1)
        last.append(rows.n_tokens - 1)
    for step in range(new):
        if llama_cpp.llama_decode(context, rows):
            raise RuntimeError("llama.cpp has no room for these sequences")
        drawn = [llama_cpp.llama_sampler_sample(sampler, context, place) for place in last]
        rows.n_tokens = 0
        for sequence, token in enumerate(drawn):
            put(rows, token, len(prompts[0]) + step, sequence, True)
        last = list(range(len(prompts)))
    llama_cpp.llama_batch_free(rows)
    llama_cpp.llama_sampler_free(sampler)


def put(rows: Any, token: int, position: int, sequence: int, wanted: bool) -> None:
    """One more token of a sequence."""
    place = rows.n_tokens
    rows.token[place], rows.pos[place], rows.n_seq_id[place], rows.logits[place] = token, position, 1, wanted
    rows.seq_id[place][0] = sequence
    rows.n_tokens += 1


if __name__ == "__main__":
    main()
