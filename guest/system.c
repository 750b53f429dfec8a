/* The guest's own system: boot of the template, then identity, root file system and files of a clone. */
#define _GNU_SOURCE
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <linux/openat2.h>
#include <poll.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/ioctl.h>
#ifdef __x86_64__
#include <sys/io.h>
#endif
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <sys/vfs.h>
#include <unistd.h>

#include "agent.h"

#define TREE "/tree" /* /dev and /sys of the container, made while the template boots */
#define BASE "/disk/base"
#define UPPER "/disk/upper"
#define FILES "/run/files"

int system_base = -1, system_upper = -1;

static int limits = -1;	 /* the container's cgroup */
static int memory_events = -1;
static int outside = -1; /* `cgroup.procs` of the one above: what is written there leaves the limits */
static char base_device[32], upper_device[32];
struct walls system_walls;

static bool mounted, discard, has_disks;

/* Files of the container's that the host fills: which field is which, and whether there is something in it. */
static struct file {
	unsigned tag;
	const char *name;
	int fd;
	bool filled;
} files[] = {
	{.tag = F_HOSTS, .name = "hosts"},
	{.tag = F_HOSTNAME_FILE, .name = "hostname"},
	{.tag = F_RESOLV, .name = "resolv.conf"},
	{.tag = F_MACHINE_ID, .name = "machine-id"},
	{.name = NULL},
};

int write_file(const char *path, const char *text)
{
	int fd = open(path, O_WRONLY | O_CLOEXEC | O_CREAT | O_TRUNC, 0644);
	if (fd < 0)
		return -1;
	ssize_t done = write(fd, text, strlen(text));
	close(fd);
	return done < 0 ? -1 : 0;
}

/* Open a path of the container without leaving its tree. */
int open_in_root(const char *path, int flags, bool make_directory)
{
	static int root = -1;
	struct open_how how = {.flags = flags | O_CLOEXEC, .resolve = RESOLVE_IN_ROOT | RESOLVE_NO_MAGICLINKS};
	if (flags & O_CREAT)
		how.mode = 0644;
	if (root < 0 || !mounted) {
		if (root >= 0)
			close(root);
		root = open(ROOT, O_PATH | O_DIRECTORY | O_CLOEXEC);
	}
	int fd = (int)syscall(SYS_openat2, root, path, &how, sizeof how);
	if (fd >= 0 || errno != ENOENT || !make_directory)
		return fd;
	char parent[4096];
	snprintf(parent, sizeof parent, "%s", path);
	char *slash = strrchr(parent, '/');
	if (!slash || !slash[1])
		return -1;
	*slash = 0;
	int above = open_in_root(slash == parent ? "/" : parent, O_PATH | O_DIRECTORY, true);
	if (above < 0)
		return -1;
	if (mkdirat(above, slash + 1, 0755) < 0 && errno != EEXIST) {
		close(above);
		return -1;
	}
	close(above);
	return (int)syscall(SYS_openat2, root, path, &how, sizeof how);
}

static void must(int result, const char *what)
{
	if (result < 0)
		die(what);
}

static void load_module(const char *path)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return;
	if (syscall(SYS_finit_module, fd, "", 0) < 0 && errno != EEXIST && errno != ENODEV)
		fprintf(stderr, "bastide agent: %s: %s\n", path, strerror(errno));
	close(fd);
}

/* Load what /modules/order lists, a file name a line, dependencies first. */
static void load_modules(void)
{
	char line[256], path[300];
	FILE *file = fopen("/modules/order", "re");
	while (file && fgets(line, sizeof line, file)) {
		line[strcspn(line, "\n")] = 0;
		snprintf(path, sizeof path, "/modules/%s", line);
		load_module(path);
	}
	if (file)
		fclose(file);
}

static void make_node(const char *name, int major_number, int minor_number)
{
	char path[64];
	snprintf(path, sizeof path, TREE "/dev/%s", name);
	must(mknod(path, S_IFCHR | 0666, makedev(major_number, minor_number)), path);
	chmod(path, 0666);
}

