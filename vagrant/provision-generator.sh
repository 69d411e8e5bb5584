#!/usr/bin/env bash
# Prepares the other machine: a client (curl, wrk), a backend (nginx on the south network), a packet source (pktgen).
set -euo pipefail

export DEBIAN_FRONTEND=noninteractive
apt-get update -q
apt-get install -qy --no-install-recommends nginx wrk curl ethtool iproute2 tcpdump

sed -e 's/@NAME@/generator/g; s/@ADDRESS@/10.9.2.2/g; s/@USER@/www-data/g; /^daemon off;$/d' \
    /millrace/scripts/lib/nginx-backend.conf >/etc/nginx/nginx.conf
mkdir -p /usr/share/nginx/temp /usr/share/nginx/html
head -c 1024 /dev/zero | tr '\0' x >/usr/share/nginx/html/1k
sed -i 's|^pid nginx.pid;|pid /run/nginx.pid;|' /etc/nginx/nginx.conf
systemctl restart nginx
echo "Ready. Try: curl -i http://10.9.1.1/   and: sudo /millrace/vagrant/pktgen.sh"
