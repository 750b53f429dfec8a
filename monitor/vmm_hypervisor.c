/* QEMU as our child: its own uid, no privileges, no network, only the descriptors and files of the plan. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <limits.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "vmm.h"

#define HIGH 200 /* above every number that a plan uses */

/* Move ourselves, who have one thread. In version 1's hierarchies through `tasks`: a thread that moves itself takes no
 * lock of the whole system, where a write to `cgroup.procs` waits for an RCU grace period of some 10 ms. */
void enter_cgroups(const struct plan *plan)
{
	for (int i = 0; i < plan->cgroup_count; i++) {
		char tasks[PATH_MAX];
		snprintf(tasks, sizeof tasks, "%.*s/tasks", (int)(strrchr(plan->cgroups[i], '/') - plan->cgroups[i]),
			 plan->cgroups[i]);
		int fd = open(tasks, O_WRONLY | O_CLOEXEC);
		if (fd < 0 && errno == ENOENT)
			fd = open(plan->cgroups[i], O_WRONLY | O_CLOEXEC);
		if (fd < 0 || write(fd, "0", 1) != 1)
			fail("write %s: %s", plan->cgroups[i], strerror(errno));
		close(fd);
	}
}

/* Put the granted descriptors in their places; every other one closes at exec. */
static void place_descriptors(const struct plan *plan)
{
	int high[MAX_FDS];
	for (int i = 0; i < plan->grant_count; i++) {
		high[i] = fcntl(plan->grants[i].ours, F_DUPFD_CLOEXEC, HIGH);
		if (high[i] < 0)
			fail("fcntl: %s", strerror(errno));
	}
	int console = fcntl(plan->console_theirs, F_DUPFD_CLOEXEC, HIGH);
	int null = open("/dev/null", O_RDWR | O_CLOEXEC);
	dup2(null, 0);
	dup2(console, 1);
	dup2(console, 2);
	syscall(SYS_close_range, 3, HIGH - 1, 0);
	for (int i = 0; i < plan->grant_count; i++)
		dup2(high[i], plan->grants[i].number);
}

static void drop_privileges(const struct plan *plan)
{
	struct rlimit none = {0, 0};
	setrlimit(RLIMIT_CORE, &none);
	for (int cap = 0; cap < 64 && prctl(PR_CAPBSET_READ, cap) >= 0; cap++)
		prctl(PR_CAPBSET_DROP, cap);
	if (setgroups(0, NULL) < 0 || setresgid(plan->uid, plan->uid, plan->uid) < 0 ||
	    setresuid(plan->uid, plan->uid, plan->uid) < 0)
		fail("setresuid: %s", strerror(errno));
	prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
}

/* Whether QEMU, our child or its keeper's, has ended, and how (as waitpid tells it). */
bool hypervisor_ended(const struct plan *plan, pid_t hypervisor, int *status)
{
	if (plan->keeper < 0)
		return waitpid(hypervisor, status, WNOHANG) == hypervisor;
	ssize_t count = recv(plan->keeper, status, sizeof *status, MSG_DONTWAIT);
	if (count == 0)
		*status = SIGKILL; /* its keeper was killed, which it does not outlive */
	return count == 0 || count == sizeof *status;
}

/* End it, and wait until it has. */
void hypervisor_kill(const struct plan *plan, pid_t hypervisor, int *status)
{
	if (plan->keeper < 0) {
		kill(hypervisor, SIGKILL);
		waitpid(hypervisor, status, 0);
		return;
	}
	shutdown(plan->keeper, SHUT_WR);
	if (recv(plan->keeper, status, sizeof *status, MSG_WAITALL) != sizeof *status)
		*status = SIGKILL;
}

/* Whether the monitor has ended: the other end of the console is gone. */
static bool orphaned(void)
{
	struct pollfd console = {.fd = 1};
	return poll(&console, 1, 0) > 0 && (console.revents & POLLHUP);
}

/* Start QEMU, alone in a process namespace. It dies with us. */
pid_t hypervisor_start(const struct plan *plan)
{
	pid_t pid = (pid_t)syscall(SYS_clone, SIGCHLD | CLONE_NEWPID, 0, 0, 0, 0);
	if (pid < 0)
		fail("clone: %s", strerror(errno));
	if (pid > 0)
		return pid;
	char preload[512] = "LD_PRELOAD=", *environment[] = {"LC_ALL=C", plan->preload ? preload : NULL, NULL};
	setsid();
	umask(077);
	if (plan->preload)
		snprintf(preload, sizeof preload, "LD_PRELOAD=%s", plan->preload);
	enter_cgroups(plan);
	place_descriptors(plan);
	view_enter(plan);
	drop_privileges(plan);
	prctl(PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0);
	if (orphaned())
		_exit(1);
	execve(plan->arguments[0], plan->arguments, environment);
	fail("exec %s: %s", plan->arguments[0], strerror(errno));
}