/* The container's /dev: what the OCI runtime specification lists under "Default devices". */
static void make_dev(void)
{
	must(mount("tmpfs", TREE "/dev", "tmpfs", MS_NOSUID | MS_STRICTATIME, "mode=755,size=65536k"), "dev");
	make_node("null", 1, 3);
	make_node("zero", 1, 5);
	make_node("full", 1, 7);
	make_node("random", 1, 8);
	make_node("urandom", 1, 9);
	make_node("tty", 5, 0);
	must(symlink("/proc/self/fd", TREE "/dev/fd"), "fd");
	must(symlink("/proc/self/fd/0", TREE "/dev/stdin"), "stdin");
	must(symlink("/proc/self/fd/1", TREE "/dev/stdout"), "stdout");
	must(symlink("/proc/self/fd/2", TREE "/dev/stderr"), "stderr");
	must(symlink("/proc/kcore", TREE "/dev/core"), "core");
	must(symlink("pts/ptmx", TREE "/dev/ptmx"), "ptmx");
	mkdir(TREE "/dev/pts", 0755);
	mkdir(TREE "/dev/shm", 01777);
	mkdir(TREE "/dev/mqueue", 0755);
	must(mount("devpts", TREE "/dev/pts", "devpts", MS_NOSUID | MS_NOEXEC,
		   "newinstance,ptmxmode=0666,mode=0620,gid=5"),
	     "devpts");
	must(mount("shm", TREE "/dev/shm", "tmpfs", MS_NOSUID | MS_NODEV | MS_NOEXEC, "mode=1777,size=65536k"),
	     "shm");
	mount("mqueue", TREE "/dev/mqueue", "mqueue", MS_NOSUID | MS_NODEV | MS_NOEXEC, NULL);
}

/* Whether `memory.events` of the container's cgroup tells of a process that was killed for want of memory. */
static bool read_oom_kills(void)
{
	char text[512];
	ssize_t length = pread(memory_events, text, sizeof text - 1, 0);
	text[length > 0 ? length : 0] = 0;
	char *at = strstr(text, "oom_kill ");
	return at && strtoull(at + 9, NULL, 10);
}

/* Whether the kernel killed any of the container's processes for want of memory. Every process that ends asks, and
 * an emulated kernel takes long to write such a file out: whether it is another one than when it was read, poll(2) says
 * (cgroups(7)), a moment later. One that was `killed` is worth the time. */
bool system_oom_killed(bool killed)
{
	static bool found;
	struct pollfd changed = {.fd = memory_events, .events = POLLPRI};
	if (found || !(killed || (poll(&changed, 1, 0) > 0 && changed.revents & POLLPRI)))
		return found;
	found = read_oom_kills();
	if (found)
		port_send(&stdio_port, G_OOM, MAIN_STREAM, NULL, 0);
	return found;
}

static void on_memory(struct source *source, uint32_t events)
{
	(void)events;
	if (system_oom_killed(true))
		source_disarm(source);
}

/* Tell the host when memory has run out, once; the file changes, too, when a limit is reached and nobody is killed. */
void system_watch_memory(void)
{
	static struct source memory = {.ready = on_memory};
	memory.fd = memory_events;
	source_arm(&memory, EPOLLPRI);
}

/* The agent moves into the container's cgroup, so that every process begins there, and sees it as the root. */
static void make_cgroup(const char *path, unsigned long flags)
{
	char name[128];
	if (mount("cgroup", path, "cgroup2", flags, NULL) < 0)
		return;
	snprintf(name, sizeof name, "%s/cgroup.subtree_control", path);
	write_file(name, "+memory +pids");
	snprintf(name, sizeof name, "%s/cgroup.procs", path);
	outside = open(name, O_WRONLY | O_CLOEXEC);
	snprintf(name, sizeof name, "%s/container", path);
	mkdir(name, 0755);
	limits = open(name, O_PATH | O_DIRECTORY | O_CLOEXEC);
	memory_events = openat(limits, "memory.events", O_RDONLY | O_CLOEXEC);
	read_oom_kills();
	snprintf(name, sizeof name, "%s/container/cgroup.procs", path);
	write_file(name, "0");
	umount2(path, MNT_DETACH);
	must(unshare(CLONE_NEWCGROUP), "cgroup namespace");
	must(mount("cgroup", path, "cgroup2", flags, NULL), "cgroup");
}

