#!/bin/sh
# Installs Prometheus and promtool from Debian's package, unpacked and not installed, so that it needs no root. The
# harness finds them as .build/prometheus/usr/bin/. Where there is no such package it says so, and the tests that need
# it skip.
. "$(dirname "$0")/common.sh"

# apt's lists of packages are kept in .build/ too: those of the system may be old or missing, and are root's.
apt() {
    mkdir -p "$lists/lists/partial" "$lists/archives/partial"
    touch "$lists/status"
    apt-get -qq -o "Dir::State=$lists" -o "Dir::State::status=$lists/status" -o "Dir::Cache=$lists" \
        -o APT::Sandbox::User= "$@"
}

unpack_package() {
    lists=$PWD/$1/apt
    apt update || give_up "apt-get could not read Debian's list of packages"
    (cd "$1" && apt download prometheus) || give_up "apt-get could not download the package prometheus"
    dpkg -x "$1"/prometheus_*.deb "$1" || give_up "dpkg could not unpack the package prometheus"
    "$1/usr/bin/prometheus" --version >/dev/null 2>&1 || give_up "Prometheus does not run on this machine"
    rm -rf "$lists" "$1"/prometheus_*.deb
}

give_up() {
    progress "no Prometheus: $*"
    rm -rf .build/prometheus
    exit 0
}

command -v apt-get >/dev/null && command -v dpkg >/dev/null || give_up "this is no Debian: apt-get and dpkg are missing"
install_once .build/prometheus "prometheus of Debian" unpack_package .build/prometheus
