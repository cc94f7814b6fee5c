#!/bin/sh
# Install what is missing, then run. A second call installs nothing again.
#   sh run.sh demo [...]   the whole job without a display (napari-ovam demo)
#   sh run.sh app  [...]   the annotator in napari
#   sh run.sh test [...]   the tests (tox)
set -euf
cd "$(dirname "$0")"
mode=${1:-}
case $mode in
demo | app | test) shift ;;
*)
    sed -n '2,5s/^# \{0,1\}//p' "$0"
    exit 2
    ;;
esac

# What Qt's xcb plugin loads, as libraries and as Debian's packages.
libraries="libEGL.so.1 libglib-2.0.so.0 libdbus-1.so.3 libfontconfig.so.1
    libxkbcommon-x11.so.0 libxcb-cursor.so.0 libxcb-icccm.so.4 libxcb-keysyms.so.1
    libxcb-shape.so.0"
packages="libegl1 libglib2.0-0 libdbus-1-3 libfontconfig1 libxkbcommon-x11-0
    libxcb-cursor0 libxcb-icccm4 libxcb-keysyms1 libxcb-shape0"

find_python() { # the first Python >= 3.11 that can make virtual environments
    for python in python3 python3.13 python3.12 python3.11; do
        if "$python" -c 'import ensurepip, sys, venv
sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
            echo "$python"
            return
        fi
    done
    return 1
}

has_libraries() {
    "$1" -c 'import ctypes, sys
for name in sys.argv[1:]: ctypes.CDLL(name)' $libraries 2>/dev/null
}

missing() { # Debian's names of the system packages that this run lacks
    found=$(find_python) || echo python3 python3-venv
    [ "$(uname)" = Linux ] && [ "$mode" != demo ] || return 0
    [ -n "$found" ] && has_libraries "$found" || echo $packages
    [ "$mode" = app ] || { command -v Xvfb && command -v xauth; } >/dev/null ||
        echo xvfb xauth
}

lacking=$(missing)
if [ -n "$lacking" ]; then
    install="apt-get install -y --no-install-recommends $(echo $lacking)"
    if ! command -v apt-get >/dev/null; then
        echo "Please install these first (Debian's names): $(echo $lacking)" >&2
        exit 1
    elif [ "$(id -u)" = 0 ]; then
        root=
    elif command -v sudo >/dev/null; then
        root=sudo
    else
        echo "Please run this as root, then try again: $install" >&2
        exit 1
    fi
    echo "Installing system packages: $(echo $lacking)"
    $root apt-get update -q
    $root env DEBIAN_FRONTEND=noninteractive $install
fi
python=$(find_python) || {
    echo "Python 3.11 or newer, with venv, is needed: please install it first." >&2
    exit 1
}

case $mode in
demo) wanted='--editable .' ;;
app) wanted='--editable .[all]' ;;
test) wanted=tox ;;
esac
stamp=.venv/installed-$mode
current=$(find "$stamp" -newer pyproject.toml -newer constraints.txt 2>/dev/null) || :
if [ -z "$current" ] || ! .venv/bin/python -c '' 2>/dev/null; then
    .venv/bin/python -m pip --version >/dev/null 2>&1 ||
        "$python" -m venv --clear .venv
    # Byte code is written by what is imported: saves a minute of compiling the rest.
    .venv/bin/python -m pip install --no-compile -c constraints.txt $wanted
    touch "$stamp"
fi

case $mode in
demo) exec .venv/bin/napari-ovam demo "$@" ;;
app) exec .venv/bin/napari-ovam "$@" ;;
test) exec .venv/bin/tox run "$@" ;;
esac
