/* The file server's process: what it is to share is looked up once, here, and is all that it can see. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <limits.h>
#include <linux/capability.h>
#include <linux/mount.h>
#include <linux/openat2.h>
#include <linux/securebits.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "shares.h"
#include "vmm.h"

/* sys/mount.h of musl and linux/mount.h exclude each other. */
#define MS_RDONLY_BIND (1 | 32 | 4096) /* MS_RDONLY | MS_REMOUNT | MS_BIND */
#define MS_REC_PRIVATE (1 << 14 | 1 << 18)
#define MS_GUARDED (2 | 4 | 8) /* MS_NOSUID | MS_NODEV | MS_NOEXEC */
#define PROPAGATION_PRIVATE (1 << 18)
#define PROPAGATION_SLAVE (1 << 19)
#define DETACH 2
#define SAVED "shares.saved"
#define HIGH 1024 /* above every descriptor that is open here */
#ifndef AT_RECURSIVE
#define AT_RECURSIVE 0x8000
#endif

int mount(const char *source, const char *target, const char *kind, unsigned long flags, const void *data);
int umount2(const char *target, int flags);

/* Files are served as if by root, but nothing else can be done: no devices made, no labels but capabilities set. */
static const int kept[] = {CAP_CHOWN, CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH, CAP_FOWNER, CAP_FSETID, CAP_SETUID, CAP_SETGID, CAP_SETFCAP};

/* Hold the tree of a share: its path as the user gave it, then below it where nothing leads out. */
static int open_tree_of(const struct share *share)
{
	int fd = open(share->path, O_PATH | O_CLOEXEC);
	if (fd < 0)
		fail("open %s: %s", share->path, strerror(errno));
	if (share->within) {
		struct open_how how = {.flags = O_PATH | O_CLOEXEC, .resolve = RESOLVE_IN_ROOT | RESOLVE_NO_MAGICLINKS};
		int inner = (int)syscall(SYS_openat2, fd, share->within, &how, sizeof how);
		if (inner < 0)
			fail("cannot access path %s/%s: %s", share->path, share->within, strerror(errno));
		close(fd);
		fd = inner;
	}
	unsigned flags = OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC | AT_EMPTY_PATH | (share->recursive ? AT_RECURSIVE : 0);
	int tree = (int)syscall(SYS_open_tree, fd, "", flags);
	if (tree < 0)
		fail("open_tree %s: %s", share->path, strerror(errno));
	close(fd);
	return tree;
}

void shares_open(struct plan *plan)
{
	for (int i = 0; i < plan->share_count; i++)
		plan->shares[i].tree = open_tree_of(&plan->shares[i]);
}

static void set_attributes(int tree, uint64_t attributes, uint64_t propagation, bool recursive)
{
	struct mount_attr wanted = {.attr_set = attributes, .propagation = propagation};
	unsigned flags = AT_EMPTY_PATH | (recursive ? AT_RECURSIVE : 0);
	if (syscall(SYS_mount_setattr, tree, "", flags, &wanted, sizeof wanted) < 0)
		fail("mount_setattr: %s", strerror(errno));
}

/* Put a share at its number in the working directory. Read-only is the mount's, out of the guest's reach. */
static void place(const struct share *share, int number)
{
	char name[12];
	struct stat info;
	snprintf(name, sizeof name, "%d", number);
	set_attributes(share->tree, MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV | MOUNT_ATTR_NOEXEC,
		       share->slave ? PROPAGATION_SLAVE : PROPAGATION_PRIVATE, true);
	if (share->readonly)
		set_attributes(share->tree, MOUNT_ATTR_RDONLY, 0, share->readonly_below);
	if (fstat(share->tree, &info) < 0)
		fail("fstat: %s", strerror(errno));
	int made = S_ISDIR(info.st_mode) ? mkdir(name, 0755) : mknod(name, S_IFREG | 0644, 0);
	if (made < 0 || syscall(SYS_move_mount, share->tree, "", AT_FDCWD, name, MOVE_MOUNT_F_EMPTY_PATH) < 0)
		fail("move_mount: %s", strerror(errno));
	close(share->tree);
}

static void must(long result, const char *what)
{
	if (result < 0)
		fail("%s for the file server: %s", what, strerror(errno));
}

