#!/usr/bin/env bash
# Builds every Python template outside of this repository: build.sh [DIR]
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
dir=${1:-$(mktemp -d)}
for kind in shield tool; do "$here/../templates/try.sh" python "$kind" "$dir"; done
