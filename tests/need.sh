#!/bin/sh
# tests/need.sh [check]: the one thing that the tool needs beside cc and make, the stb headers.
#
# With `check`: status 0 if the compiler finds them. Without: installs Debian's libstb-dev where
# they are missing, as root or through sudo without a password; where that cannot be, says what to
# do.
cc=${CC:-cc}

have_stb() {
  for header in stb/stb_image.h stb_image.h; do
    echo "#include <$header>" | $cc -E -x c - >/dev/null 2>&1 && return 0
  done
  return 1
}

have_stb && exit 0
[ "${1:-}" = check ] && exit 1

as_root=
if [ "$(id -u)" != 0 ]; then
  if sudo -n true 2>/dev/null; then as_root="sudo -n"; else as_root=none; fi
fi
if command -v apt-get >/dev/null 2>&1 && [ "$as_root" != none ]; then
  echo "installing libstb-dev (stb_image.h, with which the tool reads pictures)"
  export DEBIAN_FRONTEND=noninteractive
  $as_root apt-get install -y -qq libstb-dev >/dev/null 2>&1 ||
    { $as_root apt-get update -qq && $as_root apt-get install -y -qq libstb-dev; } >/dev/null 2>&1
  have_stb && exit 0
  why="apt-get could not install libstb-dev"
elif command -v apt-get >/dev/null 2>&1; then
  why="this user may not install packages"
else
  why="this system has no apt-get"
fi
echo "stb_image.h is missing, and $why: apt-get install libstb-dev, or let CPATH name a folder" \
     "with stb_image.h, stb_image_write.h and stb_image_resize2.h" >&2
exit 1
