/* What programs do to files, tried in a directory: files CASE. Exits with 0, or with the line of what went wrong. */
#define _GNU_SOURCE
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <sys/xattr.h>
#include <unistd.h>

#define MUST(condition)                                                                       \
	do {                                                                                  \
		if (!(condition)) {                                                           \
			fprintf(stderr, "line %d: %s: %s\n", __LINE__, #condition, strerror(errno)); \
			exit(1);                                                              \
		}                                                                             \
	} while (0)

static void attributes(void)
{
	char value[64], list[256];
	int fd = open("attributes", O_CREAT | O_RDWR, 0600);
	MUST(fd >= 0);
	MUST(fsetxattr(fd, "user.colour", "blue", 4, XATTR_CREATE) == 0);
	MUST(setxattr("attributes", "user.colour", "red", 3, XATTR_CREATE) < 0 && errno == EEXIST);
	MUST(setxattr("attributes", "user.size", "big", 3, 0) == 0);
	MUST(getxattr("attributes", "user.colour", value, sizeof value) == 4 && !memcmp(value, "blue", 4));
	MUST(listxattr("attributes", list, sizeof list) > 0);
	MUST(removexattr("attributes", "user.size") == 0);
	MUST(getxattr("attributes", "user.size", value, sizeof value) < 0 && errno == ENODATA);
	MUST(fchmod(fd, 04751) == 0 && fchown(fd, 12, 34) == 0 && fchmod(fd, 04751) == 0);
	struct timespec times[2] = {{1000000001, 0}, {1000000002, 0}};
	MUST(futimens(fd, times) == 0);
	struct stat info;
	MUST(fstat(fd, &info) == 0 && (info.st_mode & 07777) == 04751 && info.st_uid == 12 && info.st_gid == 34);
	MUST(info.st_mtim.tv_sec == 1000000002 && info.st_atim.tv_sec == 1000000001);
	MUST(symlink("nowhere", "dangling") == 0 && lchown("dangling", 56, 78) == 0);
	MUST(lstat("dangling", &info) == 0 && S_ISLNK(info.st_mode) && info.st_uid == 56);
	MUST(readlink("dangling", value, sizeof value) == 7);
}

static void names(void)
{
	char bytes[8] = "";
	struct stat one, other;
	int fd = open("open", O_CREAT | O_RDWR | O_TRUNC, 0600), directory;
	MUST(fd >= 0 && write(fd, "first", 5) == 5);
	MUST(unlink("open") == 0 && access("open", F_OK) < 0);
	MUST(write(fd, "more", 4) == 4 && fstat(fd, &one) == 0 && one.st_size == 9);
	MUST(pread(fd, bytes, 5, 0) == 5 && !memcmp(bytes, "first", 5));
	MUST(ftruncate(fd, 2) == 0 && fstat(fd, &one) == 0 && one.st_size == 2);
	close(fd);
	MUST((fd = open("a", O_CREAT | O_WRONLY, 0600)) >= 0 && close(fd) == 0);
	MUST(open("a", O_CREAT | O_EXCL | O_WRONLY, 0600) < 0 && errno == EEXIST);
	MUST(link("a", "b") == 0 && stat("a", &one) == 0 && stat("b", &other) == 0);
	MUST(one.st_ino == other.st_ino && one.st_nlink == 2);
	MUST(mkdir("d", 0700) == 0 && mkdir("d/e", 0700) == 0 && rename("a", "d/e/a") == 0);
	MUST((directory = open("d/e", O_RDONLY | O_DIRECTORY)) >= 0);
	MUST(rename("d", "moved") == 0 && access("moved/e/a", F_OK) == 0);
	MUST((fd = openat(directory, "inside", O_CREAT | O_WRONLY, 0600)) >= 0 && close(fd) == 0);
	MUST(access("moved/e/inside", F_OK) == 0);
	MUST(rename("b", "moved/e/a") == 0 && rmdir("moved") < 0 && errno == ENOTEMPTY);
	MUST(mkfifo("pipe", 0600) == 0 && stat("pipe", &one) == 0 && S_ISFIFO(one.st_mode));
}

static void many(void)
{
	char name[32];
	int count = 0, fd;
	struct dirent *entry;
	MUST(mkdir("many", 0700) == 0 && chdir("many") == 0);
	for (int i = 0; i < 1500; i++) {
		snprintf(name, sizeof name, "a-rather-long-name-%d", i);
		MUST((fd = open(name, O_CREAT | O_WRONLY, 0600)) >= 0 && close(fd) == 0);
	}
	DIR *directory = opendir(".");
	MUST(directory);
	while ((entry = readdir(directory)))
		count += *entry->d_name != '.';
	MUST(count == 1500);
	rewinddir(directory);
	MUST(readdir(directory));
	closedir(directory);
	MUST(chdir("..") == 0);
}

/* Locks that the host holds on `held` are seen here; ours are left for the host to see until stdin ends. */
static void locks(void)
{
	char byte;
	struct flock whole = {.l_type = F_WRLCK, .l_whence = SEEK_SET, .l_start = 10, .l_len = 5};
	int fd = open("held", O_RDWR), mine = open("mine", O_CREAT | O_RDWR, 0600), flocked = open("flocked", O_RDONLY);
	MUST(fd >= 0 && mine >= 0 && flocked >= 0);
	MUST(fcntl(fd, F_SETLK, &whole) < 0 && (errno == EAGAIN || errno == EACCES));
	whole.l_start = 100;
	MUST(fcntl(fd, F_SETLK, &whole) == 0);
	MUST(flock(flocked, LOCK_EX | LOCK_NB) < 0 && errno == EWOULDBLOCK);
	MUST(flock(mine, LOCK_EX | LOCK_NB) == 0);
	int other = open("mine", O_RDWR);
	MUST(flock(other, LOCK_EX | LOCK_NB) < 0 && errno == EWOULDBLOCK);
	puts("locked");
	fflush(stdout);
	MUST(read(0, &byte, 1) >= 0);
}

static void mappings(void)
{
	int fd = open("mapped", O_CREAT | O_RDWR | O_TRUNC, 0600);
	MUST(fd >= 0 && ftruncate(fd, 3 * 4096) == 0);
	char *bytes = mmap(NULL, 3 * 4096, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	MUST(bytes != MAP_FAILED);
	strcpy(bytes + 5000, "through the mapping");
	pid_t child = fork();
	if (child == 0) {
		strcpy(bytes, "the child's");
		_exit(0);
	}
	MUST(waitpid(child, NULL, 0) == child && !strcmp(bytes, "the child's"));
	MUST(msync(bytes, 3 * 4096, MS_SYNC) == 0);
	munmap(bytes, 3 * 4096);
	fd = open("unsynced", O_CREAT | O_RDWR | O_TRUNC, 0600);
	MUST(fd >= 0 && ftruncate(fd, 4096) == 0);
	bytes = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	MUST(bytes != MAP_FAILED);
	strcpy(bytes, "at the end");
}

static void appending(void)
{
	int fd = open("log", O_WRONLY | O_APPEND);
	MUST(fd >= 0);
	for (int i = 0; i < 200; i++)
		MUST(write(fd, "guest\n", 6) == 6);
	MUST(fsync(fd) == 0 && fdatasync(fd) == 0);
}

int main(int argc, char **argv)
{
	static const struct {
		const char *name;
		void (*run)(void);
	} cases[] = {{"attributes", attributes}, {"names", names}, {"many", many},
		     {"locks", locks},		 {"mappings", mappings}, {"appending", appending}};
	umask(0);
	for (size_t i = 0; argc == 2 && i < sizeof cases / sizeof *cases; i++)
		if (!strcmp(cases[i].name, argv[1])) {
			cases[i].run();
			return 0;
		}
	return 2;
}
