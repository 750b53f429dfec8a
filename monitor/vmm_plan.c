/* The bundle's `plan`: a line is a word, a space, a value. Descriptors are opened while it is read. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/if_tun.h>
#include <net/if.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "vmm.h"

static int listen_at(const char *path)
{
	struct sockaddr_un address = {.sun_family = AF_UNIX};
	if (strlen(path) >= sizeof address.sun_path)
		fail("plan: the path %s is too long for a socket", path);
	strcpy(address.sun_path, path);
	unlink(path);
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (fd < 0 || bind(fd, (struct sockaddr *)&address, sizeof address) < 0 || listen(fd, 4) < 0)
		fail("bind %s: %s", path, strerror(errno));
	return fd;
}

/* The queue of an existing tap device; with no name a new one that ends with its descriptor. */
static int open_tap(const char *name)
{
	struct ifreq request = {.ifr_flags = IFF_TAP | IFF_NO_PI | IFF_VNET_HDR};
	int fd = open("/dev/net/tun", O_RDWR | O_CLOEXEC | O_NONBLOCK);
	if (strlen(name) >= IFNAMSIZ)
		fail("plan: the interface name %s is too long", name);
	strcpy(request.ifr_name, name);
	if (fd < 0 || ioctl(fd, TUNSETIFF, &request) < 0)
		fail("open of tap %s: %s", name, strerror(errno));
	return fd;
}

static int open_file(const char *path, int flags)
{
	int fd = open(path, flags | O_CLOEXEC);
	if (fd < 0)
		fail("open %s: %s", path, strerror(errno));
	return fd;
}

/* A connected pair; `theirs` is QEMU's end. */
static int make_pair(int *theirs)
{
	int pair[2];
	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) < 0)
		fail("socketpair: %s", strerror(errno));
	*theirs = pair[1];
	return pair[0];
}

/* `NUMBER KIND VALUE`: one descriptor for QEMU. */
static void grant(struct plan *plan, char *text)
{
	char *number = strsep(&text, " "), *kind = strsep(&text, " ");
	int fd = -1;
	if (!kind || !text || plan->grant_count == MAX_FDS)
		fail("plan: a descriptor is malformed, or there are too many");
	if (!strcmp(kind, "read"))
		fd = open_file(text, O_RDONLY);
	else if (!strcmp(kind, "write"))
		fd = open_file(text, O_RDWR);
	else if (!strcmp(kind, "listen"))
		fd = listen_at(text);
	else if (!strcmp(kind, "tap") && plan->tap_count < MAX_TAPS)
		fd = plan->taps[plan->tap_count++] = open_tap(text);
	else if (!strcmp(kind, "stdio"))
		plan->stdio = make_pair(&fd);
	else if (!strcmp(kind, "agent"))
		plan->agent = make_pair(&fd);
	else if (!strcmp(kind, "shares"))
		plan->share_socket = make_pair(&fd);
	else if (!strcmp(kind, "setup"))
		plan->setup = make_pair(&fd);
	else if (!strcmp(kind, "console"))
		fd = plan->console_theirs;
	else
		fail("plan: unknown descriptor %s", kind);
	plan->grants[plan->grant_count++] = (struct grant){fd, atoi(number)};
}

/* `OPTIONS PATH`: a tree for the guest; options are words with commas. */
static void add_share(struct plan *plan, char *text)
{
	struct share *share = &plan->shares[plan->share_count];
	char *options = strsep(&text, " "), *word;
	if (!text || plan->share_count == MAX_SHARES)
		fail("plan: a share is malformed, or there are more than %d", MAX_SHARES);
	plan->share_count++;
	share->path = text;
	while ((word = strsep(&options, ","))) {
		share->readonly |= !strcmp(word, "ro") || !strcmp(word, "ro-below");
		share->readonly_below |= !strcmp(word, "ro-below");
		share->recursive |= !strcmp(word, "recursive");
		share->slave |= !strcmp(word, "slave");
	}
}

static void apply(struct plan *plan, const char *word, char *value)
{
	static int file = -1; /* for the next command */
	if (!strcmp(word, "arg")) {
		if (plan->argument_count == MAX_ARGUMENTS)
			fail("plan: too many arguments");
		plan->arguments[plan->argument_count++] = value;
	} else if (!strcmp(word, "fd")) {
		grant(plan, value);
	} else if (!strcmp(word, "uid")) {
		plan->uid = (uid_t)strtoul(value, NULL, 10);
	} else if (!strcmp(word, "qmp")) {
		if (plan->command_count == MAX_COMMANDS)
			fail("plan: too many commands");
		plan->commands[plan->command_count++] = (struct command){value, file};
		file = -1;
	} else if (!strcmp(word, "lend")) {
		char *kind = strsep(&value, " ");
		file = open_file(value ? value : "", strcmp(kind, "write") ? O_RDONLY : O_RDWR);
	} else if (!strcmp(word, "resync")) {
		plan->resync = true;
	} else if (!strcmp(word, "leash")) {
		plan->leash = true;
	} else if (!strcmp(word, "preload")) {
		plan->preload = value;
	} else if (!strcmp(word, "view")) {
		if (plan->view_count == MAX_VIEW)
			fail("plan: too many files to see");
		plan->view[plan->view_count++] = value;
	} else if (!strcmp(word, "vendor")) {
		plan->vendor = listen_at(value);
	} else if (!strcmp(word, "share")) {
		add_share(plan, value);
	} else if (!strcmp(word, "within") && plan->share_count) {
		plan->shares[plan->share_count - 1].within = value;
	} else if (!strcmp(word, "keep")) {
		plan->keep = listen_at(value);
	} else if (!strcmp(word, "adopt")) {
		keep_adopt(plan, value);
	} else if (!strcmp(word, "attach")) {
		keep_attach(plan, value);
	} else if (!strcmp(word, "cgroup")) {
		if (plan->cgroup_count == 32)
			fail("plan: too many cgroups");
		plan->cgroups[plan->cgroup_count++] = value;
	} else {
		fail("plan: unknown word %s", word);
	}
}

void plan_read(struct plan *plan, const char *path)
{
	char *line = NULL;
	size_t size = 0;
	FILE *file = fopen(path, "re");
	if (!file)
		fail("open of the plan: %s", strerror(errno));
	plan->stdio = plan->agent = plan->vendor = plan->setup = plan->share_socket = plan->keep = plan->keeper = -1;
	plan->console = make_pair(&plan->console_theirs);
	while (getline(&line, &size, file) > 0) {
		line[strcspn(line, "\n")] = 0;
		char *value = strchr(line, ' ');
		if (!value)
			fail("plan: a line without a value: %s", line);
		*value++ = 0;
		apply(plan, line, value);
		line = NULL;
		size = 0;
	}
	fclose(file);
	if (plan->stdio < 0 || plan->agent < 0 || plan->vendor < 0 ||
	    (plan->keeper < 0 && (!plan->argument_count || !plan->uid)))
		fail("plan: incomplete");
	if (plan->keeper >= 0)
		keep_enter(plan);
	shares_open(plan);
}
