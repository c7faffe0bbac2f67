#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# cppcheck over src/.
set -u
cd "$(dirname "$0")/../.." || exit 1
# Suppressed, and why:
#   normalCheckLevelMaxBranches, missingIncludeSystem  notes about cppcheck's own limits
#   unmatchedSuppression   this list serves several versions of cppcheck
#   constParameter*        callbacks have the signature their caller wants
#   checkersReport         no finding
#   uninitvar in shared_state.c  the array is filled by a loop of a constant number of rounds
exec cppcheck --quiet --std=c11 --language=c -j 2 --error-exitcode=1 --inline-suppr \
    --enable=warning,performance,portability \
    --suppress=missingIncludeSystem --suppress=unmatchedSuppression \
    --suppress=normalCheckLevelMaxBranches --suppress=checkersReport \
    --suppress=constParameter --suppress=constParameterCallback \
    --suppress=uninitvar:src/base/shared_state.c \
    -D_GNU_SOURCE -D__linux__ -Iinclude -Isrc src
