#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Every public header stands alone, in C and in C++, with no warning; and so do they all together.
set -u
cd "$(dirname "$0")/../.." || exit 1
flags="-fsyntax-only -Wall -Wextra -Wpedantic -Wshadow -Werror -Iinclude"
status=0
all=
for header in include/culvert/*.h; do
    all="$all
#include <culvert/$(basename "$header")>"
done
check() { # $1: what, $2: source text
    for compiler in "gcc -std=c11 -x c" "clang -std=c11 -x c" "g++ -std=c++11 -x c++" \
        "clang++ -std=c++11 -x c++" "g++ -std=c++20 -x c++"; do
        # shellcheck disable=SC2086
        printf '%s\n' "$2" | $compiler $flags - || {
            echo "$1 does not stand alone for: $compiler"
            status=1
        }
    done
}
for header in include/culvert/*.h; do
    check "$header" "#include <culvert/$(basename "$header")>"
done
check "all headers" "$all"
exit $status
