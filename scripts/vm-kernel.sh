#!/bin/sh
# Brings what the test in a virtual machine needs: an emulator, a static shell
# with its tools, and a kernel, which is kept in the user's cache. Prints nothing
# when all is there. Fails with the reason when something cannot be had; then the
# test is skipped.
set -eu

kernel=${COVEY_VM_KERNEL:-${XDG_CACHE_HOME:-$HOME/.cache}/covey/vm/vmlinuz}

say() { echo "vm-kernel: $*" >&2; }
die() { say "$*"; exit 1; }
apt() { timeout 300 "$@" </dev/null >"$log" 2>&1; }

tools_there() {
	command -v qemu-system-x86_64 >/dev/null && command -v busybox >/dev/null &&
		! ldd "$(command -v busybox)" >/dev/null 2>&1 # a static one
}

# The newest that the package lists know; names end in the flavour, so packages
# of debug symbols and unsigned images are left out.
newest() {
	apt-cache search --names-only '^linux-image-[0-9].*-cloud-amd64$' | cut -d ' ' -f 1 | sort -V | tail -n 1
}

if tools_there && [ -s "$kernel" ]; then
	exit 0
fi
[ "$(uname -m)" = x86_64 ] || die "the virtual machine is an amd64, this is $(uname -m)"
command -v apt-get >/dev/null || die "no apt-get here: install QEMU and a static busybox, and name a kernel in COVEY_VM_KERNEL"

dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
log=$dir/log
fresh=
refresh() {
	[ -z "$fresh" ] && [ "$(id -u)" = 0 ] || return 1
	fresh=1
	apt apt-get update || die "apt-get update failed: $(tail -n 3 "$log")"
}

if ! tools_there; then
	[ "$(id -u)" = 0 ] || die "install qemu-system-x86 and busybox-static, or run this as root"
	say "installing qemu-system-x86 and busybox-static"
	install() { DEBIAN_FRONTEND=noninteractive apt apt-get install -y --no-install-recommends qemu-system-x86 busybox-static; }
	install || { refresh && install; } || die "cannot install them: $(tail -n 3 "$log")"
fi

[ -s "$kernel" ] && exit 0
[ -z "${COVEY_VM_KERNEL:-}" ] || die "COVEY_VM_KERNEL=$kernel is no file"
package=$(newest)
if [ -z "$package" ]; then
	refresh || die "no package list names a kernel of the cloud flavour: run apt-get update"
	package=$(newest)
fi
[ -n "$package" ] || die "no package list names a kernel of the cloud flavour"
say "fetching $package"
cd "$dir"
fetch() { apt apt-get -o APT::Sandbox::User="$(id -un)" download "$package"; }
fetch || { refresh && package=$(newest) && fetch; } || die "cannot fetch it: $(tail -n 3 "$log")"
dpkg-deb -x ./*.deb unpacked
mkdir -p "$(dirname "$kernel")"
cp unpacked/boot/vmlinuz-* "$kernel.$$"
mv "$kernel.$$" "$kernel"
