"""Asks the gateway at argv[1] with OpenAI's own client, and prints what it makes of each answer."""

import sys

import openai

client = openai.OpenAI(base_url=sys.argv[1], api_key="none", max_retries=0)


def ask(model, text="Hi"):
    try:
        answer = client.chat.completions.create(
            model=model, max_tokens=2, messages=[{"role": "user", "content": text}]
        )
        print(200, answer.object)
    except openai.APIStatusError as error:
        print(type(error).__name__, error.status_code, error.code, error.param)


ask("tiny")
ask("nope")
ask("")
ask("tiny", "x" * 5000)
