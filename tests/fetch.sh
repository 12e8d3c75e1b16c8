#!/bin/sh
# fetch.sh [PROGRAM]: dataset_fetch_cifar10 against a server on this machine, with an archive that
# this script makes. PROGRAM is tests/dataset.c, built; build/tests/dataset where none is given.
# Nothing is downloaded from elsewhere.
set -u
program=${1:-build/tests/dataset}
case $program in /*) ;; *) program=$PWD/$program ;; esac
[ -x "$program" ] || { echo "fetch.sh: $program is not there: build it first"; exit 2; }
command -v python3 >/dev/null || { echo "skipped fetch: no python3 to serve files with"; exit 0; }
command -v tar >/dev/null || { echo "skipped fetch: no tar"; exit 0; }
command -v curl >/dev/null || command -v wget >/dev/null ||
  { echo "skipped fetch: neither curl nor wget"; exit 0; }

no_proxy=127.0.0.1; NO_PROXY=127.0.0.1; export no_proxy NO_PROXY
mkdir -p build/tests
work=$(mktemp -d build/tests/fetch.XXXXXX) || exit 2
work=$(cd "$work" && pwd)
server=
finish() { [ -n "$server" ] && kill "$server" 2>/dev/null; rm -rf "$work"; }
trap finish EXIT
trap 'exit 1' HUP INT TERM
cd "$work" || exit 2

passed=0 failed=0
check() {   # check NAME CONDITION...
  name=$1; shift
  if "$@"; then passed=$((passed + 1)); return; fi
  failed=$((failed + 1)); echo "failed: $name"; cat out
}
fetch() { "$program" --fetch "$@" >out 2>err; }             # FOLDER URL MD5
fails() { ! fetch "$@"; }
says() { grep -qF -- "$1" out; }
absent() { for f in "$@"; do [ ! -e "$f" ] || return 1; done; }
empty() { [ -z "$(ls -A "$1" 2>/dev/null)" ]; }
md5='import hashlib, sys; print(hashlib.md5(open(sys.argv[1], "rb").read()).hexdigest())'
digest() { python3 -c "$md5" "$1"; }

# the archive: six files of two records each
mkdir -p make/cifar-10-batches-bin site
for f in data_batch_1 data_batch_2 data_batch_3 data_batch_4 data_batch_5 test_batch; do
  head -c 6146 /dev/zero >make/cifar-10-batches-bin/$f.bin
done
tar -czf site/good.tar.gz -C make cifar-10-batches-bin
head -c 120 site/good.tar.gz >site/cut.tar.gz
mkdir -p other/somewhere && tar -czf site/other.tar.gz -C other somewhere
good=$(digest site/good.tar.gz); cut=$(digest site/cut.tar.gz); other=$(digest site/other.tar.gz)

cat >serve.py <<'PY'
import functools, http.server, os, time
class Handler(http.server.SimpleHTTPRequestHandler):
    def do_GET(self):
        if self.path != "/stalls.tar.gz":
            return super().do_GET()
        self.send_response(200)
        self.send_header("Content-Length", "1000")
        self.end_headers()
        self.wfile.write(b"half")
        self.wfile.flush()
        time.sleep(1000)
handler = functools.partial(Handler, directory="site")
server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
with open("port.tmp", "w") as f:
    f.write(str(server.server_address[1]))
os.rename("port.tmp", "port")
server.serve_forever()
PY
python3 serve.py >/dev/null 2>served &
server=$!
n=0
while [ ! -f port ]; do
  n=$((n + 1)); [ $n -gt 100 ] && { echo "the server did not start"; cat served; exit 1; }
  sleep 0.1
done
base=http://127.0.0.1:$(cat port)

check "download and unpack" fetch a/b "$base/good.tar.gz" "$good"
check "says what it does" says "downloading $base/good.tar.gz"
check "the folder" says "path: a/b/cifar-10-batches-bin"
check "six files" [ "$(ls a/b/cifar-10-batches-bin | wc -l)" -eq 6 ]
check "nothing else" [ "$(ls -A a/b)" = cifar-10-batches-bin ]
check "a second time, without the server's file" fetch a/b "$base/none" "$good"
check "the folder itself" fetch a/b/cifar-10-batches-bin "$base/none" "$good"

check "a wrong sum" fails c "$base/good.tar.gz" "$cut"
check "both sums" says "its MD5 is $good, and $cut is expected"
check "leaves nothing" empty c
check "no such file" fails d "$base/none.tar.gz" "$good"
check "names the address" says "$base/none.tar.gz: the download failed"
check "leaves nothing" empty d
check "a torn archive" fails e "$base/cut.tar.gz" "$cut"
check "names tar" says "unpacking failed"
check "no half folder" absent e/cifar-10-batches-bin
check "another archive" fails f "$base/other.tar.gz" "$other"
check "says so" says "holds no cifar-10-batches-bin"
check "not unpacked here" absent f/somewhere

check "letters of the shell" fails g "$base/x;touch pwned" "$good"
check "and more" fails g "$base/\$(touch pwned)\`touch pwned\`" "$good"
check "are not run" absent pwned g/pwned
check "no other protocol" fails g "file://$work/site/good.tar.gz" "$good"
check "says which" says "https://"
check "no option" fails g "--output=pwned" "$good"

mkdir -p h && cp site/good.tar.gz h/cifar-10-binary.tar.gz
check "an archive that is there" fetch h "" "$good"
check "stays" [ -f h/cifar-10-binary.tar.gz ]
check "and is unpacked" [ -f h/cifar-10-batches-bin/test_batch.bin ]
rm h/cifar-10-batches-bin/data_batch_4.bin
check "an incomplete folder" fails h "$base/good.tar.gz" "$good"
check "names the file" says "data_batch_4.bin is missing"
head -c 5000 /dev/zero >h/cifar-10-batches-bin/data_batch_4.bin
check "a cut file" fails h "$base/good.tar.gz" "$good"
check "names its size" says "5000 bytes"
check "offline" fails i "" "$good"
check "says so" says "nothing is downloaded"

# what was left by a process that is gone, by one that is there, and by nobody
gone=$(sh -c 'echo $$')
mkdir -p "j/.unpack.$gone/cifar-10-batches-bin" "j/.unpack.$server" j/.unpack.x
for of in $gone $server x; do echo part >"j/cifar-10-binary.tar.gz.$of.part"; done
check "beside what is left of others" fetch j "$base/good.tar.gz" "$good"
check "only what is nobody's any more is removed" [ "$(ls -A j | LC_ALL=C sort | tr '\n' ' ')" = \
  "$(for f in .unpack.$server .unpack.x cifar-10-batches-bin cifar-10-binary.tar.gz.$server.part \
       cifar-10-binary.tar.gz.x.part; do echo "$f"; done | LC_ALL=C sort | tr '\n' ' ')" ]

# with one tool, the other or none on the path
mkdir -p bin
for tool in tar gzip; do ln -s "$(command -v $tool)" bin/$tool; done
only() { PATH=$work/bin fetch "$@"; }
only_fails() { ! only "$@"; }
stalls() {   # FOLDER: whether the fetch ends by itself
  PATH=$work/bin "$(command -v timeout)" 40 "$program" --fetch "$1" "$base/stalls.tar.gz" "$good" \
    >out 2>err
  [ $? = 1 ]
}
check "no tool" only_fails k "$base/good.tar.gz" "$good"
check "says so" says "neither curl nor wget"
for tool in curl wget; do
  if command -v $tool >/dev/null; then
    rm -f bin/curl bin/wget && ln -s "$(command -v $tool)" bin/$tool
    check "$tool alone" only "by-$tool" "$base/good.tar.gz" "$good"
    check "$tool: no such file" only_fails "not-by-$tool" "$base/none.tar.gz" "$good"
    check "$tool: leaves nothing" empty "not-by-$tool"
    command -v timeout >/dev/null || { echo "skipped: a server that stalls: no timeout"; continue; }
    # the tool as it is called, but with a second for every twenty
    rm bin/$tool && cat >bin/$tool <<SH
#!/bin/sh
for word; do shift; [ "\$word" = 20 ] && word=1; set -- "\$@" "\$word"; done
exec $(command -v $tool) "\$@"
SH
    chmod +x bin/$tool
    check "$tool: a server that stalls" stalls "stalled-$tool"
    check "$tool: says so" says "stalls.tar.gz: the download failed ($tool ended with"
    check "$tool: leaves nothing" empty "stalled-$tool"
  else
    echo "skipped: $tool is not installed"
  fi
done

echo "fetch: $passed passed, $failed failed"
[ $failed -eq 0 ]