/* A root with the shares alone, and this process's own descriptors as the working directory. */
static void enter_root(const struct plan *plan)
{
	char here[PATH_MAX];
	must(unshare(CLONE_NEWNS | CLONE_NEWNET | CLONE_NEWIPC | CLONE_NEWUTS | CLONE_NEWCGROUP), "unshare");
	must(mount(NULL, "/", NULL, MS_REC_PRIVATE, NULL), "mount");
	if (!getcwd(here, sizeof here))
		fail("getcwd: %s", strerror(errno));
	must(mount("shares", here, "tmpfs", MS_GUARDED, "mode=755,size=1m"), "mount");
	must(chdir(here), "chdir");
	for (int i = 0; i < plan->share_count; i++)
		place(&plan->shares[i], i);
	must(mkdir("proc", 0755), "mkdir");
	must(mount("proc", "proc", "proc", MS_GUARDED, "subset=pid"), "mount of proc");
	int own = (int)syscall(SYS_open_tree, AT_FDCWD, "proc/self/fd", OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC);
	must(own, "open_tree");
	must(umount2("proc", DETACH), "umount");
	must(rmdir("proc"), "rmdir");
	must(mount(NULL, here, NULL, MS_RDONLY_BIND | MS_GUARDED, NULL), "mount");
	root_directory = open(".", O_PATH | O_DIRECTORY | O_CLOEXEC);
	must(root_directory, "open");
	must(syscall(SYS_pivot_root, ".", "."), "pivot_root");
	must(umount2(".", DETACH), "umount");
	must(chdir("/"), "chdir");
	must(fchdir(own), "fchdir");
	close(own);
}

static void drop_privileges(uid_t uid)
{
	struct __user_cap_header_struct header = {_LINUX_CAPABILITY_VERSION_3, 0};
	struct __user_cap_data_struct data[2];
	uint32_t wanted[2] = {0};
	must(prctl(PR_SET_SECUREBITS, SECBIT_NO_SETUID_FIXUP | SECBIT_NO_SETUID_FIXUP_LOCKED | SECBIT_NOROOT | SECBIT_NOROOT_LOCKED),
	     "prctl");
	must(setgroups(0, NULL), "setgroups");
	must(setresgid(uid, uid, uid), "setresgid");
	must(setresuid(uid, uid, uid), "setresuid");
	for (int cap = 0; cap < 64 && prctl(PR_CAPBSET_READ, cap) >= 0; cap++)
		prctl(PR_CAPBSET_DROP, cap);
	for (size_t i = 0; i < sizeof kept / sizeof *kept; i++)
		wanted[kept[i] / 32] |= 1u << kept[i] % 32;
	must(syscall(SYS_capget, &header, data), "capget");
	for (int half = 0; half < 2; half++) {
		data[half].permitted = data[half].effective = data[half].permitted & wanted[half];
		data[half].inheritable = 0;
	}
	must(syscall(SYS_capset, &header, data), "capset");
	must(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), "prctl");
	must(prctl(PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0), "prctl");
}

/* Nothing but the socket and the shares; what goes wrong is told where QEMU tells it. */
static void keep_descriptors(struct plan *plan)
{
	int null = open("/dev/null", O_RDWR | O_CLOEXEC);
	dup2(null, 0);
	dup2(null, 1);
	dup2(plan->console_theirs, 2);
	/* In the bundle's directory, as the plan is. */
	must(saved_file = open(SAVED, O_RDWR | O_CREAT | O_CLOEXEC, 0600), "open");
	must(saved_file = fcntl(saved_file, F_DUPFD_CLOEXEC, HIGH), "fcntl");
	must(plan->share_socket = fcntl(plan->share_socket, F_DUPFD_CLOEXEC, HIGH), "fcntl");
	for (int i = 0; i < plan->share_count; i++)
		must(plan->shares[i].tree = fcntl(plan->shares[i].tree, F_DUPFD_CLOEXEC, HIGH), "fcntl");
	syscall(SYS_close_range, 3, HIGH - 1, 0);
}

static void run(struct plan *plan)
{
	struct rlimit files, none = {0, 0};
	setrlimit(RLIMIT_CORE, &none);
	if (getrlimit(RLIMIT_NOFILE, &files) == 0) {
		files.rlim_cur = files.rlim_max;
		setrlimit(RLIMIT_NOFILE, &files);
	}
	keep_descriptors(plan);
	setsid();
	umask(0);
	enter_cgroups(plan);
	enter_root(plan);
	drop_privileges(plan->uid);
	serve(plan->share_socket);
}

/* Start it, in a process namespace of its own where it is alone. It dies with us, and with the VM. */
pid_t shares_start(struct plan *plan)
{
	if (!plan->share_count)
		return -1;
	int ours = open("/proc/self/ns/pid", O_RDONLY | O_CLOEXEC);
	if (ours < 0 || unshare(CLONE_NEWPID) < 0)
		fail("unshare: %s", strerror(errno));
	pid_t pid = fork();
	if (pid < 0)
		fail("fork: %s", strerror(errno));
	if (pid == 0)
		run(plan);
	if (setns(ours, CLONE_NEWPID) < 0)
		fail("setns: %s", strerror(errno));
	close(ours);
	for (int i = 0; i < plan->share_count; i++)
		close(plan->shares[i].tree);
	close(plan->share_socket);
	return pid;
}

/* Nothing of it is left on return. */
void shares_end(pid_t server)
{
	if (server > 0) {
		kill(server, SIGKILL);
		waitpid(server, NULL, 0);
	}
}
