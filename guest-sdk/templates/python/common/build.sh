#!/bin/sh
# Builds src/ into target/plugin.wasm. `stockade build` runs it: build.sh WORLD
set -eu
cd "$(dirname "$0")"
tool=.venv/bin/componentize-py
[ -x $tool ] || { python3 -m venv .venv && .venv/bin/pip install -q componentize-py==0.25.1; }
mkdir -p target
# The types of the plugin API, for editors and type checkers.
[ -d types ] || $tool -q -d wit -w "$1" bindings types
$tool -q -d wit -w "$1" componentize -p src --stub-wasi app -o target/plugin.wasm
