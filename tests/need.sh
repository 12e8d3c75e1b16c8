#!/bin/sh
# tests/need.sh: what is needed beside cc and make, which is the stb headers for the tool.
#
#   need.sh                     installs Debian's libstb-dev where they are missing
#   need.sh check               status 0 if the compiler finds them; installs nothing
#   need.sh install PACKAGE...  installs these, and removes nothing for it
#
# It installs as root or through sudo without a password; where that cannot be, it says what to do.
cc=${CC:-cc}

have_stb() {
  for header in stb/stb_image.h stb_image.h; do
    echo "#include <$header>" | $cc -E -x c - >/dev/null 2>&1 && return 0
  done
  return 1
}

install() {   # status 1, and the reason in $why
  as_root=
  if [ "$(id -u)" != 0 ]; then
    if sudo -n true 2>/dev/null; then as_root="sudo -n"; else as_root=none; fi
  fi
  why="this system has no apt-get"
  command -v apt-get >/dev/null 2>&1 || return 1
  why="this user may not install packages"
  [ "$as_root" != none ] || return 1
  why="apt-get could not install it"
  export DEBIAN_FRONTEND=noninteractive
  get="$as_root apt-get --no-remove install -y -qq $*"
  $get >/dev/null 2>&1 || { $as_root apt-get update -qq && $get; } >/dev/null 2>&1
}

case ${1:-} in
  install)
    shift
    install "$@" && exit 0
    echo "missing: $*; $why" >&2
    exit 1 ;;
  check) have_stb; exit ;;
esac

have_stb && exit 0
echo "installing libstb-dev (stb_image.h, with which the tool reads pictures)"
install libstb-dev && have_stb && exit 0
echo "stb_image.h is missing, and ${why}: apt-get install libstb-dev, or let CPATH name a folder" \
     "with stb_image.h, stb_image_write.h and stb_image_resize2.h" >&2
exit 1
