/* QEMU kept for later: its monitor (the keeper) starts it, and another one (the adopter), which stands for a
 * container, takes it over. The keeper stays its parent and does nothing more: it tells the adopter of
 * QEMU's end, and ends QEMU when the adopter is gone. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/if_tun.h>
#include <net/if.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include "vmm.h"

#define CHANNELS 6
#define NET_HEADER 12 /* struct virtio_net_hdr_mrg_rxbuf: what QEMU and the guest agreed on */
#define TRIES 5000
#define PAUSE_US 200

struct legacy {
	pid_t hypervisor;
	int tap_count;
};

/* Hand over what the adopter needs. False when it is not there to take it. */
static bool bequeath(const struct plan *plan, pid_t hypervisor, int to)
{
	int descriptors[CHANNELS + MAX_TAPS] = {plan->stdio, plan->agent, plan->console, plan->console_theirs, plan->setup, plan->share_socket};
	char control[CMSG_SPACE(sizeof descriptors)] = {0};
	struct legacy legacy = {hypervisor, plan->tap_count};
	struct iovec data = {&legacy, sizeof legacy};
	size_t size = (CHANNELS + (size_t)plan->tap_count) * sizeof(int);
	struct msghdr message = {.msg_iov = &data, .msg_iovlen = 1, .msg_control = control, .msg_controllen = CMSG_SPACE(size)};
	struct cmsghdr *header = CMSG_FIRSTHDR(&message);
	memcpy(descriptors + CHANNELS, plan->taps, (size_t)plan->tap_count * sizeof(int));
	header->cmsg_level = SOL_SOCKET;
	header->cmsg_type = SCM_RIGHTS;
	header->cmsg_len = CMSG_LEN(size);
	memcpy(CMSG_DATA(header), descriptors, size);
	return sendmsg(to, &message, MSG_NOSIGNAL) == sizeof legacy;
}

/* Somebody connected: once, and from then on this process only waits for one of the two to end. */
void keep_hand_over(const struct plan *plan, pid_t hypervisor, int signals)
{
	struct signalfd_siginfo info;
	int status = 0, adopter = accept4(plan->keep, NULL, NULL, SOCK_CLOEXEC);
	if (adopter < 0)
		return;
	close(plan->keep);
	if (bequeath(plan, hypervisor, adopter)) {
		close(plan->vendor);
		close(plan->stdio);
		close(plan->agent);
		close(plan->console);
		close(plan->console_theirs);
		close(plan->setup);
		close(plan->share_socket);
		for (int i = 0; i < plan->tap_count; i++)
			close(plan->taps[i]);
		for (;;) {
			struct pollfd set[] = {{.fd = adopter, .events = POLLIN}, {.fd = signals, .events = POLLIN}};
			if (poll(set, 2, -1) < 0)
				continue;
			if (set[0].revents)
				break;
			if (read(signals, &info, sizeof info) == sizeof info && info.ssi_signo == SIGCHLD &&
			    waitpid(hypervisor, &status, WNOHANG) == hypervisor) {
				send(adopter, &status, sizeof status, MSG_NOSIGNAL);
				_exit(0);
			}
		}
	}
	kill(hypervisor, SIGKILL);
	waitpid(hypervisor, &status, 0);
	send(adopter, &status, sizeof status, MSG_NOSIGNAL);
	_exit(0);
}

/* Take over the QEMU whose keeper listens at `path`. */
void keep_adopt(struct plan *plan, const char *path)
{
	struct sockaddr_un address = {.sun_family = AF_UNIX};
	int descriptors[CHANNELS + MAX_TAPS];
	char control[CMSG_SPACE(sizeof descriptors)];
	struct legacy legacy;
	struct iovec data = {&legacy, sizeof legacy};
	struct msghdr message = {.msg_iov = &data, .msg_iovlen = 1, .msg_control = control, .msg_controllen = sizeof control};
	if (strlen(path) >= sizeof address.sun_path)
		fail("plan: the path %s is too long for a socket", path);
	strcpy(address.sun_path, path);
	plan->keeper = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (plan->keeper < 0 || connect(plan->keeper, (struct sockaddr *)&address, sizeof address) < 0)
		fail("the virtual machine that was kept is gone: connect %s: %s", path, strerror(errno));
	struct cmsghdr *header = NULL;
	if (recvmsg(plan->keeper, &message, MSG_CMSG_CLOEXEC) == sizeof legacy)
		header = CMSG_FIRSTHDR(&message);
	if (!header || legacy.tap_count > MAX_TAPS ||
	    header->cmsg_len != CMSG_LEN((CHANNELS + (size_t)legacy.tap_count) * sizeof(int)))
		fail("the virtual machine that was kept has ended");
	memcpy(descriptors, CMSG_DATA(header), header->cmsg_len - CMSG_LEN(0));
	close(plan->console);
	close(plan->console_theirs);
	plan->stdio = descriptors[0];
	plan->agent = descriptors[1];
	plan->console = descriptors[2];
	plan->console_theirs = descriptors[3];
	plan->setup = descriptors[4];
	plan->share_socket = descriptors[5];
	plan->hypervisor = legacy.hypervisor;
	plan->tap_count = legacy.tap_count;
	memcpy(plan->taps, descriptors + CHANNELS, (size_t)legacy.tap_count * sizeof(int));
}

/* Give QEMU's next tap queue another device. The one it was opened with is being removed meanwhile, after which
 * the kernel takes a new one (tun_set_iff: EEXIST until then); the device's settings are made as QEMU made them. */
void keep_attach(struct plan *plan, const char *name)
{
	struct ifreq request = {.ifr_flags = IFF_TAP | IFF_NO_PI | IFF_VNET_HDR};
	int header = NET_HEADER, done = -1;
	if (plan->attached >= plan->tap_count || strlen(name) >= IFNAMSIZ)
		fail("plan: no tap for the device %s", name);
	int tap = plan->taps[plan->attached++];
	strcpy(request.ifr_name, name);
	for (int i = 0; done < 0 && i < TRIES; i++) {
		done = ioctl(tap, TUNSETIFF, &request);
		if (done < 0 && errno != EEXIST)
			break;
		if (done < 0)
			usleep(PAUSE_US);
	}
	if (done < 0 || ioctl(tap, TUNSETVNETHDRSZ, &header) < 0)
		fail("open of tap %s: %s", name, strerror(errno));
	ioctl(tap, TUNSETOFFLOAD, TUN_F_CSUM | TUN_F_TSO4 | TUN_F_TSO6 | TUN_F_TSO_ECN);
}

/* Write QEMU into the plan's cgroups: it was in another one while it was kept. */
void keep_enter(const struct plan *plan)
{
	char text[16];
	int length = snprintf(text, sizeof text, "%d", plan->hypervisor);
	for (int i = 0; i < plan->cgroup_count; i++) {
		int fd = open(plan->cgroups[i], O_WRONLY | O_CLOEXEC);
		if (fd < 0 || write(fd, text, (size_t)length) != length)
			fail("write %s: %s", plan->cgroups[i], strerror(errno));
		close(fd);
	}
}
