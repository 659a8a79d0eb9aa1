#!/bin/busybox sh
# The first process of a guest of the data plane test bed.
export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
/bin/busybox --install -s /bin 2>/dev/null
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t devtmpfs devtmpfs /dev
mkdir -p /dev/pts /dev/shm /array
mount -t devpts devpts /dev/pts
mount -t tmpfs -o size=90% tmpfs /array
mount -t tmpfs tmpfs /run
for module in $(cat /modules/order); do
	insmod "$module" || echo "init: $module did not load"
done
mount -t configfs configfs /sys/kernel/config 2>/dev/null
ip link set lo up
ip link set eth0 up
# QEMU's own network; the host reaches the agent through it, nothing else does.
ip addr add 10.0.2.15/24 dev eth0
/agent
poweroff -f
