#!/bin/sh
# Runs a Windows program by Wine: sh tests/wine.sh PROGRAM [WORD]... Compilers put .exe behind its
# name, and Wine, unlike Windows, does not try it.
program=$1.exe; shift
WINEDEBUG=-all exec wine "$program" "$@"
