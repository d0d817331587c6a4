#!/bin/sh
# Builds src/plugin.js into target/plugin.wasm. `stockade build` runs it: build.sh WORLD
set -eu
cd "$(dirname "$0")"
tool=node_modules/componentize-qjs/bin/componentize-qjs
[ -f $tool ] || npm install --silent --no-audit --no-fund
mkdir -p target
node $tool --wit wit --js src/plugin.js -n "$1" --stub-wasi -o target/plugin.wasm >/dev/null