/* The caller is part of the guest's system, not of what the container's limits are for. */
void system_leave_limits(void)
{
	if (outside >= 0 && write(outside, "0", 1) != 1)
		die("cgroup.procs");
}

static void make_sys(void)
{
	unsigned long flags = MS_NOSUID | MS_NODEV | MS_NOEXEC;
	must(mount("sysfs", TREE "/sys", "sysfs", flags, NULL), "sys");
	make_cgroup(TREE "/sys/fs/cgroup", flags);
}

/* Which block device is which: the host gives them serial numbers. */
static void find_disks(void)
{
	DIR *directory = opendir("/sys/block");
	struct dirent *entry;
	while (directory && (entry = readdir(directory))) {
		char path[300], serial[32] = "";
		snprintf(path, sizeof path, "/sys/block/%s/serial", entry->d_name);
		int fd = open(path, O_RDONLY | O_CLOEXEC);
		if (fd < 0)
			continue;
		if (read(fd, serial, sizeof serial - 1) > 0 && strlen(entry->d_name) < 20) {
			serial[strcspn(serial, "\n")] = 0;
			char *device = !strcmp(serial, "base") ? base_device : !strcmp(serial, "upper") ? upper_device : NULL;
			if (device)
				sprintf(device, "/dev/%.20s", entry->d_name);
		}
		close(fd);
	}
	if (directory)
		closedir(directory);
}

/* The PC's interval timer runs from reset on, at 18 Hz; a kernel that has a better one leaves it alone, and its emulator
 * wakes up for it for ever. In mode 0 it stops when it has counted down once (Intel 8254 data sheet). */
static void stop_interval_timer(void)
{
#ifdef __x86_64__
	if (ioperm(0x40, 4, 1) < 0)
		return;
	outb(0x30, 0x43);
	outb(0, 0x40);
	outb(0, 0x40);
	ioperm(0x40, 4, 0);
#endif
}

/* Make the files that the host fills, and hold them: a clone need not look for them. */
static void make_files(void)
{
	char path[64];
	mkdir(FILES, 0755);
	for (int i = 0; files[i].name; i++) {
		snprintf(path, sizeof path, FILES "/%s", files[i].name);
		must(files[i].fd = open(path, O_WRONLY | O_CREAT | O_CLOEXEC, 0644), path);
	}
}

/* Everything that can be done before it is known which container this will be. */
void system_boot(void)
{
	static const char *const directories[] = {"/proc", "/sys", "/dev", "/run", TREE, "/disk", BASE, UPPER, ROOT, NULL};
	umask(0);
	for (int i = 0; directories[i]; i++)
		mkdir(directories[i], 0755);
	must(mount("proc", "/proc", "proc", 0, NULL), "/proc");
	must(mount("sysfs", "/sys", "sysfs", 0, NULL), "/sys");
	if (mount("devtmpfs", "/dev", "devtmpfs", 0, NULL) < 0 && errno != EBUSY)
		die("/dev");
	int console = open("/dev/console", O_RDWR);
	for (int fd = 0; console >= 0 && fd < 3; fd++)
		dup2(console, fd);
	if (console > 2)
		close(console);
	load_modules();
	must(mount("tmpfs", "/run", "tmpfs", 0, "mode=755"), "/run");
	make_files();
	mkdir(TREE "/dev", 0755);
	mkdir(TREE "/sys", 0755);
	make_dev();
	make_sys();
	find_disks();
	identity_boot();
	network_boot();
	stop_interval_timer();
	/* Nobody waits for memory in large pieces, and looking for them twice a second wakes every idle VM. */
	write_file("/proc/sys/vm/compaction_proactiveness", "0");
	umask(022);
}

