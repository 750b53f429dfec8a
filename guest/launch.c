/* The child's side of a launch: into the container's namespaces, streams, identity, then exec.
 * Errors go back through the status pipe as a kind and a text in Docker's words. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/capability.h>
#include <sched.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <grp.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "agent.h"

#define SYS_FLAGS (MS_REMOUNT | MS_BIND | MS_NOSUID | MS_NODEV | MS_NOEXEC)

int container_mounts = -1;

void launch_fail(int status, uint32_t kind, const char *format, ...)
{
	char text[1024];
	va_list arguments;
	memcpy(text, &kind, 4);
	va_start(arguments, format);
	int length = vsnprintf(text + 4, sizeof text - 5, format, arguments);
	va_end(arguments);
	if (length > (int)sizeof text - 6)
		length = sizeof text - 6;
	if (write(status, text, 4 + length) < 0)
		_exit(125);
	_exit(kind == E_NOT_FOUND ? 127 : 126);
}

/* Begin a session, and make the container's tree the root of this mount namespace. What the agent mounts there later
 * arrives too. */
void launch_enter(int status)
{
	setsid();
	if (chdir(ROOT) < 0 || mount(NULL, "/", NULL, MS_REC | MS_SLAVE, NULL) < 0 ||
	    mount(ROOT, "/", NULL, MS_MOVE, NULL) < 0 || chroot(".") < 0 || chdir("/") < 0)
		launch_fail(status, E_GUEST, "cannot enter the root file system: %s", strerror(errno));
	if (mount("proc", "/proc", "proc", MS_NOSUID | MS_NODEV | MS_NOEXEC, NULL) < 0)
		launch_fail(status, E_GUEST, "cannot mount /proc: %s", strerror(errno));
	if (mount(NULL, "/sys", NULL, SYS_FLAGS | MS_RDONLY, NULL) < 0)
		launch_fail(status, E_GUEST, "cannot make /sys read-only: %s", strerror(errno));
}

/* What differs between containers in what they may write to: flags of mounts, which do not travel between namespaces. */
static void protect(int status)
{
	if (system_walls.privileged && mount(NULL, "/sys", NULL, SYS_FLAGS, NULL) < 0)
		launch_fail(status, E_GUEST, "cannot make /sys writable: %s", strerror(errno));
	if (system_walls.readonly && mount(NULL, "/", NULL, MS_REMOUNT | MS_BIND | MS_RDONLY, NULL) < 0)
		launch_fail(status, E_GUEST, "cannot make the root read-only: %s", strerror(errno));
}

static void set_streams(const struct spec *spec, const struct ends *ends)
{
	sigset_t none;
	dup2(ends->in, 0);
	dup2(ends->out, 1);
	dup2(ends->err, 2);
	if (spec->terminal)
		ioctl(0, TIOCSCTTY, 0);
	signal(SIGPIPE, SIG_DFL);
	sigemptyset(&none);
	sigprocmask(SIG_SETMASK, &none, NULL);
}

/* The streams belong to the user, as they do in a container. */
static void own_streams(const struct account *account)
{
	for (int fd = 0; account->uid && fd < 3; fd++) {
		struct stat info;
		if (fstat(fd, &info) == 0 && (S_ISFIFO(info.st_mode) || isatty(fd)))
			if (fchown(fd, account->uid, (gid_t)-1) < 0)
				continue;
	}
}

static void set_limits(const struct spec *spec, int status)
{
	for (unsigned i = 0; i < spec->rlimit_count; i++) {
		struct rlimit limit = {spec->rlimits[i].soft, spec->rlimits[i].hard};
		if (setrlimit(spec->rlimits[i].resource, &limit) < 0)
			launch_fail(status, E_INVALID, "cannot set rlimit %u: %s", spec->rlimits[i].resource,
				    strerror(errno));
	}
	if (spec->oom_score) {
		char text[16];
		snprintf(text, sizeof text, "%d", spec->oom_score);
		write_file("/proc/self/oom_score_adj", text);
	}
}

/* Drop from the bounding set what is not asked for, change the user, set the rest. */
static void set_identity(const struct spec *spec, const struct account *account, int status)
{
	struct __user_cap_header_struct header = {_LINUX_CAPABILITY_VERSION_3, 0};
	struct __user_cap_data_struct data[2] = {{0}};
	for (int cap = 0; cap < 64 && prctl(PR_CAPBSET_READ, cap) >= 0; cap++)
		if (!(spec->capabilities >> cap & 1))
			prctl(PR_CAPBSET_DROP, cap);
	if (setgroups(account->group_count, account->groups) < 0 ||
	    setresgid(account->gid, account->gid, account->gid) < 0 ||
	    setresuid(account->uid, account->uid, account->uid) < 0)
		launch_fail(status, E_GUEST, "cannot change the user: %s", strerror(errno));
	if (account->uid == 0) {
		for (int half = 0; half < 2; half++)
			data[half].effective = data[half].permitted = spec->capabilities >> (32 * half);
		syscall(SYS_capset, &header, data);
	}
	if (spec->no_new_privileges)
		prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
}

static const char *variable(char *const *env, const char *name)
{
	size_t length = strlen(name);
	for (; *env; env++)
		if (!strncmp(*env, name, length) && (*env)[length] == '=')
			return *env + length + 1;
	return NULL;
}

/* Add HOME, which comes from the user's entry when nobody set it; a list has room for one more. */
static void add_home(char **env, const char *home)
{
	static char entry[512];
	size_t count = 0;
	if (variable(env, "HOME"))
		return;
	while (env[count])
		count++;
	snprintf(entry, sizeof entry, "HOME=%s", home);
	env[count] = entry;
	env[count + 1] = NULL;
}

