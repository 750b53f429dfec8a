/* The system calls that serving files takes; every other one is refused. */
#define _GNU_SOURCE
#include <errno.h>
#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <stddef.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "shares.h"
#include "vmm.h"

#if defined(__x86_64__)
#define ARCHITECTURE AUDIT_ARCH_X86_64
#elif defined(__aarch64__)
#define ARCHITECTURE AUDIT_ARCH_AARCH64
#else
#error "no list of system calls for this architecture"
#endif

static const int allowed[] = {
	/* the socket, threads and memory */
	SYS_recvfrom, SYS_sendto, SYS_futex, SYS_mmap, SYS_munmap, SYS_mremap, SYS_madvise, SYS_brk, SYS_rt_sigreturn,
	SYS_rt_sigprocmask, SYS_sched_yield, SYS_exit, SYS_exit_group, SYS_restart_syscall,
	/* files */
	SYS_openat, SYS_close, SYS_fcntl, SYS_flock, SYS_pread64, SYS_pwrite64, SYS_read, SYS_write, SYS_writev,
	SYS_lseek, SYS_getdents64, SYS_fsync, SYS_fdatasync, SYS_ftruncate, SYS_truncate,
	SYS_fstat, SYS_newfstatat, SYS_statx, SYS_fstatfs, SYS_readlinkat,
	SYS_mkdirat, SYS_mknodat, SYS_symlinkat, SYS_linkat, SYS_unlinkat, SYS_renameat, SYS_renameat2,
	SYS_fchmodat, SYS_fchownat, SYS_utimensat, SYS_setxattr, SYS_getxattr, SYS_listxattr, SYS_removexattr,
	SYS_setfsuid, SYS_setfsgid,
#ifdef __x86_64__
	SYS_open, SYS_chmod, SYS_rename,
#endif
};

#define COUNT (sizeof allowed / sizeof *allowed)
#define FIXED 3

/* For all threads at once. */
void filter_install(void)
{
	struct sock_filter program[FIXED + COUNT + 3], *at = program;
	struct sock_filter load_architecture = BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, arch));
	struct sock_filter load_number = BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr));
	*at++ = load_architecture;
	*at++ = (struct sock_filter)BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, ARCHITECTURE, 0, COUNT + 1);
	*at++ = load_number;
	for (size_t i = 0; i < COUNT; i++)
		*at++ = (struct sock_filter)BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, (unsigned)allowed[i], COUNT - i, 0);
	*at++ = (struct sock_filter)BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | EPERM);
	*at++ = (struct sock_filter)BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW);
	struct sock_fprog filter = {.len = (unsigned short)(at - program), .filter = program};
	if (syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, SECCOMP_FILTER_FLAG_TSYNC, &filter) != 0)
		fail("seccomp: the file server cannot be confined");
}
