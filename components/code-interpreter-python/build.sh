#!/bin/sh
# Builds src/ into target/plugin.wasm: build.sh WORLD. The toolchain comes from PyPI, once, into $TOOLS.
set -eu
cd "$(dirname "$0")"
tools=${TOOLS:-.}/componentize-py-0.25.1
tool=$tools/bin/componentize-py
# A virtual environment that was moved has programs that do not start.
"$tool" --help >/dev/null 2>&1 || { python3 -m venv --clear "$tools" && "$tools/bin/pip" install -q componentize-py==0.25.1; }
mkdir -p target
"$tool" -q -d "${WIT:-../../wit/v0.1}" -w "$1" componentize -p src --stub-wasi app -o target/plugin.wasm
