#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Every C file is as clang-format 14 with .clang-format would write it, and names its licence.
set -u
cd "$(dirname "$0")/../.." || exit 1
files=$(find include src tests fuzz bench examples -name '*.[ch]' 2>/dev/null | sort)
status=0
# File names here have no blanks.
# shellcheck disable=SC2086
clang-format-14 --dry-run --Werror --ferror-limit=3 $files || status=1
for file in $files; do
    head -n 1 "$file" | grep -qF '/* SPDX-License-Identifier: Apache-2.0 */' || {
        echo "$file: the first line must be /* SPDX-License-Identifier: Apache-2.0 */"
        status=1
    }
done
exit $status
