#!/usr/bin/env bash
# Does what `stockade new` and `stockade build` do, without the binary: for CI, which proves that every template builds
# outside of this repository.
#   try.sh LANGUAGE KIND DIR        leaves DIR/plugin-LANGUAGE-KIND with its built component
set -euo pipefail
sdk=$(cd "$(dirname "$0")/.." && pwd)
language=$1 kind=$2 name=plugin-$1-$2
plugin=$(realpath -m "$3")/$name
[ -d "$sdk/templates/$language/$kind" ] || { echo "no $language template for a $kind" >&2; exit 1; }

mkdir -p "$plugin/wit"
cp -R "$sdk/templates/$language/common/." "$sdk/templates/$language/$kind/." "$plugin/"
find "$plugin" -name '*.in' -not -path '*/node_modules/*' | while read -r file; do mv "$file" "${file%.in}"; done
cp "$sdk"/../wit/v0.1/*.wit "$plugin/wit/"
if [ "$language" = rust ]; then
  mkdir -p "$plugin/vendor"
  rm -rf "$plugin/vendor/stockade-guest"
  cp -RL "$sdk/rust" "$plugin/vendor/stockade-guest"
fi
find "$plugin" -type f -not -path '*/vendor/*' -not -path '*/node_modules/*' -not -path '*/.venv/*' -not -path '*/target/*' \
  -exec sed -i "s/{{name}}/$name/g; s/{{crate}}/${name//-/_}/g" {} +

cd "$plugin"
case $language in
  rust)
    cargo build --release --target wasm32-unknown-unknown
    cargo test -q
    ls -l "${CARGO_TARGET_DIR:-target}/wasm32-unknown-unknown/release/${name//-/_}.wasm" ;;
  *)
    sh build.sh "pure-$kind"
    ls -l target/plugin.wasm ;;
esac