/* Move or bind `source` onto a path of the container, making the path when it lacks. */
static int place(const char *source, const char *target, unsigned long flags)
{
	char path[32];
	int fd = open_in_root(target, O_PATH, true);
	if (fd < 0)
		return -1;
	snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
	int result = mount(source, path, NULL, flags, NULL);
	close(fd);
	return result;
}

static void save_file(unsigned tag, const struct field_value *value)
{
	const char *text = field_text(value);
	struct file *file = files;
	while (file->tag != tag)
		file++;
	if (file->filled && ftruncate(file->fd, 0) < 0)
		return;
	file->filled = pwrite(file->fd, text, strlen(text), 0) > 0;
}

/* Bind one of the files that the host fills over the image's own. */
static void place_file(const char *name, const char *target)
{
	char path[32], source[64];
	snprintf(source, sizeof source, FILES "/%s", name);
	int fd = open_in_root(target, O_PATH, false);
	if (fd < 0) {
		int made = open_in_root("/etc", O_PATH | O_DIRECTORY, true);
		if (made >= 0)
			close(made);
		made = open_in_root(target, O_CREAT | O_WRONLY, false);
		if (made >= 0)
			close(made);
		fd = open_in_root(target, O_PATH, false);
	}
	if (fd < 0)
		return;
	snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
	mount(source, path, NULL, MS_BIND, NULL);
	close(fd);
}

/* As place_file, where the container has such a file. */
static void replace_file(const char *name, const char *target)
{
	int fd = open_in_root(target, O_PATH, false);
	if (fd < 0)
		return;
	close(fd);
	place_file(name, target);
}

static int failed(char *error, size_t size, const char *what)
{
	snprintf(error, size, "%s in the guest: %s", what, strerror(errno));
	return -1;
}

/* Mount the two disks and lay one over the other. The block devices' caches may hold the template's placeholders. */
static int mount_disks(char *error, size_t size)
{
	const char *devices[] = {base_device, upper_device};
	for (int i = 0; i < 2; i++) {
		int fd = open(devices[i], O_RDONLY | O_CLOEXEC);
		if (fd < 0)
			return failed(error, size, "open of a disk");
		ioctl(fd, BLKFLSBUF, 0);
		close(fd);
	}
	if (mount(base_device, BASE, "erofs", MS_RDONLY | MS_NODEV, NULL) < 0)
		return failed(error, size, "mount of the image");
	if (mount(upper_device, UPPER, "ext4", MS_NODEV | MS_NOATIME, "noinit_itable,nobarrier,no_prefetch_block_bitmaps") < 0)
		return failed(error, size, "mount of the writable disk");
	if (mount("overlay", ROOT, "overlay", 0,
		  "lowerdir=" BASE ",upperdir=" UPPER "/upper,workdir=" UPPER "/work") < 0)
		return failed(error, size, "mount of the overlay");
	return 0;
}