static bool runnable(const char *path)
{
	struct stat info;
	if (stat(path, &info) < 0)
		return false;
	if (S_ISDIR(info.st_mode)) {
		errno = EISDIR;
		return false;
	}
	return faccessat(AT_FDCWD, path, X_OK, AT_EACCESS) == 0;
}

/* Where the program lies; fails in the words that container runtimes use. */
static const char *find_program(const char *name, char *const *env, int status)
{
	static char path[4096];
	bool denied = false;
	if (strchr(name, '/')) {
		if (runnable(name))
			return name;
		if (errno == ENOENT || errno == ENOTDIR)
			launch_fail(status, E_NOT_FOUND, "exec: \"%s\": stat %s: no such file or directory", name,
				    name);
		launch_fail(status, E_DENIED, "exec: \"%s\": %s", name,
			    errno == EISDIR ? "is a directory" : "permission denied");
	}
	const char *at = variable(env, "PATH");
	while (at && *at) {
		size_t length = strcspn(at, ":");
		snprintf(path, sizeof path, "%.*s/%s", (int)length, length ? at : ".", name);
		if (runnable(path))
			return path;
		denied |= errno == EACCES;
		at += length + (at[length] == ':');
	}
	if (denied)
		launch_fail(status, E_DENIED, "exec: \"%s\": permission denied", name);
	launch_fail(status, E_NOT_FOUND, "exec: \"%s\": executable file not found in $PATH", name);
}

/* mkdir -p of the working directory: images name ones that they do not have. */
static void enter_directory(const struct spec *spec, int status)
{
	char path[4096];
	if (chdir(spec->cwd) == 0)
		return;
	snprintf(path, sizeof path, "%s", spec->cwd);
	for (char *at = path + 1; errno == ENOENT && *at; at++)
		if (*at == '/') {
			*at = 0;
			mkdir(path, 0755);
			*at = '/';
		}
	mkdir(path, 0755);
	if (chdir(path) < 0)
		launch_fail(status, E_INVALID, "chdir to cwd (\"%s\") set in config.json failed: %s", spec->cwd,
			    strerror(errno));
}

static pid_t init_child;

static void forward(int signal)
{
	kill(init_child, signal);
}

/* A small init: reaps what is orphaned, forwards signals to the one child, ends with it. */
static void stand_before(pid_t child)
{
	int status;
	pid_t pid;
	init_child = child;
	for (int signal = 1; signal < 32; signal++)
		if (signal != SIGCHLD && signal != SIGKILL && signal != SIGSTOP)
			sigaction(signal, &(struct sigaction){.sa_handler = forward, .sa_flags = SA_RESTART}, NULL);
	while ((pid = wait(&status)) > 0 || errno == EINTR)
		if (pid == child)
			_exit(WIFSIGNALED(status) ? 128 + WTERMSIG(status) : WEXITSTATUS(status));
	_exit(0);
}

/* A child that does not exec keeps none of the agent's descriptors but what `changes` looks at. */
static void close_descriptors(void)
{
	for (int fd = 3; fd < 1024; fd++)
		if (fd != system_base && fd != system_upper && fd != self_program)
			close(fd);
}

static void run_program(const struct spec *spec, const struct ends *ends)
{
	struct account account;
	umask(022);
	const char *error = account_find(spec->user, spec->groups, spec->groups_length, &account);
	if (error)
		launch_fail(ends->status, E_INVALID, "%s", error);
	own_streams(&account);
	set_limits(spec, ends->status);
	enter_directory(spec, ends->status);
	add_home(spec->env, account.home);
	const char *program = spec->builtin ? NULL : find_program(spec->args[0], spec->env, ends->status);
	if (ends->go >= 0) {
		char start;
		if (write(ends->status, "R", 1) != 1 || read(ends->go, &start, 1) != 1)
			_exit(0);
	}
	if (spec->builtin) {
		close_descriptors();
		if (!strcmp(spec->args[0], "rehearse"))
			set_identity(spec, &account, ends->status);
		_exit(builtin_run(spec->args));
	}
	if (spec->init) {
		pid_t child = fork();
		if (child > 0) {
			close_descriptors();
			stand_before(child);
		}
	}
	set_identity(spec, &account, ends->status);
	execve(program, spec->args, spec->env);
	uint32_t kind = errno == ENOENT ? E_NOT_FOUND : E_DENIED;
	const char *why = errno == ENOEXEC ? "exec format error"
			  : errno == ENOENT ? "no such file or directory"
					    : strerror(errno);
	launch_fail(ends->status, kind, "exec %s: %s", spec->args[0], why);
}

void launch_main(const struct spec *spec, const struct ends *ends)
{
	protect(ends->status);
	set_streams(spec, ends);
	run_program(spec, ends);
	_exit(125);
}

void launch_exec(const struct spec *spec, const struct ends *ends)
{
	setsid();
	if (container_mounts >= 0 && setns(container_mounts, CLONE_NEWNS) < 0)
		launch_fail(ends->status, E_GUEST, "cannot enter the container: %s", strerror(errno));
	if (container_mounts < 0 && (chroot(ROOT) < 0 || chdir("/") < 0))
		launch_fail(ends->status, E_GUEST, "cannot enter the root file system: %s", strerror(errno));
	set_streams(spec, ends);
	run_program(spec, ends);
	_exit(125);
}
