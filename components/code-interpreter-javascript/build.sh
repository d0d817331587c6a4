#!/bin/sh
# Builds src/plugin.js into target/plugin.wasm: build.sh WORLD. The toolchain comes from npm, once, into $TOOLS.
set -eu
cd "$(dirname "$0")"
tools=${TOOLS:-.}/componentize-qjs-0.4.5
tool=$tools/node_modules/componentize-qjs/bin/componentize-qjs
[ -f "$tool" ] || npm install --silent --no-audit --no-fund --prefix "$tools" componentize-qjs@0.4.5
mkdir -p target
node "$tool" --wit "${WIT:-../../wit/v0.1}" --js src/plugin.js -n "$1" --stub-wasi -o target/plugin.wasm >/dev/null
