#!/bin/sh
# Brings PostgreSQL for the tests that start one of their own. Prints nothing when
# it is there. Fails with the reason when it cannot be had; then they are skipped.
set -eu

say() { echo "postgres: $*" >&2; }
die() { say "$*"; exit 1; }

there() {
	command -v initdb >/dev/null || ls /usr/lib/postgresql/*/bin/initdb >/dev/null 2>&1
}

there && exit 0
command -v apt-get >/dev/null || die "no apt-get here: install PostgreSQL 13 or newer"
[ "$(id -u)" = 0 ] || die "not root: ask for apt-get install postgresql"

log=$(mktemp)
trap 'rm -f "$log"' EXIT
apt() { DEBIAN_FRONTEND=noninteractive timeout 300 apt-get "$@" </dev/null >"$log" 2>&1; }

say "installing PostgreSQL"
# The package starts a server of its own unless it is told not to.
mkdir -p /etc/postgresql-common
[ -e /etc/postgresql-common/createcluster.conf ] || echo 'create_main_cluster = false' >/etc/postgresql-common/createcluster.conf
apt install -y --no-install-recommends postgresql ||
	{ apt update && apt install -y --no-install-recommends postgresql; } ||
	die "apt-get install postgresql failed: $(tail -n 3 "$log")"
there || die "the package has no initdb"
