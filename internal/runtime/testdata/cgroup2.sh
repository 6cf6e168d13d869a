#!/bin/sh
# Runs this package's tests of limits and ends on a kernel with cgroups of
# version 2 alone, in a virtual machine without network or disk. Needs root for
# apt-get, or these packages: qemu-system-x86 cpio busybox-static, and a Debian
# kernel image of the cloud flavour in $KERNEL.
# Usage: testdata/cgroup2.sh [regular expression of tests]
set -eu
tests=${1:-'^(TestHello|TestMemoryHog|TestCPULimit|TestForkBomb|TestDaemonGone|TestSupervisorKilled|TestInitKilled|TestStop|TestUsage|TestKillDeafSupervisor)$'}
here=$(cd "$(dirname "$0")/.." && pwd)
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
command -v qemu-system-x86_64 >/dev/null && command -v cpio >/dev/null && [ -x /bin/busybox ] ||
	apt-get install -y --no-install-recommends qemu-system-x86 cpio busybox-static >/dev/null
if [ -z "${KERNEL:-}" ]; then
	package=$(apt-cache search '^linux-image-6.1.0-.*-cloud-amd64$' | tail -1 | cut -d' ' -f1)
	(cd "$dir" && apt-get download "$package" >/dev/null && dpkg-deb -x linux-image*.deb kernel)
	KERNEL=$(echo "$dir"/kernel/boot/vmlinuz*)
fi
mkdir -p "$dir"/root/bin "$dir"/root/etc "$dir"/root/usr "$dir"/root/sbin "$dir"/root/new
(cd "$here" && CGO_ENABLED=0 go test -c -o "$dir/root/bin/runtime.test" .)
cp /bin/busybox "$dir/root/bin/"
for a in $(/bin/busybox --list); do
	[ -e "$dir/root/bin/$a" ] || ln -s busybox "$dir/root/bin/$a"
done
echo 'root:x:0:0::/:/bin/sh' >"$dir/root/etc/passwd"
echo 'root:x:0:' >"$dir/root/etc/group"
cat >"$dir/root/init" <<'INIT'
#!/bin/sh
mount -t tmpfs -o size=600m tmpfs /new
cp -a /bin /etc /usr /sbin /run-tests /tests /new/
mkdir /new/proc /new/sys /new/dev /new/tmp
exec switch_root /new /run-tests
INIT
cat >"$dir/root/run-tests" <<'TESTS'
#!/bin/sh
mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t devtmpfs dev /dev
mount -t cgroup2 cgroup2 /sys/fs/cgroup
cd /tmp
PATH=/bin runtime.test -test.v -test.run "$(cat /tests)" 2>&1 && echo THE TESTS PASSED
poweroff -f
TESTS
echo "$tests" >"$dir/root/tests"
chmod +x "$dir/root/init" "$dir/root/run-tests"
(cd "$dir/root" && find . | cpio -o -H newc 2>/dev/null | gzip -1 >../initrd.gz)
timeout 600 qemu-system-x86_64 -M q35 -accel tcg,thread=multi -cpu max -smp 2 -m 1500 -nographic -no-reboot -net none \
	-kernel "$KERNEL" -initrd "$dir/initrd.gz" -append 'console=ttyS0 quiet rdinit=/init psi=1' | tee "$dir/out"
grep -q 'THE TESTS PASSED' "$dir/out"
