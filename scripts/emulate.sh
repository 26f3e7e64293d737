#!/usr/bin/env bash
# Tests the kernels of package cuda without a GPU: cuda/_test/emulator.h runs
# them on the CPU. Needs g++ on x86-64.
#
#   scripts/emulate.sh [TEST …]    of attention decode linear step; default: all
#
# FULL=1 takes all shapes of linear (minutes instead of seconds).
set -uo pipefail
cd "$(dirname "$0")/../cuda/_test" || exit 1
out=$(mktemp -d)
trap 'rm -rf "$out"' EXIT
flags="-O3 -std=c++20 -w -Wno-psabi -DEMULATED -I."

sources() { # of a test that finds its kernels by name
  case $1 in
  attention) echo attention attention90 ;;
  decode) echo decode prefill ;;
  step) echo loss norm swiglu embedding elementwise step ;;
  esac
}

build() {
  local stem objects=""
  for stem in $(sources "$1"); do
    # shellcheck disable=SC2086 # flags are words
    g++ $flags -include emulator.h -x c++ -c -o "$out/$stem.o" "../$stem.cu" || return 1
    objects="$objects $out/$stem.o"
  done
  if [ "$1" = linear ]; then # includes its kernels
    # shellcheck disable=SC2086
    g++ $flags -x c++ linear_test.cu emulator.cc -o "$out/linear" -ldl -lpthread
  else
    # shellcheck disable=SC2086
    g++ $flags -rdynamic -x c++ "$1_test.cu" emulator.cc -x none $objects -o "$out/$1" -ldl -lpthread
  fi
}

[ $# -gt 0 ] || set -- attention decode linear step
for t in "$@"; do
  [ -f "${t}_test.cu" ] || { sed -n '2,7p' "../../scripts/emulate.sh" >&2; exit 2; }
done
failed=""
for t in "$@"; do
  how=test
  [ "$t" != linear ] || how=$([ -n "${FULL:-}" ] && echo all || echo quick)
  build "$t" && "$out/$t" $how || failed="$failed $t"
done
[ -z "$failed" ] || { echo "failed:$failed"; exit 1; }
