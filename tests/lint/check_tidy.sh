#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# clang-tidy over src/, with the checks of .clang-tidy. $1: a build directory made with clang.
set -u
cd "$(dirname "$0")/../.." || exit 1
[ -f "${1:?build directory}/compile_commands.json" ] || {
    echo "$1 has no compile_commands.json"
    exit 1
}
# One file a run: with several, version 14 forgets va_start() from the second on.
find src -name '*.c' | sort | xargs -P 2 -n 1 clang-tidy-14 --quiet -p "$1" 2>/dev/null