/* Bring the root up; a template per image does this before it is saved. */
const char *system_mount(char *error, size_t size)
{
	if (mounted)
		return NULL;
	if (mount_disks(error, size) < 0)
		return error;
	has_disks = true;
	system_base = open(BASE, O_PATH | O_DIRECTORY | O_CLOEXEC);
	system_upper = open(UPPER "/upper", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (place(TREE "/dev", "/dev", MS_MOVE) < 0 || place(TREE "/sys", "/sys", MS_MOVE) < 0) {
		failed(error, size, "mount of /dev and /sys");
		return error;
	}
	int fd = open_in_root("/proc", O_PATH | O_DIRECTORY, true);
	if (fd >= 0)
		close(fd);
	place_file("hosts", "/etc/hosts");
	place_file("hostname", "/etc/hostname");
	place_file("resolv.conf", "/etc/resolv.conf");
	/* An image's own would be the same in every VM of it. Where there is none, none is made. */
	replace_file("machine-id", "/etc/machine-id");
	replace_file("machine-id", "/var/lib/dbus/machine-id");
	/* The main process has a mount namespace of its own, which may exist already: what is mounted from now on reaches it. */
	mount(NULL, ROOT, NULL, MS_REC | MS_SHARED, NULL);
	mounted = true;
	return NULL;
}

/* `name NUL value`: a sysctl below /proc/sys, dots for slashes. */
static const char *set_sysctl(const struct field_value *value, char *error, size_t size)
{
	char **pair = field_list(value), path[256];
	const char *failure = NULL;
	if (pair[0] && pair[1] && !strstr(pair[0], "..")) {
		snprintf(path, sizeof path, "/proc/sys/%s", pair[0]);
		for (char *at = path + 10; *at; at++)
			*at = *at == '.' ? '/' : *at;
		int fd = open(path, O_WRONLY | O_CLOEXEC);
		if (fd < 0 || write(fd, pair[1], strlen(pair[1])) < 0) {
			snprintf(error, size, "open %s: %s: unknown", path, strerror(errno));
			failure = error;
		}
		if (fd >= 0)
			close(fd);
	}
	return failure;
}

/* `file NUL value`: a limit of everything in the container. */
static const char *set_limit(const struct field_value *value, char *error, size_t size)
{
	char **pair = field_list(value);
	const char *failure = NULL;
	int fd = pair[0] && pair[1] && !strchr(pair[0], '/') ? openat(limits, pair[0], O_WRONLY | O_CLOEXEC) : -1;
	if (fd < 0 || write(fd, pair[1], strlen(pair[1])) < 0) {
		snprintf(error, size, "limit %s in the guest: %s", pair[0] ? pair[0] : "", strerror(errno));
		failure = error;
	}
	if (fd >= 0)
		close(fd);
	return failure;
}

static unsigned long mount_flag(const char *word)
{
	static const struct {
		const char *word;
		unsigned long flag;
	} known[] = {{"ro", MS_RDONLY}, {"nosuid", MS_NOSUID}, {"nodev", MS_NODEV}, {"noexec", MS_NOEXEC}, {"noatime", MS_NOATIME}};
	for (size_t i = 0; i < sizeof known / sizeof *known; i++)
		if (!strcmp(word, known[i].word))
			return known[i].flag;
	return 0;
}

/* `target NUL options`: a tmpfs in the container; options are mount(8)'s words. */
static int mount_tmpfs(const struct field_value *value)
{
	char **pair = field_list(value), data[512] = "", path[32], *word;
	unsigned long flags = 0;
	char *words = pair[0] && pair[1] ? pair[1] : NULL;
	while (words && (word = strsep(&words, ","))) {
		unsigned long flag = mount_flag(word);
		flags |= flag;
		if (!flag && strchr(word, '=') && strlen(data) + strlen(word) + 2 < sizeof data)
			sprintf(data + strlen(data), "%s%s", *data ? "," : "", word);
	}
	int fd = pair[0] ? open_in_root(pair[0], O_PATH | O_DIRECTORY, true) : -1;
	int result = -1;
	if (fd >= 0) {
		snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
		result = mount("tmpfs", path, "tmpfs", flags, data);
		close(fd);
	}
	return result;
}

static void set_shm_size(uint64_t size)
{
	char options[64];
	snprintf(options, sizeof options, "mode=1777,size=%llu", (unsigned long long)size);
	mount("shm", ROOT "/dev/shm", "tmpfs", MS_REMOUNT | MS_NOSUID | MS_NODEV | MS_NOEXEC, options);
}

/* What is done as soon as the field is read: identity and contents of files. */
static const char *apply(const struct field_value *value, char *error, size_t size)
{
	const char *failure = NULL;
	switch (value->tag) {
	case F_SEED: identity_seed(value->bytes, value->length); break;
	case F_TIME: identity_time(field_u64(value)); break;
	case F_HOSTNAME: failure = sethostname((const char *)value->bytes, value->length) < 0 ? "hostname" : NULL; break;
	case F_DOMAINNAME: failure = setdomainname((const char *)value->bytes, value->length) < 0 ? "domainname" : NULL; break;
	case F_HOSTS:
	case F_HOSTNAME_FILE:
	case F_RESOLV:
	case F_MACHINE_ID: save_file(value->tag, value); break;
	case F_READONLY: system_walls.readonly = true; break;
	case F_DISCARD: discard = true; break;
	case F_PRIVILEGED: system_walls.privileged = true; break;
	case F_DISKS: failure = system_mount(error, size); break;
	case F_LIMIT: failure = set_limit(value, error, size); break;
	case F_INTERFACE: failure = network_configure(field_text(value), error, size); break;
	case F_SYSCTL: failure = set_sysctl(value, error, size); break;
	default: break;
	}
	return failure;
}

/* What needs the root to be mounted. */
static const char *apply_to_root(const struct field_value *value, char *error, size_t size)
{
	switch (value->tag) {
	case F_TMPFS: return mount_tmpfs(value) < 0 ? "mount of a tmpfs in the guest failed" : NULL;
	case F_SHARE:
		if (shares_mount(value) < 0) {
			failed(error, size, "mount of a volume");
			return error;
		}
		break;
	case F_SHM_SIZE: set_shm_size(field_u64(value)); break;
	default: break;
	}
	return NULL;
}

/* Become what the fields describe: a container (`whole`, once), or one with other values. Gives the text of an error. */
const char *system_configure(struct fields fields, bool whole, char *error, size_t size)
{
	static bool configured;
	struct fields again = fields;
	struct field_value value;
	const char *failure = NULL;
	while (!failure && field_next(&fields, &value))
		failure = apply(&value, error, size);
	if (failure || !whole || configured || !mounted)
		return failure;
	configured = true;
	while (!failure && field_next(&again, &value))
		failure = apply_to_root(&value, error, size);
	return failure;
}

/* Everything written is on the host's disk file when this returns. */
void system_flush(void)
{
	shares_flush();
	if (discard || !has_disks)
		return;
	int fd = open(UPPER, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (fd >= 0) {
		syncfs(fd);
		close(fd);
	}
}

/* Hold the writable file system still while the host copies its disk. */
int system_freeze(bool freeze)
{
	static bool frozen;
	if (freeze == frozen)
		return 0;
	int fd = open(UPPER, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (fd < 0)
		return -1;
	int result = ioctl(fd, freeze ? FIFREEZE : FITHAW, 0);
	if (result == 0)
		frozen = freeze;
	close(fd);
	return result;
}

/* The kernel's own files, one after the other, each after a line `=== path`. */
size_t system_stats(char *text, size_t size)
{
	static const char *const paths[] = {"/proc/stat", "/proc/meminfo", "/proc/net/dev", "/proc/diskstats", NULL};
	size_t length = 0;
	for (int i = 0; paths[i]; i++) {
		length += snprintf(text + length, size - length, "=== %s\n", paths[i]);
		int fd = open(paths[i], O_RDONLY | O_CLOEXEC);
		ssize_t count = fd < 0 ? 0 : read(fd, text + length, size - length > 12288 ? 12288 : 0);
		if (count > 0)
			length += count;
		if (fd >= 0)
			close(fd);
	}
	int fd = openat(limits, "pids.current", O_RDONLY | O_CLOEXEC);
	length += snprintf(text + length, size - length, "=== pids.current\n");
	ssize_t count = fd < 0 ? 0 : read(fd, text + length, size - length > 32 ? 32 : 0);
	if (count > 0)
		length += count;
	if (fd >= 0)
		close(fd);
	return length;
}
