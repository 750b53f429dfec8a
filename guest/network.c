/* Network interfaces by rtnetlink(7): loopback and names at boot, MAC, addresses and routes of a clone. */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <linux/if_link.h>
#include <linux/rtnetlink.h>
#include <net/if.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

#include "agent.h"

struct request {
	struct nlmsghdr header;
	union {
		struct ifinfomsg link;
		struct ifaddrmsg address;
		struct rtmsg route;
	};
	char attributes[256];
};

#define MAX_NICS 16

static int netlink = -1;
/* The interfaces that the host calls NIC 0 and so on; `index` 0: there is none. */
static struct {
	int index;
	bool connected, up, ipv6;
	char name[IFNAMSIZ];
} nics[MAX_NICS];

static void attribute(struct request *request, int type, const void *data, size_t length)
{
	struct rtattr *place = (struct rtattr *)((char *)request + NLMSG_ALIGN(request->header.nlmsg_len));
	place->rta_type = type;
	place->rta_len = RTA_LENGTH(length);
	memcpy(RTA_DATA(place), data, length);
	request->header.nlmsg_len = NLMSG_ALIGN(request->header.nlmsg_len) + RTA_ALIGN(place->rta_len);
}

/* Send and wait for the kernel's answer; 0 or -1 with errno. */
static int talk(struct request *request)
{
	char answer[4096];
	struct nlmsghdr *header = (struct nlmsghdr *)answer;
	request->header.nlmsg_flags |= NLM_F_REQUEST | NLM_F_ACK;
	if (netlink < 0)
		netlink = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_ROUTE);
	if (send(netlink, request, request->header.nlmsg_len, 0) < 0)
		return -1;
	if (recv(netlink, answer, sizeof answer, 0) < (ssize_t)NLMSG_LENGTH(sizeof(struct nlmsgerr)))
		return -1;
	if (header->nlmsg_type != NLMSG_ERROR)
		return -1;
	errno = -((struct nlmsgerr *)NLMSG_DATA(header))->error;
	return errno ? -1 : 0;
}

static struct request link_request(int index)
{
	struct request request = {.header = {.nlmsg_len = NLMSG_LENGTH(sizeof request.link), .nlmsg_type = RTM_SETLINK}};
	request.link.ifi_family = AF_UNSPEC;
	request.link.ifi_index = index;
	return request;
}

enum state { DOWN, UP, AS_IT_IS };

/* All at once: its name, MAC and MTU where they are given, and whether it is up. */
static int set_link(int index, const char *name, const char *mac, unsigned mtu, enum state state)
{
	struct request request = link_request(index);
	unsigned part[6];
	uint8_t bytes[6];
	if (mac && sscanf(mac, "%2x:%2x:%2x:%2x:%2x:%2x", part, part + 1, part + 2, part + 3, part + 4, part + 5) == 6) {
		for (int i = 0; i < 6; i++)
			bytes[i] = part[i];
		attribute(&request, IFLA_ADDRESS, bytes, 6);
	}
	if (mtu)
		attribute(&request, IFLA_MTU, &mtu, sizeof mtu);
	if (name)
		attribute(&request, IFLA_IFNAME, name, strlen(name) + 1);
	request.link.ifi_change = state == AS_IT_IS ? 0 : IFF_UP;
	request.link.ifi_flags = state == UP ? IFF_UP : 0;
	return talk(&request);
}

static int rename_nic(unsigned number, const char *name)
{
	snprintf(nics[number].name, IFNAMSIZ, "%s", name);
	return set_link(nics[number].index, name, NULL, 0, DOWN);
}

