/* What QEMU sees of the host: its own program, libraries and firmware, read-only; its own processes; nothing else. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/mount.h>
#include <sched.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "vmm.h"

/* sys/mount.h of musl and linux/mount.h exclude each other. */
#define MS_GUARDED (2 | 4 | 8)		/* MS_NOSUID | MS_NODEV | MS_NOEXEC */
#define MS_DEVICES (2 | 8)		/* MS_NOSUID | MS_NOEXEC */
#define MS_READONLY_AGAIN (1 | 32 | 4096) /* MS_RDONLY | MS_REMOUNT | MS_BIND */
#define MS_REC_PRIVATE (1 << 14 | 1 << 18)
#define DETACH 2

int mount(const char *source, const char *target, const char *kind, unsigned long flags, const void *data);
int umount2(const char *target, int flags);

static void must(long result, const char *what)
{
	if (result < 0)
		fail("%s for QEMU's view: %s", what, strerror(errno));
}

static void make_parents(const char *path)
{
	char part[PATH_MAX];
	snprintf(part, sizeof part, "%s", path);
	for (char *at = part; (at = strchr(at, '/')); *at++ = '/') {
		*at = 0;
		if (mkdir(part, 0755) < 0 && errno != EEXIST)
			fail("mkdir %s for QEMU's view: %s", part, strerror(errno));
	}
}

/* A device is QEMU's own here: on the host it may be open to root alone, or to a group. It lies on the one file system
 * of the view on which devices are any. */
static void show_device(const char *place, dev_t number, uid_t uid)
{
	char folder[PATH_MAX];
	snprintf(folder, sizeof folder, "%.*s", (int)(strrchr(place, '/') - place), place);
	must(mount("devices", folder, "tmpfs", MS_DEVICES, "mode=755,size=64k"), "mount of a device");
	must(mknod(place, S_IFCHR | 0600, number), "mknod");
	must(chown(place, uid, uid), "chown");
	must(mount(NULL, folder, NULL, MS_READONLY_AGAIN | MS_DEVICES, NULL), "mount of a device");
}

/* Show one file, folder or link at its own path below the working directory; what is not there is left out. */
static void show(const char *path, uid_t uid)
{
	const char *place = path + 1;
	char link[PATH_MAX];
	struct stat info;
	if (path[0] != '/' || lstat(path, &info) < 0)
		return;
	make_parents(place);
	if (S_ISLNK(info.st_mode)) {
		ssize_t length = readlink(path, link, sizeof link - 1);
		must(length, "readlink");
		link[length] = 0;
		must(symlink(link, place), "symlink");
		return;
	}
	if (S_ISCHR(info.st_mode)) {
		show_device(place, info.st_rdev, uid);
		return;
	}
	struct mount_attr wanted = {.attr_set = MOUNT_ATTR_NOSUID | MOUNT_ATTR_RDONLY | MOUNT_ATTR_NODEV};
	int tree = (int)syscall(SYS_open_tree, AT_FDCWD, path, OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC);
	must(tree, "open_tree");
	must(syscall(SYS_mount_setattr, tree, "", AT_EMPTY_PATH, &wanted, sizeof wanted), "mount_setattr");
	must(S_ISDIR(info.st_mode) ? mkdir(place, 0755) : mknod(place, S_IFREG | 0444, 0), "mknod");
	must(syscall(SYS_move_mount, tree, "", AT_FDCWD, place, MOVE_MOUNT_F_EMPTY_PATH), "move_mount");
	close(tree);
}

void view_enter(const struct plan *plan)
{
	char here[PATH_MAX];
	mode_t mask = umask(0);
	must(unshare(CLONE_NEWNS | CLONE_NEWNET | CLONE_NEWIPC | CLONE_NEWUTS | CLONE_NEWCGROUP), "unshare");
	must(mount(NULL, "/", NULL, MS_REC_PRIVATE, NULL), "mount");
	if (!getcwd(here, sizeof here))
		fail("getcwd: %s", strerror(errno));
	must(mount("view", here, "tmpfs", MS_GUARDED, "mode=755,size=1m"), "mount");
	must(chdir(here), "chdir");
	for (int i = 0; i < plan->view_count; i++)
		show(plan->view[i], plan->uid);
	must(mkdir("proc", 0755), "mkdir");
	must(mount("proc", "proc", "proc", MS_GUARDED, "subset=pid"), "mount of proc");
	must(mount(NULL, here, NULL, MS_READONLY_AGAIN | MS_GUARDED, NULL), "mount");
	must(syscall(SYS_pivot_root, ".", "."), "pivot_root");
	must(umount2(".", DETACH), "umount");
	must(chdir("/"), "chdir");
	umask(mask);
}
