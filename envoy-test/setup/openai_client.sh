#!/bin/sh
# Installs OpenAI's Python client. A test runs it as .build/openai-client/bin/python to see what the plugin's errors
# look like to a program that uses it.
. "$(dirname "$0")/common.sh"

python_package .build/openai-client "openai==$OPENAI_CLIENT"