/* Loopback up; the host's NICs, known by the MAC 02:00:00:00:00:NN that the template gives them, are named nicNN. */
void network_boot(void)
{
	struct if_nameindex *list, *at;
	set_link(if_nametoindex("lo"), NULL, NULL, 0, UP);
	write_file("/proc/sys/net/ipv4/ip_unprivileged_port_start", "0");
	write_file("/proc/sys/net/ipv4/ping_group_range", "0 2147483647");
	list = if_nameindex();
	for (at = list; at && at->if_name; at++) {
		char path[128], mac[32] = "", name[IFNAMSIZ];
		unsigned number;
		snprintf(path, sizeof path, "/sys/class/net/%s/address", at->if_name);
		FILE *file = fopen(path, "re");
		if (!file)
			continue;
		if (fgets(mac, sizeof mac, file) && sscanf(mac, "02:00:00:00:00:%2x", &number) == 1 && number < MAX_NICS) {
			nics[number].index = (int)at->if_index;
			snprintf(name, sizeof name, "nic%u", number);
			rename_nic(number, name);
			snprintf(path, sizeof path, "/proc/sys/net/ipv6/conf/%s/disable_ipv6", name);
			write_file(path, "1");
			snprintf(path, sizeof path, "/proc/sys/net/ipv6/conf/%s/accept_ra", name);
			write_file(path, "0");
		}
		fclose(file);
	}
	if (list)
		if_freenameindex(list);
	/* What nearly every container has, without an address as yet: queues and settings of an interface are made when
	 * it is named and brought up. */
	if (nics[0].index && rename_nic(0, "eth0") == 0)
		nics[0].up = set_link(nics[0].index, NULL, NULL, 0, UP) == 0;
}

/* `10.0.0.2/16` or `fd00::2/64` into bytes; the family, or 0. */
static int parse_address(const char *text, uint8_t *bytes, unsigned *prefix)
{
	char address[64];
	snprintf(address, sizeof address, "%s", text);
	char *slash = strchr(address, '/');
	if (slash)
		*slash++ = 0;
	int family = strchr(address, ':') ? AF_INET6 : AF_INET;
	*prefix = slash ? (unsigned)atoi(slash) : family == AF_INET ? 32 : 128;
	return inet_pton(family, address, bytes) == 1 ? family : 0;
}

static int add_address(int index, const char *text)
{
	uint8_t bytes[16];
	unsigned prefix;
	uint32_t flags = IFA_F_NODAD;
	struct request request = {.header = {.nlmsg_len = NLMSG_LENGTH(sizeof request.address),
					     .nlmsg_type = RTM_NEWADDR,
					     .nlmsg_flags = NLM_F_CREATE | NLM_F_REPLACE}};
	int family = parse_address(text, bytes, &prefix);
	size_t length = family == AF_INET6 ? 16 : 4;
	request.address.ifa_family = family;
	request.address.ifa_prefixlen = prefix;
	request.address.ifa_index = index;
	attribute(&request, IFA_LOCAL, bytes, length);
	attribute(&request, IFA_ADDRESS, bytes, length);
	if (family == AF_INET6)
		attribute(&request, IFA_FLAGS, &flags, sizeof flags);
	if (family == AF_INET) {
		uint32_t broadcast;
		memcpy(&broadcast, bytes, 4);
		broadcast |= prefix < 32 ? htonl(0xffffffffu >> prefix) : 0;
		attribute(&request, IFA_BROADCAST, &broadcast, sizeof broadcast);
	}
	return talk(&request);
}

/* A route to `destination` (empty: the default) by `gateway`. */
static int add_route(int index, const char *destination, const char *gateway)
{
	uint8_t bytes[16], hop[16];
	unsigned prefix = 0, unused;
	uint32_t out = index;
	struct request request = {.header = {.nlmsg_len = NLMSG_LENGTH(sizeof request.route),
					     .nlmsg_type = RTM_NEWROUTE,
					     .nlmsg_flags = NLM_F_CREATE | NLM_F_REPLACE}};
	int family = parse_address(gateway, hop, &unused);
	request.route.rtm_family = family;
	request.route.rtm_table = RT_TABLE_MAIN;
	request.route.rtm_protocol = RTPROT_STATIC;
	request.route.rtm_scope = RT_SCOPE_UNIVERSE;
	request.route.rtm_type = RTN_UNICAST;
	if (*destination) {
		if (parse_address(destination, bytes, &prefix) != family)
			return -1;
		attribute(&request, RTA_DST, bytes, family == AF_INET6 ? 16 : 4);
	}
	request.route.rtm_dst_len = prefix;
	attribute(&request, RTA_GATEWAY, hop, family == AF_INET6 ? 16 : 4);
	attribute(&request, RTA_OIF, &out, sizeof out);
	return talk(&request);
}

