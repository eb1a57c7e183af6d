#!/usr/bin/env bash
# program.sh PROFILE NAME ARG...: runs one of our programs, built with that profile.
set -euo pipefail
PROFILE=$1
source "$(dirname "$0")/lib.sh"

exec "$(programs_folder)/$2" "${@:3}"
