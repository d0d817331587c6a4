#!/usr/bin/env bash
# Builds every JavaScript template outside of this repository: build.sh [DIR]
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
dir=${1:-$(mktemp -d)}
for kind in shield tool; do "$here/../templates/try.sh" javascript "$kind" "$dir"; done