/* Take a NIC's addresses, and its routes with them. */
static void strip(unsigned number)
{
	struct ifreq address = {0};
	char path[96];
	memcpy(address.ifr_name, nics[number].name, IFNAMSIZ);
	address.ifr_addr.sa_family = AF_INET;
	int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	/* The first one goes each time (netdevice(7): none is the address 0.0.0.0). */
	for (int i = 0; fd >= 0 && i < 256 && ioctl(fd, SIOCGIFADDR, &address) == 0; i++) {
		memset(&address.ifr_addr, 0, sizeof address.ifr_addr);
		address.ifr_addr.sa_family = AF_INET;
		ioctl(fd, SIOCSIFADDR, &address);
	}
	if (fd >= 0)
		close(fd);
	if (!nics[number].ipv6)
		return;
	snprintf(path, sizeof path, "/proc/sys/net/ipv6/conf/%s/disable_ipv6", nics[number].name);
	write_file(path, "1");
	nics[number].ipv6 = false;
}

/* Take a NIC down, its addresses with it, and give it the name of one that is not used. */
static int disconnect(unsigned number)
{
	char idle[IFNAMSIZ];
	if (!nics[number].connected)
		return 0;
	strip(number);
	snprintf(idle, sizeof idle, "nic%u", number);
	/* Down before it is renamed. */
	if (set_link(nics[number].index, NULL, NULL, 0, DOWN) < 0 || rename_nic(number, idle) < 0)
		return -1;
	nics[number].connected = nics[number].up = false;
	return 0;
}

/* Have no other NIC under this name. */
static int vacate(unsigned number, const char *name)
{
	for (unsigned other = 0; other < MAX_NICS; other++)
		if (other != number && !strcmp(nics[other].name, name) && disconnect(other) < 0)
			return -1;
	return 0;
}

/* Bring a NIC up under a name; what it was before is taken from it. Where it has that name already it only loses its
 * addresses: a rename makes all settings of an interface anew. */
static int connect_nic(unsigned number, const char *name, const char *mac, unsigned mtu)
{
	int index = nics[number].index;
	bool same = !strcmp(nics[number].name, name);
	if (same && nics[number].connected)
		strip(number);
	else if (disconnect(number) < 0 || vacate(number, name) < 0)
		return -1;
	if (!same) {
		if (set_link(index, NULL, NULL, 0, DOWN) < 0 || rename_nic(number, name) < 0)
			return -1;
		nics[number].up = false;
	}
	nics[number].connected = true;
	/* Flags that stay as they are need not be asked for: the device is told of them again, filters and all. */
	if (set_link(index, NULL, mac, mtu, nics[number].up ? AS_IT_IS : UP) < 0)
		return -1;
	nics[number].up = true;
	return 0;
}

static const char *failed(char *error, size_t size, const char *what, const char *value)
{
	snprintf(error, size, "network of the guest: %s %s: %s", what, value, strerror(errno));
	return error;
}

/* One interface: lines `nic N`, `name`, `mac`, `mtu`, `up`, then `address`, `gateway`, `route DST GW`; or `down`. */
const char *network_configure(char *lines, char *error, size_t size)
{
	char *line, *name = "", *mac = NULL;
	unsigned mtu = 0, number = 0;
	int index = 0;
	while ((line = strsep(&lines, "\n"))) {
		char *value = strchr(line, ' ');
		if (!value)
			continue;
		*value++ = 0;
		if (!strcmp(line, "nic")) {
			number = (unsigned)atoi(value);
			index = number < MAX_NICS ? nics[number].index : 0;
		} else if (!strcmp(line, "name")) {
			name = value;
		} else if (!strcmp(line, "mac")) {
			mac = value;
		} else if (!strcmp(line, "mtu")) {
			mtu = (unsigned)atoi(value);
		} else if (!strcmp(line, "ipv6")) {
			char path[96];
			snprintf(path, sizeof path, "/proc/sys/net/ipv6/conf/%s/disable_ipv6", name);
			write_file(path, "0");
			nics[number].ipv6 = true;
		} else if (!strcmp(line, "up") && (!index || connect_nic(number, name, mac, mtu) < 0)) {
			return failed(error, size, "interface", name);
		} else if (!strcmp(line, "down") && (!index || disconnect(number) < 0)) {
			return failed(error, size, "interface", "to take down");
		} else if (!strcmp(line, "address") && add_address(index, value) < 0) {
			return failed(error, size, "address", value);
		} else if (!strcmp(line, "gateway") && add_route(index, "", value) < 0) {
			return failed(error, size, "gateway", value);
		} else if (!strcmp(line, "route")) {
			char *gateway = strchr(value, ' ');
			if (gateway)
				*gateway++ = 0;
			if (gateway && add_route(index, value, gateway) < 0)
				return failed(error, size, "route", value);
		}
	}
	return NULL;
}
